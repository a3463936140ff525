"""Correlation times beside the quadratic theory, and whether the loss is a parabola."""

from typing import NamedTuple

import numpy as np
from scipy import stats

from antisgd import display, statistics, theory
from antisgd.audit.findings import Finding, bonferroni, untested
from antisgd.audit.recording import Recording
from antisgd.theory.variogram import variogram

__all__ = ["Directions", "curvature_finding", "directions"]

_GRID = 40
# Points of the stretch at which the scatter of its variance is worked out.
_POINTS = 200
# Curvatures that scatter by more than this along the stretch are those of no parabola.
_CHANGING = 0.25


class Directions(NamedTuple):
    """Each direction beside the theory, a straight line taken off the weights; [k] each.

    Attributes:
        curvatures: λ; nan where it was not recorded.
        correlation_time: τ = 2σ_θ²/σ_v², update steps.
        expected: by the finite-window theory; nan where λ is not known, not positive or not
            stable.
        low: 2.5 % quantile of τ about `expected`.
        high: 97.5 % quantile.
        degrees: ν such that τ/expected scatters as χ²_ν/ν.
    """

    curvatures: np.ndarray
    correlation_time: np.ndarray
    expected: np.ndarray
    low: np.ndarray
    high: np.ndarray
    degrees: np.ndarray

    def __repr__(self) -> str:
        return display.described(self)


def directions(recording: Recording, beta: float, noise: theory.Noise | None) -> Directions:
    """τ of each direction, what theory expects of a stretch this long, and its 95 % band.

    The band is that of Gaussian noise: mean and variance of the quotient to second order, and a
    Gamma law that has them.

    Args:
        recording: as `recording.checked` returns it; it begins with an epoch where there are such.
        beta: β.
        noise: the law; None: nothing is expected.
    """
    theta, v = statistics.remove_drift(recording.weights, recording.updates, "line")
    T, k = v.shape
    tau = 2 * theta.var(axis=0) / v.var(axis=0)
    lam = np.full(k, np.nan) if recording.curvatures is None else recording.curvatures
    nothing = np.full(k, np.nan)
    usable = (lam > 0) & (recording.learning_rate * lam < 2 * (1 + beta))
    if noise is None or not usable.any():
        return Directions(lam, tau, *(nothing.copy() for _ in range(4)))
    expected, degrees = nothing.copy(), nothing.copy()
    window = theory.window_variances(
        lam[usable], recording.learning_rate, beta, noise, T, drift="line",
        aligned=noise.batches is not None,
    )  # fmt: skip
    scatter, bias = _scatter(recording.learning_rate * lam[usable], beta, noise, T)
    expected[usable] = window.correlation_time * (1 + bias)
    degrees[usable] = 2 / scatter
    low, high = (expected * stats.chi2.ppf(q, degrees) / degrees for q in (0.025, 0.975))
    return Directions(lam, tau, expected, low, high, degrees)


def _scatter(
    a: np.ndarray, beta: float, noise: theory.Noise, T: int
) -> tuple[np.ndarray, np.ndarray]:
    """Relative variance of τ = 2s_θ²/s_v² and what its mean has over the ratio of means, [k] each.

    cov(x², y²) = 2cov(x, y)² for Gaussian series, summed over time; θ's own part without mean and
    line. In steep directions θ and v swing together, and τ scatters less than either.
    """
    grid = np.geomspace(a.min(), a.max(), _GRID) if a.size > 1 else a
    gamma = variogram(grid, beta, noise, T)
    weight = np.asarray(theory.stationary_variances(grid, 1.0, beta, noise).weight)
    made = []
    for column, rate, V in zip(gamma.T, grid, weight, strict=True):
        lags = np.abs(np.arange(-T + 1, T))
        cross = column[np.abs(np.arange(-T + 1, T) - 1)] - column[lags]
        velocity = column[lags[1:-1] + 1] - 2 * column[lags[1:-1]] + column[abs(lags[1:-1] - 1)]
        own_v = 2 / T * np.sum((velocity / velocity.max()) ** 2)
        shared = 2 / T * np.sum(cross**2) / (V * velocity.max())
        own = _own_scatter(column, rate, V, beta)
        made.append([max(own + own_v - 2 * shared, 2 / T), own_v - shared])
    scatter, bias = np.array(made).T
    at, grid = np.log(a), np.log(grid)
    return np.exp(np.interp(at, grid, np.log(scatter))), np.interp(at, grid, bias)


def _own_scatter(gamma: np.ndarray, rate: float, V: float, beta: float) -> float:
    """Relative variance of s_θ², a line taken off: 2Σμ²/(Σμ)² with μ the covariance's eigenvalues.

    At a few points in time; where the weight forgets between two of them, 2Σ_h ρ(h)²/T.
    """
    T = len(gamma) - 1
    times = np.linspace(0, T, min(_POINTS, T + 1)).astype(int)
    if (1 - beta) / rate < 4 * (times[1] - times[0]):
        return float(2 / T * (2 * np.sum((1 - gamma / V) ** 2) - 1))
    basis = np.linalg.qr(np.stack([np.ones(len(times)), times], axis=1).astype(float))[0]
    covariance = -gamma[np.abs(times[:, None] - times[None, :])]
    covariance = covariance - basis @ (basis.T @ covariance)
    covariance = covariance - (covariance @ basis) @ basis.T
    return float(2 * np.sum(covariance**2) / np.trace(covariance) ** 2)


def curvature_finding(
    recording: Recording, found: Directions, *, windows: str | None = None
) -> Finding:
    """Is the loss the parabola of the curvatures λ?

    By the variances: τ/expected of each direction is χ²_ν/ν, and so is, with as many degrees as
    correlated directions leave, their mean. By Hessian products along the stretch: the median over
    directions of pᵀH(θ)p/λ − 1, a mean over the a points with Student's t, counted where it is also
    more than twice what the variances could tell; and in any case where the curvature changes by
    more than a quarter, rms along the stretch (a convention).

    Args:
        recording: as `recording.checked` returns it.
        found: its directions.
        windows: why the variances must not be judged, if so.
    """
    usable = np.isfinite(found.expected)
    if not usable.any():
        return untested("curvature", "not tested: no curvatures or no known law of the noise")
    k_eff = statistics.effective_directions(recording.updates[:, usable])
    ratio = (found.correlation_time / found.expected)[usable]
    nu = found.degrees[usable]
    total = nu.sum() * min(1.0, k_eff / len(nu))
    mean, error = float(nu @ ratio / nu.sum()), float(np.sqrt(2 / total))
    inside = (found.correlation_time > found.low) & (found.correlation_time < found.high)
    sentence = (
        f"correlation times are {mean:.3f} ± {error:.3f} of the theory at the recorded curvatures, "
        f"{inside[usable].mean():.0%} of {len(nu)} directions in its 95 % band"
    )
    p_values = []
    if windows is None:
        each = [bonferroni(_chi2(ratio * nu, nu)), float(_chi2(np.array(mean * total), total))]
        p_values.append(bonferroni(np.array(each)))
    else:
        sentence += f" (not judged: {windows})"
    statistic = mean - 1
    if recording.path_curvatures is not None:
        change, change_error, p = _along(recording.path_curvatures[:, usable],
                                         found.curvatures[usable], 2 * error)  # fmt: skip
        p_values.append(p)
        sentence += (
            f"; Hessian products find the curvature {change:+.1%} ± {change_error:.1%} off along "
            f"the stretch, median over directions"
        )
        statistic = change if abs(change) > abs(statistic) or not p_values[:-1] else statistic
    p = bonferroni(np.array(p_values)) if p_values else np.nan
    return Finding("curvature", float(statistic), error, p, sentence)


def _chi2(x: np.ndarray, degrees: np.ndarray) -> np.ndarray:
    return np.minimum(1.0, 2 * np.minimum(stats.chi2.cdf(x, degrees), stats.chi2.sf(x, degrees)))


def _along(path: np.ndarray, lam: np.ndarray, margin: float) -> tuple[float, float, float]:
    own = np.median(path.std(axis=0) / np.abs(path.mean(axis=0)))
    change = np.median(path / lam - 1, axis=1)
    mean, error = float(change.mean()), float(change.std(ddof=1) / np.sqrt(len(change)))
    if own > _CHANGING:
        return mean, error, 0.0
    if abs(mean) <= margin:
        return mean, error, 1.0
    return mean, error, float(2 * stats.t.sf(abs(mean) / max(error, 1e-300), len(change) - 1))
