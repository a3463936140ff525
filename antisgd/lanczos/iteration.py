"""Block Lanczos as pure functions over a plain state: `init`, `extend`, `restart`, `inject`."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from antisgd import devices, inputs
from antisgd.lanczos import arguments
from antisgd.lanczos import basis as storage
from antisgd.lanczos.products import Matvec, Product, blocks
from antisgd.lanczos.projection import State, expected_products, multiplied, projected, ritz

__all__ = ["advance", "extend", "init", "inject", "restart"]

# Products rounded to 8 bits stay below this, a loss with randomness in it does not.
_ASYMMETRY_ALLOWED = 1e-2


def init(
    matvec: Matvec | None,
    dimension: int,
    *,
    key: Array,
    block_size: int,
    start: Array | None = None,
    dtype: Any = None,
    mesh: Mesh | None = None,
) -> State:
    """A solve before its first product, from random vectors or given ones.

    Args:
        matvec: symmetric, [d] -> [d]; None where products are eager.
        dimension: d.
        key: of all random vectors of the solve.
        block_size: vectors multiplied at a time, at most d of them.
        start: rows [r, d] to start from, see `leading_eigenpairs`.
        dtype: of basis and products, JAX's default: float32 unless x64 is enabled.
        mesh: devices that hold the basis, each its columns; None for one of them.

    Raises:
        ValueError: a dimension or block size below one, or a matvec of another shape or dtype.
    """
    dimension = inputs.count("dimension", dimension)
    block_size = inputs.count("block_size", block_size)
    key = inputs.random_key(key)
    number_type = arguments.number_type(dtype)
    if matvec is not None:
        arguments.check_matvec(matvec, jax.ShapeDtypeStruct((dimension,), number_type))
    state = State(
        basis=storage.empty(dimension, number_type, mesh),
        size=0,
        kept=np.zeros(0),
        coupling=np.zeros((0, 0)),
        band=np.zeros((0, 0)),
        first=np.zeros(0, np.int64),
        key=np.asarray(jax.random.key_data(key)),
        block_size=min(block_size, dimension),
        products=0,
        scale=0.0,
        noise=float("nan"),
        asymmetry=0.0,
        history=np.zeros((0, 2), np.int64),
        dimension=dimension,
    )
    if start is not None:
        rows = arguments.start_rows(start, dimension, number_type)
        state = inject(state, devices.columns(rows, mesh))
    return _top_up(state)


def extend(matvec: Matvec | None, state: State, *, product: Any = None) -> State:
    """Multiply the next block of basis vectors and append what is new (beyond the paper).

    A Q = V T + R by two Gram–Schmidt passes against the whole basis V; the rows of R, made
    orthonormal, wait to be multiplied. Directions lost to rounding (an invariant subspace, a
    block of dependent vectors) are replaced by random ones, which also finds further copies of
    an eigenvalue. The basis buffers of the state given are used up.

    Args:
        matvec: symmetric, [d] -> [d]; None with a product.
        state: from `init` or the last call.
        product: as for `leading_eigenpairs`.

    Raises:
        FloatingPointError: a product is not finite; the message names it.
        ValueError: the products show that the matvec is not symmetric.
    """
    dimension = int(state.dimension)
    return advance(blocks(matvec, product, dimension)[0], state)


def advance(product: Product, state: State) -> State:
    """`extend` for a product of whole blocks [b, d] -> [b, d]."""
    m, size = multiplied(state), int(state.size)
    count = min(int(state.block_size), size - m)
    if count == 0:
        return state
    block = product(storage.read(storage.usable(state.basis), m, m + count))
    norms = storage.norms(block)
    products = int(state.products) + count
    if not np.isfinite(norms).all():
        bad = int(state.products) + 1 + int(np.flatnonzero(~np.isfinite(norms))[0])
        raise FloatingPointError(
            f"product {bad} of the matvec is not finite: check the weights and data behind it"
        )
    scale = max(float(state.scale), float(norms.max()))
    # Near one no square leaves the range of float32; powers of two round nothing.
    factor = storage.power_of_two(scale)
    block, inside = storage.orthogonalise(state.basis, size, block * factor)
    inside = inside / factor
    asymmetry = _asymmetry(state, inside[:, :m], scale)
    new, outside = _orthonormal_rows(state, block, scale * factor)
    outside = outside / factor
    # Within the block the two halves differ by rounding: their mean is the better estimate.
    inside[:, m : m + count] = (inside[:, m : m + count] + inside[:, m : m + count].T) / 2
    basis = storage.append(state.basis, size, new)
    state = state._replace(
        basis=basis,
        size=size + len(new),
        band=_stack(state.band, np.concatenate([inside[:, m:], outside], 1)),
        first=np.concatenate([state.first, np.full(count, m)]),
        products=products,
        scale=scale,
        asymmetry=max(float(state.asymmetry), asymmetry),
    )
    return _top_up(state)


def restart(state: State, which: str, count: int) -> State:
    """Thick restart: keep `count` Ritz vectors and the waiting vectors, free the rest.

    The subspace spanned shrinks, the three-term relation stays exact; converged pairs stay as
    they are (they are locked by their vanishing coupling). The buffers given are used up.
    """
    storage.usable(state.basis)
    pairs = ritz(state, which, inputs.count("count", count))
    _, pending = projected(state)
    waiting = storage.read(state.basis, multiplied(state), int(state.size))
    return state._replace(
        basis=storage.rotate(state.basis, pairs.coefficients, waiting),
        size=len(pairs.values) + len(waiting),
        kept=pairs.values,
        coupling=pairs.coefficients.T @ pending,
        band=np.zeros((0, 0)),
        first=np.zeros(0, np.int64),
    )


def inject(state: State, directions: Array) -> State:
    """Append directions [r, d] to the vectors that wait, as far as they are new."""
    storage.usable(state.basis)
    room = int(state.dimension) - int(state.size)
    rows = _independent_rows(state, directions[:room])
    return state._replace(
        basis=storage.append(state.basis, int(state.size), rows), size=int(state.size) + len(rows)
    )


def _asymmetry(state: State, found: np.ndarray, scale: float) -> float:
    """How far qᵢ'A qⱼ (found [b, m]) is from the known qⱼ'A qᵢ, relative to scale."""
    error = float(np.linalg.norm(found - expected_products(state, len(found)).T))
    error = error / scale if scale else 0.0
    if error > _ASYMMETRY_ALLOWED:
        raise ValueError(
            f"the matvec is not symmetric: after {state.products} products u'Av and v'Au differ "
            f"by {error:.1e} of its norm; a Hessian needs a loss without randomness in it"
        )
    return error


def _orthonormal_rows(state: State, block: Array, scale: float) -> tuple[Array, np.ndarray]:
    """Orthonormal rows for the residual block, orthogonal to the basis, and block in them.

    Returns:
        `(rows [r, d], coefficients float64 [b, r])`, r ≤ b.
    """
    rows, lower = _row_qr(block)
    sizes, norms = np.abs(np.diag(lower)), np.linalg.norm(lower, axis=1)
    room = int(state.dimension) - int(state.size)
    if len(rows) <= room and (sizes > np.maximum(1e-2 * norms, _negligible(block) * scale)).all():
        return rows, lower
    rows = _independent_rows(state, _span(block, _negligible(block) * scale))[:room]
    return rows, np.asarray(devices.fetched(_product(block, rows.T)), np.float64)


def _independent_rows(state: State, rows: Array) -> Array:
    """The rows made orthonormal and orthogonal to the basis; those that depend are left out."""
    for _ in range(3):
        rows, _ = storage.orthogonalise(state.basis, int(state.size), rows)
        rows = _span(rows, _negligible(rows))
    return rows


def _span(block: Array, negligible: float) -> Array:
    """Orthonormal rows for the span of a block, without rows that nearly depend on earlier ones."""
    rows, lower = _row_qr(block)
    strong = np.flatnonzero(np.abs(np.diag(lower)) > negligible)
    # The orthonormal row that stands for a dependent one is arbitrary, yet later ones avoid it.
    return rows if len(strong) == len(rows) else _row_qr(block[strong])[0]


def _negligible(block: Array) -> float:
    """What rounding leaves of a vector of norm one."""
    return 10 * float(jnp.finfo(block.dtype).eps)


def _top_up(state: State) -> State:
    """Random vectors until a whole block waits, or the space is spanned."""
    dimension, mesh = int(state.dimension), storage.mesh_of(state.basis[0])
    for _ in range(3):
        waiting = int(state.size) - multiplied(state)
        lack = min(int(state.block_size) - waiting, dimension - int(state.size))
        if lack <= 0:
            return state
        key = jax.random.fold_in(inputs.random_key(jnp.asarray(state.key)), state.size)
        rows = jax.random.normal(key, (lack, dimension), state.basis[0].dtype)
        state = inject(state, devices.columns(rows / dimension**0.5, mesh))
    return state


_product = partial(jnp.matmul, precision="highest")


@partial(jax.jit, static_argnums=1)
def _qr(block: Array, mesh: Mesh | None) -> tuple[Array, Array]:
    """Rows and lower triangle; over a mesh of each device's columns, then of what they give."""

    def alone(block):
        columns, upper = jnp.linalg.qr(block.T)
        return columns.T, upper.T

    def part(block):
        own, small = alone(block)
        size, place = len(own), jax.lax.axis_index(devices.AXIS)
        rows, lower = alone(jax.lax.all_gather(small, devices.AXIS, axis=1, tiled=True))
        turn = jax.lax.dynamic_slice_in_dim(rows, place * size, size, 1)
        return _product(turn, own), lower

    gives = devices.COLUMNS, devices.WHOLE
    split = alone if mesh is None else part
    return devices.local(mesh, split, devices.COLUMNS, gives)(block)


def _row_qr(block: Array) -> tuple[Array, np.ndarray]:
    """block = lower · rows with orthonormal rows."""
    if not len(block):
        return block, np.zeros((0, 0))
    rows, lower = _qr(block, storage.mesh_of(block))
    return rows, np.asarray(lower, np.float64)


def _stack(band: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Rows below a band, the narrower filled up with zeros."""
    width = max(band.shape[1], rows.shape[1])
    wide = [np.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in (band, rows)]
    return np.concatenate(wide)
