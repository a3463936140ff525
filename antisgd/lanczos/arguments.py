"""What a solve is asked for, checked before its first product."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from antisgd import inputs
from antisgd.lanczos import basis as storage
from antisgd.lanczos.projection import State

__all__ = ["check_limits", "check_matvec", "number_type", "start_rows"]


def number_type(dtype: Any) -> Any:
    """The type of basis and products: JAX's own, or another that can be had."""
    try:
        wanted = np.dtype(jnp.result_type(float) if dtype is None else dtype)
    except TypeError as error:
        raise ValueError(
            f"dtype={dtype!r} is no type of numbers: pass for example 'float32'"
        ) from error
    if not jnp.issubdtype(wanted, jnp.floating) or jnp.finfo(wanted).bits < 32:
        raise ValueError(f"a basis needs real numbers of float32 or float64, not {wanted}")
    if wanted == np.float64 and jnp.result_type(float) != np.float64:
        raise ValueError("dtype float64 needs float64 in JAX: solve inside jax.enable_x64(True)")
    return wanted


def check_matvec(matvec: Callable[[Array], Array], vector: jax.ShapeDtypeStruct) -> None:
    """Refuses what does not map a vector to one of the same shape and type."""
    if not callable(matvec):
        raise ValueError(f"matvec must be a function [d] -> [d], not a {type(matvec).__name__}")
    shown = f"{vector.dtype}{list(vector.shape)}"
    try:
        image = jax.eval_shape(matvec, vector)
    except (TypeError, AttributeError, IndexError, KeyError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(
            f"the matvec cannot take a vector {shown} ({type(error).__name__}: {reason}): it must "
            "map flat vectors, see jax.flatten_util.ravel_pytree"
        ) from error
    if not hasattr(image, "shape"):
        raise ValueError(
            f"the matvec maps {shown} to a {type(image).__name__}: flatten what it returns with "
            "jax.flatten_util.ravel_pytree"
        )
    if (image.shape, image.dtype) != (vector.shape, vector.dtype):
        raise ValueError(f"the matvec maps {shown} to {image.dtype}{list(image.shape)}")


def check_limits(
    state: State, dimension: int, max_products: int | None, probe_products: int
) -> None:
    """Refuses a state of another solve and numbers of products that are none."""
    inputs.count("probe_products", probe_products, 0)
    if max_products is not None:
        inputs.count("max_products", max_products)
    storage.usable(state.basis)
    held = int(state.dimension)
    if held != dimension:
        raise ValueError(f"the state is of a solve in {held} dimensions, not {dimension}")


def start_rows(start: Any, dimension: int, dtype: Any) -> Array:
    """The rows to start from, each of a size near one."""
    rows = jnp.asarray(inputs.finite("start", start), dtype)
    if rows.ndim != 2 or rows.shape[1] != dimension:
        raise ValueError(
            f"start must be rows [r, {dimension}], not of the shape {list(rows.shape)}"
            + ("; pass start[None]" if rows.shape == (dimension,) else "")
        )
    factors = [storage.power_of_two(float(size)) for size in jnp.max(jnp.abs(rows), 1, initial=0)]
    return rows * jnp.asarray(factors, dtype)[:, None]
