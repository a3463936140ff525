"""Is the stretch stationary: the fluctuation relation, and how far the weights went one way."""

from typing import NamedTuple

import numpy as np
from scipy import stats

from antisgd import fluctuations, statistics, theory
from antisgd.audit.findings import Finding, bonferroni, untested
from antisgd.audit.noise import gradients
from antisgd.audit.recording import Recording
from antisgd.theory.variogram import variogram

__all__ = ["Modes", "drift_finding", "modes", "stationarity_finding"]

# Legendre polynomials in time: the first two are what drifts, the others what fluctuates.
_DRIFTING, _DEGREES = 2, 22
# Recorded curvatures may be this many times too large before a fluctuation passes for a drift.
_WRONG = 10
_BLOCKS = 2
_GRID = 60
# Blocks this many times longer than the memory (1−β)/(ηλ) have independent ends.
_MEMORIES = 5


class Modes(NamedTuple):
    """Motion along Legendre polynomials of time, degrees 1 … 22, over what a stationary run has.

    Attributes:
        scores: over the deviation that theory has at each λ (flat where it is unknown), [22, k].
        redder: over that of a curvature ten times as small, [22, k].
    """

    scores: np.ndarray
    redder: np.ndarray


def modes(recording: Recording, beta: float, noise: theory.Noise) -> Modes:
    """The polynomials of the weights and how they scatter where nothing drifts.

    Var(Σ_k w_kθ_k) = −Σ_{jk} w_jw_kγ(|j−k|) for Σw = 0, γ the variogram of the law at each λ, in
    units of the noise that the velocities show (σ_v² over its stationary value).

    Args:
        recording: as `recording.checked` returns it.
        beta: β.
        noise: the law; where it is not known, white.
    """
    theta, v = recording.weights, recording.updates
    T, k = v.shape
    eta = recording.learning_rate
    lam = np.zeros(k) if recording.curvatures is None else recording.curvatures
    # So flat that the stretch cannot tell it from flat.
    least = 1e-3 * (1 - beta) / T
    a = np.where(eta * lam < 2 * (1 + beta), np.maximum(eta * lam, least), least)
    grid = np.geomspace(least, max(a.max(), 2 * least), _GRID)
    w = np.polynomial.legendre.legvander(np.linspace(-1, 1, T + 1), _DEGREES)[:, 1:]
    w = np.linalg.qr(w - w.mean(axis=0))[0]
    velocity = np.asarray(theory.stationary_variances(grid, 1.0, beta, noise).velocity)
    table = np.log(_variances(w, variogram(grid, beta, noise, T)) / velocity)
    motion = w.T @ (theta - theta.mean(axis=0)) / v.std(axis=0)
    scores, redder = (
        motion / np.exp([np.interp(np.log(x), np.log(grid), row) / 2 for row in table])
        for x in (a, np.maximum(a / _WRONG, least))
    )
    return Modes(scores, redder)


def _variances(w: np.ndarray, gamma: np.ndarray) -> np.ndarray:
    """−wᵀΓw of each column of w [T + 1, d] with the Toeplitz matrix of γ [T + 1, g], [d, g]."""
    size = 2 * len(w)
    power = np.abs(np.fft.rfft(w, size, axis=0)) ** 2
    products = np.fft.irfft(power, size, axis=0)[: len(w)]
    found = -2 * products[1:].T @ gamma[1:]
    return np.maximum(found, 1e-12 * np.abs(found).max(axis=0))


def drift_finding(found: Modes) -> Finding:
    """Did the minimum move on a line or a bend, beyond what fluctuation does?

    Twice significant: against theory at the recorded curvature (a Gaussian score), and against the
    recording's own fluctuations of degrees 3 … 22 (Student's t), these taken as red as a curvature
    ten times as small would make them. So neither a wrong curvature nor another amount of noise
    passes for a drift. The larger p-value counts, Bonferroni over directions.
    """
    slow, other = found.redder[:_DRIFTING], found.redder[_DRIFTING:]
    own = slow / np.sqrt(np.mean(other**2, axis=0))
    against_theory = 2 * stats.norm.sf(np.abs(found.scores[:_DRIFTING]))
    against_own = 2 * stats.t.sf(np.abs(own), len(other))
    p_values = np.maximum(against_theory, against_own)
    p = bonferroni(p_values)
    degree, worst = np.unravel_index(np.argmin(p_values), p_values.shape)
    typical = float(np.sqrt(np.mean(found.scores[:_DRIFTING] ** 2)))
    kind = ("straight", "bent")[degree]
    sentence = (
        f"slow motion is {typical:.2f} times what fluctuation makes of it, rms over directions; "
        f"most in direction {worst}, {kind}, {abs(found.scores[degree, worst]):.1f} times"
    )
    return Finding("drift", typical, 1 / np.sqrt(2 * slow.size), p, sentence)


def stationarity_finding(
    recording: Recording, beta: float, noise: theory.Noise | None, steps_per_epoch: int
) -> tuple[Finding, np.ndarray]:
    """ηE[θ_{k−1}g_k] = ½(1+β)E[v²] in both halves, which holds for any loss in a stationary state.

    The residuals of all directions in units of their errors, averaged; those are differences of
    squares of Gaussians, and their mean over n independent directions is z√n ~ N(0, χ²_n). n is
    what correlated directions are worth. Directions whose memory reaches through a half are left
    out unless the sampling leaves no noise at zero frequency.

    Returns:
        The finding, and residual over error [2, k].
    """
    g, start = gradients(recording, beta)
    theta, v = recording.weights[start:], recording.updates[start:]
    balance = fluctuations.fluctuation_balance(
        theta, v, g, recording.learning_rate, beta,
        num_blocks=_BLOCKS, steps_per_epoch=steps_per_epoch,
    )  # fmt: skip
    z = -balance.boundary / balance.motion / balance.error
    used = _forgetful(recording, beta, noise)
    if not used.any():
        words = "not tested: without curvatures no direction is known to forget within half of it"
        return untested("stationarity", words), z
    n = statistics.effective_directions(v[:, used])
    pooled = z[:, used].mean(axis=1) * np.sqrt(n)
    p = bonferroni(np.array([_tail(one, n) for one in pooled]))
    residual = (balance.boundary / balance.motion)[:, used].mean(axis=1)
    error = balance.error[:, used].mean() / np.sqrt(n)
    sentence = (
        f"η⟨θg⟩ over ½(1+β)⟨v²⟩, less one: {residual[0]:+.2g} and {residual[1]:+.2g} ± {error:.1g} "
        f"in the two halves ({used.sum()} directions, worth {n:.0f} independent ones)"
    )
    return Finding("stationarity", float(np.abs(residual).max()), float(error), p, sentence), z


def _forgetful(recording: Recording, beta: float, noise: theory.Noise | None) -> np.ndarray:
    """Directions whose weights at both ends of a half are independent or both near the minimum."""
    T, k = recording.updates.shape
    anti = noise is not None and noise.white < 1e-9 and not noise.periodic
    if anti:
        return np.ones(k, bool)
    if recording.curvatures is None:
        return np.zeros(k, bool)
    memory = (1 - beta) / (recording.learning_rate * np.maximum(recording.curvatures, 1e-30))
    return memory * _MEMORIES * _BLOCKS < T


def _tail(z: float, n: float) -> float:
    """P(|Z| > z) for Z√n = N(0,1)·√χ²_n, by quadrature over the quantiles of χ²_n."""
    middle = (np.arange(2000) + 0.5) / 2000
    return float(np.mean(2 * stats.norm.sf(np.abs(z) * np.sqrt(n / stats.chi2.ppf(middle, n)))))
