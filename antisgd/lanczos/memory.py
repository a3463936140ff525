"""What a solve needs to hold, known before it starts."""

from typing import NamedTuple

import numpy as np

from antisgd import devices, inputs
from antisgd.lanczos.projection import State

__all__ = [
    "VECTORS_A_PAIR",
    "MemoryPlan",
    "capacity_of",
    "default_block_size",
    "least_vectors",
    "memory_plan",
]

# Basis vectors a pair: unrestarted Lanczos on power-law spectra needs 2.0 to 2.6.
VECTORS_A_PAIR = 2.5


class MemoryPlan(NamedTuple):
    """Expected basis vectors; bytes on the device of basis and eigenvectors, and on the host;
    vectors multiplied at a time; bytes of the smallest basis that `memory` may allow."""

    basis_vectors: int
    basis_bytes: int
    vectors_bytes: int
    host_bytes: int
    block_size: int
    least_bytes: int


def memory_plan(
    dimension: int, k: int, *, memory: int | None = None, itemsize: int = 4
) -> MemoryPlan:
    """What `leading_eigenpairs` will need, for spectra that fall like a power law.

    Args:
        dimension, k, memory: as there.
        itemsize: bytes of a number, 4 in float32.

    Raises:
        ValueError: a number that is no integer of at least one.
    """
    dimension, k = inputs.count("dimension", dimension), inputs.count("k", k)
    itemsize = inputs.count("itemsize", itemsize)
    memory = None if memory is None else _bytes(memory)
    expected = min(dimension, int(VECTORS_A_PAIR * k) + 32)
    vectors = min(expected, memory // (dimension * itemsize)) if memory else expected
    block_size = min(dimension, default_block_size(k))
    return MemoryPlan(
        basis_vectors=vectors,
        basis_bytes=vectors * dimension * itemsize,
        vectors_bytes=k * dimension * itemsize,
        # The projected problem, which LAPACK overwrites, its eigenvectors and their other order.
        host_bytes=8 * vectors * (vectors + 2 * k),
        block_size=block_size,
        least_bytes=least_vectors(dimension, k, block_size) * dimension * itemsize,
    )


def default_block_size(k: int) -> int:
    """Vectors multiplied at a time: larger blocks save time for each and need more of them.

    A power of two, because matrix products come in tiles: with LeNet on a CPU three vectors take
    as long as four. Accelerators wait for launches and for the basis to be read once a block: of
    thousands of pairs they take up to 32 at a time, of which few more are needed.
    """
    most = 8 if devices.platform() == "cpu" else np.clip(k / 64, 8, 32)
    return 2 ** round(np.log2(np.clip(k / 20, 1, most)))


def capacity_of(state: State, k: int, memory: int | None) -> int | None:
    """Basis vectors that may be held, None for any number."""
    if memory is None:
        return None
    memory = _bytes(memory)
    segment, dimension = state.basis[0], int(state.dimension)
    capacity = memory // (dimension * segment.dtype.itemsize)
    needed = least_vectors(dimension, k, state.block_size)
    if capacity < needed:
        raise MemoryError(
            f"{k} eigenpairs need a basis of at least {needed} vectors, "
            f"{needed * dimension * segment.dtype.itemsize / 2**20:.0f} MiB; "
            f"memory={memory} holds {capacity}: raise it or ask for fewer pairs"
        )
    return capacity


def _bytes(memory: int) -> int:
    try:
        return inputs.count("memory", memory)
    except ValueError as error:
        raise ValueError(f"{error}: bytes, for example 8 * 2**30 for 8 GiB") from error


def least_vectors(dimension: int, k: int, block_size: int) -> int:
    """The smallest basis that can be restarted and still find k pairs."""
    return min(dimension, k + 4 * block_size + 8)
