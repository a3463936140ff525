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


class Directions(NamedTuple):
    """Each direction beside the theory, a straight line taken off the weights; [k] each.

    Attributes:
        curvatures: λ; nan where it was not recorded.
        correlation_time: τ = 2σ_θ²/σ_v², update steps.
        expected: the finite-window theory's, a ratio of expectations; nan where λ is not known,
            not positive or not stable.
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

    The band is that of a sum of squares of Gaussian weights, Σ_j μ_jχ²_1 with μ the eigenvalues of
    their covariance without mean and line, as a Gamma law of its mean and variance.

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
    expected[usable] = window.correlation_time
    degrees[usable] = _degrees(recording.learning_rate * lam[usable], beta, noise, T)
    low, high = (expected * stats.chi2.ppf(q, degrees) / degrees for q in (0.025, 0.975))
    return Directions(lam, tau, expected, low, high, degrees)


def _degrees(a: np.ndarray, beta: float, noise: theory.Noise, T: int) -> np.ndarray:
    """ν = 2(Σμ)²/Σμ², μ the eigenvalues of the weights' covariance without mean and line."""
    grid = np.unique(a) if np.unique(a).size <= _GRID else np.geomspace(a.min(), a.max(), _GRID)
    gamma = variogram(grid, beta, noise, T)
    times = np.linspace(0, T, min(_POINTS, T + 1)).astype(int)
    basis = np.linalg.qr(np.stack([np.ones(len(times)), times], axis=1).astype(float))[0]
    made = []
    for column, rate in zip(gamma.T, grid, strict=True):
        if (1 - beta) / rate < 4 * (times[1] - times[0]):
            # Forgotten between two points: 2Σρ²/T, and neither mean nor line takes much.
            rho = 1 - column / np.asarray(
                theory.stationary_variances(rate, 1.0, beta, noise).weight
            )
            made.append(T / (2 * np.sum(rho**2) - 1))
            continue
        covariance = -column[np.abs(times[:, None] - times[None, :])]
        covariance = covariance - basis @ (basis.T @ covariance)
        covariance = covariance - (covariance @ basis) @ basis.T
        made.append(np.trace(covariance) ** 2 / np.sum(covariance**2))
    return np.exp(np.interp(np.log(a), np.log(grid), np.log(made)))


def curvature_finding(
    recording: Recording, found: Directions, *, windows: str | None = None
) -> Finding:
    """Is the loss the parabola of the curvatures λ?

    By the variances: τ/expected of each direction is χ²_ν/ν, and so is, with as many degrees as
    correlated directions leave, their mean. By Hessian products along the stretch: the median over
    directions of pᵀH(θ)p/λ − 1, a mean over the a points with Student's t, counted where it is also
    more than twice what the variances could tell.

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
    change = np.median(path / lam - 1, axis=1)
    mean, error = float(change.mean()), float(change.std(ddof=1) / np.sqrt(len(change)))
    if abs(mean) <= margin:
        return mean, error, 1.0
    return mean, error, float(2 * stats.t.sf(abs(mean) / max(error, 1e-300), len(change) - 1))
