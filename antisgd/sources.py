"""Examples larger than the device: memory-mapped arrays, or anything that is read by rows.

Microbatches, and the minibatches of a piece of a schedule, are gathered on the host in the order
that is asked for, the next by a thread while the device computes with the last. What is held at a
time is a few of them. `streaming` has the sums and the steps over such examples.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import jax
import numpy as np

from antisgd import devices, inputs, sampling

__all__ = [
    "Source", "count", "fed", "first", "gather", "identity", "microbatches", "sample",
    "steps_at_once", "streamed",
]  # fmt: skip

# Bytes of the minibatches that one program runs over; as many again are read meanwhile.
CHUNK_BYTES = 2**26
# Examples that a loss is tried on.
_TRIED = 32
# Examples of a source whose bytes are taken at a time.
_DIGESTED = 1000

_Read = TypeVar("_Read")


@dataclass(frozen=True, eq=False)
class Source:
    """Examples that are read when they are wanted: from files, an archive, a data base.

    Attributes:
        num_examples: N.
        take: rows, int [n] from 0 to N − 1 in any order → pytree of arrays [n, …]; the same
            examples for the same rows, whenever asked. Called from a thread, one call at a time.
    """

    num_examples: int
    take: Callable[[np.ndarray], Any]

    @property
    def shape(self) -> tuple[int]:
        """The leading axis [N], which stands for all arrays."""
        return (self.num_examples,)

    @property
    def ndim(self) -> int:
        """Of that shape."""
        return 1

    def __getitem__(self, rows: Any) -> Any:
        """The examples of a slice or of rows [n], a pytree of NumPy arrays."""
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(self.num_examples))
        return jax.tree.map(np.asarray, self.take(np.asarray(rows)))


def streamed(examples: Any) -> bool:
    """Whether they are read piece by piece: a `Source`, an array that is memory-mapped, or NumPy
    arrays of more than half of the memory of a device that is alone.
    """
    leaves = jax.tree.leaves(examples)
    if any(isinstance(leaf, (Source, np.memmap)) for leaf in leaves):
        return True
    limit = devices.memory() if devices.count() == 1 else None
    on_host = sum(leaf.nbytes for leaf in leaves if isinstance(leaf, np.ndarray))
    return limit is not None and on_host > limit / 2


def count(examples: Any) -> int:
    """N, wherever they lie."""
    return jax.tree.leaves(examples)[0].shape[0]


def gather(examples: Any, rows: np.ndarray) -> Any:
    """The examples of rows of any shape, as NumPy arrays of that shape and what follows it.

    Raises:
        ValueError: a source that gives other than one example for each row.
    """
    flat = np.ravel(rows)
    # An index copies out of a mapped file, whose type the copy would keep.
    found = jax.tree.map(lambda leaf: leaf[flat], examples)
    counts = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(found)}
    if counts != {(flat.size,)}:
        raise ValueError(
            f"the source gave arrays of {sorted(counts)} examples for {flat.size} rows"
        )
    return jax.tree.map(
        lambda leaf: np.asarray(leaf).reshape(*np.shape(rows), *leaf.shape[1:]), found
    )


def first(examples: Any, number: int) -> Any:
    """The first so many; of those that are read as NumPy arrays."""
    few = jax.tree.map(lambda leaf: leaf[:number], examples)
    return jax.tree.map(np.array, few) if streamed(examples) else few


def sample(examples: Any) -> Any:
    """A few of them, spread evenly, to try a loss on; all where they are on the device."""
    if not streamed(examples):
        return examples
    N = count(examples)
    return gather(examples, np.linspace(0, N - 1, min(N, _TRIED)).astype(int))


def identity(examples: Any) -> Any:
    """What a fingerprint is taken of: arrays themselves; of a source digests of all its rows."""
    if not any(isinstance(leaf, Source) for leaf in jax.tree.leaves(examples)):
        return examples
    digest = hashlib.sha256()
    for batch in microbatches(examples, _DIGESTED):
        for leaf in jax.tree.leaves(batch):
            digest.update(f"{leaf.dtype.str}{leaf.shape}".encode())
            digest.update(np.ascontiguousarray(leaf).data)
    return np.frombuffer(digest.digest(), np.uint8)


def steps_at_once(examples: Any, places: int, most: int) -> int:
    """Steps of so many places whose minibatches fill CHUNK_BYTES, `most` at most and one at least.

    All of `most` where the examples are on the device.
    """
    if not streamed(examples):
        return most
    one = sum(leaf.nbytes for leaf in jax.tree.leaves(gather(examples, np.zeros(1, int))))
    return int(np.clip(CHUNK_BYTES // (one * places), 1, most))


def fed(examples: Any, schedules: Sequence[Any]) -> Iterator[tuple[Any, Any]]:
    """Pieces of a schedule, each with the examples that it takes its own from.

    Of examples on the device the pieces are as they were given. Of others a piece comes with its
    minibatches one after another, and indices that count them: the same minibatches.

    Args:
        examples: wherever they lie.
        schedules: indices and weights [steps, batch], or of networks [networks, steps, batch],
            which then have examples of their own, [networks, steps·batch, …].
    """
    if not streamed(examples):
        return iter([(examples, one) for one in schedules])
    return _ahead(partial(_gathered, examples, one) for one in schedules)


def microbatches(examples: Any, size: int) -> Iterator[Any]:
    """All examples in order, in pieces of sizes that differ by one at most."""
    N, most = count(examples), inputs.count("microbatch_size", size)
    pieces = np.array_split(np.arange(N), -(-N // most))
    return _ahead(partial(gather, examples, rows) for rows in pieces)


def _gathered(examples: Any, schedule: Any) -> tuple[Any, Any]:
    *networks, steps, batch = schedule.indices.shape
    rows = np.asarray(schedule.indices).reshape(*networks, steps * batch)
    counted = np.arange(steps * batch, dtype=np.int32).reshape(steps, batch)
    indices = np.broadcast_to(counted, schedule.indices.shape)
    own: Any = indices, np.asarray(schedule.weights)
    return gather(examples, rows), sampling.Schedule(*own)


def _ahead(reads: Iterable[Callable[[], _Read]]) -> Iterator[_Read]:
    """What the calls give, in their order, each made by a thread while the last is in use."""
    with ThreadPoolExecutor(1) as thread:
        waiting: Future[Any] | None = None
        for read in reads:
            begun = thread.submit(read)
            if waiting is not None:
                yield waiting.result()
            waiting = begun
        if waiting is not None:
            yield waiting.result()
