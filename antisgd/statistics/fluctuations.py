"""Variances over a recorded window, their errors, and the drift in it."""

from typing import NamedTuple

import numpy as np

from antisgd import display, inputs

__all__ = [
    "Fluctuations",
    "block_errors",
    "drift_share",
    "restoring_slope",
    "remove_drift",
    "variances",
]

DRIFTS = ("none", "mean_velocity", "line")


class Fluctuations(NamedTuple):
    """Variances over a window, [k] each, and τ = 2σ_θ²/σ_v² in update steps (Eq. 3)."""

    weight: np.ndarray
    velocity: np.ndarray
    correlation_time: np.ndarray

    def __repr__(self) -> str:
        return display.described(self)


def remove_drift(
    weights: np.ndarray, velocities: np.ndarray, mode: str
) -> tuple[np.ndarray, np.ndarray]:
    """Weights and velocities without the slow motion of the minimum (Sec. 5.3).

    Args:
        weights: θ_k, [T + 1, k], beside velocities v_k, [T, k].
        mode: "none"; "mean_velocity", the paper's θ_k − v̄·k and v_k − v̄ with
            v̄ = (θ_T − θ_0)/T; or "line", the same with the least-squares slope.

    Raises:
        ValueError: an unknown mode, weights that are not one point longer, or what is not finite.
    """
    if mode not in DRIFTS:
        raise ValueError(f"mode must be one of {', '.join(DRIFTS)}, got {mode!r}")
    weights, velocities = _window(weights, velocities)
    weights, velocities = np.asarray(weights, np.float64), np.asarray(velocities, np.float64)
    num_steps = len(velocities)
    if mode == "none":
        return weights, velocities
    time = np.arange(num_steps + 1.0)
    if mode == "mean_velocity":
        slope = (weights[-1] - weights[0]) / num_steps
    else:
        centred = time - num_steps / 2
        slope = centred @ weights / (centred @ centred)
    return weights - time[:, None] * slope, velocities - slope


def variances(weights: np.ndarray, velocities: np.ndarray) -> Fluctuations:
    """Variances about the mean over the window, and τ = 2σ_θ²/σ_v² (Eq. 3).

    Of weights [T + 1, k] and velocities [T, k], normalised by the number of points, as the
    finite-window theory is. τ is nan along a direction that does not move.

    Raises:
        ValueError: not one more weight than velocities, or what is not finite.
    """
    weights, velocities = _window(weights, velocities)
    weight = np.var(weights, axis=0, dtype=np.float64)
    velocity = np.var(velocities, axis=0, dtype=np.float64)
    return Fluctuations(weight, velocity, _ratio(2 * weight, velocity))


def block_errors(weights: np.ndarray, velocities: np.ndarray, num_blocks: int = 20) -> Fluctuations:
    """Standard errors of `variances` by leaving out one block of time after the other.

    Block jackknife: se² = (B−1)/B Σ_b (x_(b) − mean)². It holds where blocks are much longer
    than the correlation time; in flatter directions it is a lower bound, and the sampling
    spread of the finite-window theory is the one to use. Steps beyond a multiple of B are unused.

    Raises:
        ValueError: B = num_blocks is not between 2 and T, or as for `variances`.
    """
    weights, velocities = _window(weights, velocities)
    num_blocks = inputs.count("num_blocks", num_blocks)
    if not 2 <= num_blocks <= len(velocities):
        raise ValueError(f"num_blocks={num_blocks} must be 2 to {len(velocities)}, the steps")
    weight = _left_out_variances(weights, num_blocks)
    velocity = _left_out_variances(velocities, num_blocks)
    replicates = Fluctuations(weight, velocity, _ratio(2 * weight, velocity))
    return Fluctuations(*(np.sqrt(num_blocks - 1) * x.std(axis=0) for x in replicates))


def drift_share(weights: np.ndarray) -> np.ndarray:
    """Share of the raw weight variance that the straight line from first to last point makes.

    (θ_T − θ_0)²/12 over the variance about the mean; may exceed 1. Near 0: fluctuation only;
    nan along a direction that does not move.

    Raises:
        ValueError: weights that are not finite.
    """
    weights = np.asarray(inputs.finite("weights", weights), np.float64)
    return _ratio((weights[-1] - weights[0]) ** 2 / 12, np.var(weights, axis=0))


def restoring_slope(weights: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Slope s of exact full gradients against displacements along each direction, [k].

    A test of stationarity, not a curvature: in a stationary state under white noise
    2σ_θ²/σ_v² = (1+β)/(ηs) whatever the loss is, a pure quartic included. Displacements and
    gradients at n anchors, [n, k] each. Nan along a direction that does not move.

    Raises:
        ValueError: arrays of different shapes, or what is not finite.
    """
    weights, gradients = _alike("weights", weights, "gradients", gradients)
    centred = weights - np.mean(weights, axis=0)
    return _ratio(np.sum(centred * gradients, axis=0), np.sum(centred**2, axis=0))


def _left_out_variances(series: np.ndarray, num_blocks: int) -> np.ndarray:
    length = len(series) // num_blocks
    used = np.asarray(series[: length * num_blocks], np.float64)
    blocks = (used - used.mean(axis=0)).reshape(num_blocks, length, -1)
    first, second = blocks.sum(axis=1), np.sum(blocks**2, axis=1)
    kept = length * (num_blocks - 1)
    mean = (first.sum(axis=0) - first) / kept
    return (second.sum(axis=0) - second) / kept - mean**2


def _window(weights: np.ndarray, velocities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A recorded window: finite, and one more weight than velocities along the same directions."""
    weights = inputs.finite("weights", weights)
    velocities = inputs.finite("velocities", velocities)
    if min(weights.ndim, velocities.ndim) < 1 or len(velocities) < 1:
        raise ValueError("a window needs weights [T + 1, k] and velocities [T, k], T >= 1")
    num_steps = len(velocities)
    if len(weights) != num_steps + 1:
        raise ValueError(f"{num_steps} velocities need {num_steps + 1} weights, not {len(weights)}")
    if weights.shape[1:] != velocities.shape[1:]:
        raise ValueError(
            f"weights and velocities are along different numbers of directions: "
            f"{list(weights.shape[1:])} and {list(velocities.shape[1:])}"
        )
    return weights, velocities


def _alike(
    one: str, first: np.ndarray, other: str, second: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Two finite arrays of one shape."""
    first, second = inputs.finite(one, first), inputs.finite(other, second)
    if first.shape != second.shape:
        raise ValueError(f"{one} and {other} differ in shape: {first.shape} and {second.shape}")
    return first, second


def _ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """A quotient, nan where there is nothing to divide by."""
    return np.divide(above, below, out=np.full(np.shape(below), np.nan), where=below != 0)
