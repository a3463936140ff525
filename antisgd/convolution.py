"""Convolution and max-pooling over maps that keep the pictures last.

Inside a network a batch of pictures is an array of *maps* [channels, height, width, n]: every
shift, comparison and sum runs over contiguous rows of width·n numbers. Kernels keep flax's layout
[kh, kw, c, features]. On a CPU a convolution is a matrix product with the patches, which leaves
its result in the same layout: a LeNet step of 50 pictures takes 7.9 ms on 2 cores; channels last
22, flax's `nn.Conv` 160. Elsewhere it is XLA's own.
"""

from functools import partial
from string import ascii_uppercase
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

__all__ = ["convolve", "convolve_and_pool", "maps_from_pictures", "pictures_from_maps"]

Padding = tuple[tuple[int, int], tuple[int, int]]


class Geometry(NamedTuple):
    """Where a window looks: its height and width, its step, the padding and size of the maps."""

    window: tuple[int, int]
    stride: int
    padding: Padding
    size: tuple[int, int]


def convolve(maps: Array, kernel: Array, *, stride: int = 1) -> Array:
    """Correlates maps with a kernel, zero-padded as TensorFlow's 'SAME'.

    y[f, i, j, n] = Σ_{a,b,c} kernel[a, b, c, f] · x[c, s·i + a − top, s·j + b − left, n].

    Args:
        maps: x [c, h, w, n].
        kernel: [kh, kw, c, features].
        stride: s, of both directions.

    Returns:
        y [features, ⌈h/s⌉, ⌈w/s⌉, n].
    """
    kh, kw, _, _ = kernel.shape
    padding = (_same(maps.shape[1], kh, stride), _same(maps.shape[2], kw, stride))
    return _correlated(maps, kernel, stride, padding)


def convolve_and_pool(maps: Array, kernel: Array, *, mean: bool = False) -> Array:
    """Maximum, or mean, over 2x2 blocks of a 'SAME' convolution with stride 1.

    z[f, i, j, n] = max_{a,b ∈ {0,1}} y[f, 2i + a, 2j + b, n], y = convolve(x, kernel); an odd last
    row or column of y is dropped. One correlation gives the four members of each block from the
    (kh + 1) x (kw + 1) pixels they share. At a tie the derivative is that of the first member.

    Args:
        maps: x [c, h, w, n], h, w ≥ 2.
        kernel: [kh, kw, c, features].

    Returns:
        z [features, h // 2, w // 2, n].

    Raises:
        ValueError: pictures of fewer than 2 x 2 pixels.
    """
    (kh, kw, channels, features), (_, h, w, _) = kernel.shape, maps.shape
    if min(h, w) < 2:
        raise ValueError(f"a 2x2 pool needs pictures of at least 2x2 pixels, not {h}x{w}")
    tops, lefts = (kh - 1) // 2, (kw - 1) // 2
    bottoms, rights = kh - 1 - tops - h % 2, kw - 1 - lefts - w % 2
    members = [
        jnp.pad(kernel, ((a, 1 - a), (b, 1 - b), (0, 0), (0, 0))) for a in (0, 1) for b in (0, 1)
    ]
    padding = ((tops, bottoms), (lefts, rights))
    if mean:
        return _correlated(maps, jnp.mean(jnp.stack(members), 0), 2, padding)
    kernels = jnp.stack(members, 3).reshape(kh + 1, kw + 1, channels, 4 * features)
    blocks = _correlated(maps, kernels, 2, padding)
    return _maximum(blocks.reshape(4, features, -1)).reshape(features, *blocks.shape[1:])


def maps_from_pictures(pictures: Array) -> Array:
    """Brings pictures [n, h, w, c] into the layout of maps [c, h, w, n]."""
    return _to_maps.bind(pictures)


def pictures_from_maps(maps: Array) -> Array:
    """Brings maps [c, h, w, n] back into the layout of pictures [n, h, w, c]."""
    return _from_maps.bind(maps)


def _correlated(maps: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    """[c, h, w, n], [kh, kw, c, f] -> [f, H, W, n], by the road that is best on the platform."""
    patches = partial(_by_patches, stride=stride, padding=padding)
    library = partial(_by_library, stride=stride, padding=padding)
    return lax.platform_dependent(maps, kernel, cpu=patches, default=library)


def _by_patches(maps: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    """The product of the kernels with the pixels under the window at each of its places."""
    kh, kw, _, features = kernel.shape
    geometry = Geometry((kh, kw), stride, padding, (maps.shape[1], maps.shape[2]))
    patches = _im2col.bind(maps, geometry=geometry)
    rows, *shape = patches.shape
    # Adding nothing makes both vary over the same axes of a device mesh, as shard_map asks.
    kernels = kernel.reshape(-1, features) + jnp.zeros_like(patches, shape=())
    patches = patches.reshape(rows, -1) + jnp.zeros_like(kernels, shape=())
    precision = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
    product = _contraction.bind(kernels, patches, terms=("kf", "kp", "fp"), precision=precision)
    return product.reshape(-1, *shape)


def _by_library(maps: Array, kernel: Array, stride: int, padding: Padding) -> Array:
    strides, layout = (stride, stride), ("CHWN", "HWIO", "CHWN")
    return lax.conv_general_dilated(maps, kernel, strides, padding, dimension_numbers=layout)


def _same(size: int, window: int, stride: int) -> tuple[int, int]:
    total = max((-(-size // stride) - 1) * stride + window - size, 0)
    return total // 2, total - total // 2


@jax.custom_jvp
def _maximum(blocks: Array) -> Array:
    return jnp.maximum(jnp.maximum(blocks[0], blocks[1]), jnp.maximum(blocks[2], blocks[3]))


@_maximum.defjvp
def _maximum_jvp(primals, tangents):
    # The default derivative of a maximum counts ties and divides: three more passes over blocks.
    (y,), (t,) = primals, tangents
    z = _maximum(y)
    winner = jnp.where(y[0] == z, 0, jnp.where(y[1] == z, 1, jnp.where(y[2] == z, 2, 3)))
    member = lax.broadcasted_iota(winner.dtype, y.shape, 0)
    return z, jnp.sum(jnp.where(member == winner[None], t, 0), 0)


def _gather(maps, geometry):
    return _shifts(_shifts(maps, -2, geometry), -3, geometry)


def _scatter(patches, geometry):
    return _unshifts(_unshifts(patches, -3, geometry), -2, geometry)


def _shifts(maps, axis, geometry):
    """Stacks before the channels the views of the maps that a window sees along one axis."""
    length, (low, high) = geometry.window[axis + 3], geometry.padding[axis + 3]
    padded = _pad(maps, axis, low, high)
    span = (padded.shape[axis] - length) // geometry.stride * geometry.stride + 1
    views = [
        lax.slice_in_dim(padded, i, i + span, geometry.stride, axis % maps.ndim)
        for i in range(length)
    ]
    return jnp.concatenate(views, -4)


def _unshifts(views, axis, geometry):
    """Transpose of `_shifts`: the views of equal phase overlap, the phases interleave."""
    length, (low, _) = geometry.window[axis + 3], geometry.padding[axis + 3]
    stride, size = geometry.stride, geometry.size[axis + 3]
    views = jnp.split(views, length, -4)
    reach = -(-length // stride) - 1
    views += [jnp.zeros_like(views[0])] * (stride * (reach + 1) - length)
    phases: list[Any] = [
        sum(_pad(view, axis, i, reach - i) for i, view in enumerate(views[phase::stride]))
        for phase in range(stride)
    ]
    shape = list(phases[0].shape)
    shape[axis] *= stride
    total = jnp.stack(phases, axis).reshape(shape)
    return _pad(total, axis, -low, low + size - shape[axis])


def _pad(array, axis, low, high):
    edges = [(0, 0, 0)] * array.ndim
    edges[axis] = (low, high, 0)
    return lax.pad(array, jnp.zeros((), array.dtype), edges)


# Transposition, patches and their sums are linear, and hand-written transposes of one another.
# As primitives they keep these transposes under any nesting of grad, jvp and vmap.


_transposed = partial(jnp.swapaxes, axis1=-1, axis2=-4)


def _transposed_in_a_loop(pictures):
    # A loop keeps XLA from fusing the drawing of the minibatch and the transposition into every
    # view of the patches, where each pixel would be looked up (kh + 1)(kw + 1) / 4 times over.
    *batch, n, h, w, c = pictures.shape
    rows = jnp.moveaxis(pictures, -3, 0).reshape(h, *batch, n, w * c)
    turned = lax.map(lambda row: row.swapaxes(-1, -2), rows).reshape(h, *batch, w, c, n)
    return jnp.moveaxis(turned, (0, -2), (-3, -4))


def _blocks_transposed_in_a_loop(maps):
    # Of blocks of tangents a pool's four members would else each be transposed; one alone is small.
    return _transposed(maps) if maps.ndim == 4 else _transposed_in_a_loop(maps)


def _linear_primitive(name: str, function: Any, shape: Any, on_cpu: Any = None) -> Primitive:
    primitive = Primitive(name)
    primitive.def_impl(function)
    primitive.def_abstract_eval(lambda x, **geometry: x.update(shape=shape(x.shape, **geometry)))
    for platform, chosen in ((None, function), ("cpu", on_cpu or function)):
        lowering = mlir.lower_fun(chosen, multiple_results=False)
        mlir.register_lowering(primitive, lowering, platform=platform)

    def batched(arguments, axes, **geometry):
        return primitive.bind(jnp.moveaxis(arguments[0], axes[0], 0), **geometry), 0

    batching.primitive_batchers[primitive] = batched
    return primitive


def _patches_shape(shape, geometry):
    (kh, kw), stride = geometry.window, geometry.stride
    *batch, c, _, _, n = shape
    sizes = zip(geometry.size, geometry.padding, geometry.window, strict=True)
    places = [(size + sum(edges) - length) // stride + 1 for size, edges, length in sizes]
    return (*batch, kh * kw * c, *places, n)


def _maps_shape(shape, geometry):
    *batch, rows, _, _, n = shape
    return (*batch, rows // (geometry.window[0] * geometry.window[1]), *geometry.size, n)


_im2col = _linear_primitive("im2col", _gather, _patches_shape)
_col2im = _linear_primitive("col2im", _scatter, _maps_shape)
_to_maps, _from_maps = (
    _linear_primitive(name, _transposed, lambda s: (*s[:-4], s[-1], *s[-3:-1], s[-4]), on_cpu)
    for name, on_cpu in (
        ("maps_from_pictures", _transposed_in_a_loop),
        ("pictures_from_maps", _blocks_transposed_in_a_loop),
    )
)
ad.deflinear2(_im2col, lambda cotangent, _, geometry: [_col2im.bind(cotangent, geometry=geometry)])
ad.deflinear2(_col2im, lambda cotangent, _, geometry: [_im2col.bind(cotangent, geometry=geometry)])
ad.deflinear2(_to_maps, lambda cotangent, _: [_transposed(cotangent)])
ad.deflinear2(_from_maps, lambda cotangent, _: [_from_maps.bind(cotangent)])


# The product and its two transposes: each contracts two of the matrices kf, kp, fp to the third.
# JAX's transpose of a product would give patches with the pixels first, and turning these around
# takes as long as the product.


def _contracted(left, right, terms, precision):
    first, second, result = terms
    batch = "".join(letter for letter in second[:-2] if letter not in first)
    if batch and first.endswith("kf"):
        # Only batch axes of the first factor come first in the result of one matrix product.
        sizes = [right.shape[second.index(letter)] for letter in batch]
        left, first = jnp.broadcast_to(left, (*sizes, *left.shape)), batch + first
    return jnp.einsum(f"{first},{second}->{result}", left, right, precision=precision)


def _contracted_shape(left, right, terms, **_):
    sizes = dict(zip(terms[0], left.shape, strict=True))
    sizes.update(zip(terms[1], right.shape, strict=True))
    return left.update(shape=tuple(sizes[letter] for letter in terms[2]))


def _contracted_batch(factors, axes, terms, precision):
    letter = next(letter for letter in ascii_uppercase if letter not in "".join(terms))
    mapped = [axis is not None for axis in axes]
    factors = [
        jnp.moveaxis(factor, axis, 0) if is_mapped else factor
        for factor, axis, is_mapped in zip(factors, axes, mapped, strict=True)
    ]
    terms = tuple(
        letter + term if is_mapped else term
        for term, is_mapped in zip(terms, (*mapped, True), strict=True)
    )
    return _contraction.bind(*factors, terms=terms, precision=precision), 0


def _contracted_transpose(cotangent, place, factors, terms, precision):
    other = 1 - place
    pairs = [(terms[2], cotangent), (terms[other], factors[other])]
    # In this order the letters of the result are in the order in which they are wanted.
    (first, left), (second, right) = sorted(pairs, key=lambda one: "kf kp fp".index(one[0][-2:]))
    return _contraction.bind(left, right, terms=(first, second, terms[place]), precision=precision)


_contraction = Primitive("contraction")
_contraction.def_impl(_contracted)
_contraction.def_abstract_eval(_contracted_shape)
ad.defbilinear(
    _contraction,
    lambda cotangent, *factors, **static: _contracted_transpose(cotangent, 0, factors, **static),
    lambda cotangent, *factors, **static: _contracted_transpose(cotangent, 1, factors, **static),
)
batching.primitive_batchers[_contraction] = _contracted_batch
mlir.register_lowering(_contraction, mlir.lower_fun(_contracted, multiple_results=False))
