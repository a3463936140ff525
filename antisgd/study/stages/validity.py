"""Whether the quadratic picture holds: the curvature along the path, in each period (Sec. 5).

Twice: by Hessian products, and by secants over the fluctuation of the weights, which count the
kinks of ReLU and max-pooling that no product sees.
"""

from collections.abc import Callable, Mapping
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from antisgd import hessian, results, statistics, streaming
from antisgd.study import interruption
from antisgd.study.conditions import conditions_of
from antisgd.study.problem import Problem
from antisgd.study.settings import Settings
from antisgd.study.stages.analysis import window_theory
from antisgd.study.stages.drawn import noise_at
from antisgd.study.stages.period import Recording, kept_epochs
from antisgd.study.stages.slope import make_slope
from antisgd.study.stages.value_checkpoint import Kept, ValueCheckpoint

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
        noise: variance along p of a batch's noise by the gradients of all examples at those places,
            [places, n].
        secant_weight: weight variance of that theory per unit noise variance along all directions,
            secant over λ being interpolated in log λ, [k]; nan where λ is not positive.
    """

    directions: np.ndarray
    curvature: np.ndarray
    expected_time: np.ndarray
    secant: np.ndarray
    secant_time: np.ndarray
    noise: np.ndarray
    secant_weight: np.ndarray


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
    if not (known and {"secant", "noise"} <= held.keys()):
        checkpoint, count = folder / "checkpoints" / path.name, 2 * len(recorded.kept) + 1
        with (
            interruption.postponed() as asked,
            closing(
                ValueCheckpoint(
                    checkpoint, made_of, asked, f"curvature {scheme}", count * chosen.size, "value"
                )
            ) as kept,
        ):
            curvature = _products(problem, settings, recorded, vectors[chosen], kept)
            secant = _secants(problem, settings, params, recorded, vectors, chosen, kept)
            noise = _noise(problem, settings, recorded, vectors[chosen], scheme, kept)
        results.write_arrays(path, **made_of, curvature=curvature, secant=secant, noise=noise)
    held = results.read_arrays(path)
    return _expected(problem, settings, held, recorded, eigenvalues, scheme)


def _expected(
    problem: Problem,
    settings: Settings,
    held: Mapping[str, np.ndarray],
    recorded: Recording,
    eigenvalues: np.ndarray,
    scheme: str,
) -> PathCurvature:
    """What was found, and what theory has at its means."""
    chosen, curvature, secant = held["index"], held["curvature"], held["secant"]
    conditions = conditions_of(problem.num_examples, settings, problem.optimizer)
    steps = len(recorded.trajectory.velocities)
    path, kinked = np.mean([eigenvalues[chosen], *curvature], axis=0), secant.mean(axis=0)
    along_all = _interpolated(kinked, chosen, eigenvalues)
    law = conditions.noise_law(scheme)
    at_path, at_secant, over_all = (
        window_theory(mean, conditions, law, steps, "mean_velocity")
        for mean in (path, kinked, along_all)
    )
    return PathCurvature(
        chosen, curvature, at_path.correlation_time, secant, at_secant.correlation_time,
        held["noise"], over_all.weight,
    )  # fmt: skip


def _interpolated(curvature: np.ndarray, chosen: np.ndarray, eigenvalues: np.ndarray) -> np.ndarray:
    """Of the chosen directions, at all: its ratio to λ in log λ, [k]; 0 where λ ≤ 0."""
    positive = eigenvalues > 0
    known = positive[chosen]
    made = np.zeros(len(eigenvalues))
    if known.any():
        some, all_of_them = eigenvalues[chosen[known]], eigenvalues[positive]
        ratio = np.interp(-np.log(all_of_them), -np.log(some), curvature[known] / some)
        made[positive] = all_of_them * ratio
    return made


def _chosen(k: int) -> np.ndarray:
    """Spread evenly over the logarithm of their number, as eigenvalues that fall by a power are.

    Of thousands a few dozen are steep, which an even spread over the numbers would leave out.
    """
    if k <= DIRECTIONS:
        return np.arange(k)
    places = np.round(np.geomspace(1, k, DIRECTIONS)).astype(int) - 1
    # Where the first would fall together they follow one another.
    return np.maximum(places, np.arange(DIRECTIONS))


def _products(
    problem: Problem, settings: Settings, recorded: Recording, vectors: np.ndarray, kept: Kept
) -> np.ndarray:
    """p·H(θ_t)p at the weights kept, [places, n]."""
    flat, restore = ravel_pytree(recorded.final)
    made = []
    for weights in recorded.kept:
        params = restore(jnp.asarray(weights, flat.dtype))
        operator = streaming.products(problem.loss, params, problem.train, settings.microbatch)
        if "product" in operator:
            each = kept(partial(_in_block, operator["product"], vectors), len(vectors))
        else:
            found = [kept(partial(_rayleigh, operator["matvec"], one), 1) for one in vectors]
            each = np.array(found)
        made.append(each)
    return np.array(made)


def _in_block(product: Callable[[np.ndarray], Any], vectors: np.ndarray) -> np.ndarray:
    return np.einsum("nd,nd->n", vectors, np.asarray(product(vectors)), dtype=np.float64)


def _secants(
    problem: Problem,
    settings: Settings,
    params: Any,
    recorded: Recording,
    vectors: np.ndarray,
    chosen: np.ndarray,
    kept: Kept,
) -> np.ndarray:
    """About θ_K and the weights kept, each stretch about the period's mean along its direction."""
    start, restore = ravel_pytree(params)
    rows, path = jnp.asarray(vectors[chosen], start.dtype), recorded.trajectory
    along = np.asarray(path.weights[:, chosen], np.float64)
    still = statistics.remove_drift(along, path.velocities[:, chosen], "mean_velocity")
    reach = np.sqrt(3 * statistics.variances(*still).weight)
    slope_at, made = make_slope(problem, settings.microbatch, restore, rows), []
    for weights in (np.asarray(start), *recorded.kept):
        middle = along.mean(axis=0) - vectors[chosen] @ (weights - np.asarray(start))
        centre = jnp.asarray(weights, start.dtype)
        one_by_one = [slice(i, i + 1) for i in range(chosen.size)]
        secants = [
            kept(partial(_secant, slope_at, at, centre, rows[at], reach[at], middle[at]), 1)
            for at in one_by_one
        ]
        made.append(np.concatenate(secants))
    return np.array(made)


def _secant(slope_at: Callable[[jax.Array], np.ndarray], at: slice, *stretch: Any) -> np.ndarray:
    return hessian.secant_curvature(lambda theta: slope_at(theta)[at], *stretch)


def _noise(
    problem: Problem,
    settings: Settings,
    recorded: Recording,
    vectors: np.ndarray,
    scheme: str,
    kept: Kept,
) -> np.ndarray:
    """R(0)·pᵀC₀(θ_t)p at the weights kept, [places, n]."""
    flat, restore = ravel_pytree(recorded.final)
    conditions = conditions_of(problem.num_examples, settings, problem.optimizer)

    def at(weights: np.ndarray) -> np.ndarray:
        return noise_at(problem, settings, restore(jnp.asarray(weights, flat.dtype)), vectors)

    each = np.array([kept(partial(at, weights)) for weights in recorded.kept])
    return conditions.noise_law(scheme).variance * each


@jax.jit
def _rayleigh(matvec: Any, vector: jax.Array) -> jax.Array:
    return jnp.vdot(vector, matvec(vector), precision=jax.lax.Precision.HIGHEST)
