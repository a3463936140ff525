"""Convolution and max-pooling as matrix products: the one place that knows how either is computed."""

import jax.numpy as jnp
from jax import Array, lax

__all__ = ["convolve", "max_pool"]


def convolve(images: Array, kernel: Array, strides: tuple[int, int] = (1, 1)) -> Array:
    """Correlate pictures with a kernel, zero-padded to the 'SAME' size.

    images [n, h, w, c], kernel [kh, kw, c, features] (flax's layout) -> [n, ceil(h / sh),
    ceil(w / sw), features].
    """
    kh, kw, channels, features = kernel.shape
    n, h, w, _ = images.shape
    rows, top, bottom = _same(h, kh, strides[0])
    columns, left, right = _same(w, kw, strides[1])
    padded = jnp.pad(images, ((0, 0), (top, bottom), (left, right), (0, 0)))
    slices = [
        lax.slice(
            padded,
            (0, i, j, 0),
            (n, i + (rows - 1) * strides[0] + 1, j + (columns - 1) * strides[1] + 1, channels),
            (1, *strides, 1),
        )
        for i in range(kh)
        for j in range(kw)
    ]
    patches = jnp.concatenate(slices, axis=-1)
    return patches @ kernel.reshape(kh * kw * channels, features)


def max_pool(images: Array) -> Array:
    """Maximum over 2x2 blocks, an odd last row or column dropped: [n, h, w, c] -> [n, h // 2, w // 2, c]."""
    n, h, w, c = images.shape
    images = images[:, : h // 2 * 2, : w // 2 * 2]
    return images.reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))


def _same(size: int, window: int, stride: int) -> tuple[int, int, int]:
    out = -(-size // stride)
    total = max((out - 1) * stride + window - size, 0)
    return out, total // 2, total - total // 2
