"""Whether the quadratic picture holds: the curvature at the period's end (Sec. 5)."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from antisgd import hessian, results
from antisgd.study.problem import Problem
from antisgd.study.settings import Settings

__all__ = ["DIRECTIONS", "EndCurvature", "end_curvature"]

# Directions whose curvature is taken again at the end: each costs one Hessian-vector product.
DIRECTIONS = 16


class EndCurvature(NamedTuple):
    """Curvature along some of the directions at the period's end.

    Attributes:
        directions: places among all that were found, [n].
        curvature: p·H(θ_{K+T}) p, [n].
    """

    directions: np.ndarray
    curvature: np.ndarray


def end_curvature(
    problem: Problem, settings: Settings, params: Any, vectors: np.ndarray, folder: Path
) -> EndCurvature:
    """The curvature at the period's end along directions spread evenly over those found.

    Args:
        problem: loss and examples.
        settings: for the microbatches.
        params: weights at the end of the period.
        vectors: directions, [k, d].
        folder: of the network; keeps validity.npz.
    """
    path, k = folder / "validity.npz", len(vectors)
    chosen = np.unique(np.linspace(0, k - 1, min(DIRECTIONS, k)).astype(int))
    if not path.exists() or not np.array_equal(results.read_arrays(path)["index"], chosen):
        matvec = hessian.hessian_vector_product(
            problem.loss, params, problem.train, microbatch_size=settings.microbatch_size
        )
        curvature = [_rayleigh(matvec, vectors[i]) for i in chosen]
        results.write_arrays(path, index=chosen, curvature=np.array(curvature))
    arrays = results.read_arrays(path)
    return EndCurvature(arrays["index"], arrays["curvature"])


@jax.jit
def _rayleigh(matvec: Any, vector: jax.Array) -> jax.Array:
    return jnp.vdot(vector, matvec(vector), precision=jax.lax.Precision.HIGHEST)
