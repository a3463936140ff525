"""Five ways to descend: minibatches with and without replacement, full batches without noise, with
white and with anti-correlated noise. All seeds of one way are trained side by side, resumable.
"""

import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags
from jax.flatten_util import ravel_pytree
from tqdm import tqdm

from antisgd import ensemble, heavy_ball, injection, objective, results, sampling
from experiments import analysis, interruption, training

FLAGS = flags.FLAGS

REFERENCE = "without_replacement"


class Method(NamedTuple):
    """How to descend.

    Attributes:
        scheme: how examples are drawn.
        noise: of `antisgd.injection`, added to the gradients; None for none.
        strong: whether that noise is `--strong_factor` times the matched one.
    """

    scheme: ensemble.Scheme
    noise: Callable[[jax.Array, Any], optax.GradientTransformation] | None = None
    strong: bool = False


class Descent(NamedTuple):
    """Networks after some epochs of one method.

    Attributes:
        states: every leaf [seeds, …].
        deviations: σ of one weight's noise in every epoch, [seeds, epochs]: of minibatches as
            measured at the epoch's start, of injected noise as it was added, zero without noise.
    """

    states: heavy_ball.TrainState
    deviations: np.ndarray


def full_batches(key: jax.Array, epoch: Any, num_examples: int, batch_size: int):
    """As many steps as an epoch of minibatches has, ceil(N/S), each of all N examples."""
    del key, epoch
    steps = -(-num_examples // batch_size)
    indices = jnp.tile(jnp.arange(num_examples, dtype=jnp.int32), (steps, 1))
    return sampling.Schedule(indices, jnp.ones(indices.shape, jnp.float32))


METHODS = {
    "without_replacement": Method(sampling.without_replacement),
    "with_replacement": Method(sampling.with_replacement),
    "full_batch": Method(full_batches),
    "white_noise": Method(full_batches, injection.white_noise),
    "anti_correlated_noise": Method(full_batches, injection.anti_correlated_noise),
    "strong_noise": Method(full_batches, injection.anti_correlated_noise, strong=True),
}
MINIBATCHES = ("without_replacement", "with_replacement")
INJECTED = ("white_noise", "anti_correlated_noise", "strong_noise")


def optimizer_of(noise: Any, epoch: Any, key: jax.Array, deviation: Any):
    """The noise of a `Method`, if it adds any, and heavy ball with the epoch's learning rate."""
    descent = training.optimizer_at(epoch, *training.hyperparameters())
    return descent if noise is None else optax.chain(noise(key, deviation), descent)


def noise_keys(phase: int) -> jax.Array:
    """Keys of every seed's examples and injected noise in a phase of its own, [seeds]."""
    _, streams = ensemble.network_keys(FLAGS.seed, FLAGS.seeds)
    return jax.vmap(lambda key: jax.random.fold_in(key, phase))(streams)


def initial_params(problem: training.Problem) -> Any:
    """Where all methods of a seed start, every leaf [seeds, …]."""
    return jax.vmap(problem.init)(ensemble.network_keys(FLAGS.seed, FLAGS.seeds)[0])


def gradient_variance(problem: training.Problem) -> Callable[[Any], np.ndarray]:
    """Builds params [seeds, …] -> tr C₀/d [seeds], C₀ the per-example gradients' covariance.

    A minibatch's noise has per weight R(0) times that variance in the mean, where the sampling
    scheme decides on R(0) (Sec. 2; `theory.Noise.variance`).
    """
    N, size = problem.num_examples, min(FLAGS.microbatch_size, problem.num_examples)

    def square(params, example):
        alone = jax.tree.map(lambda leaf: leaf[None], example)
        gradient = ravel_pytree(jax.grad(problem.loss)(params, alone, jnp.ones(1)))[0]
        return jnp.vdot(gradient, gradient)

    def one(params, examples):
        squares = jax.lax.map(partial(square, params), examples, batch_size=size)
        mean = ravel_pytree(objective.full_gradient(problem.loss, params, examples, size))[0]
        return (squares.sum() - N * jnp.vdot(mean, mean)) / (N - 1) / mean.size

    measure = jax.jit(lambda params, examples: jax.lax.map(lambda p: one(p, examples), params))
    return lambda params: np.asarray(measure(params, problem.dataset.train))


@cache
def _epoch_of(loss: heavy_ball.Loss, noise: Any) -> Any:
    """The jitted function that carries all seeds through one epoch; schedules are data."""

    @jax.jit
    def run_epoch(states, schedules, keys, deviations, epoch, examples):
        def one(state, schedule, key, deviation):
            optimizer = optimizer_of(noise, epoch, key, deviation)
            return heavy_ball.run_schedule(loss, optimizer, state, schedule, examples)

        return jax.vmap(one)(states, schedules, keys, deviations)

    return run_epoch


def descend(
    problem: training.Problem,
    name: str,
    params: Any,
    deviations: np.ndarray,
    checkpoint: Path,
    *,
    phase: int = 0,
    measure: Callable[[Any], np.ndarray] | None = None,
) -> Descent:
    """Carries all seeds from rest through the epochs of a phase, or on from the checkpoint.

    Args:
        problem: model, loss and pictures.
        name: of `METHODS`.
        params: where to start, every leaf [seeds, …].
        deviations: σ of injected noise, [seeds, epochs]: its length says how many epochs.
        checkpoint: file of this phase.
        phase: 0 in training; later phases have the last learning rate and noise of their own.
        measure: overwrites each epoch's deviations with `measure(params)` at its start.

    Raises:
        FloatingPointError: a loss became infinite or NaN.
    """
    method, keys, first = METHODS[name], noise_keys(phase), FLAGS.epochs * bool(phase)
    states = jax.vmap(
        lambda p, key: heavy_ball.init(optimizer_of(method.noise, 0, key, jnp.float32(0)), p)
    )(params, keys)
    deviations, epochs, done = np.array(deviations, np.float32), deviations.shape[1], 0
    states, deviations, done = results.read_checkpoint(checkpoint, (states, deviations, 0))
    states = jax.tree.map(jnp.asarray, states)
    draw = _schedules(method, problem.num_examples)
    run_epoch = _epoch_of(problem.loss, method.noise)
    bar = tqdm(range(int(done), epochs), checkpoint.stem, epochs, initial=int(done), unit="epoch")
    saved = time.monotonic()
    with interruption.postponed() as asked:
        for epoch in bar:
            if measure is not None:
                deviations[:, epoch] = measure(states.params)
            schedules, now = draw(keys, first + epoch), first + epoch
            states, losses = run_epoch(
                states, schedules, keys, deviations[:, epoch], now, problem.dataset.train
            )
            training.check_finite(np.asarray(losses), now, problem.steps_per_epoch)
            bar.set_postfix_str(f"loss {losses.mean():.3g}")
            ending = epoch == epochs - 1 or asked()
            if ending or time.monotonic() - saved > training.CHECKPOINT_SECONDS:
                results.write_checkpoint(checkpoint, (states, deviations, epoch + 1))
                saved = time.monotonic()
            if ending:
                break
    return Descent(states, deviations)


def _schedules(method: Method, num_examples: int) -> Any:
    """(keys [seeds], epoch) -> every seed's schedule of the epoch, jitted."""
    return jax.jit(
        jax.vmap(
            lambda key, epoch: method.scheme(key, epoch, num_examples, FLAGS.batch_size),
            in_axes=(0, None),
        )
    )


def train(problem: training.Problem, folder: Path) -> dict[str, Descent]:
    """Trains every method from the same initial weights, --epochs epochs of ceil(N/S) steps.

    Injected noise has in every epoch the per-weight variance that the minibatches of the same
    seed's run without replacement had at the epoch's start: matched noise. The strong noise has
    --strong_factor times its standard deviation.
    """
    silent, variance = np.zeros((FLAGS.seeds, FLAGS.epochs)), gradient_variance(problem)
    trained = {}
    for name in METHODS:
        given = trained[REFERENCE].deviations if name in INJECTED else silent
        given = given * (FLAGS.strong_factor if METHODS[name].strong else 1)
        trained[name] = descend(
            problem, name, initial_params(problem), given,
            folder / "checkpoints" / f"train_{name}.npz",
            measure=_deviation(name, problem.num_examples, variance),
        )  # fmt: skip
    return trained


def _deviation(name: str, num_examples: int, variance: Callable[[Any], np.ndarray]) -> Any:
    """params -> σ [seeds] of a minibatch method's noise; None for methods of full batches."""
    if name not in MINIBATCHES:
        return None
    share = analysis.noise_law(name, num_examples).variance
    return lambda params: np.sqrt(share * variance(params))


def settle(problem: training.Problem, trained: dict[str, Descent], folder: Path) -> dict[str, Any]:
    """The minimum below every network: --settle_epochs epochs of full batches without noise."""
    silent = np.zeros((FLAGS.seeds, FLAGS.settle_epochs))
    return {
        name: descend(
            problem, "full_batch", one.states.params, silent,
            folder / "checkpoints" / f"settle_{name}.npz", phase=1,
        ).states.params
        for name, one in trained.items()
    }  # fmt: skip
