"""The gradient of the loss along some directions, as a function of the weights."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.flatten_util import ravel_pytree

from antisgd import objective, sources, streaming, trajectory
from antisgd.study.problem import Problem

__all__ = ["make_slope"]


def make_slope(
    problem: Problem,
    microbatch_size: int,
    restore: Callable[[jax.Array], Any],
    vectors: jax.Array,
) -> Callable[[jax.Array], np.ndarray]:
    """θ [d] → P∇L(θ) over all examples, float64 [k].

    Args:
        problem: loss and examples.
        microbatch_size: examples at a time.
        restore: flat weights → params.
        vectors: P, [k, d].
    """

    @jax.jit
    def slope(theta: jax.Array, examples: Any, vectors: jax.Array) -> jax.Array:
        gradient = objective.full_gradient(problem.loss, restore(theta), examples, microbatch_size)
        return trajectory.project(vectors, ravel_pytree(gradient)[0][None])[0]

    def slope_at(theta: jax.Array) -> np.ndarray:
        if not sources.streamed(problem.train):
            return np.asarray(slope(theta, problem.train, vectors), np.float64)
        gradient = streaming.full_gradient(
            problem.loss, restore(theta), problem.train, microbatch_size
        )
        found = trajectory.project(vectors, ravel_pytree(gradient)[0][None])[0]
        return np.asarray(found, np.float64)

    return slope_at
