"""The convolution against XLA's own, in value and in every derivative that training and the
Hessian take, whatever the size, and spread over two devices."""

import os
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.flatten_util import ravel_pytree

from antisgd import convolution

EPS32 = np.finfo(np.float32).eps
# Sums of at most 25 · 3 + 12 · 12 · 4 products of numbers of order 1, twice differentiated.
TOLERANCE64 = 1e-11

SHAPES = st.tuples(
    st.integers(1, 3), st.integers(2, 9), st.integers(2, 9), st.integers(1, 3), st.integers(1, 4)
)
WINDOWS = st.tuples(st.integers(1, 5), st.integers(1, 5))


def ours(pictures, kernel, stride=1, pool=False):
    maps = convolution.maps_from_pictures(pictures)
    if pool:
        maps = convolution.convolve_and_pool(maps, kernel)
    else:
        maps = convolution.convolve(maps, kernel, stride=stride)
    return convolution.pictures_from_maps(maps)


def library(pictures, kernel, stride=1, pool=False):
    y = lax.conv_general_dilated(
        pictures, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    if not pool:
        return y
    n, h, w, c = y.shape
    return y[:, : h // 2 * 2, : w // 2 * 2].reshape(n, h // 2, 2, w // 2, 2, c).max((2, 4))


def draw(shape, window, dtype):
    n, h, w, channels, features = shape
    rng = np.random.default_rng(sum(shape) + 10 * sum(window))
    pictures = rng.standard_normal((n, h, w, channels)).astype(dtype)
    kernel = rng.standard_normal((*window, channels, features)).astype(dtype)
    return pictures, kernel


def derivatives(function, pictures, kernel):
    """Value, gradient and Hessian-vector product of Σ sin y, and the tangent of y."""

    def loss(pictures, kernel):
        return jnp.sum(jnp.sin(function(pictures, kernel)))

    point = pictures, kernel
    tangent = jnp.cos(pictures), jnp.cos(kernel)
    gradient = jax.grad(loss, (0, 1))
    value, forward = jax.jvp(function, point, tangent)
    return value, forward, jax.jvp(gradient, point, tangent)


def assert_same_in_float64(pool, shape, window, stride=1):
    with jax.enable_x64(True):
        point = draw(shape, window, np.float64)
        results = [
            jax.jit(partial(derivatives, partial(function, stride=stride, pool=pool)))(*point)
            for function in (ours, library)
        ]
        for a, b in zip(*map(jax.tree.leaves, results), strict=True):
            assert a.dtype == np.float64
            assert a.shape == b.shape
            np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE64 * (1 + np.abs(b).max()))


@settings(max_examples=6, deadline=None, derandomize=True)
@given(shape=SHAPES, window=WINDOWS, stride=st.integers(1, 3))
def test_equals_the_library_in_value_gradient_and_curvature(shape, window, stride):
    assert_same_in_float64(False, shape, window, stride)


@settings(max_examples=5, deadline=None, derandomize=True)
@given(shape=SHAPES, window=WINDOWS)
def test_pooled_equals_the_pool_of_the_library(shape, window):
    assert_same_in_float64(True, shape, window)


@pytest.mark.parametrize(
    ("shape", "window", "stride", "pool"),
    [
        ((3, 32, 32, 3, 6), (5, 5), 1, True),
        ((3, 16, 16, 6, 16), (5, 5), 1, True),
        ((2, 16, 16, 16, 32), (3, 3), 2, False),
        ((2, 8, 8, 64, 64), (3, 3), 1, False),
        ((2, 16, 16, 16, 32), (1, 1), 2, False),
    ],
    ids=["LeNet-1", "LeNet-2", "ResNet-stride", "ResNet-wide", "ResNet-shortcut"],
)
def test_rounds_no_worse_than_a_sum_in_float32(shape, window, stride, pool):
    """|ŷ − y| ≤ γ Σ|x||k| with γ = K·eps, for sums of K products in any order."""
    pictures, kernel = draw(shape, window, np.float32)
    y = ours(pictures, kernel, stride, pool)
    with jax.enable_x64(True):
        exact = library(pictures.astype(np.float64), kernel.astype(np.float64), stride, pool)
        size = library(*(np.abs(a).astype(np.float64) for a in (pictures, kernel)), stride, pool)
    y, exact, size = map(np.asarray, (y, exact, size))
    terms = kernel[..., 0].size
    assert y.dtype == np.float32
    assert exact.dtype == np.float64
    assert np.all(np.abs(y - exact) <= terms * EPS32 * size)


@pytest.mark.parametrize("pool", [False, True])
def test_a_batch_of_kernels_or_tangents_is_a_loop(pool):
    pictures, _ = draw((3, 7, 6, 2, 3), (3, 3), np.float32)
    kernels = np.random.default_rng(1).standard_normal((2, 2, 3, 3, 2, 3)).astype(np.float32)
    tangents = np.random.default_rng(2).standard_normal(kernels.shape[1:]).astype(np.float32)

    def curvature(kernel, tangent, pictures):
        loss = lambda k: jnp.sum(jnp.sin(ours(pictures, k, pool=pool)))  # noqa: E731
        return jax.jvp(jax.grad(loss), (kernel,), (tangent,))[1]

    over_tangents = jax.vmap(curvature, (None, 0, None))
    over_both = jax.vmap(jax.vmap(over_tangents, (0, None, None)), (0, None, None))
    together = jax.jit(over_both)(kernels, tangents, pictures)
    apart = [[[curvature(k, t, pictures) for t in tangents] for k in pair] for pair in kernels]
    np.testing.assert_allclose(together, apart, rtol=0, atol=500 * EPS32)


ROADS = convolution._by_patches, convolution._by_library
PADDING = ((1, 1), (1, 2))


@pytest.mark.parametrize("stride", [1, 2])
def test_all_roads_give_the_same(stride):
    """Values, gradients and curvature, of blocks of tangents and of several networks too."""
    with jax.enable_x64(True):
        pictures, kernel = draw((3, 7, 6, 2, 3), (3, 4), np.float64)
        kernels, maps = np.stack([kernel, kernel - 1]), pictures.transpose(3, 1, 2, 0)
        tangents = np.stack([np.cos(kernel), np.sin(kernel)])
        results = []
        for road in ROADS:
            function = partial(road, stride=stride, padding=PADDING)

            def products(kernel, tangent, maps, function=function):
                loss = lambda x, k: jnp.sum(jnp.sin(function(x, k)))  # noqa: E731
                moved = lambda k: jax.grad(loss, (0, 1))(jnp.cos(k).sum() * maps, k)  # noqa: E731
                return function(maps, kernel), jax.jvp(moved, (kernel,), (tangent,))

            over_tangents = jax.vmap(products, (None, 0, None))
            results.append(
                jax.jit(jax.vmap(over_tangents, (0, None, None)))(kernels, tangents, maps)
            )
    for a, b in zip(*map(jax.tree.leaves, results), strict=True):
        assert np.abs(b).max() > 1e-3
        np.testing.assert_allclose(a, b, rtol=0, atol=TOLERANCE64 * (1 + np.abs(b).max()))


@pytest.mark.parametrize(
    ("platform", "chosen", "other"),
    [("cpu", "dot_general", "convolution("), ("tpu", "convolution(", "dot_general"),
     ("cuda", "convolution(", "dot_general")],
)  # fmt: skip
def test_each_platform_takes_its_road_with_the_precision_asked_for(platform, chosen, other):
    def gradient(maps, kernel):
        with jax.default_matmul_precision("highest"):
            loss = lambda x, k: jnp.sum(convolution.convolve_and_pool(x, k))  # noqa: E731
            return jax.grad(loss, (0, 1))(maps, kernel)

    traced = jax.jit(gradient).trace(jnp.ones((2, 6, 6, 3)), jnp.ones((3, 3, 2, 4)))
    lines = traced.lower(lowering_platforms=(platform,)).as_text().splitlines()
    products = [line for line in lines if chosen in line]
    assert len(products) == 3
    assert all("HIGHEST" in line for line in products)
    assert not any(other in line for line in lines)


def test_a_batch_of_pictures_is_a_loop():
    pictures, kernel = draw((6, 8, 8, 2, 3), (5, 5), np.float32)
    groups = pictures.reshape(2, 3, 8, 8, 2)
    together = jax.vmap(partial(ours, pool=True), (0, None))(groups, kernel)
    np.testing.assert_allclose(
        together.reshape(6, 4, 4, 3), ours(pictures, kernel, pool=True), rtol=0, atol=100 * EPS32
    )


def test_ties_give_one_subgradient_and_a_symmetric_hessian():
    """Equal pictures tie everywhere: the first member of a block takes the whole derivative."""
    pictures = np.ones((1, 4, 4, 1), np.float32)
    kernel = np.ones((1, 1, 1, 1), np.float32)
    gradient = jax.grad(lambda x: jnp.sum(ours(x, kernel, pool=True)))(pictures)
    expected = np.zeros((4, 4))
    expected[::2, ::2] = 1
    np.testing.assert_array_equal(gradient[0, :, :, 0], expected)

    def loss(point):
        return jnp.sum(jnp.sin(ours(*point, pool=True)))

    point = np.ones((2, 6, 6, 1), np.float32), np.ones((3, 3, 1, 2), np.float32)
    flat, restore = ravel_pytree(point)
    vectors = jax.random.normal(jax.random.key(0), (2, flat.size))
    product = jax.jit(lambda v: jax.jvp(jax.grad(lambda f: loss(restore(f))), (flat,), (v,))[1])
    (u, v), (hu, hv) = vectors, [product(vector) for vector in vectors]
    size = np.linalg.norm(u) * np.linalg.norm(hv)
    assert size > 1
    assert abs(np.dot(u, hv) - np.dot(v, hu)) < 10 * EPS32 * size


def test_a_network_of_nothing_but_nans_stays_so():
    pictures, kernel = draw((1, 4, 4, 1, 1), (3, 3), np.float32)
    assert np.isnan(ours(pictures, np.nan * kernel, pool=True)).all()


def test_products_keep_the_precision_they_are_traced_with():
    pictures, kernel = draw((2, 6, 6, 2, 2), (3, 3), np.float32)

    def gradient(pictures, kernel):
        with jax.default_matmul_precision("highest"):
            return jax.grad(lambda k: jnp.sum(jnp.sin(ours(pictures, k))))(kernel)

    products = [
        line
        for line in jax.jit(gradient).lower(pictures, kernel).as_text().splitlines()
        if "dot_general" in line
    ]
    assert len(products) == 2
    assert all("precision = [HIGHEST, HIGHEST]" in line for line in products)


def test_pictures_too_small_to_pool_are_refused():
    with pytest.raises(ValueError, match="at least 2x2 pixels, not 1x5"):
        convolution.convolve_and_pool(jnp.zeros((1, 1, 5, 2)), jnp.zeros((3, 3, 1, 1)))


TWO_DEVICES = """
import jax, numpy as np
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from antisgd import convolution
assert len(jax.devices()) == 2
mesh = Mesh(jax.devices(), ("networks",))
pictures = jax.random.normal(jax.random.key(0), (6, 6, 6, 2))
kernels = jax.random.normal(jax.random.key(1), (4, 3, 3, 2, 3))
def loss(kernel, pictures):
    maps = convolution.maps_from_pictures(pictures)
    return jnp.mean(jnp.sin(convolution.convolve_and_pool(maps, kernel)))
gradients = jax.vmap(jax.grad(loss), (0, None))
alone = jax.jit(gradients)(kernels, pictures)
placed = jax.device_put(kernels, NamedSharding(mesh, P("networks")))
spread = jax.jit(gradients)(placed, pictures)
mapped = jax.shard_map(gradients, mesh=mesh, in_specs=(P("networks"), P()), out_specs=P("networks"))
shared = jax.shard_map(
    jax.grad(lambda kernel, pictures: jax.lax.pmean(loss(kernel, pictures), "networks")),
    mesh=mesh, in_specs=(P(), P("networks")), out_specs=P())
for result, expected in ((spread, alone), (jax.jit(mapped)(kernels, pictures), alone),
                         (jax.jit(shared)(kernels[0], pictures), alone[0])):
    np.testing.assert_allclose(result, expected, rtol=0, atol=2e-6)
"""


def test_two_devices_give_the_result_of_one():
    """Seeds spread by a sharding and by shard_map, and one gradient over pictures in halves."""
    command = [sys.executable, "-c", TWO_DEVICES]
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, env=os.environ | flags, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
