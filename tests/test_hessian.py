"""Hessian-vector products against dense Hessians, float64 sums and other devices."""

import os
import subprocess
import sys
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from antisgd import data, hessian, models, objective

EPS = np.finfo(np.float32).eps


def _predict(params, examples):
    hidden = jnp.tanh(examples["x"] @ params["first"]["kernel"] + params["first"]["bias"][None])
    return hidden @ params["second"]["kernel"]


def _output_loss(outputs, examples, weights):
    chosen = jnp.take_along_axis(jax.nn.log_softmax(outputs), examples["y"][:, None], 1)[:, 0]
    return -jnp.sum(weights * chosen) / jnp.sum(weights)


def _loss(params, examples, weights):
    penalty = sum(jnp.sum(layer["kernel"] ** 2) for layer in params.values())
    return _output_loss(_predict(params, examples), examples, weights) + 0.1 * penalty


def _problem(num_examples=23, seed=0):
    keys = jax.random.split(jax.random.key(seed), 5)
    params = {
        "first": {
            "kernel": jax.random.normal(keys[0], (4, 5)),
            "bias": jax.random.normal(keys[1], (5,)),
        },
        "second": {"kernel": jax.random.normal(keys[2], (5, 3))},
    }
    examples = {
        "x": jax.random.normal(keys[3], (num_examples, 4)),
        "y": jax.random.randint(keys[4], (num_examples,), 0, 3),
    }
    return params, examples


def _dense(params, examples):
    """Forward over reverse, all of it: the oracle."""
    flat, unravel = ravel_pytree(params)
    weights = jnp.ones(len(examples["y"]))
    hessian_of = jax.jit(jax.hessian(lambda point: _loss(unravel(point), examples, weights)))
    return np.asarray(hessian_of(flat))


@lru_cache
def _standard():
    params, examples = _problem()
    return params, examples, _dense(params, examples)


def _matrix(matvec, dimension):
    return np.asarray(jax.vmap(matvec)(jnp.eye(dimension)))


@pytest.mark.parametrize("microbatch_size", [1, 8, 1000])
def test_is_the_hessian_of_the_full_loss_with_its_penalty_whatever_the_microbatch(microbatch_size):
    params, examples, expected = _standard()
    matvec = hessian.hessian_vector_product(
        _loss, params, examples, microbatch_size=microbatch_size
    )
    error = np.abs(_matrix(matvec, len(expected)) - expected).max()
    assert error < 30 * EPS * np.linalg.norm(expected, 2)


def test_a_block_gives_what_single_vectors_give():
    params, examples = _problem()
    matvec = hessian.hessian_vector_product(_loss, params, examples, microbatch_size=8)
    vectors = jax.random.normal(jax.random.key(1), (3, 40))
    single = np.stack([matvec(vector) for vector in vectors])
    np.testing.assert_allclose(jax.vmap(matvec)(vectors), single, atol=30 * EPS)


def test_is_symmetric_to_rounding_through_convolution_relu_and_pooling():
    keys = jax.random.split(jax.random.key(0), 4)
    images = jax.random.normal(keys[0], (12, 1, 8, 8))
    params = jax.random.normal(keys[1], (4, 1, 3, 3)), jax.random.normal(keys[2], (64, 3))

    def loss(params, images, weights):
        maps = jax.nn.relu(jax.lax.conv(images, params[0], (1, 1), "SAME"))
        features = maps.reshape(len(images), 4, 4, 2, 4, 2).max((3, 5)).reshape(len(images), -1)
        log_shares = jax.nn.log_softmax(features @ params[1])
        return -jnp.sum(weights * log_shares[:, 0]) / jnp.sum(weights)

    matvec = hessian.hessian_vector_product(loss, params, images, microbatch_size=6)
    u, v = jax.random.normal(keys[3], (2, 36 + 192))
    hu, hv = (np.asarray(product, np.float64) for product in jax.vmap(matvec)(jnp.stack([u, v])))
    size = np.linalg.norm(u) * np.linalg.norm(hv)
    assert abs(np.dot(u, hv) - np.dot(v, hu)) < 10 * EPS * size


def test_sums_over_many_microbatches_keep_six_digits():
    """A least-squares Hessian 2 E[x x'] of one-signed terms, where plain float32 sums drift."""
    num_examples = 50_000
    x = np.random.default_rng(0).uniform(0.5, 1.5, (num_examples, 6)).astype(np.float32)

    def loss(params, examples, weights):
        return jnp.sum(weights * (examples @ params) ** 2) / jnp.sum(weights)

    matvec = hessian.hessian_vector_product(loss, jnp.zeros(6), x, microbatch_size=2)
    expected = 2 * x.astype(np.float64).T @ x / num_examples
    error = np.abs(_matrix(matvec, 6) - expected).max() / np.abs(expected).max()
    assert error < 1e-6


def test_float64_parameters_give_float64_products():
    params, examples = _problem()
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)
        pictures = {"x": examples["x"].astype(jnp.float64), "y": examples["y"]}
        expected = _dense(wide, pictures)
        matvec = hessian.hessian_vector_product(_loss, wide, examples, microbatch_size=8)
        error = np.abs(_matrix(matvec, len(expected)) - expected).max()
    assert error < 1e-13 * np.linalg.norm(expected, 2)


def test_a_subset_of_the_weights_gives_its_block_of_the_hessian():
    params, examples, expected = _standard()
    flat, _ = ravel_pytree(params)
    chosen, insert = hessian.ravel_subset(params, lambda name: name == "first/kernel")
    inside = slice(5, 25)  # after the 5 biases in the flat order
    np.testing.assert_array_equal(chosen, flat[inside])
    np.testing.assert_array_equal(ravel_pytree(insert(chosen))[0], flat)
    matvec = hessian.hessian_vector_product(
        _loss, params, examples, microbatch_size=8, only=lambda name: name == "first/kernel"
    )
    error = np.abs(_matrix(matvec, 20) - expected[inside, inside]).max()
    assert error < 30 * EPS * np.linalg.norm(expected, 2)


def test_gauss_newton_is_jacobian_curvature_jacobian():
    params, examples = _problem()
    flat, unravel = ravel_pytree(params)
    outputs = jax.jit(jax.jacrev(lambda point: _predict(unravel(point), examples)))
    jacobian = np.asarray(outputs(flat), np.float64)
    shares = np.asarray(jax.nn.softmax(_predict(params, examples)), np.float64)
    curvature = np.einsum("ni,ij->nij", shares, np.eye(3)) - shares[:, :, None] * shares[:, None]
    expected = np.einsum("nip,nij,njq->pq", jacobian, curvature, jacobian) / len(shares)
    matvec = hessian.gauss_newton_product(
        _predict, _output_loss, params, examples, microbatch_size=7
    )
    found = _matrix(matvec, len(expected))
    assert np.abs(found - expected).max() < 30 * EPS * np.linalg.norm(expected, 2)


def test_products_are_pinned_to_the_highest_precision():
    params, examples = _problem()
    matvec = hessian.hessian_vector_product(_loss, params, examples, microbatch_size=8)
    program = str(jax.make_jaxpr(matvec)(jnp.ones(40)))
    products = program.split("dot_general[")[1:]
    assert products
    assert all("HIGHEST" in product.split("]\n")[0][:400] for product in products)


@pytest.mark.parametrize("gauss_newton", [False, True])
def test_products_take_a_named_algorithm_everywhere_and_refuse_what_the_device_has_not(
    gauss_newton,
):
    params, examples = _problem()

    def made(precision):
        given = {"microbatch_size": 8, "precision": precision}
        if gauss_newton:
            return hessian.gauss_newton_product(_predict, _output_loss, params, examples, **given)
        return hessian.hessian_vector_product(_loss, params, examples, **given)

    matvec = made("BF16_BF16_F32_X3")
    text = jax.jit(matvec).lower(jnp.zeros(40)).as_text()
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert products and all("num_primitive_operations = 3" in line for line in products)
    with pytest.raises(
        ValueError, match="precision='X3' is none that matrix products have on this"
    ):
        made("X3")


def test_another_point_and_a_second_request_do_not_compile_again():
    traces = []

    def loss(params, examples, weights):
        traces.append(None)
        return _loss(params, examples, weights)

    params, examples = _problem()
    for scale in (1.0, 2.0):
        point = jax.tree.map(lambda leaf, scale=scale: scale * leaf, params)
        hessian.hessian_vector_product(loss, point, examples, microbatch_size=8)(jnp.ones(40))
        if scale == 1.0:
            first = len(traces)
    assert len(traces) == first


_TWO_DEVICES = """
import sys; sys.path[:0] = sys.argv[1:]
import jax, jax.numpy as jnp, numpy as np
from test_hessian import _loss, _matrix, _standard
from antisgd import data, hessian, models, objective
assert jax.local_device_count() == 2
params, examples, expected = _standard()
matvec = hessian.hessian_vector_product(_loss, params, examples, microbatch_size=5)
assert len(matvec.args[1].examples["x"].sharding.device_set) == 2
print(np.abs(_matrix(matvec, 40) - expected).max() / np.linalg.norm(expected, 2))
one = jax.tree.map(lambda leaf: leaf[:1], examples)
alone = hessian.hessian_vector_product(_loss, params, one, microbatch_size=5)
flat, restore = jax.flatten_util.ravel_pytree(params)
exact = jax.hessian(lambda point: _loss(restore(point), one, jnp.ones(1)))(flat)
print(np.abs(_matrix(alone, 40) - exact).max() / np.linalg.norm(exact, 2))
"""


def test_data_split_over_two_devices_give_the_same_products():
    """Also where there are fewer examples than devices."""
    tests = os.path.dirname(__file__)
    result = subprocess.run(
        [sys.executable, "-c", _TWO_DEVICES, tests, os.path.dirname(tests)],
        env={**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert all(float(error) < 30 * EPS for error in result.stdout.split())


def test_bad_input_is_named():
    params, examples = _problem()
    with pytest.raises(ValueError, match="first/bias, first/kernel, second/kernel"):
        hessian.ravel_subset(params, lambda name: name == "third")
    with pytest.raises(ValueError, match="microbatch_size=0"):
        hessian.hessian_vector_product(_loss, params, examples, microbatch_size=0)
    with pytest.raises(ValueError, match="0 examples"):
        none = jax.tree.map(lambda leaf: leaf[:0], examples)
        hessian.hessian_vector_product(_loss, params, none, microbatch_size=1)


def test_secants_count_the_kinks_that_no_product_sees():
    """Σ_n|a_n·θ − b_n|/N: no curvature at any one θ, a jump of 2|a_n·p|/N at each kink passed."""
    rng, h, m = np.random.default_rng(0), np.array([0.5, 0.3, 0.8]), np.array([0.1, -0.2, 0.0])
    a, b = rng.normal(size=(40, 3)), rng.normal(size=40)

    def loss(theta, examples, weights):
        inputs, targets = examples
        return jnp.sum(weights * jnp.abs(inputs @ theta - targets)) / jnp.sum(weights)

    examples = (jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32))
    at = jnp.array([0.2, -0.1, 0.3])
    product = hessian.hessian_vector_product(loss, at, examples, microbatch_size=40)
    np.testing.assert_array_equal(jax.vmap(product)(jnp.eye(3)), 0)
    found = hessian.secant_curvature(
        lambda theta: jax.grad(loss)(theta, examples, jnp.ones(40)), at, jnp.eye(3), h, m
    )
    kinks = (b - a @ np.asarray(at, np.float64))[:, None] / a
    passed = np.abs(kinks - m) < h
    assert passed.sum() > 20
    expected = (2 * np.abs(a) * passed).sum(axis=0) / 40 / (2 * h)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("smooth", [False, True])
def test_what_parts_secants_of_a_lenet_from_its_products_are_kinks(smooth):
    """A smooth one's differ by h² times a constant, the other's by jumps, none within 1e-5."""
    with jax.enable_x64(True):
        model, keys = models.lenet(smooth=smooth), jax.random.split(jax.random.key(0), 4)
        pictures = jax.random.normal(keys[0], (40, 12, 12, 3), jnp.float64)
        examples = data.Examples(pictures, jax.random.randint(keys[1], (40,), 0, 10))
        params = model.init(keys[2], pictures[:1])
        params = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), params)
        theta, restore = ravel_pytree(params)
        loss = objective.make_loss(model.apply)
        gradient = jax.jit(jax.grad(lambda flat: loss(restore(flat), examples, jnp.ones(40))))
        random = jax.random.normal(keys[3], (theta.size, 4), jnp.float64)
        rows = jnp.linalg.qr(random)[0].T
        products = jnp.stack([p @ jax.jvp(gradient, (theta,), (p,))[1] for p in rows])
        slopes = np.abs(np.asarray(rows @ gradient(theta))).max()
        small, middle, large = (
            hessian.secant_curvature(lambda at: rows @ gradient(at), theta, rows, h) - products
            for h in (1e-5, 1e-2, 1e-1)
        )
    bound = 100 * np.finfo(np.float64).eps * slopes / 1e-5
    np.testing.assert_allclose(small, 0, atol=bound)
    if smooth:
        np.testing.assert_allclose(large / middle, 100, rtol=0.1)
    else:
        assert np.all(np.abs(middle) > 1e4 * bound) and np.all(np.abs(large / middle) < 10)


def test_a_secant_that_cannot_be_is_refused():
    eye, at = jnp.eye(2), jnp.zeros(2)
    with pytest.raises(ValueError, match="reach above 0"):
        hessian.secant_curvature(lambda theta: theta, at, eye, [1.0, 0.0])
    with pytest.raises(ValueError, match="direction 1 is not finite"):
        hessian.secant_curvature(lambda theta: theta / (1 - theta[1:]), at, eye, 1.0)
