"""An orthonormal basis on the device, in segments that grow and are written in place.

Over a mesh every device holds its columns of every vector, the last ones filled up with zeros:
products within the basis are local ones and a sum, and what is written or rotated is local.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding

from antisgd import devices

__all__ = [
    "Basis", "append", "combine", "cut", "empty", "mesh_of", "norms", "orthogonalise",
    "power_of_two", "read", "rotate", "segments", "usable",
]  # fmt: skip

# Rows beyond the basis' size are zero, so that products may run over whole segments.
Basis = tuple[Array, ...]

# Elements of a segment on a device: 64 MB in float32, far below what 32-bit indices reach; more
# where vectors are so long that hardly any would fit.
_SEGMENT, _LEAST_ROWS = 2**24, 64

_product = partial(jnp.matmul, precision="highest")


def empty(dimension: int, dtype: Any, mesh: Mesh | None = None) -> Basis:
    """A basis of one zero segment [rows, d], over a mesh by columns."""
    shape = segment_rows(dimension, mesh), devices.filled(dimension, mesh)
    return (_zeros(shape, dtype, mesh),)


def segment_rows(dimension: int, mesh: Mesh | None = None) -> int:
    """Vectors that a segment holds."""
    columns = devices.filled(dimension, mesh) // (1 if mesh is None else mesh.size)
    return max(1, min(dimension, max(_SEGMENT // columns, _LEAST_ROWS)))


def mesh_of(rows: Any) -> Mesh | None:
    """The mesh that rows are dealt out over by columns; None on one device."""
    layout = rows.sharding
    # A product over a mesh leaves its image whole on every device: such rows are those of one.
    if not isinstance(layout, NamedSharding) or layout.spec != devices.COLUMNS:
        return None
    return layout.mesh if isinstance(layout.mesh, Mesh) else None


def cut(rows: Array, dimension: int) -> Array:
    """Rows without the zeros that fill them up, [r, d]."""
    return rows if rows.shape[1] == dimension else rows[:, :dimension]


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
    found = devices.fetched(jnp.linalg.norm(rows * factor, axis=1))
    return np.asarray(found, np.float64) / factor


def segments(vectors: np.ndarray, mesh: Mesh | None = None) -> Basis:
    """A basis of given vectors [m, d], for example from a file, over a mesh by columns."""
    rows = segment_rows(vectors.shape[1], mesh)
    parts = [vectors[start : start + rows] for start in range(0, len(vectors), rows)]
    full = (np.pad(part, ((0, rows - len(part)), (0, 0))) for part in parts)
    return tuple(devices.columns(part, mesh) for part in full)


def orthogonalise(basis: Basis, size: int, block: Array) -> tuple[Array, np.ndarray]:
    """Two Gram–Schmidt passes of block [b, d] against the first `size` vectors.

    Returns:
        `(block, coefficients float64 [b, size])`, the coefficients being those taken out.
    """
    rows, mesh = basis[0].shape[0], mesh_of(basis[0])
    used = basis[: max(1, -(-size // rows))]
    passes = []
    for _ in range(2):
        parts = []
        for segment in used:
            block, part = _take_out(segment, block, mesh)
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
            first = segments[0]
            segments.append(_zeros((rows, first.shape[1]), first.dtype, mesh_of(first)))
        segments[index] = _write(segments[index], vectors, offset, row)
    return tuple(segments)


def read(basis: Basis, start: int, stop: int) -> Array:
    """Vectors start … stop - 1, [stop - start, d]."""
    rows = basis[0].shape[0]
    places = [divmod(i, rows) for i in range(start, stop)]
    return jnp.stack([_row(basis[index], row) for index, row in places])


def combine(basis: Basis, coefficients: np.ndarray) -> Array:
    """Linear combinations of the first m vectors, coefficients [m, k] -> [k, d]."""
    first, mesh = basis[0], mesh_of(basis[0])
    total = _zeros((coefficients.shape[1], first.shape[1]), first.dtype, mesh)
    for left, skip, strip in _strips(list(basis), coefficients, mesh):
        total = _write_strip(total, strip, left, skip, mesh)
    return total


def rotate(basis: Basis, coefficients: np.ndarray, tail: Array) -> Basis:
    """Replace the basis by combinations of its vectors, then tail [w, d]; in place by columns.

    coefficients [m, k]; the buffers given are used up.
    """
    rows, mesh = basis[0].shape[0], mesh_of(basis[0])
    segments, kept = list(basis[: -(-len(coefficients) // rows)]), coefficients.shape[1]
    for left, skip, strip in _strips(segments, coefficients, mesh):
        strip = jnp.pad(strip, ((0, len(segments) * rows - kept), (0, 0)))
        for index in range(len(segments)):
            piece = strip[index * rows : (index + 1) * rows]
            segments[index] = _write_strip(segments[index], piece, left, skip, mesh)
    return append(tuple(segments[: -(-kept // rows)]), kept, tail)


def _strips(
    segments: list[Array], coefficients: np.ndarray, mesh: Mesh | None
) -> Iterator[tuple[int, int, Array]]:
    """Combinations a strip of columns at a time: its first column, how many of its columns were in
    the one before, and the strip [k, width]. A strip may be written over what it was made of.
    """
    (rows, dimension), dtype = segments[0].shape, segments[0].dtype
    if not coefficients.size:
        return
    parts = [jnp.asarray(part, dtype) for part in _by_segment(coefficients, rows)]
    # Of each device its own columns.
    columns = dimension if mesh is None else dimension // mesh.size
    width = max(1, min(columns, _SEGMENT // max(coefficients.shape)))
    for start in range(0, columns, width):
        # The last strip is moved back to the common width: columns done before are left alone.
        left = min(start, columns - width)
        strip = _strip_product(parts[0], segments[0], left, width, mesh)
        for part, segment in zip(parts[1:], segments[1:], strict=False):
            strip = _add_strip_product(strip, part, segment, left, mesh)
        yield left, start - left, strip


def _zeros(shape: tuple[int, int], dtype: Any, mesh: Mesh | None) -> Array:
    layout = None if mesh is None else NamedSharding(mesh, devices.COLUMNS)
    return jnp.zeros(shape, dtype, device=layout)


def _by_segment(coefficients: np.ndarray, rows: int) -> list[np.ndarray]:
    """Rows of coefficients cut like the basis, the last cut filled with zeros."""
    count = -(-len(coefficients) // rows)
    filled = np.pad(coefficients, ((0, count * rows - len(coefficients)), (0, 0)))
    return np.split(filled, count)


@partial(jax.jit, static_argnums=2)
def _take_out(segment: Array, block: Array, mesh: Mesh | None) -> tuple[Array, Array]:
    # Coefficients [rows, b]: in this order XLA on a CPU needs a tenth of the time of [b, rows].
    coefficients = devices.on(mesh, devices.WHOLE, _product(segment, block.T))
    left = block - _product(coefficients.T, segment)
    return devices.on(mesh, devices.COLUMNS, left), coefficients


@partial(jax.jit, donate_argnums=0)
def _write(segment: Array, vectors: Array, offset: int, row: int) -> Array:
    vector = jax.lax.dynamic_slice_in_dim(vectors, offset, 1)
    return jax.lax.dynamic_update_slice_in_dim(segment, vector, row, 0)


@jax.jit
def _row(segment: Array, row: int) -> Array:
    return segment[row]


@partial(jax.jit, static_argnums=(3, 4))
def _strip_product(
    coefficients: Array, segment: Array, left: int, width: int, mesh: Mesh | None
) -> Array:
    def product(coefficients, segment, left):
        return _product(coefficients.T, jax.lax.dynamic_slice_in_dim(segment, left, width, 1))

    whole, columns = devices.WHOLE, devices.COLUMNS
    local = devices.local(mesh, product, (whole, columns, whole), columns)
    return local(coefficients, segment, left)


@partial(jax.jit, donate_argnums=0, static_argnums=4)
def _add_strip_product(
    strip: Array, coefficients: Array, segment: Array, left: int, mesh: Mesh | None
) -> Array:
    def add(strip, coefficients, segment, left):
        part = jax.lax.dynamic_slice_in_dim(segment, left, strip.shape[1], 1)
        return strip + _product(coefficients.T, part)

    whole, columns = devices.WHOLE, devices.COLUMNS
    local = devices.local(mesh, add, (columns, whole, columns, whole), columns)
    return local(strip, coefficients, segment, left)


@partial(jax.jit, donate_argnums=0, static_argnums=4)
def _write_strip(segment: Array, piece: Array, left: int, skip: int, mesh: Mesh | None) -> Array:
    def write(segment, piece, left, skip):
        old = jax.lax.dynamic_slice_in_dim(segment, left, piece.shape[1], 1)
        new = jnp.where(jnp.arange(piece.shape[1]) < skip, old, piece)
        return jax.lax.dynamic_update_slice_in_dim(segment, new, left, 1)

    whole, columns = devices.WHOLE, devices.COLUMNS
    local = devices.local(mesh, write, (columns, columns, whole, whole), columns)
    return local(segment, piece, left, skip)
