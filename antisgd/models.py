"""The networks of the paper as flax.linen modules: `lenet()` and `resnet20()`."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from antisgd.convolution import convolve, max_pool

__all__ = ["lenet", "resnet20"]

_GLOROT = nn.initializers.glorot_normal()


class Conv(nn.Module):
    """A 'SAME' convolution with bias; parameters named and laid out as flax's `nn.Conv`."""

    features: int
    window: int
    stride: int = 1

    @nn.compact
    def __call__(self, images: Array) -> Array:
        shape = (self.window, self.window, images.shape[-1], self.features)
        kernel = self.param("kernel", _GLOROT, shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return convolve(images, kernel, (self.stride, self.stride)) + bias


class LeNet(nn.Module):
    @nn.compact
    def __call__(self, images: Array) -> Array:
        x = max_pool(nn.relu(Conv(6, 5)(images)))
        x = max_pool(nn.relu(Conv(16, 5)(x)))
        x = x.reshape(x.shape[0], -1)
        for width in (120, 84):
            x = nn.relu(nn.Dense(width, kernel_init=_GLOROT)(x))
        return nn.Dense(10, kernel_init=_GLOROT)(x)


class ResNet20(nn.Module):
    @nn.compact
    def __call__(self, images: Array) -> Array:
        x = nn.relu(Conv(16, 3)(images))
        for stage, features in enumerate((16, 32, 64)):
            for block in range(3):
                stride = 2 if stage > 0 and block == 0 else 1
                y = nn.relu(Conv(features, 3, stride)(x))
                y = Conv(features, 3)(y)
                if x.shape != y.shape:
                    x = Conv(features, 1, stride)(x)
                x = nn.relu(x + y)
        return nn.Dense(10, kernel_init=_GLOROT)(jnp.mean(x, axis=(1, 2)))


def lenet() -> nn.Module:
    """LeNet: two 5x5 convolutions (6, 16), each with ReLU and 2x2 max-pool, then dense 120, 84, 10."""
    return LeNet()


def resnet20() -> nn.Module:
    """ResNet-20 for CIFAR (He et al. 2016) without batch normalisation."""
    return ResNet20()
