"""The networks against the same networks built from flax's own layers."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from antisgd import models
from experiments.benchmarks.training import LibraryLeNet

pytestmark = pytest.mark.usefixtures("quick_to_compile")

EPS = np.finfo(np.float32).eps


class LibraryResNet20(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(16, (3, 3))(x))
        for features, stride in ((16, 1), (32, 2), (64, 2)):
            for step in (stride, 1, 1):
                y = nn.relu(nn.Conv(features, (3, 3), step)(x))
                y = nn.Conv(features, (3, 3))(y)
                x = nn.relu(y + (nn.Conv(features, (1, 1), step)(x) if step == 2 else x))
        return nn.Dense(10)(x.mean((1, 2)))


class LibrarySmoothLeNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        for features in (6, 16):
            x = nn.tanh(nn.avg_pool(nn.Conv(features, (5, 5))(x), (2, 2), (2, 2)))
        x = x.reshape(len(x), -1)
        for width in (120, 84):
            x = nn.tanh(nn.Dense(width)(x))
        return nn.Dense(10)(x)


LENET = (models.lenet(), LibraryLeNet())
SMOOTH = (models.lenet(smooth=True), LibrarySmoothLeNet())
RESNET = (models.resnet20(), LibraryResNet20())


def initial(model, shape):
    images = jax.random.normal(jax.random.key(1), shape)
    return jax.jit(model.init)(jax.random.key(0), images), images


@pytest.mark.parametrize(("model", "weights"), [(LENET[0], 136_886), (RESNET[0], 271_690)])
def test_has_the_weights_of_the_paper(model, weights):
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == weights


@pytest.mark.parametrize(
    ("pair", "shape"),
    [
        (LENET, (3, 32, 32, 3)),
        (LENET, (5, 8, 8, 1)),
        (LENET, (2, 11, 9, 2)),
        (SMOOTH, (2, 11, 9, 2)),
        pytest.param(RESNET, (2, 9, 7, 3), marks=pytest.mark.slow),
    ],
    ids=["LeNet", "LeNet-digits", "LeNet-odd", "smooth-odd", "ResNet-odd"],
)
def test_is_the_network_of_the_library(pair, shape):
    """The same parameters, by name and layout, give the same logits and the same gradient."""
    ours, library = pair
    params, images = initial(ours, shape)
    shapes = jax.eval_shape(library.init, jax.random.key(0), images)
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(lambda leaf: leaf.shape, shapes)

    def gradient(model):
        loss = lambda p: jnp.sum(jax.nn.log_softmax(model.apply(p, images))[:, 0])  # noqa: E731
        return jax.jit(jax.value_and_grad(loss))(params)

    for a, b in zip(*(jax.tree.leaves(gradient(model)) for model in pair), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=300 * EPS * max(1, np.abs(b).max()))


def test_starts_with_glorot_normal_kernels_and_zero_biases():
    """Var w = 2 / (fan in + fan out), to 4 standard errors of a variance (p = 6e-5 each)."""
    params, _ = initial(models.lenet(), (1, 32, 32, 3))
    for layer in params["params"].values():
        kernel, bias = np.asarray(layer["kernel"]), layer["bias"]
        *window, fan_in, fan_out = kernel.shape
        variance = 2 / ((fan_in + fan_out) * np.prod(window, initial=1))
        assert not bias.any()
        assert abs(kernel.var() / variance - 1) < 4 * np.sqrt(2 / kernel.size)


def test_refuses_pictures_too_small_to_pool_twice():
    with pytest.raises(ValueError, match="at least 2x2 pixels"):
        jax.eval_shape(models.lenet().init, jax.random.key(0), jnp.zeros((1, 3, 8, 1)))
