"""The sampling law of a data loader, read off the indices that it yielded.

Beyond the paper. `theory.from_indices` estimates correlations; this looks at the orders themselves,
which tell more: one epoch without a repetition excludes independent draws, for ever.
"""

from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from antisgd import display, inputs, theory
from antisgd.audit.orders import order_p_values, two_sided

__all__ = ["IndexLaw", "law_of_indices"]

# A stream is called by a tabulated name unless one that is so named would look like it only once
# in a thousand times.
LEVEL = 1e-3
_WORDS = {
    "without_replacement": "every example once an epoch, in a new order each time",
    "drop_last": "a new order each epoch, the examples beyond the last whole batch left out",
    "spanning_batches": "a new order each pass, batches reaching over from one pass into the next",
    "shuffle_once": "the same batches in every epoch",
    "flip_flop": "every second epoch runs the one before it backwards",
    "with_replacement": "independent draws",
    "independent_batches": "independent batches of distinct examples",
    "windowed": "orders that are not independent and uniform, as of a shuffle buffer",
    "uneven": "some examples drawn more often than others",
}


class IndexLaw(NamedTuple):
    """What a stream of indices is.

    Attributes:
        name: a function of `antisgd.theory`, or "windowed" or "uneven", which no closed form has.
        others: names that the stream cannot be told from.
        noise: its law; of a windowed shuffle the one that `theory.from_indices` estimates, or
            None where it refuses.
        steps_per_epoch: M, rounded up where N/S is no integer.
        first_epoch: the step at which the first whole epoch begins; 0 where there are none.
        p_value: of the tests that the name passed, or of the one that "windowed" and "uneven"
            failed, times their number.
        sentence: what was found, in words.
    """

    name: str
    others: tuple[str, ...]
    noise: theory.Noise | None
    steps_per_epoch: int
    first_epoch: int
    p_value: float
    sentence: str

    def __repr__(self) -> str:
        return display.described(self)


def law_of_indices(indices: Any, num_examples: int) -> IndexLaw:
    """Names the sampling law of a stream of batches.

    Epochs are looked for wherever they may begin: stretches of N examples (or of ⌊N/S⌋ batches)
    without a repetition, all over the stream. Where there are such, the orders are tested for
    being independent and uniform (`orders.order_p_values`); where there are none, batches for
    repetitions within them, the examples for being used evenly, and batches that follow each other
    for having as many examples in common as chance has it.

    Args:
        indices: [steps, batch], −1 (or any negative number) in the unused places.
        num_examples: N.

    Raises:
        ValueError: indices that are no integers [steps, batch] or reach beyond N, an empty batch,
            or less than two epochs.
    """
    N = inputs.count("num_examples", num_examples, 2)
    found = np.asarray(indices)
    if found.ndim != 2 or found.dtype.kind not in "iu":
        raise ValueError("indices must be integers [steps, batch], negative in unused places")
    used = found >= 0
    sizes = used.sum(axis=1)
    if sizes.min() < 1 or found.max() >= N:
        raise ValueError(f"every step needs an example or more, and none beyond N = {N}")
    S, examples = int(sizes.max()), found[used].astype(np.int64)
    if len(examples) < 2 * N:
        raise ValueError(f"{len(examples)} indices are less than two epochs of {N} examples")
    for name, length, step in _epoch_lengths(sizes, N):
        offset = _offset(examples, length, step)
        if offset is not None:
            return _of_epochs(name, found, sizes, examples[offset:], length, offset, N)
    return _of_draws(found, sizes, examples, S, N)


def _epoch_lengths(sizes: np.ndarray, N: int) -> list[tuple[str, int, int]]:
    """Name, examples of an epoch and multiples at which one may begin, for what S leaves open."""
    S = int(sizes.max())
    whole, rest = divmod(N, S)
    if np.any(sizes != S):
        return [("without_replacement", N, 1)]
    if not rest:
        return [("without_replacement", N, S)]
    return [("spanning_batches", N, 1), ("drop_last", whole * S, S)]


def _offset(examples: np.ndarray, length: int, step: int) -> int | None:
    """Where the first epoch begins, if from there on every one is without a repetition."""
    order = np.argsort(examples, kind="stable")
    same = examples[order][1:] == examples[order][:-1]
    before = np.full(len(examples), -1)
    before[order[1:][same]] = order[:-1][same]
    # A stretch has no repetition if the nearest earlier twin of all its members lies before it.
    latest = np.maximum.accumulate(before)
    starts = np.arange(len(examples) - length + 1)
    whole = latest[starts + length - 1] < starts
    for offset in range(0, length, step):
        if len(examples) - offset < length or (offset and latest[offset - 1] >= 0):
            break
        tail = offset + (len(examples) - offset) // length * length
        if whole[offset::length].all() and (tail == len(examples) or latest[-1] < tail):
            return offset
    return None


def _of_epochs(
    name: str, found: np.ndarray, sizes: np.ndarray, examples: np.ndarray, length: int,
    offset: int, N: int,
) -> IndexLaw:  # fmt: skip
    S = int(sizes.max())
    M = length // S if name == "drop_last" else -(-N // S)
    epochs = examples[: len(examples) // length * length].reshape(-1, length)
    places = np.full((len(epochs), N), M)
    batch = np.arange(length) // S
    for row, order in zip(places, epochs, strict=True):
        row[order] = batch
    first = int(np.searchsorted(np.cumsum(sizes), offset, side="right")) if offset else 0
    p, regular = 1.0, _regular(epochs, places)
    if regular:
        name = regular
    else:
        p_values = order_p_values(places)
        p = min(1.0, len(p_values) * min(p_values.values()))
    if p < LEVEL:
        test = min(p_values, key=lambda key: p_values[key])
        why = f"; the test for a {test} gives p = {p_values[test]:.1g}"
        return IndexLaw(
            "windowed", (), _estimated(found, N, M), M, first, p, _WORDS["windowed"] + why
        )
    sentence = f"{_WORDS[name]} ({len(epochs)} whole epochs seen)"
    return IndexLaw(name, (), tabulated(name, N, S), M, first, p, sentence)


def _regular(epochs: np.ndarray, places: np.ndarray) -> str | None:
    """Orders that repeat, forwards or backwards, exactly."""
    if np.array_equal(places[1:], places[:-1]):
        return "shuffle_once"
    for phase in (0, 1):
        there, back = epochs[phase:-1:2], epochs[phase + 1 :: 2]
        batches, mirrored = places[phase:-1:2], places[phase + 1 :: 2]
        by_batch = len(batches) and np.array_equal(mirrored, places.max() - batches)
        if by_batch or (len(there) and np.array_equal(back, there[:, ::-1])):
            return "flip_flop"
    return None


def _of_draws(
    found: np.ndarray, sizes: np.ndarray, examples: np.ndarray, S: int, N: int
) -> IndexLaw:
    """Streams without epochs."""
    ordered = np.sort(np.where(found < 0, -1 - np.arange(found.shape[1]), found), axis=1)
    twins = int(np.sum(ordered[:, 1:] == ordered[:, :-1]))
    expected = float(np.sum(sizes * (sizes - 1.0)) / 2 / N)
    distinct = twins == 0 and np.exp(-expected) < LEVEL
    name = "independent_batches" if distinct else "with_replacement"
    others = ("independent_batches",) if twins == 0 and not distinct else ()
    uses = np.bincount(examples, minlength=N)
    free = 1 - S / N if distinct else 1 - 1 / N
    evenness = np.sum((uses - uses.mean()) ** 2) / uses.mean() / free * (1 - 1 / N)
    lower, upper = stats.chi2.cdf(evenness, N - 1), stats.chi2.sf(evenness, N - 1)
    p_values = {"use": two_sided(lower, upper), "neighbours": _neighbours(found, sizes, N, free)}
    if not distinct:
        counts = stats.poisson(expected)
        p_values["twins"] = two_sided(counts.cdf(twins), counts.sf(twins - 1))
    p = min(1.0, len(p_values) * min(p_values.values()))
    M = -(-N // S)
    if p >= LEVEL:
        sentence = f"{_WORDS[name]} ({twins} repetitions within batches, {expected:.3g} expected)"
        return IndexLaw(name, others, tabulated(name, N, S), M, 0, p, sentence)
    uneven = p_values["use"] < LEVEL and upper < lower
    name = "uneven" if uneven else "windowed"
    spread = np.sqrt(evenness / (N - 1))
    why = f"; uses of the examples scatter {spread:.2g} times as much as chance has it"
    noise = None if uneven else _estimated(found, N, M)
    return IndexLaw(name, (), noise, M, 0, p, _WORDS[name] + why)


def _neighbours(found: np.ndarray, sizes: np.ndarray, N: int, free: float) -> float:
    """p-value of the examples that batches have in common with the next."""
    steps = len(sizes)
    labels = found + N * np.arange(steps)[:, None]
    mine, counts = np.unique(labels[found >= 0], return_counts=True)
    shifted = mine + N
    at = np.searchsorted(mine, shifted)
    at[at == len(mine)] = 0
    common = np.sum((counts * counts[at])[mine[at] == shifted])
    expected = float(np.sum(sizes[1:] * sizes[:-1]) / N)
    z = (common - expected) / np.sqrt(expected) / free
    return float(2 * stats.norm.sf(abs(z)))


def tabulated(name: str, num_examples: int, batch_size: int) -> theory.Noise:
    """The closed form of a named law."""
    N, S = num_examples, batch_size
    if name == "without_replacement":
        return theory.partial_last(N, S)
    if name in ("shuffle_once", "flip_flop"):
        return getattr(theory, name)(-(-N // S), S)
    return getattr(theory, name)(N, S)


def _estimated(found: np.ndarray, N: int, M: int) -> theory.Noise | None:
    """The law of a stream that no closed form has, as far as it can be estimated."""
    rows = [row[row >= 0] for row in found]
    try:
        return theory.from_indices(rows, N, min(2 * M, len(rows) // 2))
    except ValueError:
        return None
