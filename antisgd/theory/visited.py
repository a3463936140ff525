"""Curvature and noise averaged over the weights that a window visits (beyond the paper)."""

from typing import NamedTuple

import numpy as np

from antisgd.theory.noise import Noise
from antisgd.theory.schedules import visited_weights
from antisgd.theory.self_consistent import Average, Averages

__all__ = ["VisitedAverages", "visited_averages"]

# Of a step towards the target: directions pull each other along, and larger steps overshoot.
_SHARE = 0.4


class VisitedAverages(NamedTuple):
    """The fixed point, [k] each but the last two.

    Attributes:
        mean: of θ_t − θ_0 over the window.
        variance: of it, over noise and time.
        curvature: λ_i^eff.
        noise: C_i^eff.
        change: what is left to the fixed point of the relative curvature and noise, r.m.s. of
            their means over the directions; the r.m.s. last step of single ones where that is more.
        iterations: made.
    """

    mean: np.ndarray
    variance: np.ndarray
    curvature: np.ndarray
    noise: np.ndarray
    change: float
    iterations: int


def visited_averages(
    averages: Average,
    num_directions: int,
    learning_rate: float,
    momentum: float,
    noise: Noise,
    num_steps: int,
    *,
    tolerance: float = 0.02,
    max_iterations: int = 100,
) -> VisitedAverages:
    """λ_i^eff = E p_iᵀH(θ_t)p_i and C_i^eff over the weights of a window that begins at θ_0 = θ_K.

    Mean and variance of θ_t − θ_0 are those of `visited_weights` at these very averages, the
    minimum where the averaged gradient vanishes. Differs from `self_consistent`, whose weights
    spread about the minimum by the stationary variance: θ_K is a draw of that spread itself, which
    would count twice, and flat directions do not reach it within the window.

    Args:
        averages: (mean [k], variance [k]) → `Averages`, as for `self_consistent`.
        num_directions: k.
        learning_rate: η.
        momentum: β.
        noise: white, or of independent epochs.
        num_steps: T.
        tolerance: of `change`.
        max_iterations: after which it is given up.

    Raises:
        ArithmeticError: no convergence, or averages that are no curvature and noise of a stationary
            state.
    """
    law = (learning_rate, momentum, noise, num_steps)
    mean, variance = np.zeros(num_directions), np.zeros(num_directions)
    found, share, change = averages(mean, variance), 1.0, np.inf
    for iteration in range(1, max_iterations + 1):
        _check(found, learning_rate, momentum)
        seen = visited_weights(found.curvature, *law)
        minimum = mean - found.gradient / found.curvature
        aim = found.noise * seen.variance + minimum**2 * seen.path_variance
        mean = mean + share * (seen.reach * minimum - mean)
        variance = variance + share * (aim - variance)
        before, found = found, averages(mean, variance)
        _check(found, learning_rate, momentum)
        change = _difference(found, before, share)
        if change < tolerance:
            return VisitedAverages(
                mean, variance, np.asarray(found.curvature), np.asarray(found.noise), change,
                iteration,
            )  # fmt: skip
        share = _SHARE
    raise ArithmeticError(
        f"the averages over the weights of the window do not settle: {change:.2g} from the fixed "
        f"point after {max_iterations} iterations; the loss bends too much for Gaussian averages"
    )


def _difference(found: Averages, before: Averages, share: float) -> float:
    """What is left to the fixed point after a step of this share of the way.

    Along a single direction kinks make the averages rough: they change by as much after a short
    step as after a long one, so that its share tells nothing of what is left.
    """
    changes = np.log([found.curvature / before.curvature, found.noise / before.noise])
    left = changes.mean(axis=1) / share
    return float(max(np.sqrt(np.mean(changes**2)), np.sqrt(np.mean(left**2))))


def _check(found: Averages, eta: float, beta: float) -> None:
    rated = eta * np.asarray(found.curvature, np.float64)
    if not np.all((rated > 0) & (rated < 2 * (1 + beta))):
        raise ArithmeticError(
            "no stationary state at the averaged curvature: eta*lambda runs from "
            f"{rated.min():.3g} to {rated.max():.3g} and must lie in (0, {2 * (1 + beta):.3g})"
        )
    if not np.all(np.asarray(found.noise) > 0):
        raise ArithmeticError("a direction without noise has no variance: leave it out")
