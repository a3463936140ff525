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

from antisgd import devices, display, ensemble, heavy_ball, results, sampling, sources, streaming
from antisgd.study import interruption
from antisgd.study.divergence import check_finite
from antisgd.study.problem import Problem
from antisgd.study.settings import Settings, Training
from antisgd.study.stages import track
from antisgd.study.stages.cohorts import Cohort, cohorts, in_order, whole

__all__ = [
    "Trained", "evaluators", "hyperparameters", "learning_rate_at", "network", "optimizer_at",
    "stream_key", "together", "train", "train_networks", "write",
]  # fmt: skip

CHECKPOINT_SECONDS = 30.0
# Without --curve_examples: all 50,000 pictures after every epoch would cost a third of the epoch.
# The final metrics are taken over all of them.
CURVE_EXAMPLES = 10_000
# Examples that metrics are taken of at a time, where they are read piece by piece.
EVALUATED = 1000


class Trained(NamedTuple):
    """Networks after training, all leaves [networks, …], and their curves [networks, epochs].

    `steps` are means over the steps of each epoch, "loss" and aux of a training loss of its own.
    """

    states: heavy_ball.TrainState
    curves: dict[str, np.ndarray]
    steps: dict[str, np.ndarray] | None = None


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
    """Trains the networks that a run folder lacks, or goes on there; writes training.npz."""
    begun = cohorts(settings, folder / "checkpoints" / "training.npz")
    keepers = partial(track.keeper, problem, settings, folder)
    parts = [
        (one, train_networks(problem, [settings], path, one, keepers(one))) for one, path in begun
    ]
    trained = together(settings, parts)
    write(folder / "training.npz", trained, settings)
    return trained


def together(settings: Training, parts: Sequence[tuple[Cohort, Trained]]) -> Trained:
    """All networks of the settings, in their order, from the cohorts that they were trained in."""
    if len(parts) == 1:
        return parts[0][1]
    states, *told = in_order(settings, parts)
    return Trained(jax.tree.map(jnp.asarray, states), *told)


def train_networks(
    problem: Problem,
    varied: Sequence[Settings],
    checkpoint: Path,
    cohort: Cohort | None = None,
    keep: Callable[[Any, int], None] = lambda params, epoch: None,
) -> Trained:
    """Trains schemes × settings × seeds side by side, in this order, or goes on from a checkpoint.

    Args:
        problem: network, loss and examples.
        varied: settings that differ in learning rate and momentum alone.
        checkpoint: its file.
        cohort: schemes and seeds; None for all of the settings.
        keep: gets the weights [networks, …] before the first epoch and after each, before a
            checkpoint says that it is done.

    Raises:
        FloatingPointError: a loss became infinite or NaN; names step, seed and the bound.
    """
    shared = varied[0]
    cohort = whole(shared) if cohort is None else cohort
    seeds = cohort.seeds
    init_keys, stream_keys = (
        jnp.tile(k[seeds.start :], len(cohort.schemes) * len(varied))
        for k in ensemble.network_keys(shared.seed, seeds.stop)
    )
    optimizer = optimizer_at(shared, 0, *hyperparameters(shared), problem.optimizer)
    states = ensemble.init(problem.init, optimizer, init_keys, problem.init_state)
    told = np.full((len(init_keys), shared.epochs), np.nan)
    kept: dict[str, np.ndarray] = {
        "curves": np.full((*told.shape, len(problem.curve_names)), np.nan)
    }
    kept |= {f"step_{name}": told.copy() for name in problem.step_names}
    states, kept, done = results.read_checkpoint(checkpoint, (states, kept, 0))
    if int(done) < shared.epochs:
        start = (states, kept, int(done))
        states = _run_epochs(problem, varied, cohort, stream_keys, start, checkpoint, keep)
    curves = kept.pop("curves")
    named = {name: curves[..., i] for i, name in enumerate(problem.curve_names)}
    return Trained(jax.tree.map(jnp.asarray, states), named, kept)


def write(path: Path, trained: Trained, settings: Settings) -> None:
    """Writes weights [networks, d], curves and learning rates of the seeds of each scheme.

    With a training loss of its own also the leaves of its state as state_NAME, and step_NAME.
    """
    schemes, epochs = len(settings.trained_schemes), np.arange(settings.epochs)
    leaves, _ = jax.tree.flatten_with_path(trained.states.loss_state)
    state = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}
    results.write_arrays(
        path,
        params=jax.vmap(lambda p: ravel_pytree(p)[0])(trained.states.params),
        regime=np.repeat(np.arange(schemes), settings.seeds),
        seed=np.tile(np.arange(settings.seeds), schemes),
        learning_rate=settings.learning_rate * settings.learning_rate_decay**epochs,
        **trained.curves,
        **{f"state_{name}": leaf for name, leaf in state.items()},
        **(trained.steps or {}),
    )


def _run_epochs(
    problem: Problem,
    varied: Sequence[Settings],
    cohort: Cohort,
    keys: jax.Array,
    start: Any,
    checkpoint: Path,
    keep: Callable[[Any, int], None],
) -> heavy_ball.TrainState:
    states, kept, done = start
    epochs, networks = varied[0].epochs, _networks(varied, cohort)
    run_epoch, evaluate = _make_epoch(problem, varied[0], cohort), evaluators(problem, varied[0])
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
            states, told = run_epoch(states, keys, epoch, examples, *swept)
            losses = _keep(kept, told, epoch)
            kept["curves"][:, epoch] = evaluate(states.params, states.loss_state)[: len(keys)]
            # The last update shows in the loss after it.
            followed = np.concatenate([losses, kept["curves"][:, epoch, :1]], axis=1)
            check_finite(followed, epoch, steps, networks, optimizer=problem.optimizer)
            keep(states.params, epoch + 1)
            words = _in_words(problem.curve_names, kept["curves"][0, epoch])
            bar.set_postfix_str(words, refresh=False)
            bar.update()
            ending = epoch == epochs - 1 or asked()
            if ending or devices.anywhere(time.monotonic() - saved > CHECKPOINT_SECONDS):
                results.write_checkpoint(checkpoint, (_alone(states, keys), kept, epoch + 1))
                saved = time.monotonic()
            if ending:
                break
    return _alone(states, keys)


def _keep(kept: dict[str, np.ndarray], told: Any, epoch: int) -> np.ndarray:
    """The losses of an epoch's steps, [networks, steps]; of a training loss of its own the means of
    what it told are kept."""
    if len(kept) == 1:
        return np.asarray(told)
    losses, aux = told
    for name, values in {"loss": losses, **aux}.items():
        kept[f"step_{name}"][:, epoch] = np.mean(np.asarray(values), axis=1, dtype=np.float64)
    return np.asarray(losses)


def _alone(states: heavy_ball.TrainState, keys: jax.Array) -> heavy_ball.TrainState:
    """The networks on the host, without what fills them up to the number of devices."""
    return jax.tree.map(lambda leaf: devices.fetched(leaf)[: len(keys)], states)


def _networks(varied: Sequence[Settings], cohort: Cohort) -> list[tuple[int, Settings]]:
    """Seed and settings of each network, in their order."""
    return [(seed, one) for one in varied for seed in cohort.seeds] * len(cohort.schemes)


def _make_epoch(problem: Problem, settings: Settings, cohort: Cohort) -> Callable[..., Any]:
    schemes = [getattr(sampling, name) for name in cohort.schemes]
    optimizer = partial(optimizer_at, settings, make=problem.optimizer)
    make = streaming if sources.streamed(problem.train) else ensemble
    return make.make_epoch(problem.trained_loss, optimizer, schemes, settings.batch_size)


def _in_words(names: Sequence[str], values: np.ndarray) -> str:
    """Loss of the training set and the last of the curves, for the progress bar."""
    shown = {names[i].replace("_", " "): values[i] for i in (0, -1)}
    return ", ".join(f"{name} {value:.3g}" for name, value in shown.items())


def evaluators(problem: Problem, settings: Training) -> Callable[..., np.ndarray]:
    """Jitted (params, state of the loss) [networks, …] → all curves, [networks, curves]."""
    count = settings.curve_examples or CURVE_EXAMPLES
    few = [sources.first(part, count) for part in problem.parts.values()]
    few = ensemble.on_all_devices(few)

    def one(network, parts):
        params, state = network
        measured = [problem.frozen(state).evaluate(params, part) for part in parts]
        return jnp.stack([value for each in measured for value in each.values()])

    evaluate = ensemble.each_network(one)
    return lambda params, state=None: devices.fetched(evaluate((params, state), few))


def final_metrics(problem: Problem, params: Any) -> dict[str, float]:
    """Every metric over all examples of its set, under the name of its curve."""
    return {
        f"{name}_{metric}": value
        for name, part in problem.parts.items()
        for metric, value in streaming.mean(problem.evaluate, params, part, EVALUATED).items()
    }


def network(trained: Trained, index: int) -> heavy_ball.TrainState:
    """One network of an ensemble."""
    return jax.tree.map(lambda leaf: leaf[index], trained.states)


def stream_key(settings: Training, seed: int, period: int = 0) -> jax.Array:
    """Key of a seed's stream of examples, which the first analysis period carries on."""
    key = ensemble.network_keys(settings.seed, settings.seeds)[1][seed]
    return jax.random.fold_in(key, period) if period else key
