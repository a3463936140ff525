"""A recorded period of an adaptive optimiser, beside the theory at second moments held fast."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from antisgd import heavy_ball, hessian, lanczos, sampling, statistics, theory, trajectory
from experiments.adam import network, optimisers

__all__ = ["Basis", "Compared", "basis_of", "compared", "train"]

LAWS = {"without_replacement": theory.partial_last, "with_replacement": theory.with_replacement}


class Basis(NamedTuple):
    """Leading eigenvectors e of D^{-½}HD^{-½}, and the optimiser that theory sees along them.

    Attributes:
        values: λ, [k].
        covectors: rows D^½e, which project weights, [k, d].
        vectors: rows D^{-½}e, which project gradients, [k, d].
        system: A and b of a weight with D = 1.
    """

    values: np.ndarray
    covectors: np.ndarray
    vectors: np.ndarray
    system: theory.LinearOptimizer


class Compared(NamedTuple):
    """Measured and predicted in the windows of a period, [k] each but for the last.

    Attributes:
        position: λ/λ_cross.
        weight, velocity: mean variances over the windows.
        weight_begin, velocity_begin: theory of such a window, all of it as at the begin.
        weight_averaged, velocity_averaged: the same with the noise at the end of every window and
            1/D of every step, averaged.
        noise_change: averaged noise variance over that at the begin.
        step_change: Σ_j e_j² of averaged over initial 1/D.
        curvature_change: eᵀD^{-½}H(θ)D^{-½}e at the end over λ.
        fluctuation: r.m.s. over weights of the deviation of 1/D in time over its mean.
    """

    position: np.ndarray
    weight: np.ndarray
    velocity: np.ndarray
    weight_begin: np.ndarray
    velocity_begin: np.ndarray
    weight_averaged: np.ndarray
    velocity_averaged: np.ndarray
    noise_change: np.ndarray
    step_change: np.ndarray
    curvature_change: np.ndarray
    fluctuation: np.ndarray


def train(name: str, tokens: jax.Array, key: jax.Array, options: Any) -> heavy_ball.TrainState:
    """To a minimum: half of the epochs at the first learning rate, then down to the last one."""
    start, stream = jax.random.split(key)
    params = network.Transformer().init(start, tokens[:1, :-1])
    state = heavy_ball.init(optimisers.make(name, 1.0, options.memory), params)
    half = options.epochs / 2
    for epoch in range(options.epochs):
        share = max(0.0, (epoch + 1 - half) / half)
        rate = options.first_learning_rate ** (1 - share) * options.learning_rate**share
        state = _epoch(name, options.batch_size, state, stream, epoch, tokens, rate, options.memory)
    return state


@partial(jax.jit, static_argnums=(0, 1))
def _epoch(name, batch_size, state, key, epoch, tokens, rate, memory):
    schedule = sampling.without_replacement(key, epoch, len(tokens), batch_size)
    optimizer = optimisers.make(name, rate, memory)
    return heavy_ball.run_schedule(network.loss, optimizer, state, schedule, tokens)[0]


def basis_of(state: heavy_ball.TrainState, tokens: jax.Array, name: str, options: Any) -> Basis:
    """The leading eigenvectors in the metric of a state, by its own curvature."""
    optimizer = optimisers.make(name, options.learning_rate, options.memory)
    held = theory.frozen_from_optax(optimizer, state.opt_state, state.params)
    root = jnp.asarray(np.sqrt(held.metric), jnp.float32)
    pairs = lanczos.leading_eigenpairs(
        jax.tree_util.Partial(_preconditioned, root, _product(state.params, tokens)),
        len(root), options.eigenpairs, key=jax.random.key(0),
    )  # fmt: skip
    return Basis(pairs.values, pairs.vectors * root, pairs.vectors / root, held.optimizer)


def _product(params: Any, tokens: jax.Array) -> Any:
    return hessian.hessian_vector_product(network.loss, params, tokens, microbatch_size=len(tokens))


def _preconditioned(root: jax.Array, matvec: Any, v: jax.Array) -> jax.Array:
    return matvec(v / root) / root


def compared(
    name: str, arm: str, state: heavy_ball.TrainState, tokens: jax.Array, basis: Basis,
    scheme: str, key: jax.Array, options: Any,
) -> Compared:  # fmt: skip
    """A period from a state beside the theory in the metric of its begin and of its mean step.

    The mean step is taken into account to first order: along e it is Σ_j e_j² of the averaged
    1/D over that of the begin by which λ and the noise's deviation grow.

    Args:
        name: of the optimiser.
        arm: "frozen" second moments, or "slow" or "fast" ones.
        state: where training ended.
        tokens: the examples.
        basis: the eigenvectors in the metric of this state.
        scheme: of sampling.
        key: of the examples' order.
        options: of the experiment.
    """
    law, M = LAWS[scheme](len(tokens), options.batch_size), -(-len(tokens) // options.batch_size)
    D = optimisers.metric(name, state.opt_state, options.memory)
    now, held = _start(name, arm, state, D, options)
    noise = _noise(state.params, tokens, basis, law)
    now, variances, noises = _followed(
        name, arm, now, held, basis, law, tokens, partial(_schedule, scheme, key), options
    )
    step, fluctuation = _steps(now.opt_state, D, basis, int(now.step))
    T, averaged = options.window_epochs * M, noises.mean(axis=0)
    begin = theory.linear_window_variances(basis.values, basis.system, law, T)
    later = theory.linear_window_variances(basis.values * step, basis.system, law, T)
    return Compared(
        position=basis.values / theory.linear_scales(basis.system, M).crossover,
        weight=variances[0],
        velocity=variances[1],
        weight_begin=noise * begin.weight,
        velocity_begin=noise * begin.velocity,
        weight_averaged=step**2 * averaged * later.weight,
        velocity_averaged=step**2 * averaged * later.velocity,
        noise_change=averaged / noise,
        step_change=step,
        curvature_change=_curvatures(_product(now.params, tokens), basis.vectors) / basis.values,
        fluctuation=fluctuation,
    )


def _followed(name, arm, now, held, basis, law, tokens, schedule, options):
    """The state after all windows, their mean variances [2, k] and the noise at each one's end."""
    found, noises = [], []
    for window in range(options.windows + 1):
        # The first one settles: what training left of momentum and of another scheme's spread.
        first = options.epochs + window * options.window_epochs
        now, updates = _recorded(
            name, arm, now, held, schedule(first, len(tokens), options), tokens, basis.covectors,
            options.learning_rate, options.fast_memory if arm == "fast" else options.memory,
        )  # fmt: skip
        noises.append(_noise(now.params, tokens, basis, law))
        if window:
            moved = np.asarray(updates, np.float64)
            flat = statistics.remove_drift(trajectory.displacements(moved), moved, "mean_velocity")
            variances = statistics.variances(*flat)
            found.append((variances.weight, variances.velocity))
    return now, np.mean(found, axis=0), np.array(noises)


def _schedule(scheme: str, key: jax.Array, first: int, count: int, options: Any) -> Any:
    """Of a window that begins with an epoch."""
    draw, epochs = getattr(sampling, scheme), first + np.arange(options.window_epochs)
    drawn = jax.vmap(lambda epoch: draw(key, epoch, count, options.batch_size))(epochs)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, leaf.shape[-1]), drawn)


def _start(
    name: str, arm: str, state: heavy_ball.TrainState, D: Any, options: Any
) -> tuple[heavy_ball.TrainState, Any]:
    """Where a period begins: a frozen optimiser from rest; others with what they had."""
    if arm == "frozen":
        opt_state = optimisers.frozen(options.learning_rate, D).init(state.params)
    else:
        optimizer = optimisers.watched(name, options.learning_rate, options.memory)
        opt_state = optimizer.init(state.params)._replace(inner=state.opt_state)
    return heavy_ball.TrainState(state.params, opt_state, jnp.zeros((), jnp.int32)), D


@partial(jax.jit, static_argnums=(0, 1))
def _recorded(name, arm, state, D, schedule, tokens, covectors, rate, memory):
    """The state after the schedule and the updates along rows of covectors, [steps, k]."""
    optimizer = (
        optimisers.frozen(rate, D) if arm == "frozen" else optimisers.watched(name, rate, memory)
    )

    def record(params, gradient, update, value):
        return jnp.matmul(covectors, ravel_pytree(update)[0], precision="highest")

    return heavy_ball.run_schedule(network.loss, optimizer, state, schedule, tokens, record=record)


def _noise(params: Any, tokens: jax.Array, basis: Basis, law: theory.Noise) -> np.ndarray:
    """Variance of a batch's noise along the directions, by the gradients of all examples, [k]."""
    found = trajectory.example_gradients(
        network.loss, params, tokens, basis.vectors, microbatch_size=len(tokens)
    )
    return law.variance * np.var(np.asarray(found, np.float64), axis=0, ddof=1)


def _steps(state: Any, D: Any, basis: Basis, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The mean step along each direction over that of the begin, and how 1/D fluctuates."""
    if not isinstance(state, optimisers.Watched):
        return np.ones(len(basis.values)), np.zeros(())
    start, mean, square = (
        np.asarray(ravel_pytree(tree)[0], np.float64) for tree in (D, state.inverse, state.squared)
    )
    mean, square = mean / count, square / count
    shares = np.asarray(basis.covectors * basis.vectors, np.float64)
    deviation = np.clip(square / mean**2 - 1, 0, None)
    return shares @ (mean * start), np.sqrt(np.mean(deviation))


def _curvatures(matvec: Any, vectors: jax.Array) -> np.ndarray:
    return np.asarray(_quadratic_forms(matvec, vectors), np.float64)


@jax.jit
def _quadratic_forms(matvec: Any, vectors: jax.Array) -> jax.Array:
    return jax.lax.map(lambda v: jnp.vdot(v, matvec(v), precision="highest"), vectors)
