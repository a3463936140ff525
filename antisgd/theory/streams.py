"""The noise law of a stream of examples that nobody tabulated, read off its indices.

Beyond the paper. What decides the variance in flat directions is the noise at zero frequency, and
a sum of L estimated correlations is too rough for it: it is read off how evenly long stretches of
the stream use the examples, which grows by S(0) a step once it is longer than the correlations.
"""

from typing import Any, NamedTuple

import numpy as np

from antisgd import inputs
from antisgd.theory import noise as laws
from antisgd.theory.noise import Noise

__all__ = ["from_indices"]

# Stretches at which evenness is measured; they begin spread over all phases of an epoch.
_STRETCHES = 64
_GOLDEN = (5**0.5 - 1) / 2


class _Stream(NamedTuple):
    """Examples one after the other [n], the step of each [n], and the sizes of the batches [T]."""

    examples: np.ndarray
    steps: np.ndarray
    sizes: np.ndarray


def from_indices(indices: Any, num_examples: int, max_lag: int, weights: Any = None) -> Noise:
    """The law of a stream of examples that nobody tabulated, averaged over phase.

    R(h) = C₀·[mean_k Σ_n c_{k,n} c_{k+h,n} / S² − 1/N] for batch counts c (beyond the paper): the
    covariance of batch means of exchangeable per-example gradients with covariance C₀.

    Args:
        indices: the examples of each step, for example of a data loader: [steps, batch], or a
            list of arrays where the batches differ in size.
        num_examples: N.
        max_lag: L, lags kept; correlations beyond it must vanish.
        weights: [steps, batch], zero in the unused places, as in a `sampling.Schedule`.

    Returns:
        A law whose `white` is what is left at zero frequency, with its error `white_error`, and
        whose `closed_form` names the tabulated law that the stream is consistent with, or None.
        A stream that repeats is `shuffle_once`, its lags listed too.

    Raises:
        ValueError: indices outside [0, N), fewer steps than 2·max_lag, batches without noise, or
            correlations that reach beyond max_lag or leave a negative variance.
    """
    num_examples, max_lag = (
        inputs.count("num_examples", num_examples), inputs.count("max_lag", max_lag, 0)
    )  # fmt: skip
    stream = _read(indices, weights, num_examples)
    steps = len(stream.sizes)
    if steps < max(2 * max_lag, 3):
        raise ValueError(f"{steps} steps are too few for {max_lag} lags: give twice as many steps")
    covariance, errors = _covariances(stream, num_examples, max_lag)
    variance = float(covariance[0])
    if variance <= 1e-12:
        raise ValueError("every batch holds all examples: there is no noise, and so no law of it")
    r, r_errors = covariance[1:] / variance, errors[1:] / variance
    period = _repeats(stream, num_examples)
    if period:
        law = laws.shuffle_once(period)._replace(correlations=r, variance=variance)
        return law._replace(closed_form=f"shuffle_once({period})")
    at_zero = _at_zero_frequency(stream, num_examples, max_lag)
    white, error = (float(part) / variance for part in at_zero)
    _check_tail(white, error, r, r_errors, steps)
    white = max(white, 0.0) if max_lag else 1.0
    if max_lag:
        # The sum of the lags is known better than its terms: they share what it lacks.
        r = r + (white - 1 - 2 * r.sum()) / (2 * max_lag)
    known = np.append(covariance, at_zero[0]), np.append(errors, at_zero[1])
    name = _closed_form(*known, stream, num_examples)
    return Noise(
        white, 0, correlations=r, variance=variance, white_error=error, closed_form=name
    )  # fmt: skip


def _read(indices: Any, weights: Any, num_examples: int) -> _Stream:
    rows = [np.asarray(row) for row in indices]
    if not rows or any(row.ndim != 1 or row.dtype.kind not in "iu" for row in rows):
        raise ValueError("indices must be integers [steps, batch] or a list of arrays of them")
    if weights is not None:
        used = np.asarray(weights)
        if used.shape != np.shape(indices) or not np.isin(used, (0, 1)).all():
            raise ValueError("weights must be 0 or 1 for each place of the batches")
        rows = [row[use > 0] for row, use in zip(rows, used, strict=True)]
    sizes = np.array([len(row) for row in rows])
    if sizes.min() < 1:
        raise ValueError(f"step {int(sizes.argmin())} has no examples: leave it out")
    examples = np.concatenate(rows).astype(np.int64)
    if examples.min() < 0 or examples.max() >= num_examples:
        raise ValueError(f"the indices must lie in [0, {num_examples})")
    return _Stream(examples, np.arange(len(rows)).repeat(sizes), sizes)


def _covariances(stream: _Stream, num_examples: int, max_lag: int) -> tuple[np.ndarray, np.ndarray]:
    """R(h) in units of C₀ and its error, h = 0 … max_lag, from equal pairs h steps apart.

    The error is that of counts of rare events; a pair within a batch is met from both ends.
    """
    shares = 1 / stream.sizes
    order = np.argsort(stream.examples, kind="stable")
    examples, times = stream.examples[order], stream.steps[order]
    total, squares = np.zeros(max_lag + 1), np.zeros(max_lag + 1)
    for shift in range(1, len(order)):
        same = examples[shift:] == examples[:-shift]
        first, second = times[:-shift][same], times[shift:][same]
        near = second - first <= max_lag
        if not near.any():
            break
        lag, pair = (second - first)[near], (shares[first] * shares[second])[near]
        pair = np.where(lag == 0, 2 * pair, pair)
        total += np.bincount(lag, pair, max_lag + 1)
        squares += np.bincount(lag, pair**2, max_lag + 1)
    total[0] += shares.sum()
    pairs = len(stream.sizes) - np.arange(max_lag + 1)
    return total / pairs - 1 / num_examples, np.sqrt(squares) / pairs


def _at_zero_frequency(stream: _Stream, num_examples: int, max_lag: int) -> tuple[float, float]:
    """S(0) in units of C₀ and its error over the examples.

    Σ_n (use of example n in W steps − W/N)² is W·S(0) + const for W > L: its slope between two
    lengths.
    """
    steps = len(stream.sizes)
    short = max_lag + 1
    long = max(steps // 2, short + 1)
    ends = np.concatenate([[0], np.cumsum(stream.sizes)])
    shares = (1 / stream.sizes)[stream.steps]
    starts = np.unique(((np.arange(_STRETCHES) * _GOLDEN) % 1 * (steps - long + 1)).astype(int))
    unevenness = np.zeros((2, num_examples))
    for start in starts:
        for row, length in enumerate((short, long)):
            part = slice(ends[start], ends[start + length])
            use = np.bincount(stream.examples[part], shares[part], num_examples)
            unevenness[row] += (use - length / num_examples) ** 2 / len(starts)
    growth = (unevenness[1] - unevenness[0]) / (long - short)
    return float(growth.sum()), float(growth.std() * num_examples**0.5)


def _check_tail(
    white: float, error: float, r: np.ndarray, r_errors: np.ndarray, steps: int
) -> None:
    if white < -4 * error - 1e-9:
        raise ValueError(
            f"the noise left at zero frequency comes out negative, {white:.2g} ± {error:.1g}: the "
            f"correlations reach beyond max_lag={len(r)}; raise it, or give more steps"
        )
    summed = 1 + 2 * r.sum()
    allowed = 6 * np.hypot(error, 2 * np.sqrt(np.sum(r_errors**2))) + 4 * (len(r) + 1) / steps
    if abs(white - summed) > allowed:
        raise ValueError(
            f"the correlations up to max_lag={len(r)} sum up to {summed:.2g} at zero frequency, "
            f"long stretches of the stream say {white:.2g} ± {error:.1g}: raise max_lag"
        )


def _repeats(stream: _Stream, num_examples: int) -> int:
    """M if every batch comes back after M = N/S steps, else 0."""
    size, steps = int(stream.sizes[0]), len(stream.sizes)
    period = num_examples // size
    if num_examples % size or np.any(stream.sizes != size) or not 2 <= period <= steps // 2:
        return 0
    batches = np.sort(stream.examples.reshape(steps, size), axis=1)
    return period if np.array_equal(batches[period:], batches[:-period]) else 0


def _closed_form(
    found: np.ndarray, errors: np.ndarray, stream: _Stream, num_examples: int
) -> str | None:
    """The tabulated law nearest to R(0), …, R(L), S(0), if it lies within their errors."""
    allowed = np.hypot(errors, 2 * found[0] / len(stream.sizes))
    lags = np.arange(len(found) - 1)
    best, nearest = None, 2.0
    for name, law in _candidates(stream.sizes, num_examples).items():
        expected = law.variance * np.append(laws.autocorrelation(law, lags), law.white)
        deviations = (found - expected) / allowed
        distance = float(np.mean(deviations**2))
        if distance < nearest and np.abs(deviations).max() < 5:
            best, nearest = name, distance
    return best


def _candidates(sizes: np.ndarray, num_examples: int) -> dict[str, Noise]:
    size, N = int(sizes.max()), num_examples
    made: dict[str, Noise] = {}
    ragged = bool(np.any(sizes != size))
    mean_share = float(np.mean(1 / sizes))
    made["with_replacement()"] = Noise(1.0, 0, variance=mean_share * (1 - 1 / N))
    made["independent_batches()"] = Noise(1.0, 0, variance=mean_share - 1 / N)
    whole, rest = divmod(N, size)
    if ragged and rest and whole >= 1:
        made[f"partial_last({N}, {size})"] = laws.partial_last(N, size)
    if not ragged and rest and whole >= 1:
        made[f"spanning_batches({N}, {size})"] = laws.spanning_batches(N, size)
    if not ragged and rest and whole >= 2:
        made[f"drop_last({N}, {size})"] = laws.drop_last(N, size)
    if not ragged and not rest and whole >= 2:
        made[f"without_replacement({whole})"] = laws.without_replacement(whole, size)
        made[f"flip_flop({whole})"] = laws.flip_flop(whole, size)
    return made
