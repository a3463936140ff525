"""Is it heavy ball with the stated η and β? From Eq. 1 where gradients are there, else from r(1)."""

import numpy as np
from scipy import stats

from antisgd import statistics, theory
from antisgd.audit.findings import Finding
from antisgd.audit.recording import Recording

__all__ = ["momentum_finding"]


def momentum_finding(
    recording: Recording, noise: theory.Noise | None, steps_per_epoch: int
) -> tuple[Finding, float]:
    """Whether v_k = βv_{k−1} − ηg_k with the stated numbers, and the β that the weights show.

    With gradients (or noise) recorded η and β are fitted to Eq. 1, which is an identity: what is
    left of it bounds how far they can be off, |β̂ − β| ≤ rms(rest)/rms(v), and beyond that bound the
    statement is wrong. With weights alone e_k = v_k − βv_{k−1} is −η times the gradient, whose
    correlation at lag 1 is the noise's, and each 0.01 of a wrong β adds 0.01 to it.

    Args:
        recording: as `recording.checked` returns it.
        noise: the law read off the indices; None if there are none, or if it has no closed form:
            then any correlation from −1/(M−1) to 0 is allowed.
        steps_per_epoch: M.
    """
    driving = recording.gradients if recording.gradients is not None else recording.noise
    if driving is not None:
        return _from_gradients(recording, driving)
    return _from_weights(recording, noise, steps_per_epoch)


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
    recording: Recording, noise: theory.Noise | None, steps_per_epoch: int
) -> tuple[Finding, float]:
    beta = recording.momentum
    theta, v = recording.weights[1:-1], recording.updates
    later, before = (_without(x, theta) for x in (v[1:], v[:-1]))
    low, high = _first_correlation(noise, steps_per_epoch)
    # Lag 1 of later − β·before is a quotient of quadratics in β, averaged over directions.
    pairs = [(later[1:], later[:-1]), (later[1:], before[:-1]), (before[1:], later[:-1]),
             (before[1:], before[:-1])]  # fmt: skip
    ll, lb, bl, bb = (np.sum(a * b, axis=0) for a, b in pairs)
    squares = [np.sum(a * b, axis=0) for a, b in ((later, later), (later, before), (before, before))]

    def lag_one(b: float) -> float:
        above = ll - b * (lb + bl) + b**2 * bb
        return float(np.mean(above / (squares[0] - 2 * b * squares[1] + b**2 * squares[2])))

    error = 1 / np.sqrt(len(later) * statistics.effective_directions(later - beta * before))
    r = lag_one(beta)
    distance = max(low - r, r - high, 0.0)
    p = float(2 * stats.norm.sf(distance / error)) if distance else 1.0
    grid = np.linspace(0, 0.999, 1000)
    middle = (low + high) / 2
    best = float(grid[np.argmin([abs(lag_one(b) - middle) for b in grid])])
    sentence = (
        f"v_k − βv_(k−1) has the correlation {r:+.4f} ± {error:.4f} at lag 1 where the sampling "
        f"gives {middle:+.4f}; β = {best:.3f} would give that (stated {beta:g})"
    )
    return Finding("momentum", r - middle, error, p, sentence), beta if distance < 5 * error else best


def _first_correlation(noise: theory.Noise | None, steps_per_epoch: int) -> tuple[float, float]:
    if noise is None or steps_per_epoch < 2:
        return -1 / max(steps_per_epoch - 1, 1), 0.0
    r = float(theory.autocorrelation(noise, np.array([1]))[0])
    return r, r
