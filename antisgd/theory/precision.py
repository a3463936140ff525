"""Where the theory is computed: in float64 on the host, whatever the networks use."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax

from antisgd import devices

__all__ = ["float64_on_host"]


@contextmanager
def float64_on_host() -> Iterator[None]:
    """JAX in float64 on the CPU: a TPU knows no complex128, a GPU is slow at short scans.

    By JAX's standard rules for types that meet, whatever the networks keep to.
    """
    try:
        host = devices.host()
    except RuntimeError:
        # JAX_PLATFORMS may leave the CPU out.
        host = None
    with jax.enable_x64(True), jax.default_device(host), jax.numpy_dtype_promotion("standard"):
        yield
