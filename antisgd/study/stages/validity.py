"""Whether the quadratic picture holds: the curvature along the path, in each period (Sec. 5).

Twice: by Hessian products, and by secants over the fluctuation of the weights, which count the
kinks of ReLU and max-pooling that no product sees.
"""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from antisgd import hessian, results, statistics, streaming
from antisgd.study.conditions import Conditions, conditions_of
from antisgd.study.problem import Problem
from antisgd.study.settings import Settings
from antisgd.study.stages.period import Recording, kept_epochs
from antisgd.study.stages.slope import make_slope

__all__ = ["DIRECTIONS", "PathCurvature", "path_curvature"]

# Directions whose curvature is taken along the path: each costs a Hessian-vector product a place.
DIRECTIONS = 16


class PathCurvature(NamedTuple):
    """Curvature along some of the directions while a period is run.

    It is measured at single weights, and knows nothing of how the period's gradients and weights
    vary together: unlike the slope of the one on the other it can contradict the theory.

    Attributes:
        directions: places among all that were found, [n].
        curvature: p·H(θ_t)p at the places `period.kept_epochs` of the period, [places, n].
        expected_time: correlation time of the finite-window theory at the mean of λ and these, [n];
            nan where that mean is not positive or the optimiser is not linear.
        secant: of √3 standard deviations of the weights to both sides of the period's mean along p,
            about θ_K and at those places, [1 + places, n].
        secant_time: the same as expected_time, at the mean of the secants.
    """

    directions: np.ndarray
    curvature: np.ndarray
    expected_time: np.ndarray
    secant: np.ndarray
    secant_time: np.ndarray


def path_curvature(
    problem: Problem,
    settings: Settings,
    params: Any,
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
        params: θ_K.
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
    known = all(name in held and np.array_equal(held[name], of) for name, of in made_of.items())
    if not (known and "secant" in held):
        flat, restore = ravel_pytree(recorded.final)
        found = [
            _curvatures(
                problem, settings, restore(jnp.asarray(weights, flat.dtype)), vectors[chosen]
            )
            for weights in recorded.kept
        ]
        secants = _secants(problem, settings, params, recorded, vectors, chosen)
        results.write_arrays(path, **made_of, curvature=np.array(found), secant=secants)
    held = results.read_arrays(path)
    curvature, secant = held["curvature"], held["secant"]
    conditions = conditions_of(problem.num_examples, settings, problem.optimizer)
    steps = len(recorded.trajectory.velocities)
    times = [
        _expected_time(mean, conditions, scheme, steps)
        for mean in (np.mean([eigenvalues[chosen], *curvature], axis=0), secant.mean(axis=0))
    ]
    return PathCurvature(chosen, curvature, times[0], secant, times[1])


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


def _secants(
    problem: Problem,
    settings: Settings,
    params: Any,
    recorded: Recording,
    vectors: np.ndarray,
    chosen: np.ndarray,
) -> np.ndarray:
    """About θ_K and the weights kept, each stretch about the period's mean along its direction."""
    start, restore = ravel_pytree(params)
    rows, path = jnp.asarray(vectors[chosen], start.dtype), recorded.trajectory
    along = np.asarray(path.weights[:, chosen], np.float64)
    still = statistics.remove_drift(along, path.velocities[:, chosen], "mean_velocity")
    reach = np.sqrt(3 * statistics.variances(*still).weight)
    slope_at = make_slope(problem, settings.microbatch, restore, rows)
    made = []
    for weights in (np.asarray(start), *recorded.kept):
        middle = along.mean(axis=0) - vectors[chosen] @ (weights - np.asarray(start))
        centre = jnp.asarray(weights, start.dtype)
        made.append(hessian.secant_curvature(slope_at, centre, rows, reach, middle))
    return np.array(made)


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
