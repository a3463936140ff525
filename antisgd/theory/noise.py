"""What a sampling scheme does to the noise: its autocovariance by lag (Eq. 2 and beyond the paper).

A law is a value. N examples, S a batch, C₀ the per-example gradient covariance (Sec. 2); lags are
update steps, and averages run over the position within the epoch.
"""

import math
from typing import NamedTuple

import numpy as np

from antisgd import display, inputs

__all__ = [
    "Noise",
    "anti_pgd",
    "autocorrelation",
    "checked_law",
    "drop_last",
    "flip_flop",
    "independent_batches",
    "partial_last",
    "shuffle_once",
    "spanning_batches",
    "uncancelled",
    "with_replacement",
    "without_replacement",
]


class Noise(NamedTuple):
    """The law of the noise of a sampling scheme.

    Either a mixture, r(h) = white·δ_h0 + (1 − white)·r_M(h) with r_M of Eq. 2 and M = period, or
    periodic with that period (`periodic`), or any finite list of correlations.

    Attributes:
        white: share of uncorrelated noise, S(0)/R(0), the noise spectrum at zero frequency.
        period: M of the reshuffled part, in steps; 0 if there is none.
        periodic: the noise repeats after `period` steps, as with one fixed order.
        correlations: r(h) for h = 1 … L if the law is no mixture, else None.
        variance: R(0), the noise variance in units of C₀; nan if N and S were not given.
        batches: sizes of the batches of an epoch where epochs are independent of one another,
            [steps an epoch]; of as many epochs as end with a batch where batches span them; None
            where epochs are not independent, or where there are none.
        num_examples: N in the unit of the sizes; more than their sum if some are left out, less if
            batches span epochs; a fraction where `uncancelled` leaves some out.
        white_error: standard error of `white`, where it was estimated.
        closed_form: the tabulated law that an estimated one is consistent with, if any.
    """

    white: float
    period: int
    periodic: bool = False
    correlations: np.ndarray | None = None
    variance: float = math.nan
    batches: np.ndarray | None = None
    num_examples: float = 0
    white_error: float = 0.0
    closed_form: str | None = None

    def __repr__(self) -> str:
        return display.described(self)


def checked_law(noise: Noise) -> Noise:
    """The law, if it is one: parts that agree and a spectrum that is nowhere negative.

    Raises:
        ValueError: something else than a law, or one that contradicts itself.
    """
    if not isinstance(noise, Noise):
        raise ValueError(
            f"noise={noise!r} is no noise law: pass for example theory.without_replacement(1000)"
        )
    steps = inputs.count("the period of the noise", noise.period, 0)
    white = inputs.number("the white share of the noise", noise.white, least=0)
    if noise.correlations is not None and not noise.periodic:
        _check_listed(noise, inputs.finite("the correlations of the noise", noise.correlations, 1))
    elif white > 1 or steps == 1 or (steps == 0 and (white != 1 or noise.periodic)):
        raise ValueError(
            f"no noise has the white share {white:g} and the period {steps}: make laws with the "
            "functions of antisgd.theory, for example without_replacement(1000)"
        )
    return noise


def _check_listed(noise: Noise, r: np.ndarray) -> None:
    rounding = 1e-9 * (1 + np.abs(r).sum())
    at_zero = 1 + 2 * r.sum()
    if abs(noise.white - at_zero) > max(rounding, 1e-6):
        raise ValueError(
            f"the noise's white share must be 1 + 2·Σ r(h) = {at_zero:.6g}, its spectrum at zero "
            f"frequency, not {noise.white:.6g}"
        )
    if noise.white_error:
        return  # Estimated lags may dip below zero: what follows from them is looked at.
    padded = np.zeros(max(4096, 4 * 2 ** int(np.ceil(np.log2(len(r) + 1)))))
    padded[0], padded[1 : len(r) + 1] = 1, 2 * r
    lowest = float(np.fft.rfft(padded).real.min())
    if lowest < -max(rounding, 1e-6):
        raise ValueError(
            f"no noise has these correlations: their spectrum falls to {lowest:.3g}; give more "
            "lags, or use a tabulated law"
        )


def _checked(num_examples: int, batch_size: int) -> tuple[int, int]:
    num_examples = inputs.count("num_examples", num_examples)
    batch_size = inputs.count("batch_size", batch_size, 0)
    if not 1 <= batch_size <= num_examples:
        raise ValueError(f"batch_size must lie in [1, {num_examples}], got {batch_size}")
    return divmod(num_examples, batch_size)


def _checked_period(steps_per_epoch: int) -> int:
    found = inputs.number("steps_per_epoch", steps_per_epoch)
    if found != int(found) or found < 2:
        raise ValueError(
            f"steps_per_epoch must be an integer of at least 2, got {steps_per_epoch}: "
            "one batch an epoch is gradient descent without noise"
        )
    return int(steps_per_epoch)


def with_replacement(num_examples: int = 0, batch_size: int = 0) -> Noise:
    """Every example drawn independently: r(h) = δ_h0 (App. G).

    With N and S given the variance is (N−1)/(NS) C₀, by (N−1)/(N−S) more than without
    replacement (beyond the paper).
    """
    if not num_examples:
        return Noise(1.0, 0)
    _checked(num_examples, batch_size)
    return Noise(1.0, 0, variance=(num_examples - 1) / (num_examples * batch_size))


def independent_batches(num_examples: int = 0, batch_size: int = 0) -> Noise:
    """Independent batches of S distinct examples each: white, R(0) = (1/S − 1/N) C₀."""
    if not num_examples:
        return Noise(1.0, 0)
    _checked(num_examples, batch_size)
    return Noise(1.0, 0, variance=1 / batch_size - 1 / num_examples)


def without_replacement(steps_per_epoch: int, batch_size: int = 0) -> Noise:
    """A fresh permutation every epoch (Eq. 2): r(h) = δ_h0 − (M−h)/(M(M−1)) for 1 ≤ h ≤ M.

    Args:
        steps_per_epoch: M = N/S, an integer ≥ 2; for N not a multiple of S see `partial_last`.
        batch_size: S, to give the variance R(0) = (1/S)(1 − 1/M) C₀.

    Raises:
        ValueError: M is not an integer ≥ 2.
    """
    period = _checked_period(steps_per_epoch)
    variance = (1 - 1 / period) / batch_size if batch_size else math.nan
    batches = np.ones(period, int)
    return Noise(0.0, period, variance=variance, batches=batches, num_examples=period)


def shuffle_once(steps_per_epoch: int, batch_size: int = 0) -> Noise:
    """One permutation for all epochs: r(h) = −1/(M−1), but 1 if M divides h (beyond the paper).

    Averaged over the permutation; a single run is not ergodic.
    """
    period = _checked_period(steps_per_epoch)
    variance = (1 - 1 / period) / batch_size if batch_size else math.nan
    return Noise(0.0, period, periodic=True, variance=variance)


def flip_flop(steps_per_epoch: int, batch_size: int = 0) -> Noise:
    """A permutation, then the same reversed, then a new one (beyond the paper).

    R(h) = (1/2M)[1_{h odd}/S − (2M−h)/N] for 1 ≤ h < 2M.
    """
    period = _checked_period(steps_per_epoch)
    h = np.arange(1, 2 * period)
    correlations = (h % 2 - (2 * period - h) / period) / (2 * period) / (1 - 1 / period)
    variance = (1 - 1 / period) / batch_size if batch_size else math.nan
    return Noise(0.0, period, correlations=correlations, variance=variance)


def drop_last(num_examples: int, batch_size: int) -> Noise:
    """Reshuffling that leaves out the N mod S examples of the ragged end (beyond the paper).

    Exactly a mixture: S(0) = ρ/(NS) of white noise and reshuffling with M = ⌊N/S⌋.
    """
    whole, rest = _checked(num_examples, batch_size)
    _checked_period(whole)
    variance = 1 / batch_size - 1 / num_examples
    white = rest / (num_examples - batch_size)
    batches = np.full(whole, batch_size)
    return Noise(white, whole, variance=variance, batches=batches, num_examples=num_examples)


def partial_last(num_examples: int, batch_size: int) -> Noise:
    """Reshuffling whose last batch is the mean over N mod S examples (beyond the paper).

    Exactly a mixture of white noise and reshuffling with M = ⌈N/S⌉.
    """
    whole, rest = _checked(num_examples, batch_size)
    if not rest:
        return without_replacement(whole, batch_size)
    steps = _checked_period(whole + 1)
    variance = (whole / batch_size + 1 / rest) / steps - 1 / num_examples
    white = 1 - whole / num_examples / variance
    batches = np.append(np.full(whole, batch_size), rest)
    return Noise(white, steps, variance=variance, batches=batches, num_examples=num_examples)


def uncancelled(noise: Noise, share: float) -> Noise:
    """The law of reshuffled noise if a share does not cancel over an epoch (beyond the paper).

    The batches of an epoch cancel only as far as the examples' gradients stay what they are while
    the weights move: white share w + (1 − w)·share, R(0) as before. In second moments that is an
    epoch that leaves examples out: N' s = 1 + (N s − 1)/(1 − share), s the mean of 1/S_m.

    Args:
        noise: the law of gradients that stay, of independent epochs.
        share: of the noise's variance, in [0, 1); `renormalisation.changing_gradients` measures it.

    Raises:
        ValueError: a law whose epochs depend on one another or that has none, or a share outside.
    """
    checked_law(noise)
    if noise.batches is None or noise.correlations is not None:
        raise ValueError(
            "only the noise of independent epochs cancels in part: pass for example "
            "without_replacement(steps_per_epoch)"
        )
    share = inputs.number("share", share, least=0)
    if share >= 1:
        raise ValueError(f"share must lie in [0, 1), got {share:g}: white noise is all of it")
    inverse = float(np.mean(1 / np.asarray(noise.batches)))
    examples = (1 + (noise.num_examples * inverse - 1) / (1 - share)) / inverse
    return noise._replace(white=noise.white + (1 - noise.white) * share, num_examples=examples)


def spanning_batches(num_examples: int, batch_size: int) -> Noise:
    """Batches cut from the endless stream of permutations, across epochs (beyond the paper).

    R(h) = −(1/NS²) mean_k Σ_e n_{k,e} n_{k+h,e}, n_{k,e} examples of epoch e in batch k.
    """
    whole, rest = _checked(num_examples, batch_size)
    if not rest:
        return without_replacement(whole, batch_size)
    batches = num_examples // math.gcd(num_examples, batch_size)
    starts = np.arange(batches) * batch_size
    overlap = []
    for h in range(whole + 3):
        overlap.append(_shared_epochs(starts, starts + h * batch_size, batch_size, num_examples))
    covariance = -np.array(overlap) / (num_examples * batch_size**2)
    variance = 1 / batch_size + covariance[0]
    return Noise(
        0.0, 0, correlations=covariance[1:] / variance, variance=variance,
        batches=np.full(batches, batch_size), num_examples=num_examples,
    )  # fmt: skip


def _shared_epochs(first: np.ndarray, second: np.ndarray, size: int, period: int) -> float:
    """Mean over batches of Σ_e n_e(first) n_e(second), batches being [start, start + size)."""
    total = np.zeros(len(first))
    for shift in range((size - 1) // period + 2):
        epoch = first // period + shift
        total += _in_epoch(first, epoch, size, period) * _in_epoch(second, epoch, size, period)
    return float(total.mean())


def _in_epoch(start: np.ndarray, epoch: np.ndarray, size: int, period: int) -> np.ndarray:
    low = np.maximum(start, epoch * period)
    return np.clip(np.minimum(start + size, (epoch + 1) * period) - low, 0, None)


def anti_pgd() -> Noise:
    """Injected noise ξ_{k+1} − ξ_k (Orvieto et al. 2022): Eq. 2 with M = 2, per variance 2σ_ξ²."""
    return Noise(0.0, 2)


def autocorrelation(noise: Noise, lags: np.ndarray) -> np.ndarray:
    """r(h) = cov(δg_k, δg_{k+h}) / cov(δg_k, δg_k) at integer lags (Eq. 2 for reshuffling)."""
    checked_law(noise)
    h = np.abs(np.asarray(lags))
    if h.dtype.kind not in "iu":
        raise ValueError(f"lags must be integers, update steps, not {h.dtype}")
    one = (h == 0).astype(np.float64)
    if noise.periodic:
        return np.where(h % noise.period == 0, 1.0, -1 / (noise.period - 1))
    if noise.correlations is not None:
        table = np.concatenate([[1.0], noise.correlations, [0.0]])
        return table[np.minimum(h, len(table) - 1)]
    if not noise.period:
        return one
    M = noise.period
    reshuffled = np.where(h == 0, 1.0, -np.clip(M - h, 0, None) / (M * (M - 1)))
    return noise.white * one + (1 - noise.white) * reshuffled
