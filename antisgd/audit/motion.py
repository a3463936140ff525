"""Is it heavy ball with the stated η and β? By Eq. 1, or by how updates follow each other."""

from collections.abc import Sequence

import numpy as np
from scipy import stats

from antisgd import statistics, theory
from antisgd.audit.findings import LEVEL, WORDS, Finding, untested
from antisgd.audit.recording import Recording

__all__ = ["momentum_finding"]

# Degrees in time of what may drift beside the fluctuation.
_TIMES = 3


def momentum_finding(
    recording: Recording, laws: Sequence[theory.Noise], *, law_known: bool, parabola: bool = True
) -> tuple[Finding, float]:
    """Whether v_k = βv_{k−1} − ηg_k with the stated numbers, and the β that the weights show.

    With gradients (or noise) recorded η and β are fitted to Eq. 1, which is an identity: what is
    left of it bounds how far they can be off, |β̂ − β| ≤ rms(rest)/rms(v), and beyond that bound the
    statement is wrong. With weights alone the regression of v_k on v_{k−1} beside the weight is β
    up to what the law of the noise adds, which theory says.

    Args:
        recording: as `recording.checked` returns it.
        laws: of the noise, those that it may have; none: weights alone say nothing.
        law_known: whether `laws` is what the indices are, and not what they may be.
        parabola: whether the recorded curvatures hold; if not, weights alone leave β open between
            what the flattest and the steepest directions would make of it.
    """
    driving = recording.gradients if recording.gradients is not None else recording.noise
    if driving is not None:
        return _from_gradients(recording, driving)
    if not laws:
        words = "not tested: weights alone need a noise whose law has a closed form"
        return untested("momentum", words), recording.momentum
    return _from_weights(recording, laws, law_known, parabola)


def _without(series: np.ndarray, theta: np.ndarray) -> np.ndarray:
    """A series without its mean and its regression on the weights, direction by direction."""
    x, s = theta - theta.mean(axis=0), series - series.mean(axis=0)
    return s - x * (np.sum(x * s, axis=0) / np.sum(x**2, axis=0))


def _from_gradients(recording: Recording, driving: np.ndarray) -> tuple[Finding, float]:
    beta, eta = recording.momentum, recording.learning_rate
    theta, v, g = recording.weights[1:-1], recording.updates, driving[1:]
    if recording.gradients is None:
        later, before, push = (_without(x, theta) for x in (v[1:], v[:-1], g))
    else:
        later, before, push = (x - x.mean(axis=0) for x in (v[1:], v[:-1], g))
    # Every direction at its own scale: those with much noise shall not decide alone.
    scale = later.std(axis=0)
    columns = np.stack([(before / scale).ravel(), (-push / scale).ravel()], axis=1)
    target = (later / scale).ravel()
    fitted, *_ = np.linalg.lstsq(columns, target, rcond=None)
    rest = np.sqrt(np.mean((target - columns @ fitted) ** 2))
    known = np.sqrt(np.mean((target - columns @ [beta, eta]) ** 2))
    # Cauchy–Schwarz, about the fit: how far the rest could have moved either number.
    inverse = np.linalg.inv(columns.T @ columns / len(target))
    bound = rest * np.sqrt(np.diag(inverse)) + 1e-6 * np.array([1, eta])
    off = np.abs(fitted - [beta, eta])
    wrong = bool(np.any(off > bound)) or known > 0.3
    sentence = (
        f"Eq. 1 is left with {known:.1e} of the updates at the stated η and β; its best fit is "
        f"β = {fitted[0]:.4f} (stated {beta:g}) and η = {fitted[1]:.4g} (stated {eta:g})"
    )
    if rest > 0.3:
        sentence += "; no η and β make it heavy ball: another optimiser, or another convention"
    used = float(np.clip(fitted[0], 0, 0.9999)) if wrong and rest <= 0.3 else beta
    found = Finding("momentum", float(fitted[0]), float(bound[0]), 0.0 if wrong else 1.0, sentence)
    return found, used


def _from_weights(
    recording: Recording, laws: Sequence[theory.Noise], law_known: bool, parabola: bool
) -> tuple[Finding, float]:
    beta = recording.momentum
    found, error = _slope(recording)
    if parabola:
        expected = np.array([_expected_slope(recording, law) for law in laws])
        nearest = expected[np.argmin(np.abs(found - expected))]
    else:
        flat = [_expected_slope(recording._replace(curvatures=None), law) for law in laws]
        nearest = float(np.clip(found, min(flat), beta))
    z = (found - nearest) / error
    best = float(np.clip(beta + found - nearest, 0, 0.9999))
    p = float(2 * stats.norm.sf(abs(z)))
    sentence = (
        f"the updates follow each other as for β = {best:.4f} ± {error:.4f} (stated {beta:g}; η is "
        f"not seen in weights alone)"
    )
    if not law_known:
        sentence += ", under the law of the noise that suits the stated β best"
    found_beta = best if p * len(WORDS) < LEVEL else beta
    return Finding("momentum", best, error, p, sentence), found_beta


def _slope(recording: Recording) -> tuple[float, float]:
    """Regression of v_k on v_{k−1} beside time and weight, and its error; bias of order 1/T off.

    Half-panel jackknife: twice the slope of the whole less the mean of both halves'.
    """
    T = len(recording.updates)
    half = T // 2
    whole, error = _regressed(recording, slice(0, T))
    halves = [_regressed(recording, part)[0] for part in (slice(0, half), slice(half, T))]
    return 2 * whole - float(np.mean(halves)), error


def _regressed(recording: Recording, part: slice) -> tuple[float, float]:
    v, theta = recording.updates[part], recording.weights[:-1][part]
    later, before, x = v[1:], v[:-1], theta[1:]
    x = (x - x.mean(axis=0)) / x.std(axis=0)
    time = np.polynomial.legendre.legvander(np.linspace(-1, 1, len(x)), _TIMES)
    slopes, rests = [], []
    for i in range(v.shape[1]):
        beside = np.linalg.qr(np.column_stack([time, *(x[:, i] ** n for n in (1, 2, 3))]))[0]
        one, other = (y - beside @ (beside.T @ y) for y in (before[:, i], later[:, i]))
        slopes.append(one @ other / (one @ one))
        rests.append(other - slopes[-1] * one)
    b = float(np.mean(slopes))
    k_eff = statistics.effective_directions(np.array(rests).T)
    return b, float(np.sqrt((1 - min(b, 0.999) ** 2) / len(x) / k_eff))


def _expected_slope(recording: Recording, law: theory.Noise) -> float:
    """What a parabola makes of it: [c(1)/σ_v² + 1/2τ]/[1 − 1/2τ], c(1) = cov(v_k, v_{k−1}).

    From cov(θ_{k−1}, v_{k−1}) = −cov(θ_{k−1}, v_k) = ½σ_v²; β for white noise, less if the noise
    is anti-correlated.
    """
    eta, beta = recording.learning_rate, recording.momentum
    T, k = recording.updates.shape
    lam = np.zeros(k) if recording.curvatures is None else recording.curvatures
    lam = np.where(eta * lam < 2 * (1 + beta), lam, 0.0)
    lam = np.maximum(lam, 1e-3 * (1 - beta) / T / eta)
    tau = theory.correlation_time(lam, eta, beta, law)
    c = theory.velocity_autocovariance(lam, eta, beta, law, 1)
    return float(np.mean((c[1] / c[0] + 0.5 / tau) / (1 - 0.5 / tau)))
