"""Curvature and noise averaged over drawn weights, along many directions by way of a few."""

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

__all__ = ["DIRECTIONS", "PAIRS", "Drawing", "make_averages", "noise_at", "spread_out"]

# Directions whose curvature and noise are averaged, those between them by interpolation;
# antithetic pairs of drawn weights; random vectors that measure the noise outside the k.
DIRECTIONS, PAIRS, OUTSIDE = 32, 2, 16
# Computes a value, or knows it from before a stop; and how many draws were in it.
Kept = Callable[..., np.ndarray]
# Products with a block of vectors at a time.
BLOCK = 4


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
        outside: deviation along a dimension outside.
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
    outside: float
    key: jax.Array


def noise_at(
    problem: Problem, settings: Settings, params: Any, vectors: np.ndarray
) -> tuple[np.ndarray, float]:
    """Variance of the examples' gradients along the directions, [k], and along one outside."""
    d = vectors.shape[1]
    rows = np.random.default_rng(settings.seed).standard_normal((OUTSIDE, d)).astype(np.float32)
    rows -= (rows @ vectors.T) @ vectors
    directions = jnp.asarray(np.concatenate([vectors, rows]))
    found = np.asarray(_gradients(problem, settings.microbatch, params, directions))
    C = found.var(axis=0, ddof=1, dtype=np.float64)
    k = len(vectors)
    return C[:k], float(C[k:].mean() / np.mean(np.sum(rows.astype(np.float64) ** 2, axis=1)))


def _gradients(problem: Problem, microbatch_size: int, params: Any, rows: jax.Array) -> Any:
    return streaming.example_gradients(
        problem.loss, params, problem.train, rows,
        microbatch_size=min(microbatch_size, MOST_GRADIENTS),
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
        kept: computes what is not known from before a stop, see `draw_checkpoint`.

    Returns:
        (mean [p], variance [p]) → averages [p]; and a list of one array, the ratios of curvature
        and noise to those of θ_K from each pair of draws alone, [pairs, 2, n].
    """
    last: list[np.ndarray] = []
    slope = _slope(one)

    def averages(mean: np.ndarray, variance: np.ndarray) -> theory.Averages:
        if not np.any(variance):
            start = kept(lambda: slope(one.flat))
            return theory.Averages(start, one.eigenvalues, one.noise)
        offsets = renormalisation.gaussian_offsets(
            one.key, one.vectors, jnp.asarray(np.sqrt(variance), one.vectors.dtype), PAIRS,
            outside=one.outside,
        )  # fmt: skip
        centre = one.flat + jnp.asarray(mean, one.flat.dtype) @ one.vectors
        last[:] = [np.array([kept(partial(_ratios, one, centre, x), 2) for x in offsets])]
        slopes = [kept(partial(slope, centre + y)) for x in offsets for y in (x, -x)]
        gradient = np.mean(slopes, axis=0)
        curvature, noise = (_between(one, ratio) for ratio in last[0].mean(axis=0))
        return theory.Averages(gradient, one.eigenvalues * curvature, one.noise * noise)

    return averages, last


def _between(one: Drawing, ratio: np.ndarray) -> np.ndarray:
    """A ratio at the directions measured, at all of them: by interpolation in log λ."""
    at = np.log(one.eigenvalues)
    return np.interp(-at, -at[one.measured], ratio)


def _ratios(one: Drawing, centre: jax.Array, offset: jax.Array) -> list[np.ndarray]:
    """Curvature and noise of a pair of draws over those of θ_K, [n] each."""
    rows = one.vectors[one.measured]
    found = renormalisation.average_over(
        partial(_product_at, one), partial(_gradients_at, one, rows), centre, rows, offset[None],
        noise_scale=one.noise_scale,
    ).mean  # fmt: skip
    start = one.eigenvalues[one.measured], one.noise[one.measured]
    return [found.curvature / start[0], found.noise / start[1]]


def _product_at(one: Drawing, theta: jax.Array) -> Callable[[jax.Array], jax.Array]:
    operator = streaming.products(
        one.problem.loss, one.restore(theta), one.problem.train, one.microbatch_size
    )
    multiply = operator.get("product") or partial(_images, operator.get("matvec"))

    def product(rows: jax.Array) -> jax.Array:
        blocks = [multiply(rows[i : i + BLOCK]) for i in range(0, len(rows), BLOCK)]
        return jnp.concatenate(blocks)

    return product


@jax.jit
def _images(matvec: Any, rows: jax.Array) -> jax.Array:
    return jax.vmap(matvec)(rows)


def _gradients_at(one: Drawing, rows: jax.Array, theta: jax.Array) -> jax.Array:
    return _gradients(one.problem, one.microbatch_size, one.restore(theta), rows)


def _slope(one: Drawing) -> Callable[[jax.Array], np.ndarray]:
    """θ → P∇L, [p]."""

    @jax.jit
    def slope(theta: jax.Array, examples: Any, vectors: jax.Array) -> jax.Array:
        gradient = objective.full_gradient(
            one.problem.loss, one.restore(theta), examples, one.microbatch_size
        )
        return trajectory.project(vectors, ravel_pytree(gradient)[0][None])[0]

    def of_all(theta: jax.Array) -> np.ndarray:
        if not sources.streamed(one.problem.train):
            return np.asarray(slope(theta, one.problem.train, one.vectors), np.float64)
        gradient = streaming.full_gradient(
            one.problem.loss, one.restore(theta), one.problem.train, one.microbatch_size
        )
        found = trajectory.project(one.vectors, ravel_pytree(gradient)[0][None])[0]
        return np.asarray(found, np.float64)

    return of_all
