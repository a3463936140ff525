"""Curvature and noise averaged over drawn weights, along many directions by way of a few.

The curvature is that of secants, see `renormalisation`: two gradients a direction and draw.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from antisgd import objective, renormalisation, sources, streaming, theory, trajectory
from antisgd.study.problem import Problem
from antisgd.study.settings import Settings
from antisgd.study.stages.covariance import MOST_GRADIENTS
from antisgd.study.stages.slope import make_slope
from antisgd.study.stages.value_checkpoint import Kept

__all__ = [
    "DIRECTIONS", "PAIRS", "Drawing", "changing_shares", "make_averages", "noise_aside",
    "noise_at", "own_step_noise", "spread_out",
]  # fmt: skip

# Directions whose curvature and noise are averaged, those between them by interpolation;
# antithetic pairs of drawn weights.
DIRECTIONS, PAIRS = 32, 2


class Drawing(NamedTuple):
    """What an average over drawn weights needs: all of it known at θ_K.

    Attributes:
        problem: loss and examples.
        microbatch_size: examples at a time.
        flat: θ_K, [d].
        restore: flat weights → params.
        vectors: directions along which the weights are drawn, [p, d].
        eigenvalues: λ at θ_K, [p], largest first.
        noise: σ_δg² at θ_K, [p].
        measured: places of the directions that are averaged, [n].
        noise_scale: variance of a batch's noise over that of the examples.
        aside: draws of the noise of one example at θ_K outside the directions, PAIRS for averages
            and 2·PAIRS for what changes within an epoch, [3·PAIRS, d]; None: none.
        outside: deviation of the weights there per unit of that noise, over the period and within
            an epoch.
        key: of the draws.
    """

    problem: Problem
    microbatch_size: int
    flat: jax.Array
    restore: Callable[[jax.Array], Any]
    vectors: jax.Array
    eigenvalues: np.ndarray
    noise: np.ndarray
    measured: np.ndarray
    noise_scale: float
    aside: jax.Array | None
    outside: tuple[float, float]
    key: jax.Array


def noise_at(problem: Problem, settings: Settings, params: Any, vectors: np.ndarray) -> np.ndarray:
    """Variance of the examples' gradients along the directions, [k]."""
    found = np.asarray(_gradients(problem, settings.microbatch, params, jnp.asarray(vectors)))
    return found.var(axis=0, ddof=1, dtype=np.float64)


def noise_aside(
    problem: Problem, settings: Settings, params: Any, vectors: np.ndarray
) -> jax.Array:
    """Draws of the noise of one example outside the directions [k, d], [3·PAIRS, d]."""

    @jax.jit
    def gradient(params: Any, examples: Any, weights: jax.Array) -> Any:
        return objective.full_gradient(problem.loss, params, examples, settings.microbatch, weights)

    def gradient_of(weights: np.ndarray) -> jax.Array:
        if sources.streamed(problem.train):
            each = streaming.full_gradient(
                problem.loss, params, problem.train, settings.microbatch, weights
            )
        else:
            each = gradient(params, problem.train, jnp.asarray(weights))
        return ravel_pytree(each)[0]

    key = jax.random.fold_in(jax.random.key(settings.seed), 2)
    g = renormalisation.noise_draws(key, gradient_of, problem.num_examples, 3 * PAIRS)
    rows = jnp.asarray(vectors)
    inside = trajectory.project(rows, g)
    return g - jnp.matmul(inside, rows, precision=jax.lax.Precision.HIGHEST)


def _gradients(
    problem: Problem, microbatch_size: int, params: Any, rows: jax.Array,
    own_step: float | None = None,
) -> Any:  # fmt: skip
    return streaming.example_gradients(
        problem.loss, params, problem.train, rows,
        microbatch_size=min(microbatch_size, MOST_GRADIENTS), own_step=own_step,
    )  # fmt: skip


def spread_out(count: int) -> np.ndarray:
    """Places of the directions that are averaged: half evenly by rank, half by its logarithm."""
    even = np.linspace(0, count - 1, DIRECTIONS // 2)
    steep = np.geomspace(1, count, DIRECTIONS // 2) - 1
    return np.unique(np.concatenate([even, steep]).round().astype(int))


def make_averages(
    one: Drawing, kept: Kept
) -> tuple[Callable[[np.ndarray, np.ndarray], theory.Averages], list[np.ndarray]]:
    """The callback of `theory.self_consistent`, and what it found last.

    Args:
        one: the drawing.
        kept: computes what is not known from before a stop, see `value_checkpoint`.

    Returns:
        (mean [p], variance [p]) → averages [p]; and a list of one array, the ratios of curvature
        and noise to those of θ_K from each pair of draws alone, [pairs, 2, n].
    """
    last: list[np.ndarray] = []
    slope, measured = (
        make_slope(one.problem, one.microbatch_size, one.restore, vectors)
        for vectors in (one.vectors, one.vectors[one.measured])
    )
    ratios = partial(_ratios, one, measured)

    def averages(mean: np.ndarray, variance: np.ndarray) -> theory.Averages:
        if not np.any(variance):
            start = kept(lambda: slope(one.flat))
            return theory.Averages(start, one.eigenvalues, one.noise)
        offsets = renormalisation.gaussian_offsets(
            one.key, one.vectors, jnp.asarray(np.sqrt(variance), one.vectors.dtype), PAIRS,
            outside=None if one.aside is None else one.outside[0] * one.aside[:PAIRS],
        )  # fmt: skip
        centre = one.flat + jnp.asarray(mean, one.flat.dtype) @ one.vectors
        deviations = np.sqrt(variance[one.measured])
        last[:] = [np.array([kept(partial(ratios, centre, x, deviations), 2) for x in offsets])]
        slopes = [kept(partial(slope, centre + y)) for x in offsets for y in (x, -x)]
        gradient = np.mean(slopes, axis=0)
        curvature, noise = (_between(one, ratio) for ratio in last[0].mean(axis=0))
        return theory.Averages(gradient, one.eigenvalues * curvature, one.noise * noise)

    return averages, last


def changing_shares(one: Drawing, mean: np.ndarray, variance: np.ndarray, kept: Kept) -> np.ndarray:
    """Share of the examples' gradient variance that changes within an epoch, [pairs, p].

    Args:
        one: the drawing.
        mean: of the weights of the period, [p].
        variance: of the weights within an epoch, about its mean, [p].
        kept: computes what is not known from before a stop.
    """
    offsets = renormalisation.gaussian_offsets(
        jax.random.fold_in(one.key, 1), one.vectors,
        jnp.asarray(np.sqrt(variance), one.vectors.dtype), 2 * PAIRS,
        outside=None if one.aside is None else one.outside[1] * one.aside[PAIRS:],
    )  # fmt: skip
    centre = one.flat + jnp.asarray(mean, one.flat.dtype) @ one.vectors
    gradients_at = partial(_gradients_at, one, one.vectors[one.measured])
    found = [
        kept(partial(renormalisation.changing_gradients, gradients_at, centre, two), 2)[:, 0]
        for two in offsets.reshape(PAIRS, 2, -1)
    ]
    whole = np.mean(found, axis=0)[1]
    return np.array([_between(one, changed / whole) for changed, _ in found])


def own_step_noise(
    one: Drawing, mean: np.ndarray, full_step: float, share: np.ndarray, kept: Kept
) -> np.ndarray:
    """Noise of examples drawn before their own step of the epoch over that of all, [p].

    Quadratic in the step, from none, half and all of it, averaged over the places of the epoch.

    Args:
        one: the drawing.
        mean: of the weights of the period, [p].
        full_step: η/((1−β)S).
        share: of it that the weights lack, by the place, [M], `theory.own_step_share`.
        kept: computes what is not known from before a stop.
    """
    theta = one.flat + jnp.asarray(mean, one.flat.dtype) @ one.vectors
    rows = one.vectors[one.measured]

    def variance(own_step: float | None) -> np.ndarray:
        found = _gradients_at(one, rows, theta, own_step)
        return np.asarray(found).var(axis=0, ddof=1, dtype=np.float64)

    none, half, whole = (kept(partial(variance, step)) for step in (None, full_step / 2, full_step))
    f = np.array([np.mean(share), np.mean(share**2)])
    slope, bend = 4 * half / none - whole / none - 3, 2 * whole / none - 4 * half / none + 2
    return _between(one, 1 + f @ [slope, bend])


def _between(one: Drawing, ratio: np.ndarray) -> np.ndarray:
    """A ratio at the directions measured, at all of them: by interpolation in log λ."""
    at = np.log(one.eigenvalues)
    return np.interp(-at, -at[one.measured], ratio)


def _ratios(
    one: Drawing, slope: Callable[[jax.Array], np.ndarray], centre: jax.Array, offset: jax.Array,
    deviations: np.ndarray,
) -> list[np.ndarray]:  # fmt: skip
    """Curvature and noise of a pair of draws over those of θ_K, [n] each."""
    rows = one.vectors[one.measured]
    found = renormalisation.average_over(
        slope, partial(_gradients_at, one, rows), centre, rows, offset[None],
        deviations=jnp.asarray(deviations, rows.dtype), noise_scale=one.noise_scale,
    ).mean  # fmt: skip
    start = one.eigenvalues[one.measured], one.noise[one.measured]
    return [found.curvature / start[0], found.noise / start[1]]


def _gradients_at(
    one: Drawing, rows: jax.Array, theta: jax.Array, own_step: float | None = None
) -> jax.Array:
    return _gradients(one.problem, one.microbatch_size, one.restore(theta), rows, own_step)
