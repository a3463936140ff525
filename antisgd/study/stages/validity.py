"""Whether the quadratic picture holds: the curvature along the path, in each period (Sec. 5)."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from antisgd import results, streaming
from antisgd.study.conditions import Conditions, conditions_of
from antisgd.study.problem import Problem
from antisgd.study.settings import Settings
from antisgd.study.stages.period import Recording, kept_epochs

__all__ = ["DIRECTIONS", "PathCurvature", "path_curvature"]

# Directions whose curvature is taken along the path: each costs a Hessian-vector product a place.
DIRECTIONS = 16


class PathCurvature(NamedTuple):
    """Curvature along some of the directions while a period is run.

    It is measured by Hessian products at the weights themselves, and knows nothing of gradients or
    variances: unlike the slope of gradients on displacements it can contradict the theory.

    Attributes:
        directions: places among all that were found, [n].
        curvature: p·H(θ_t)p at the places `period.kept_epochs` of the period, [places, n].
        expected_time: correlation time of the finite-window theory at the mean of λ and these, [n];
            nan where that mean is not positive or the optimiser is not linear.
    """

    directions: np.ndarray
    curvature: np.ndarray
    expected_time: np.ndarray


def path_curvature(
    problem: Problem,
    settings: Settings,
    recorded: Recording,
    vectors: np.ndarray,
    eigenvalues: np.ndarray,
    scheme: str,
    folder: Path,
) -> PathCurvature | None:
    """The curvature of one period along some of the directions, the steep ones among them.

    Args:
        problem: loss and examples.
        settings: for the microbatches and the conditions of the period.
        recorded: the period.
        vectors: directions, [k, d].
        eigenvalues: λ at θ_K, [k].
        scheme: of the period.
        folder: of the network; keeps validity_SCHEME.npz.

    Returns:
        None where the recording kept no weights.
    """
    path, chosen = folder / f"validity_{scheme}.npz", _chosen(len(vectors))
    if not np.any(recorded.kept):
        return None
    made_of = {"index": chosen, "epochs": kept_epochs(settings.analysis_epochs)}
    held = results.read_arrays(path) if results.exists(path) else {}
    if not all(name in held and np.array_equal(held[name], of) for name, of in made_of.items()):
        flat, restore = ravel_pytree(recorded.final)
        found = [
            _curvatures(
                problem, settings, restore(jnp.asarray(weights, flat.dtype)), vectors[chosen]
            )
            for weights in recorded.kept
        ]
        results.write_arrays(path, **made_of, curvature=np.array(found))
    curvature = results.read_arrays(path)["curvature"]
    mean = np.mean([eigenvalues[chosen], *curvature], axis=0)
    conditions = conditions_of(problem.num_examples, settings, problem.optimizer)
    steps = len(recorded.trajectory.velocities)
    return PathCurvature(chosen, curvature, _expected_time(mean, conditions, scheme, steps))


def _chosen(k: int) -> np.ndarray:
    """Spread evenly over the logarithm of their number, as eigenvalues that fall by a power are.

    Of thousands a few dozen are steep, which an even spread over the numbers would leave out.
    """
    if k <= DIRECTIONS:
        return np.arange(k)
    places = np.round(np.geomspace(1, k, DIRECTIONS)).astype(int) - 1
    # Where the first would fall together they follow one another.
    return np.maximum(places, np.arange(DIRECTIONS))


def _curvatures(
    problem: Problem, settings: Settings, params: Any, vectors: np.ndarray
) -> list[np.ndarray]:
    operator = streaming.products(problem.loss, params, problem.train, settings.microbatch)
    if "product" in operator:
        images = np.asarray(operator["product"](vectors))
        return list(np.einsum("nd,nd->n", vectors, images, dtype=np.float64))
    return [np.asarray(_rayleigh(operator["matvec"], vector)) for vector in vectors]


@jax.jit
def _rayleigh(matvec: Any, vector: jax.Array) -> jax.Array:
    return jnp.vdot(vector, matvec(vector), precision=jax.lax.Precision.HIGHEST)


def _expected_time(
    curvature: np.ndarray, conditions: Conditions, scheme: str, steps: int
) -> np.ndarray:
    usable = conditions.stable(curvature)
    times = np.full(curvature.size, np.nan)
    if usable.any():
        times[usable] = conditions.window_variances(
            curvature[usable], conditions.noise_law(scheme), steps,
            start=conditions.starting_law, drift="mean_velocity",
        ).correlation_time  # fmt: skip
    return times
