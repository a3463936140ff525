"""Five ways to descend: minibatches with and without replacement, full batches without noise, with
white and with anti-correlated noise. All seeds of one way are trained side by side, resumable.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from antisgd import display, ensemble, heavy_ball, injection, objective, results, sampling
from antisgd.study import Problem, Settings, interruption
from antisgd.study.conditions import conditions_of
from antisgd.study.divergence import check_finite
from antisgd.study.fields import setting
from antisgd.study.stages import train as training

REFERENCE = "without_replacement"


@dataclass(frozen=True, kw_only=True)
class Injected:
    """The noise that is injected, and how long networks settle without any."""

    settle_epochs: int = setting(
        20,
        "Epochs without noise that lead to the minimum; as many with noise go "
        "before the recorded ones.",
        least=1,
    )
    strong_factor: float = setting(
        100.0,
        "Standard deviation of the strong anti-correlated noise over that of the matched one.",
        least=0.0,
    )


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


def optimizer_of(settings: Settings, noise: Any, epoch: Any, key: jax.Array, deviation: Any):
    """The noise of a `Method`, if it adds any, and heavy ball with the epoch's learning rate."""
    descent = training.optimizer_at(settings, epoch, *training.hyperparameters(settings))
    return descent if noise is None else optax.chain(noise(key, deviation), descent)


def noise_keys(settings: Settings, phase: int) -> jax.Array:
    """Keys of every seed's examples and injected noise in a phase of its own, [seeds]."""
    _, streams = ensemble.network_keys(settings.seed, settings.seeds)
    return jax.vmap(lambda key: jax.random.fold_in(key, phase))(streams)


def initial_params(problem: Problem, settings: Settings) -> Any:
    """Where all methods of a seed start, every leaf [seeds, …]."""
    return jax.vmap(problem.init)(ensemble.network_keys(settings.seed, settings.seeds)[0])


def gradient_variance(problem: Problem, settings: Settings) -> Callable[[Any], np.ndarray]:
    """Builds params [seeds, …] -> tr C₀/d [seeds], C₀ the per-example gradients' covariance.

    A minibatch's noise has per weight R(0) times that variance in the mean, where the sampling
    scheme decides on R(0) (Sec. 2; `theory.Noise.variance`).
    """
    N, size = problem.num_examples, min(settings.microbatch, problem.num_examples)

    def square(params, example):
        alone = jax.tree.map(lambda leaf: leaf[None], example)
        gradient = ravel_pytree(jax.grad(problem.loss)(params, alone, jnp.ones(1)))[0]
        return jnp.vdot(gradient, gradient)

    def one(params, examples):
        squares = jax.lax.map(partial(square, params), examples, batch_size=size)
        mean = ravel_pytree(objective.full_gradient(problem.loss, params, examples, size))[0]
        return (squares.sum() - N * jnp.vdot(mean, mean)) / (N - 1) / mean.size

    measure = jax.jit(lambda params, examples: jax.lax.map(lambda p: one(p, examples), params))
    return lambda params: np.asarray(measure(params, problem.train))


@cache
def _epoch_of(loss: heavy_ball.Loss, settings: Settings, noise: Any) -> Any:
    """The jitted function that carries all seeds through one epoch; schedules are data."""

    @jax.jit
    def run_epoch(states, schedules, keys, deviations, epoch, examples):
        def one(state, schedule, key, deviation):
            optimizer = optimizer_of(settings, noise, epoch, key, deviation)
            return heavy_ball.run_schedule(loss, optimizer, state, schedule, examples)

        return jax.vmap(one)(states, schedules, keys, deviations)

    return run_epoch


def descend(
    problem: Problem,
    settings: Settings,
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
        problem: network, loss and pictures.
        settings: of the experiment.
        name: of `METHODS`.
        params: where to start, every leaf [seeds, …].
        deviations: σ of injected noise, [seeds, epochs]: its length says how many epochs.
        checkpoint: file of this phase.
        phase: 0 in training; later phases have the last learning rate and noise of their own.
        measure: overwrites each epoch's deviations with `measure(params)` at its start.

    Raises:
        FloatingPointError: a loss became infinite or NaN.
    """
    method, keys = METHODS[name], noise_keys(settings, phase)
    silent = partial(optimizer_of, settings, method.noise, 0)
    states = jax.vmap(lambda p, key: heavy_ball.init(silent(key, jnp.float32(0)), p))(params, keys)
    deviations = np.array(deviations, np.float32)
    start = results.read_checkpoint(checkpoint, (states, deviations, 0))
    return _epochs(problem, settings, method, start, checkpoint, phase=phase, measure=measure)


def _epochs(
    problem: Problem,
    settings: Settings,
    method: Method,
    start: tuple[heavy_ball.TrainState, np.ndarray, Any],
    checkpoint: Path,
    *,
    phase: int,
    measure: Callable[[Any], np.ndarray] | None,
) -> Descent:
    states, deviations, done = start
    states, epochs = jax.tree.map(jnp.asarray, states), deviations.shape[1]
    keys, first = noise_keys(settings, phase), settings.epochs * bool(phase)
    draw = _schedules(method, problem.num_examples, settings.batch_size)
    run_epoch = _epoch_of(problem.loss, settings, method.noise)
    networks = [(seed, settings) for seed in range(settings.seeds)]
    bar = display.progress_bar(checkpoint.stem, "epoch", epochs, int(done))
    saved, steps = time.monotonic(), -(-problem.num_examples // settings.batch_size)
    with interruption.postponed() as asked, bar:
        for epoch in range(int(done), epochs):
            if measure is not None:
                deviations[:, epoch] = measure(states.params)
            schedules, now = draw(keys, first + epoch), first + epoch
            states, losses = run_epoch(
                states, schedules, keys, deviations[:, epoch], now, problem.train
            )
            check_finite(np.asarray(losses), now, steps, networks)
            bar.set_postfix_str(f"loss {losses.mean():.3g}", refresh=False)
            bar.update()
            ending = epoch == epochs - 1 or asked()
            if ending or time.monotonic() - saved > training.CHECKPOINT_SECONDS:
                results.write_checkpoint(checkpoint, (states, deviations, epoch + 1))
                saved = time.monotonic()
            if ending:
                break
    return Descent(states, deviations)


def _schedules(method: Method, num_examples: int, batch_size: int) -> Any:
    """(keys [seeds], epoch) -> every seed's schedule of the epoch, jitted."""
    return jax.jit(
        jax.vmap(
            lambda key, epoch: method.scheme(key, epoch, num_examples, batch_size),
            in_axes=(0, None),
        )
    )


def train(
    problem: Problem, settings: Settings, injected: Injected, folder: Path
) -> dict[str, Descent]:
    """Trains every method from the same initial weights, --epochs epochs of ceil(N/S) steps.

    Injected noise has in every epoch the per-weight variance that the minibatches of the same
    seed's run without replacement had at the epoch's start: matched noise. The strong noise has
    --strong_factor times its standard deviation.
    """
    silent = np.zeros((settings.seeds, settings.epochs))
    variance = gradient_variance(problem, settings)
    trained = {}
    for name in METHODS:
        given = trained[REFERENCE].deviations if name in INJECTED else silent
        given = given * (injected.strong_factor if METHODS[name].strong else 1)
        trained[name] = descend(
            problem, settings, name, initial_params(problem, settings), given,
            folder / "checkpoints" / f"train_{name}.npz",
            measure=_deviation(name, problem.num_examples, settings, variance),
        )  # fmt: skip
    return trained


def _deviation(
    name: str, num_examples: int, settings: Settings, variance: Callable[[Any], np.ndarray]
) -> Any:
    """params -> σ [seeds] of a minibatch method's noise; None for methods of full batches."""
    if name not in MINIBATCHES:
        return None
    share = conditions_of(num_examples, settings).noise_law(name).variance
    return lambda params: np.sqrt(share * variance(params))


def settle(
    problem: Problem,
    settings: Settings,
    injected: Injected,
    trained: dict[str, Descent],
    folder: Path,
) -> dict[str, Any]:
    """The minimum below every network: --settle_epochs epochs of full batches without noise."""
    silent = np.zeros((settings.seeds, injected.settle_epochs))
    return {
        name: descend(
            problem, settings, "full_batch", one.states.params, silent,
            folder / "checkpoints" / f"settle_{name}.npz", phase=1,
        ).states.params
        for name, one in trained.items()
    }  # fmt: skip
