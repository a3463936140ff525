"""The networks of the paper as flax.linen modules: `lenet()` and `resnet20()`.

Inside, a batch is kept as maps [channels, height, width, n] (see `convolution`); parameters have
the names and layout that flax's own `nn.Conv` would give them.
"""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from antisgd.convolution import (
    convolve,
    convolve_and_pool,
    maps_from_pictures,
    pictures_from_maps,
)

__all__ = ["lenet", "resnet20"]

_GLOROT = nn.initializers.glorot_normal()


class Conv(nn.Module):
    """A 'SAME' convolution of maps with bias and, where asked for, a 2x2 max- or mean-pool."""

    features: int
    window: int
    stride: int = 1
    pool: str = ""

    @nn.compact
    def __call__(self, maps: Array) -> Array:
        shape = (self.window, self.window, maps.shape[0], self.features)
        kernel = self.param("kernel", _GLOROT, shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        if self.pool:
            maps = convolve_and_pool(maps, kernel, mean=self.pool == "mean")
        else:
            maps = convolve(maps, kernel, stride=self.stride)
        return maps + bias[:, None, None, None]


class LeNet(nn.Module):
    """See `lenet`."""

    smooth: bool = False

    @nn.compact
    def __call__(self, images: Array) -> Array:
        bend, pool = (nn.tanh, "mean") if self.smooth else (nn.relu, "max")
        maps = maps_from_pictures(images)
        maps = bend(Conv(6, 5, pool=pool)(maps))
        maps = bend(Conv(16, 5, pool=pool)(maps))
        x = pictures_from_maps(maps).reshape(len(images), -1)
        for width in (120, 84):
            x = bend(nn.Dense(width, kernel_init=_GLOROT)(x))
        return nn.Dense(10, kernel_init=_GLOROT)(x)


class ResNet20(nn.Module):
    """See `resnet20`."""

    @nn.compact
    def __call__(self, images: Array) -> Array:
        x = nn.relu(Conv(16, 3)(maps_from_pictures(images)))
        for stage, features in enumerate((16, 32, 64)):
            for block in range(3):
                stride = 2 if stage > 0 and block == 0 else 1
                y = nn.relu(Conv(features, 3, stride)(x))
                y = Conv(features, 3)(y)
                if stride > 1:
                    x = Conv(features, 1, stride)(x)
                x = nn.relu(x + y)
        return nn.Dense(10, kernel_init=_GLOROT)(jnp.mean(x, axis=(1, 2)).T)


def lenet(*, smooth: bool = False) -> nn.Module:
    """LeNet of App. H: 136,886 weights on pictures of 32x32x3, any other size works too.

    5x5 convolutions with 6 and 16 channels, ReLU and a 2x2 max-pool after each, dense layers of
    120, 84 and 10; all with biases. Kernels are Glorot-normal, biases zero.
    `init(key, images)` → {'params': …}, `apply(variables, images [n, h, w, c])` → logits [n, 10].

    Args:
        smooth: tanh in place of ReLU and mean- in place of max-pooling, so that the loss has no
            kinks (beyond the paper).

    Raises:
        ValueError: from `init` and `apply`, for pictures of fewer than 4x4 pixels.
    """
    return LeNet(smooth)


def resnet20() -> nn.Module:
    """ResNet-20 of He et al. (2016) for CIFAR, without batch normalisation: 271,690 weights.

    3x3 convolutions with biases, three blocks of 16, of 32 and of 64 channels, shortcuts by 1x1
    convolution where the size changes, mean over the pixels, dense 10. Kernels are Glorot-normal,
    biases zero. `init` and `apply` as for `lenet`, for pictures of any size.
    """
    return ResNet20()
