"""The training stage: every seed with every sampling scheme, epoch by epoch, resumable."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from antisgd import devices, display, ensemble, heavy_ball, results, sampling
from antisgd.study import interruption
from antisgd.study.divergence import check_finite
from antisgd.study.problem import Problem
from antisgd.study.settings import Settings, Training
from antisgd.study.stages import track

__all__ = [
    "Trained", "evaluators", "hyperparameters", "learning_rate_at", "network", "optimizer_at",
    "stream_key", "train", "train_networks", "write",
]  # fmt: skip

CHECKPOINT_SECONDS = 30.0
# Without --curve_examples: all 50,000 pictures after every epoch would cost a third of the epoch.
# The final metrics are taken over all of them.
CURVE_EXAMPLES = 10_000


class Trained(NamedTuple):
    """Networks after training, all leaves [networks, …], and their curves [networks, epochs]."""

    states: heavy_ball.TrainState
    curves: dict[str, np.ndarray]


def hyperparameters(settings: Training) -> tuple[np.float32, np.float32]:
    """η of the first epoch and β: arguments of the compiled programs, which all values share."""
    return np.float32(settings.learning_rate), np.float32(settings.momentum)


def learning_rate_at(settings: Training, epoch: jax.Array | int, first: Any) -> jax.Array:
    """η·decay^epoch, constant from `epochs` on (App. H), as the steps use it, in float32."""
    decay = jnp.float32(settings.learning_rate_decay) ** jnp.minimum(epoch, settings.epochs)
    return first * decay


def optimizer_at(
    settings: Training,
    epoch: jax.Array | int,
    learning_rate: Any,
    momentum: Any,
    make: Callable[[Any], optax.GradientTransformation] | None = None,
) -> optax.GradientTransformation:
    """Heavy ball, or what `make` gives, with the learning rate of an epoch.

    Args:
        settings: for the decay of the learning rate.
        epoch: number of the epoch.
        learning_rate: η of the first.
        momentum: β of heavy ball, not used with `make`.
        make: `Problem.optimizer`.
    """
    rate = learning_rate_at(settings, epoch, learning_rate)
    return heavy_ball.heavy_ball(rate, momentum) if make is None else make(rate)


def train(problem: Problem, settings: Settings, folder: Path) -> Trained:
    """Trains all networks of a run folder, or goes on there; writes training.npz."""
    checkpoint = folder / "checkpoints" / "training.npz"
    keep = track.keeper(problem, settings, folder)
    trained = train_networks(problem, [settings], checkpoint, keep)
    write(folder / "training.npz", trained, settings)
    return trained


def train_networks(
    problem: Problem,
    varied: Sequence[Settings],
    checkpoint: Path,
    keep: Callable[[Any, int], None] = lambda params, epoch: None,
) -> Trained:
    """Trains schemes × settings × seeds side by side, in this order, or goes on from a checkpoint.

    Args:
        problem: network, loss and examples.
        varied: settings that differ in learning rate and momentum alone.
        checkpoint: its file.
        keep: gets the weights [networks, …] before the first epoch and after each, before a
            checkpoint says that it is done.

    Raises:
        FloatingPointError: a loss became infinite or NaN; names step, seed and the bound.
    """
    shared = varied[0]
    copies = len(shared.trained_schemes) * len(varied)
    init_keys, stream_keys = (
        jnp.tile(k, copies) for k in ensemble.network_keys(shared.seed, shared.seeds)
    )
    optimizer = optimizer_at(shared, 0, *hyperparameters(shared), problem.optimizer)
    states = ensemble.init(problem.init, optimizer, init_keys)
    curves = np.full((len(init_keys), shared.epochs, len(problem.curve_names)), np.nan)
    states, curves, done = results.read_checkpoint(checkpoint, (states, curves, 0))
    if int(done) < shared.epochs:
        start = (states, curves, int(done))
        states, curves = _run_epochs(problem, varied, stream_keys, start, checkpoint, keep)
    named = {name: curves[..., i] for i, name in enumerate(problem.curve_names)}
    return Trained(jax.tree.map(jnp.asarray, states), named)


def write(path: Path, trained: Trained, settings: Settings) -> None:
    """Writes weights [networks, d], curves and learning rates of the seeds of each scheme."""
    schemes, epochs = len(settings.trained_schemes), np.arange(settings.epochs)
    results.write_arrays(
        path,
        params=jax.vmap(lambda p: ravel_pytree(p)[0])(trained.states.params),
        regime=np.repeat(np.arange(schemes), settings.seeds),
        seed=np.tile(np.arange(settings.seeds), schemes),
        learning_rate=settings.learning_rate * settings.learning_rate_decay**epochs,
        **trained.curves,
    )


def _run_epochs(
    problem: Problem,
    varied: Sequence[Settings],
    keys: jax.Array,
    start: Any,
    checkpoint: Path,
    keep: Callable[[Any, int], None],
) -> tuple[heavy_ball.TrainState, np.ndarray]:
    states, curves, done = start
    epochs, networks = varied[0].epochs, _networks(varied)
    run_epoch, evaluate = _make_epoch(problem, varied[0]), evaluators(problem, varied[0])
    swept = np.array([hyperparameters(one) for _, one in networks])
    dealt = jax.tree.map(jnp.asarray, states), tuple(jnp.asarray(swept).T)
    states, swept = ensemble.over_devices(dealt)
    examples = ensemble.on_all_devices(problem.train)
    steps, saved = -(-problem.num_examples // varied[0].batch_size), time.monotonic()
    bar = display.progress_bar("training", "epoch", epochs, done, shown=devices.first())
    if done == 0:
        keep(states.params, 0)
    with interruption.postponed() as asked, bar:
        for epoch in range(done, epochs):
            states, losses = run_epoch(states, keys, epoch, examples, *swept)
            curves[:, epoch] = evaluate(states.params)[: len(keys)]
            # The last update shows in the loss after it.
            followed = np.concatenate([np.asarray(losses), curves[:, epoch, :1]], axis=1)
            own = problem.optimizer is None
            check_finite(followed, epoch, steps, networks, heavy_ball=own)
            keep(states.params, epoch + 1)
            words = _in_words(problem.curve_names, curves[0, epoch])
            bar.set_postfix_str(words, refresh=False)
            bar.update()
            ending = epoch == epochs - 1 or asked()
            if ending or devices.anywhere(time.monotonic() - saved > CHECKPOINT_SECONDS):
                results.write_checkpoint(checkpoint, (_alone(states, keys), curves, epoch + 1))
                saved = time.monotonic()
            if ending:
                break
    return _alone(states, keys), curves


def _alone(states: heavy_ball.TrainState, keys: jax.Array) -> heavy_ball.TrainState:
    """The networks on the host, without what fills them up to the number of devices."""
    return jax.tree.map(lambda leaf: devices.fetched(leaf)[: len(keys)], states)


def _networks(varied: Sequence[Settings]) -> list[tuple[int, Settings]]:
    """Seed and settings of each network, in their order."""
    schemes, seeds = len(varied[0].trained_schemes), varied[0].seeds
    return [(seed, one) for one in varied for seed in range(seeds)] * schemes


def _make_epoch(problem: Problem, settings: Settings) -> Callable[..., Any]:
    schemes = [getattr(sampling, name) for name in settings.trained_schemes]
    optimizer = partial(optimizer_at, settings, make=problem.optimizer)
    return ensemble.make_epoch(problem.loss, optimizer, schemes, settings.batch_size)


def _in_words(names: Sequence[str], values: np.ndarray) -> str:
    """Loss of the training set and the last of the curves, for the progress bar."""
    shown = {names[i].replace("_", " "): values[i] for i in (0, -1)}
    return ", ".join(f"{name} {value:.3g}" for name, value in shown.items())


def evaluators(problem: Problem, settings: Training) -> Callable[[Any], np.ndarray]:
    """Jitted params [networks, …] → the values of all curves, [networks, curves]."""
    count = settings.curve_examples or CURVE_EXAMPLES
    few = [jax.tree.map(lambda a: a[:count], part) for part in problem.parts.values()]
    few = ensemble.on_all_devices(few)

    def one(params, parts):
        measured = [problem.evaluate(params, part) for part in parts]
        return jnp.stack([value for each in measured for value in each.values()])

    evaluate = ensemble.each_network(one)
    return lambda params: devices.fetched(evaluate(params, few))


def final_metrics(problem: Problem, params: Any) -> dict[str, float]:
    """Every metric over all examples of its set, under the name of its curve."""
    evaluate = jax.jit(problem.evaluate)
    return {
        f"{name}_{metric}": float(value)
        for name, part in problem.parts.items()
        for metric, value in evaluate(params, part).items()
    }


def network(trained: Trained, index: int) -> heavy_ball.TrainState:
    """One network of an ensemble."""
    return jax.tree.map(lambda leaf: leaf[index], trained.states)


def stream_key(settings: Training, seed: int) -> jax.Array:
    """Key of a seed's stream of examples, which the analysis period carries on."""
    return ensemble.network_keys(settings.seed, settings.seeds)[1][seed]
