"""What the compiler is told, and may be told, on the devices of this process."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp

from antisgd import devices

__all__ = ["compiler_options", "refuse_unknown"]


def compiler_options() -> dict[str, Any] | None:
    """What Hessian products of blocks are compiled with.

    On a GPU without Triton's matrix products, which XLA fails to compile for some of theirs
    ("Couldn't find output tile sizes"); cuBLAS takes them instead.
    """
    return {"xla_gpu_enable_triton_gemm": False} if devices.platform() == "gpu" else None


@cache
def refuse_unknown(precision: str) -> None:
    """Refuses a precision of matrix products that the devices do not have.

    Raises:
        ValueError: names it.
    """
    one = jnp.ones((64, 64), jnp.float32)
    try:
        with jax.default_matmul_precision(precision):
            jax.jit(jnp.dot).lower(one, one).compile()
    except (ValueError, TypeError, NotImplementedError, jax.errors.JaxRuntimeError) as error:
        raise ValueError(
            f"precision={precision!r} is none that matrix products have on this "
            f"{devices.platform()}: give 'highest', or another name that "
            "jax.default_matmul_precision takes"
        ) from error
