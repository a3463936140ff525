"""What a finite window shows of the stationary variances (beyond the paper).

A window holds T updates, P = T + 1 weights θ_0 … θ_T, and is what an experiment records. Removing
a drift from it changes the expected variances: the mean velocity v̄ = (θ_T − θ_0)/T of Sec. 5.3
adds 1/6 to every steep direction, and T itself cuts the correlation time of flat ones, which is
the plateau of Fig. 7.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from antisgd import display, inputs
from antisgd.theory.chain import epoch_chain
from antisgd.theory.noise import Noise, checked_law
from antisgd.theory.pairs import is_paired, pair_boundary, propagate_pairs
from antisgd.theory.precision import float64_on_host
from antisgd.theory.stationary import stationary_variances
from antisgd.theory.variogram import variogram
from antisgd.theory.window_state import (
    MOMENT,
    SUM,
    THETA0,
    X,
    boundary_moments,
    first_state,
    propagate,
)

__all__ = ["DRIFTS", "WindowVariances", "removed", "window_arguments", "window_variances"]

DRIFTS = ("none", "mean", "mean_velocity", "line")
_GRID = 200


class WindowVariances(NamedTuple):
    """Expected sample variances in a window per unit noise variance σ_δg², and their ratio τ.

    Attributes:
        weight: [k].
        velocity: [k].
        correlation_time: 2·weight/velocity, a ratio of expectations, update steps, [k].
    """

    weight: np.ndarray
    velocity: np.ndarray
    correlation_time: np.ndarray

    def __repr__(self) -> str:
        return display.described(self)


def window_variances(
    eigenvalues: np.ndarray,
    learning_rate: float,
    momentum: float,
    noise: Noise,
    num_steps: int,
    *,
    drift: str = "mean_velocity",
    aligned: bool = True,
    start: Noise | None = None,
) -> WindowVariances:
    """Expected variances along eigenvectors in a window of T updates (beyond the paper).

    Aligned windows: exact second moments of θ, v and the epoch's noise, propagated step by step
    from the stationary state at the end of an epoch. Others: averaged over the position of their
    start in the epoch, by the variogram. More than 200 curvatures are interpolated from 200.

    Args:
        eigenvalues: λ > 0, [k].
        learning_rate: η.
        momentum: β.
        noise: law of the window; in an aligned one any but an estimated list of correlations. One
            order for all epochs, averaged over it, and injected noise are the same everywhere; a
            window of flip-flop begins with a permutation, one of spanning batches where a batch
            ends with an epoch.
        num_steps: T.
        drift: what is removed: "none" (the true mean only), "mean", "mean_velocity" (Sec. 5.3),
            or "line" (least squares).
        aligned: whether the window starts at an epoch boundary, as the paper's do.
        start: law under which the stationary state before an aligned window was reached, as in
            App. G where training without replacement precedes; None: the window's own.

    Raises:
        ValueError: an unknown drift, a law without positions in an aligned window, or a curvature
            out of range.
    """
    if drift not in DRIFTS:
        raise ValueError(f"drift must be one of {', '.join(DRIFTS)}, got {drift!r}")
    a, num_steps = window_arguments(eigenvalues, learning_rate, momentum, num_steps)
    for law in (noise, start or noise):
        checked_law(law)
    grid = _grid(a)
    if aligned and not (start is None and _same_everywhere(noise)):
        weight, velocity = _aligned(grid, momentum, noise, num_steps, drift, start or noise)
    elif start is None:
        weight, velocity = _unaligned(grid, momentum, noise, num_steps, drift)
    else:
        raise ValueError("a change of the law at the window's start needs aligned=True")
    if grid is not a:
        weight = np.exp(_interpolate(np.log(a), np.log(grid), np.log(weight)))
        velocity = np.exp(_interpolate(np.log(a), np.log(grid), np.log(velocity)))
    scale = learning_rate**2
    return WindowVariances(scale * weight, scale * velocity, 2 * weight / velocity)


def _same_everywhere(noise: Noise) -> bool:
    """Whether the noise has no position in an epoch: one order, averaged over it, or injected."""
    injected = noise.period and noise.batches is None and noise.correlations is None
    return noise.periodic or bool(injected)


def window_arguments(
    eigenvalues: np.ndarray, learning_rate: float, momentum: float, num_steps: int
) -> tuple[np.ndarray, int]:
    """ηλ [k] in float64 inside the stable region, and T.

    Raises:
        ValueError: an argument out of range.
    """
    num_steps = inputs.count("num_steps", num_steps, 2)
    eta = inputs.number("learning_rate", learning_rate, above=0)
    if not 0 <= inputs.number("momentum", momentum) < 1:
        raise ValueError(f"momentum must lie in [0, 1), not {momentum}")
    a = eta * np.asarray(inputs.finite("eigenvalues", eigenvalues, 1), np.float64)
    if not a.size or np.any(a <= 0) or np.any(a >= 2 * (1 + momentum)):
        raise ValueError(
            "the variances in a window need curvatures with 0 < eta*lambda < 2(1 + beta): leave "
            "out the others"
        )
    return a, num_steps


def _grid(a: np.ndarray) -> np.ndarray:
    """Where the exact variances are computed: everywhere, or where a spline needs them."""
    if a.size <= _GRID:
        return a
    apart = np.unique(a)
    # Equal curvatures, or as good as: no room for a spline, and no need of one.
    if len(apart) <= _GRID:
        return apart
    narrow = apart[-1] / apart[0] < 1 + 1e-6
    return apart[[0, -1]] if narrow else np.geomspace(a.min(), a.max(), _GRID)


def _interpolate(x: np.ndarray, grid: np.ndarray, values: np.ndarray) -> np.ndarray:
    from scipy.interpolate import CubicSpline

    if len(grid) <= _GRID and np.isin(x, grid).all():
        return values[np.searchsorted(grid, x)]
    return CubicSpline(grid, values)(x)


def _unaligned(
    a: np.ndarray, beta: float, noise: Noise, num_steps: int, drift: str
) -> tuple[np.ndarray, np.ndarray]:
    """From the variogram, in units of η²σ_δg² (beyond the paper).

    E s² = 2/P² Σ_h (P−h) γ(h) with the mean removed; less 4/(TP) Σ_k (k − T/2) γ(k), plus
    (T+2)/(6T) γ(T), with the mean velocity; E s_v² = V_v − 2γ(T)/T².
    """
    T, P, h = num_steps, num_steps + 1, np.arange(num_steps + 1.0)
    exact = stationary_variances(a, 1.0, beta, noise)
    s_v = np.asarray(exact.velocity)
    if drift == "none":
        return exact.weight, s_v
    gamma = variogram(a, beta, noise, num_steps)
    s = 2 / P**2 * (P - h) @ gamma
    if drift == "mean":
        return s, s_v
    s_v = s_v - 2 * gamma[-1] / T**2
    if drift == "line":
        n = P - h
        weights = n * (n**2 - 1) / 12 - n * h**2 / 4
        return s + 24 / (P**2 * (P**2 - 1)) * weights @ gamma, s_v
    return s - 4 / (T * P) * (h - T / 2) @ gamma + (T + 2) / (6 * T) * gamma[-1], s_v


def _aligned(
    a: np.ndarray, beta: float, noise: Noise, num_steps: int, drift: str, start: Noise
) -> tuple[np.ndarray, np.ndarray]:
    with float64_on_host():
        rates = jnp.asarray(a)
        if is_paired(start):
            moments = pair_boundary(rates, beta, start.period)
        else:
            moments = boundary_moments(rates, beta, epoch_chain(start))
        first = first_state(moments)
        if is_paired(noise):
            found = propagate_pairs(rates, beta, noise.period, num_steps, first)
        else:
            found = propagate(rates, beta, epoch_chain(noise), num_steps, first)
        final, squares = map(np.asarray, found)
        return removed(final, squares, num_steps, drift)


def removed(
    final: np.ndarray, squares: np.ndarray, num_steps: int, drift: str
) -> tuple[np.ndarray, np.ndarray]:
    """Expected sample variances of weight and velocity from the moments of a window."""
    T, P = num_steps, num_steps + 1
    xx, xs, xt = final[:, X, X], final[:, X, SUM], final[:, X, MOMENT]
    ss, st, tt = final[:, SUM, SUM], final[:, SUM, MOMENT], final[:, MOMENT, MOMENT]
    s_v = squares[1] / T
    if drift == "none":
        return (squares[2] + final[:, THETA0, THETA0]) / P, s_v
    s_0 = squares[0] / P - ss / P**2
    if drift == "mean":
        return s_0, s_v
    # Both ways to remove a drift take the mean velocity, not the fitted slope, off the velocities.
    s_v = s_v - xx / T**2
    if drift == "line":
        spread = P * (P**2 - 1) / 12
        return s_0 - (tt - T * st + T**2 / 4 * ss) / (spread * P), s_v
    sum_of_squares = squares[0] - 2 * xt / T + xx * P * (2 * T + 1) / (6 * T)
    square_of_sum = ss - xs * P + xx * P**2 / 4
    return sum_of_squares / P - square_of_sum / P**2, s_v
