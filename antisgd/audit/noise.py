"""The noise of a recording: its autocorrelation beside the law, and how many examples carry it."""

from typing import NamedTuple

import numpy as np
from scipy import signal, stats

from antisgd import statistics, theory
from antisgd.audit.findings import Finding, untested
from antisgd.audit.recording import Recording

__all__ = [
    "NoiseSeries",
    "carriers_finding",
    "few",
    "gradients",
    "law_finding",
    "mean_autocorrelation",
    "noise_series",
]

_BLOCKS = 10
# Of the kurtosis, which is local in time. Few examples are few if they are surely not this many
# times as many as few.
_PARTS, _MANY = 20, 3


class NoiseSeries(NamedTuple):
    """The noise as far as the recording has it.

    Attributes:
        values: [T', k'], in units of the gradient.
        start: its first step in the recording.
        exact: recorded, and not made from the weights and the curvatures.
        directions: which of the k, bool [k].
    """

    values: np.ndarray
    start: int
    exact: bool
    directions: np.ndarray


def gradients(recording: Recording, beta: float) -> tuple[np.ndarray, int]:
    """Minibatch gradients, recorded or by Eq. 1 from the updates, and their first step."""
    if recording.gradients is not None:
        return recording.gradients, 0
    v = recording.updates
    return (beta * v[:-1] - v[1:]) / recording.learning_rate, 1


def noise_series(recording: Recording, beta: float, crossover: float) -> NoiseSeries | None:
    """The recorded noise, else gradients less λ(θ − θ̄) and their mean; None without curvatures.

    From curvatures only in directions below λ_cross, if there are three such: there the restoring
    part is small beside the noise, and so is what is wrong with it.
    """
    k = recording.updates.shape[1]
    if recording.noise is not None:
        return NoiseSeries(recording.noise, 0, True, np.ones(k, bool))
    if recording.curvatures is None:
        return None
    g, start = gradients(recording, beta)
    flat = np.abs(recording.curvatures) < crossover
    used = flat if flat.sum() >= min(3, k) else np.ones(k, bool)
    theta = recording.weights[start:-1]
    n = (g - recording.curvatures * (theta - theta.mean(axis=0)))[:, used]
    return NoiseSeries(n - n.mean(axis=0), start, False, used)


def law_finding(
    name: str, series: NoiseSeries | None, law: theory.Noise | None, steps_per_epoch: int,
    rival: theory.Noise | None = None,
) -> Finding:  # fmt: skip
    """Does the autocorrelation of the noise follow the law?

    â = Σ_h r̂(h)r_M(h)/Σ_h r_M(h)², h = 1 … M, the share of Eq. 2 that is in it: 1 if every example
    comes once an epoch, 0 if draws are independent, below 1 if something beside the sampling makes
    noise (augmentation, dropout). Errors from ten blocks of time, of all directions together, so
    that it does not matter how directions depend on each other.

    Args:
        name: "sampling" where no indices say the law, else "noise".
        series: the noise.
        law: what is expected.
        steps_per_epoch: M.
        rival: the finding counts only if the noise is nearer to this law.
    """
    M = steps_per_epoch
    if series is None:
        return untested(name, "not tested: neither the noise nor curvatures were recorded")
    if law is None or law.periodic or M < 3:
        return untested(name, "not tested: no closed form says what the noise should be")
    r_M = theory.autocorrelation(theory.without_replacement(M), np.arange(1, M + 1))
    share, error = _share(series.values, r_M)
    expected, removed = _expected(law, r_M), 0.0
    if not series.exact:
        removed = -np.sum(r_M) / np.sum(r_M**2) / len(series.values)
        expected += law.white * removed
    z = (share - expected) / error
    p = float(2 * stats.t.sf(abs(z), _BLOCKS - 1))
    sentence = (
        f"the noise has {share:.3f} ± {error:.3f} of the anti-correlation of an epoch "
        f"(expected {expected:.3f})"
    )
    if rival is not None:
        other = _expected(rival, r_M) + rival.white * removed
        if abs(share - other) > abs(share - expected):
            p = max(p, 0.5)
        sentence += f"; the other kind of sampling would have {other:.3f}"
    return Finding(name, float(share - expected), float(error), p, sentence)


def _expected(law: theory.Noise, r_M: np.ndarray) -> float:
    r = theory.autocorrelation(law, np.arange(1, len(r_M) + 1))
    return float(r @ r_M / (r_M @ r_M))


def _share(n: np.ndarray, r_M: np.ndarray) -> tuple[float, float]:
    """â and its standard error: products of the noise with its own future, weighted by r_M."""
    M = len(r_M)
    ahead = signal.fftconvolve(n, r_M[::-1, None], axes=0)[M : len(n)]
    products = np.mean(n[: len(n) - M] * ahead / np.mean(n**2, axis=0), axis=1)
    length = len(products) // _BLOCKS
    blocks = products[: length * _BLOCKS].reshape(_BLOCKS, length).mean(axis=1) / (r_M @ r_M)
    return float(blocks.mean()), float(blocks.std(ddof=1) / np.sqrt(_BLOCKS))


def few(num_examples: int) -> float:
    """So many examples are few: one in a hundred, but ten at least (a convention)."""
    return max(10.0, num_examples / 100)


def carriers_finding(recording: Recording, beta: float, steps_per_epoch: int) -> Finding:
    """How many examples carry the noise: the median over directions of a participation number.

    With per-example gradients P = (Σ_n d_n²)²/Σ_n d_n⁴, d_n the deviation from their mean: N/3 for
    Gaussian ones, 3 if three carry all. Without, from the kurtosis of the noise: a batch is a sum
    of rare events then, of excess kurtosis M/P; its error from ten blocks of time. (The gradients
    do for the noise: the restoring part only adds what is Gaussian.)
    """
    limit = few(recording.num_examples)
    if recording.example_gradients is not None:
        d = recording.example_gradients - recording.example_gradients.mean(axis=0)
        number = float(np.median(np.sum(d**2, axis=0) ** 2 / np.sum(d**4, axis=0)))
        p, error = float(number > limit), np.nan
        by = "by the per-example gradients"
    else:
        excess, error_excess = _excess(recording, beta)
        number = steps_per_epoch / max(excess, 1e-9)
        error = number * error_excess / max(excess, 1e-9)
        t = (excess - steps_per_epoch / (_MANY * limit)) / error_excess
        p = float(stats.t.sf(t, _PARTS - 1)) if number <= limit else 1.0
        by = f"by the kurtosis of the noise, 3 + {excess:.2f} ± {error_excess:.2f}"
    shown = f"as many as {number:.1f} equal ones" if number < recording.num_examples else "all"
    sentence = (
        f"{shown} of {recording.num_examples} examples carry the noise, {by} (few: {limit:g})"
    )
    return Finding("carriers", number, error, p, sentence)


def _excess(recording: Recording, beta: float) -> tuple[float, float]:
    source = recording.noise
    n = gradients(recording, beta)[0] if source is None else source
    n = n - n.mean(axis=0)
    length = len(n) // _PARTS
    blocks = n[: length * _PARTS].reshape(_PARTS, length, -1)
    fourth, second = np.mean(blocks**4, axis=1), np.mean(blocks**2, axis=1)
    whole = np.median(fourth.mean(axis=0) / second.mean(axis=0) ** 2)
    left_out = [
        np.median(np.delete(fourth, b, 0).mean(axis=0) / np.delete(second, b, 0).mean(axis=0) ** 2)
        for b in range(_PARTS)
    ]
    return float(whole - 3), float(np.sqrt(_PARTS - 1) * np.std(left_out))


def mean_autocorrelation(series: NoiseSeries, max_lag: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean over directions and the deviation that independent noise would have, [max_lag + 1]."""
    r, _ = statistics.mean_autocorrelation(series.values, max_lag)
    k = statistics.effective_directions(series.values)
    return r, statistics.independent_noise_band(len(series.values), k, max_lag)
