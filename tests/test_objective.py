"""The loss is a weighted mean plus a penalty on kernels; sums over microbatches keep it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from antisgd import objective

EPS = np.finfo(np.float32).eps


class Pictures(NamedTuple):
    images: jax.Array
    labels: jax.Array


def apply(params, images):
    return images @ params["dense"]["kernel"] + params["dense"]["bias"][None]


@pytest.fixture
def params():
    kernel = jax.random.normal(jax.random.key(0), (5, 3))
    return {"dense": {"kernel": kernel, "bias": jnp.arange(3.0)}}


@pytest.fixture
def examples():
    images = jax.random.normal(jax.random.key(1), (23, 5))
    return Pictures(images, jax.random.randint(jax.random.key(2), (23,), 0, 3))


def cross_entropy(params, examples):
    logits = np.asarray(apply(params, examples.images), np.float64)
    log_sum = np.log(np.exp(logits).sum(-1))
    return log_sum - logits[np.arange(len(logits)), np.asarray(examples.labels)]


def test_loss_is_the_weighted_mean_plus_the_penalty_without_one_half(params, examples):
    weights = jnp.arange(23.0)
    value = objective.make_loss(apply, 0.01)(params, examples, weights)
    mean = np.average(cross_entropy(params, examples), weights=np.arange(23.0))
    penalty = 0.01 * np.sum(np.asarray(params["dense"]["kernel"], np.float64) ** 2)
    np.testing.assert_allclose(value, mean + penalty, rtol=20 * EPS)


def test_biases_are_not_penalised(params):
    moved = {"dense": params["dense"] | {"bias": params["dense"]["bias"] + 7}}
    assert objective.kernel_penalty(moved) == objective.kernel_penalty(params)


@pytest.mark.parametrize("microbatch_size", [1, 4, 23, 100])
def test_full_gradient_does_not_depend_on_the_microbatches(params, examples, microbatch_size):
    loss = objective.make_loss(apply, 0.01)
    whole = jax.grad(loss)(params, examples, jnp.ones(23))
    parts = objective.full_gradient(loss, params, examples, microbatch_size)
    for part, expected in zip(jax.tree.leaves(parts), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(part, expected, atol=40 * EPS * np.abs(expected).max())


@pytest.mark.parametrize("microbatch_size", [1, 4, 23, 100])
def test_metrics_do_not_depend_on_the_microbatches(params, examples, microbatch_size):
    metrics = objective.evaluate(apply, params, examples, microbatch_size=microbatch_size)
    predicted = np.argmax(apply(params, examples.images), -1)
    np.testing.assert_allclose(metrics.loss, cross_entropy(params, examples).mean(), rtol=40 * EPS)
    np.testing.assert_allclose(metrics.accuracy, np.mean(predicted == examples.labels), rtol=EPS)


def test_negative_weight_decay_is_refused():
    with pytest.raises(ValueError, match="weight decay"):
        objective.make_loss(apply, -1.0)


@pytest.mark.parametrize("margin", [-30.0, 0.0, 5.0, 10.0, 16.0, 40.0])
def test_derivatives_of_the_cross_entropy_keep_their_digits_at_any_confidence(margin):
    """Against p − e_y and diag p − p pᵀ in float64, 1 − p_y down to 1e-17.

    exp(z_j − z_y) carries the rounding of its argument, |z_j − z_y| eps; a dozen more operations
    follow.
    """
    others = np.array([0.25, -0.5, 1.0])
    logits, label = jnp.asarray([margin, *others], jnp.float32), jnp.zeros(1, jnp.int32)
    ratios = np.exp(np.array([0.0, *(others - margin)]))
    p = ratios / ratios.sum()
    gradient = p - np.eye(4)[0]
    gradient[0] = -p[1:].sum()
    hessian = np.diag(p) - np.outer(p, p)
    hessian[0, 0] = p[0] * p[1:].sum()
    alone = lambda z: objective.cross_entropy(z[None], label)[0]  # noqa: E731
    tolerance = (np.abs(others - margin).max() + 12) * EPS
    for found, exact in ((jax.grad(alone), gradient), (jax.hessian(alone), hessian)):
        error = np.abs(np.asarray(found(logits), np.float64) - exact).max()
        assert error <= tolerance * np.abs(exact).max()


def test_the_cross_entropy_of_tokens_is_that_of_each_alone():
    """Any leading axes, to the bit; a label too few or beyond the classes is refused as ever."""
    logits = jax.random.normal(jax.random.key(0), (5, 7, 4))
    labels = jax.random.randint(jax.random.key(1), (5, 7), 0, 4)
    flat = objective.cross_entropy(logits.reshape(-1, 4), labels.reshape(-1))
    np.testing.assert_array_equal(objective.cross_entropy(logits, labels).reshape(-1), flat)
    for wrong, message in ((labels[:, :6], "integer labels"), (labels + 1, "from 1 to 4")):
        with pytest.raises(ValueError, match=message):
            objective.cross_entropy(logits, wrong)
