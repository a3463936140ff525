"""The training stage: every seed in every regime, epoch by epoch, resumable."""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from tqdm import tqdm

from antisgd import data, ensemble, heavy_ball, objective, results, sampling, theory
from experiments import interruption

FLAGS = flags.FLAGS

CURVES = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
CHECKPOINT_SECONDS = 30.0
# Without --curve_examples: all 50,000 pictures after every epoch would cost a third of the epoch.
# The final accuracies are taken over all of them.
CURVE_EXAMPLES = 10_000
# Nats. No minibatch of a network that learns comes near; float32 overflows only at 3e38.
DIVERGED = 1e6


class Problem(NamedTuple):
    """What is trained on what: functions of the model, the loss and the pictures."""

    init: Any
    apply: Any
    loss: Any
    dataset: data.Dataset

    @property
    def num_examples(self) -> int:
        return self.dataset.train.labels.shape[0]

    @property
    def dimension(self) -> int:
        shapes = jax.eval_shape(self.init, jax.random.key(0))
        return sum(leaf.size for leaf in jax.tree.leaves(shapes))

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.num_examples // FLAGS.batch_size)


class Training(NamedTuple):
    """Networks after training, all leaves [networks, …], and their curves [networks, epochs]."""

    states: heavy_ball.TrainState
    curves: dict[str, np.ndarray]


def load_problem(model: Any, *, weight_decay: float) -> Problem:
    """The model of an experiment on the pictures that the flags name."""
    dataset = data.load(
        FLAGS.dataset, directory=FLAGS.data_dir, num_examples=FLAGS.num_examples, seed=FLAGS.seed
    )
    num_examples = dataset.train.labels.shape[0]
    if num_examples < FLAGS.batch_size:
        raise ValueError(
            f"--batch_size={FLAGS.batch_size} is larger than the {num_examples} training pictures"
        )
    images = dataset.train.images[:1]
    loss = objective.make_loss(model.apply, weight_decay)
    return Problem(lambda key: model.init(key, images), model.apply, loss, dataset)


def hyperparameters() -> tuple[np.float32, np.float32]:
    """η of the first epoch and β: arguments of the compiled programs, which all values share."""
    return np.float32(FLAGS.learning_rate), np.float32(FLAGS.momentum)


def optimizer_at(epoch: jax.Array | int, learning_rate: Any, momentum: Any) -> Any:
    """Heavy ball with the learning rate of an epoch."""
    return heavy_ball.heavy_ball(learning_rate_at(epoch, learning_rate), momentum)


def learning_rate_at(epoch: jax.Array | int, first: Any) -> jax.Array:
    """η·decay^epoch, constant from `--epochs` on (App. H), as the steps use it, in float32."""
    decay = jnp.float32(FLAGS.learning_rate_decay) ** jnp.minimum(epoch, FLAGS.epochs)
    return first * decay


def final_learning_rate() -> float:
    """η of the analysis period."""
    return FLAGS.learning_rate * FLAGS.learning_rate_decay**FLAGS.epochs


def crossover(problem: Problem) -> float:
    """λ_cross of the analysis period (Eq. 109b)."""
    rate = final_learning_rate()
    return theory.crossover_eigenvalue(rate, FLAGS.momentum, problem.steps_per_epoch)


def on_the_papers_pictures() -> bool:
    """Whether the run uses all of CIFAR-10, so that the paper's values may stand beside it."""
    return FLAGS.dataset == "cifar10" and FLAGS.num_examples in (None, 50_000)


def schemes() -> tuple[ensemble.Scheme, ...]:
    """Regimes that are trained: all of --sampling for several seeds, else the first."""
    names = FLAGS.sampling if FLAGS.seeds > 1 else FLAGS.sampling[:1]
    return tuple(getattr(sampling, name) for name in names)


def evaluators(problem: Problem) -> Any:
    """Jitted params [networks, …] → the four curves' values, each [networks]."""
    count = curve_examples()
    few = jax.tree.map(lambda a: a[:count], problem.dataset)

    @jax.jit
    def evaluate(params, train, test):
        def one(params):
            on_train = objective.evaluate(problem.apply, params, train)
            on_test = objective.evaluate(problem.apply, params, test)
            return jnp.stack([*on_train, *on_test])

        return jax.lax.map(one, params)

    return lambda params: np.asarray(evaluate(params, few.train, few.test))


def curve_examples() -> int:
    """The most pictures of either set that the curves are taken from."""
    return FLAGS.curve_examples or CURVE_EXAMPLES


def train(problem: Problem, folder: Path) -> Training:
    """Trains all networks of a run folder, or goes on there; writes training.npz."""
    regimes, checkpoint = schemes(), folder / "checkpoints" / "training.npz"
    training = train_networks(problem, regimes, [hyperparameters()], checkpoint)
    write(folder / "training.npz", training, len(regimes))
    return training


def train_networks(
    problem: Problem,
    regimes: Sequence[ensemble.Scheme],
    settings: Sequence[tuple[float, float]],
    checkpoint: Path,
) -> Training:
    """Trains regimes × settings × seeds side by side, in this order, or goes on from a checkpoint.

    Args:
        problem: model, loss and pictures.
        regimes: sampling schemes.
        settings: η of the first epoch and β of each.
        checkpoint: its file.

    Raises:
        FloatingPointError: a loss became infinite or NaN; names step, seed and the bound.
    """
    copies = len(regimes) * len(settings)
    init_keys, stream_keys = (
        jnp.tile(k, copies) for k in ensemble.network_keys(FLAGS.seed, FLAGS.seeds)
    )
    columns = np.tile(np.repeat(np.array(settings, np.float32), FLAGS.seeds, 0), (len(regimes), 1))
    states = ensemble.init(problem.init, optimizer_at(0, *settings[0]), init_keys)
    curves = np.full((len(init_keys), FLAGS.epochs, len(CURVES)), np.nan)
    states, curves, done = results.read_checkpoint(checkpoint, (states, curves, 0))
    if int(done) < FLAGS.epochs:
        start = (states, curves, int(done))
        states, curves = _run_epochs(problem, regimes, stream_keys, columns, start, checkpoint)
    return Training(jax.tree.map(jnp.asarray, states), _named(curves))


def write(path: Path, training: Training, regimes: int) -> None:
    """Writes weights [networks, d], curves and learning rates of the seeds of each regime."""
    results.write_arrays(
        path,
        params=jax.vmap(lambda p: jax.flatten_util.ravel_pytree(p)[0])(training.states.params),
        regime=np.repeat(np.arange(regimes), FLAGS.seeds),
        seed=np.tile(np.arange(FLAGS.seeds), regimes),
        learning_rate=FLAGS.learning_rate * FLAGS.learning_rate_decay ** np.arange(FLAGS.epochs),
        **training.curves,
    )


def _named(curves: np.ndarray) -> dict[str, np.ndarray]:
    return {name: curves[..., i] for i, name in enumerate(CURVES)}


def _run_epochs(
    problem: Problem,
    regimes: Sequence[Any],
    keys: jax.Array,
    settings: np.ndarray,
    start: Any,
    checkpoint: Path,
) -> tuple[heavy_ball.TrainState, np.ndarray]:
    states, curves, done = start
    run_epoch = ensemble.make_epoch(problem.loss, optimizer_at, regimes, FLAGS.batch_size)
    evaluate = evaluators(problem)
    networks = (jax.tree.map(jnp.asarray, states), keys, tuple(jnp.asarray(settings).T))
    states, keys, swept = ensemble.over_devices(networks)
    examples = ensemble.on_all_devices(problem.dataset.train, len(keys))
    saved = time.monotonic()
    bar = tqdm(range(done, FLAGS.epochs), "training", FLAGS.epochs, initial=done, unit="epoch")
    with interruption.postponed() as asked:
        for epoch in bar:
            states, losses = run_epoch(states, keys, epoch, examples, *swept)
            curves[:, epoch] = evaluate(states.params)
            # The last update shows in the loss after it.
            followed = np.concatenate([np.asarray(losses), curves[:, epoch, :1]], axis=1)
            check_finite(followed, epoch, problem.steps_per_epoch, settings)
            bar.set_postfix_str("loss {:.3g}, test accuracy {:.1%}".format(*curves[0, epoch, ::3]))
            ending = epoch == FLAGS.epochs - 1 or asked()
            if ending or time.monotonic() - saved > CHECKPOINT_SECONDS:
                results.write_checkpoint(checkpoint, (states, curves, epoch + 1))
                saved = time.monotonic()
            if ending:
                break
    return states, curves


def check_finite(
    losses: np.ndarray,
    epoch: int,
    steps_per_epoch: int,
    settings: Sequence[tuple[float, float]] | None = None,
    *,
    first: int = 0,
    seed: int | None = None,
) -> None:
    """Stops at the first loss that is not finite, or has left every scale of a loss.

    Args:
        losses: minibatch losses, [networks, steps].
        epoch: that they belong to.
        steps_per_epoch: M.
        settings: η of the first epoch and β of each network; the flags' for all by default.
        first: place of the first of them in the epoch.
        seed: of the network if it is one, else they are ordered regime by regime.

    Raises:
        FloatingPointError: naming step, seed, learning rate and the stability bound.
    """
    bad = ~(losses < DIVERGED)
    if not bad.any():
        return
    step = int(np.argmax(bad.any(axis=0)))
    network = int(np.argmax(bad[:, step]))
    value = losses[network, step]
    raise FloatingPointError(
        f"the loss of seed {network % FLAGS.seeds if seed is None else seed} is "
        f"{f'{value:.2g}' if np.isfinite(value) else 'not finite'} at step "
        f"{epoch * steps_per_epoch + first + step} (epoch {epoch}): "
        f"{stability(epoch, *(hyperparameters() if settings is None else settings[network]))}"
    )


def stability(epoch: int, learning_rate: float, momentum: float) -> str:
    """The learning rate of an epoch and what it can bear, in words."""
    rate = learning_rate * FLAGS.learning_rate_decay ** min(epoch, FLAGS.epochs)
    return (
        f"learning rate {rate:.3g} with momentum {momentum:.3g} is stable only for curvatures "
        f"below 2(1+beta)/eta = {2 * (1 + momentum) / rate:.3g}; lower --learning_rate"
    )


def network(training: Training, index: int) -> heavy_ball.TrainState:
    """One network of an ensemble, on one device: what follows is not split over them."""
    chosen = jax.tree.map(lambda leaf: leaf[index], training.states)
    return jax.device_put(chosen, jax.local_devices()[0])


def stream_key(seed: int) -> jax.Array:
    """Key of a seed's stream of examples, which the analysis period carries on."""
    return ensemble.network_keys(FLAGS.seed, FLAGS.seeds)[1][seed]


full_accuracy = partial(jax.jit, static_argnums=0)(objective.evaluate)
