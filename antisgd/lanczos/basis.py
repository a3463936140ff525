"""An orthonormal basis on the device, in segments that grow and are written in place."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

__all__ = [
    "Basis", "append", "combine", "empty", "norms", "orthogonalise", "power_of_two", "read",
    "rotate", "segments", "usable",
]  # fmt: skip

# Rows beyond the basis' size are zero, so that products may run over whole segments.
Basis = tuple[Array, ...]

# Elements of a segment: 64 MB in float32, far below what 32-bit indices reach.
_SEGMENT = 2**24

_product = partial(jnp.matmul, precision="highest")


def empty(dimension: int, dtype) -> Basis:
    """A basis of one zero segment [rows, d]."""
    return (jnp.zeros((segment_rows(dimension), dimension), dtype),)


def segment_rows(dimension: int) -> int:
    """Vectors that a segment holds."""
    return max(1, min(dimension, _SEGMENT // dimension))


def usable(basis: Basis) -> Basis:
    """The basis, if its buffers are still there.

    Raises:
        ValueError: a function that uses buffers up was given them before.
    """
    if any(isinstance(segment, Array) and segment.is_deleted() for segment in basis):
        raise ValueError(
            "the buffers of this state are used up: go on from the state that the last call "
            "returned, or from a checkpoint of it"
        )
    return basis


def power_of_two(size: float) -> float:
    """What brings numbers of that size near one without rounding them; one for 0, inf and nan."""
    if not 0 < size < np.inf:
        return 1.0
    return 2.0 ** float(np.clip(-np.frexp(size)[1], -126, 126))


def norms(rows: Array) -> np.ndarray:
    """2-norms of rows [r, d], float64 [r]: squares of 1e-20 and of 1e20 leave float32."""
    peak = float(jnp.max(jnp.abs(rows), initial=0))
    factor = power_of_two(peak)
    return np.asarray(jnp.linalg.norm(rows * factor, axis=1), np.float64) / factor


def segments(vectors: np.ndarray) -> Basis:
    """A basis of given vectors [m, d], for example from a file."""
    rows = segment_rows(vectors.shape[1])
    parts = [vectors[start : start + rows] for start in range(0, len(vectors), rows)]
    return tuple(jnp.asarray(np.pad(part, ((0, rows - len(part)), (0, 0)))) for part in parts)


def orthogonalise(basis: Basis, size: int, block: Array) -> tuple[Array, np.ndarray]:
    """Two Gram–Schmidt passes of block [b, d] against the first `size` vectors.

    Returns:
        `(block, coefficients float64 [b, size])`, the coefficients being those taken out.
    """
    rows = basis[0].shape[0]
    used = basis[: max(1, -(-size // rows))]
    passes = []
    for _ in range(2):
        parts = []
        for segment in used:
            block, part = _take_out(segment, block)
            parts.append(part)
        passes.append(parts)
    first, second = (np.concatenate([np.asarray(p, np.float64) for p in parts]) for parts in passes)
    return block, (first + second)[:size].T


def append(basis: Basis, size: int, vectors: Array) -> Basis:
    """The basis with vectors [b, d] behind its first `size`; the buffers given are used up."""
    rows = basis[0].shape[0]
    segments = list(basis)
    for offset in range(vectors.shape[0]):
        index, row = divmod(size + offset, rows)
        if index == len(segments):
            segments.append(jnp.zeros_like(segments[0]))
        segments[index] = _write(segments[index], vectors, offset, row)
    return tuple(segments)


def read(basis: Basis, start: int, stop: int) -> Array:
    """Vectors start … stop - 1, [stop - start, d]."""
    rows = basis[0].shape[0]
    places = [divmod(i, rows) for i in range(start, stop)]
    return jnp.stack([_row(basis[index], row) for index, row in places])


def combine(basis: Basis, coefficients: np.ndarray) -> Array:
    """Linear combinations of the first m vectors, coefficients [m, k] -> [k, d]."""
    rows, dimension = basis[0].shape
    total = jnp.zeros((coefficients.shape[1], dimension), basis[0].dtype)
    for segment, part in zip(basis, _by_segment(coefficients, rows), strict=False):
        total = _add_product(total, jnp.asarray(part, segment.dtype), segment)
    return total


def rotate(basis: Basis, coefficients: np.ndarray, tail: Array) -> Basis:
    """Replace the basis by combinations of its vectors, then tail [w, d]; in place by columns.

    coefficients [m, k]; the buffers given are used up.
    """
    rows, dimension = basis[0].shape
    parts = [jnp.asarray(p, basis[0].dtype) for p in _by_segment(coefficients, rows)]
    segments = list(basis[: len(parts)])
    kept = coefficients.shape[1]
    width = max(1, min(dimension, _SEGMENT // len(coefficients)))
    for start in range(0, dimension, width):
        # The last strip is moved back to the common width: columns done before are left alone.
        left = min(start, dimension - width)
        strip = sum(_strip_product(p, s, left, width) for p, s in zip(parts, segments, strict=True))
        strip = jnp.pad(strip, ((0, len(segments) * rows - kept), (0, 0)))
        for index in range(len(segments)):
            piece = strip[index * rows : (index + 1) * rows]
            segments[index] = _write_strip(segments[index], piece, left, start - left)
    return append(tuple(segments[: -(-kept // rows)]), kept, tail)


def _by_segment(coefficients: np.ndarray, rows: int) -> list[np.ndarray]:
    """Rows of coefficients cut like the basis, the last cut filled with zeros."""
    count = -(-len(coefficients) // rows)
    filled = np.pad(coefficients, ((0, count * rows - len(coefficients)), (0, 0)))
    return np.split(filled, count)


@jax.jit
def _take_out(segment: Array, block: Array) -> tuple[Array, Array]:
    # Coefficients [rows, b]: in this order XLA on a CPU needs a tenth of the time of [b, rows].
    coefficients = _product(segment, block.T)
    return block - _product(coefficients.T, segment), coefficients


@partial(jax.jit, donate_argnums=0)
def _write(segment: Array, vectors: Array, offset: int, row: int) -> Array:
    vector = jax.lax.dynamic_slice_in_dim(vectors, offset, 1)
    return jax.lax.dynamic_update_slice_in_dim(segment, vector, row, 0)


@jax.jit
def _row(segment: Array, row: int) -> Array:
    return segment[row]


@partial(jax.jit, donate_argnums=0)
def _add_product(total: Array, coefficients: Array, segment: Array) -> Array:
    return total + _product(coefficients.T, segment)


@partial(jax.jit, static_argnums=3)
def _strip_product(coefficients: Array, segment: Array, left: int, width: int) -> Array:
    return _product(coefficients.T, jax.lax.dynamic_slice_in_dim(segment, left, width, 1))


@partial(jax.jit, donate_argnums=0)
def _write_strip(segment: Array, piece: Array, left: int, skip: int) -> Array:
    old = jax.lax.dynamic_slice_in_dim(segment, left, piece.shape[1], 1)
    new = jnp.where(jnp.arange(piece.shape[1]) < skip, old, piece)
    return jax.lax.dynamic_update_slice_in_dim(segment, new, left, 1)
