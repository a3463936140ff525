"""How an operator's products are made: a traceable one of a vector, or an eager one of a block."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh
from jax.tree_util import Partial
from scipy.sparse.linalg import LinearOperator

from antisgd import compilation, devices, inputs
from antisgd.lanczos import arguments
from antisgd.lanczos import basis as storage

__all__ = ["Matvec", "Product", "apply", "blocks", "linear_operator", "lowered"]

Matvec = Callable[[Array], Array]

# Of a block of rows [b, d] on JAX's side, whatever multiplies behind it.
Product = Callable[[Array], Array]

# Columns that a LinearOperator made here multiplies at a time.
_COLUMNS = 8

# What the DLPack protocol calls the memory of the host.
_HOST = 1


def apply(matvec: Matvec, block: Array, dimension: int | None = None) -> Array:
    """The products of the rows of block [b, d], at once; over a mesh the first `dimension`."""
    matvec = matvec if isinstance(matvec, Partial) else Partial(matvec)
    return _apply()(matvec, block, dimension or block.shape[1], storage.mesh_of(block))


def lowered(matvec: Partial, block: Array) -> Any:
    """The program of such a product before it is compiled, to ask for its memory and to time it."""
    return _apply().lower(matvec, block, block.shape[1], None)


def blocks(matvec: Matvec | None, product: Any, dimension: int | None) -> tuple[Product, int]:
    """The product of a block, made of the one of the two that is given, and d.

    Raises:
        ValueError: both or neither is given, no dimension, or no product of that dimension.
    """
    if dimension is None and isinstance(product, LinearOperator):
        dimension = product.shape[1]
    dimension = inputs.count("dimension", dimension)
    if (matvec is None) == (product is None):
        raise ValueError(
            "give one of matvec, [d] -> [d] and traceable by JAX, and product=, an eager map of "
            "blocks [b, d] -> [b, d]"
        )
    if matvec is not None:
        return partial(apply, matvec, dimension=dimension), dimension
    return _eager(product, dimension), dimension


def linear_operator(matvec: Matvec, dimension: int, *, dtype: Any = None) -> LinearOperator:
    """A matvec as SciPy's operator, for `eigsh`, `lobpcg`, `cg` and others.

    Each product goes to JAX and comes back; a block of columns is multiplied eight at a time.

    Args:
        matvec: symmetric, [d] -> [d], such as `hessian.hessian_vector_product(…)`.
        dimension: d.
        dtype: that products are made and returned in, as for `leading_eigenpairs`: float64 is
            made inside `jax.enable_x64(True)`, may then be used outside of it, and means what it
            says only if the matvec's own numbers are float64.

    Returns:
        The operator [d, d], its own adjoint.

    Raises:
        ValueError: a dtype, dimension or matvec that `leading_eigenpairs` would refuse; in a
            product, vectors that are complex or not finite.
    """
    dimension, number_type = inputs.count("dimension", dimension), arguments.number_type(dtype)
    arguments.check_matvec(matvec, jax.ShapeDtypeStruct((dimension,), number_type))

    def columns(vectors: np.ndarray) -> np.ndarray:
        rows = inputs.finite("the vectors", vectors).T.astype(number_type)
        with jax.enable_x64(np.float64 in (number_type, jnp.result_type(float))):
            parts = [
                np.asarray(apply(matvec, jnp.asarray(rows[start : start + _COLUMNS])))
                for start in range(0, len(rows), _COLUMNS)
            ]
        return np.concatenate(parts).T if parts else np.zeros(vectors.shape, number_type)

    def column(vector: np.ndarray) -> np.ndarray:
        return columns(vector.reshape(dimension, 1))[:, 0]

    return LinearOperator(
        (dimension, dimension), matvec=column, rmatvec=column, matmat=columns, rmatmat=columns,
        dtype=number_type,
    )  # fmt: skip


@cache
def _apply() -> Any:
    """The program, for the devices that there are once it is asked for."""
    options = compilation.compiler_options()
    return jax.jit(_products, static_argnums=(2, 3), compiler_options=options)


def _products(matvec: Partial, block: Array, dimension: int, mesh: Mesh | None) -> Array:
    vectors = devices.on(mesh, devices.WHOLE, storage.cut(block, dimension))
    if block.shape[0] == 1:
        image = matvec(vectors[0])[None]
    else:
        image = jax.vmap(matvec)(vectors)
    return devices.on(mesh, devices.COLUMNS, devices.fill(image, block.shape[1]))


def _eager(product: Any, dimension: int) -> Product:
    if isinstance(product, LinearOperator):
        if product.shape != (dimension, dimension):
            raise ValueError(
                f"the LinearOperator is {list(product.shape)}: it must be square, "
                f"[{dimension}, {dimension}] for dimension={dimension}"
            )
        return lambda block: _taken_back(product.matmat(np.asarray(_alone(block)).T).T, block)
    if not callable(product):
        raise ValueError(
            f"product must be a function [b, d] -> [b, d] or a LinearOperator, not a "
            f"{type(product).__name__}; scipy.sparse.linalg.aslinearoperator makes one of a matrix"
        )
    return lambda block: _taken_back(product(_handed_over(_alone(block))), block)


def _alone(block: Array) -> Array:
    """The block, unless it is dealt out to several devices, which an eager product knows not of."""
    if storage.mesh_of(block) is not None:
        raise ValueError("an eager product runs on one device: leave out mesh=, or give a matvec")
    return block


def _handed_over(block: Array) -> Any:
    """On a CPU a NumPy array that may be written in, elsewhere JAX's own: DLPack reads both."""
    on_host = all(device.platform == "cpu" for device in block.devices())
    return np.array(block) if on_host else block


def _taken_back(image: Any, block: Array) -> Array:
    """The image as JAX's own copy: whoever made it may write over it in the next product."""
    read = _read(image)
    if read.shape != block.shape or not _as_precise(read.dtype, block.dtype):
        hint = "rows are vectors" if read.shape == block.shape[::-1] else "the shape must be the"
        hint = hint if hint.startswith("rows") else hint + " same, the numbers real and as precise"
        raise ValueError(
            f"the product maps {block.dtype}{list(block.shape)} to "
            f"{read.dtype}{list(read.shape)}: {hint}"
        )
    if isinstance(read, Array):
        return jnp.array(read, block.dtype).block_until_ready()
    with np.errstate(over="ignore"):
        return jnp.asarray(np.array(read, block.dtype))


def _read(image: Any) -> Any:
    """A NumPy or JAX array over the memory of anything that has DLPack, or is like an array."""
    if isinstance(image, (Array, np.ndarray)) or not hasattr(image, "__dlpack__"):
        return image if isinstance(image, Array) else np.asarray(image)
    try:
        on_host = image.__dlpack_device__()[0] == _HOST
        return np.from_dlpack(image) if on_host else jnp.from_dlpack(image)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"the product returns a {type(image).__name__} that cannot be read through DLPack "
            f"({reason}): return it detached, dense and in float32 or float64"
        ) from error


def _as_precise(found: Any, wanted: Any) -> bool:
    floating = jnp.issubdtype(found, jnp.floating)
    return bool(floating and jnp.finfo(found).bits >= jnp.finfo(wanted).bits)
