"""The correlation time by its definition, sums of velocity correlations (Eq. 3)."""

import numpy as np

from antisgd import fluctuations, statistics, theory
from antisgd.study.conditions import Conditions
from antisgd.study.findings.rows import Rows, row
from antisgd.study.stages.analysis import Analysis
from antisgd.trajectory import Trajectory

__all__ = ["expected_sums", "rows"]

# Epochs of lags: beyond two, noise that is reshuffled is not correlated with itself. Directions
# whose time is longer than a third of them have sums that have not converged.
_EPOCHS, _SHORT = 2, 3


def rows(
    conditions: Conditions, one: Analysis, path: Trajectory, eigenvalues: np.ndarray, scheme: str
) -> Rows:
    """τ_L = Σ h·c(h)/Σ c(h) over lags up to L, summed over directions, over the theory of it.

    Each direction counts by its velocity variance. With replacement only directions of short
    times are used; reshuffling ends all correlations of the noise within two epochs.

    Args:
        conditions: of the period.
        one: its analysis.
        path: what was recorded, along all directions.
        eigenvalues: of all of them, [k].
        scheme: of the period.
    """
    steps, lags = len(path.velocities), _EPOCHS * conditions.steps_per_epoch
    rate, beta = conditions.learning_rate, conditions.momentum
    used = rate * one.eigenvalues < 2 * (1 + beta)
    if scheme == "with_replacement":
        used &= _SHORT * one.stationary.correlation_time < lags
    if steps <= 2 * lags or used.sum() < 3:
        return []
    inside = np.flatnonzero(eigenvalues > 0)[used]
    _, v = statistics.remove_drift(
        path.weights[:, inside], path.velocities[:, inside], "mean_velocity"
    )
    law = (one.eigenvalues[used], rate, beta, conditions.noise_law(scheme))
    measured = fluctuations.velocity_sums(v, lags) / one.measured.velocity[used]
    expected = expected_sums(*law, lags, steps) / one.window.velocity[used]
    ratio, error = _ratio(measured, expected)
    quantity = "correlation time by sums of velocity correlations over the theory of these sums"
    note = f"lags up to {lags} steps; sums over directions; error by leaving out one"
    return [row(f"tau_by_sums_{scheme}", "Eq. 3", quantity, ratio, error, n=len(inside), note=note)]


def _ratio(measured: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """Of the times, from sums [2, k] over directions, and its error by leaving out one of them."""
    without = measured.sum(axis=1, keepdims=True) - measured
    theory_without = expected.sum(axis=1, keepdims=True) - expected
    left_out = without[1] / without[0] * theory_without[0] / theory_without[1]
    (m0, m1), (e0, e1) = measured.sum(axis=1), expected.sum(axis=1)
    return float(m1 / m0 * e0 / e1), float(np.sqrt((len(left_out) - 1) * left_out.var()))


def expected_sums(
    eigenvalues: np.ndarray,
    learning_rate: float,
    momentum: float,
    noise: theory.Noise,
    max_lag: int,
    num_steps: int,
) -> np.ndarray:
    """Σ c(h) and Σ h·c(h), the mean velocity of a window of T steps taken off, [2, k].

    That takes E v̄² from the correlation at every lag, but for the ends of the window.
    """
    c = theory.velocity_autocovariance(eigenvalues, learning_rate, momentum, noise, num_steps)
    lags = np.arange(1, num_steps)
    # T² E v̄² = Σ_kl c(|k−l|)
    mean = (num_steps * c[0] + 2 * (num_steps - lags) @ c[1:num_steps]) / num_steps**2
    kept = c[1 : max_lag + 1] - mean
    return np.array([kept.sum(axis=0), np.arange(1, max_lag + 1) @ kept])
