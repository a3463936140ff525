"""Pictures as device arrays: CIFAR-10, scikit-learn's digits, and synthetic ones of any size."""

import hashlib
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

from antisgd import display, inputs
from antisgd.data import cifar10, copies

__all__ = [
    "Dataset", "Examples", "fingerprint", "load", "load_named", "standardise", "synthetic",
]  # fmt: skip

DIGITS_TRAIN = 1_500
SYNTHETIC_TRAIN = 1_000
CHUNK = 1_000


class Examples(NamedTuple):
    """Standardised pictures float32 [n, h, w, c] and their classes int32 [n]."""

    images: jax.Array
    labels: jax.Array

    def __repr__(self) -> str:
        return display.described(self)


class Dataset(NamedTuple):
    """What is trained on, and what the accuracy is tested on."""

    train: Examples
    test: Examples

    def __repr__(self) -> str:
        return display.described(self)


def load(
    name: str,
    *,
    directory: str | Path | None = None,
    num_examples: int | None = None,
    seed: int = 0,
) -> Dataset:
    """Loads 'cifar10', 'digits' or 'synthetic' with every picture standardised.

    'cifar10' has 50,000 and 10,000 pictures [32, 32, 3] with pixels /255; 'digits' is
    scikit-learn's 1,797 pictures [8, 8, 1] with pixels /16, of which a fixed random 1,500 are
    for training; 'synthetic' is `synthetic` at its default shape. See `standardise` for what
    follows. Nothing is random but 'synthetic'.

    Args:
        name: 'cifar10', 'digits' or 'synthetic'.
        directory: where CIFAR-10 is: the binary or python distribution, as a folder, as the
            archive, or as a folder that holds either; or a prepared tensorflow-datasets folder.
            None downloads the official archive once, into $XDG_CACHE_HOME/antisgd or
            ~/.cache/antisgd. The other two need none and do not look at it.
        num_examples: keeps the first so many training pictures; None keeps all (1,000 of
            'synthetic', whose test set is a quarter as large). The test set stays whole.
        seed: of 'synthetic'.

    Raises:
        ValueError: unknown name, `num_examples` out of range, damaged or foreign files, a
            tensorflow-datasets folder without the extra 'tfds'.
        FileNotFoundError, OSError: missing or unreadable files, a failed download.
    """
    return load_named(name, directory=directory, num_examples=num_examples, seed=seed)[0]


def load_named(
    name: str,
    *,
    directory: str | Path | None = None,
    num_examples: int | None = None,
    seed: int = 0,
) -> tuple[Dataset, str]:
    """What `load` loads, and what results from it must call it: which copy of CIFAR-10 it is.

    'CIFAR-10' alone is the official files, told by their pixels, not by where they lie.
    """
    if name == "synthetic":
        count = SYNTHETIC_TRAIN if num_examples is None else num_examples
        return synthetic(count, seed=seed), "synthetic pictures"
    if name == "cifar10":
        (train, test), white = cifar10.read(directory), 255
        shown = copies.name_of(train.images)
    elif name == "digits":
        (train, test), white, shown = _digits(), 16, "scikit-learn's digits"
    else:
        raise ValueError(f"no dataset {name!r}: choose cifar10, digits or synthetic")
    kept = _first(name, num_examples, *train)
    return Dataset(_place(*kept, white), _place(*test, white)), shown


def synthetic(
    num_examples: int, *, seed: int = 0, shape: tuple[int, int, int] = (8, 8, 1)
) -> Dataset:
    """Draws pictures around one random template for each of 10 classes.

    A pixel is t_class + ε with ε ~ N(0, 1) and E‖t‖² = 12, whatever the shape, so that the nearest
    template is wrong for about one picture in ten: learnable, yet not separable. The classes
    are uniform; templates, classes and ε follow from the seed alone.

    Args:
        num_examples: training pictures; the test set has a quarter as many, at least one.
        seed: non-negative.
        shape: height, width and channels of a picture.

    Raises:
        ValueError: no pictures, or a negative seed.
    """
    num_examples, seed = inputs.count("num_examples", num_examples, 0), _seed(seed)
    if num_examples < 1 or seed < 0:
        raise ValueError(
            "synthetic pictures need num_examples >= 1 and seed >= 0, "
            f"got num_examples={num_examples} and seed={seed}"
        )
    rng = np.random.default_rng(seed)
    templates = rng.normal(size=(10, *shape)) * np.sqrt(12 / np.prod(shape))

    def draw(count):
        labels = rng.integers(10, size=count)
        return _place(templates[labels] + rng.normal(size=(count, *shape)), labels, white=1)

    return Dataset(draw(num_examples), draw(max(1, num_examples // 4)))


def _seed(seed: int) -> int:
    return inputs.count("seed", seed, -(2**63))


def standardise(pixels: np.ndarray, white: float) -> np.ndarray:
    """Gives every channel of every picture mean 0 and variance 1 over its own pixels (App. H).

    x ← (x − mean) / std with x = pixels / white and the population's std, in float64. A channel
    with std ≤ 1e-5 is taken for constant and becomes 0 (one pixel of 32x32 that is one of 255
    levels off already has 1.2e-4). Nothing is random.

    Args:
        pixels: [n, h, w, c], any real dtype.
        white: the value of full brightness, 255 for bytes.

    Returns:
        float32 [n, h, w, c].

    Raises:
        ValueError: another shape, pixels that are not finite, or a `white` that is not positive.
    """
    pixels = inputs.finite("pixels", pixels, 4)
    white = inputs.number("white", white, above=0)
    x = pixels / np.float64(white)
    x -= x.mean((1, 2), keepdims=True)
    deviation = np.sqrt(np.mean(np.square(x), (1, 2), keepdims=True))
    return (x / np.where(deviation > 1e-5, deviation, np.inf)).astype(np.float32)


def fingerprint(dataset: Any) -> str:
    """SHA-256, in hex, of all arrays of a pytree with their dtypes and shapes."""
    digest = hashlib.sha256()
    for array in map(np.asarray, jax.tree.leaves(dataset)):
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _digits() -> tuple[cifar10.Pictures, cifar10.Pictures]:
    bunch = load_digits()
    order = np.random.default_rng(0).permutation(len(bunch.target))
    images, labels = bunch.images[order, ..., None], bunch.target[order]
    cut = DIGITS_TRAIN
    train, test = (images[:cut], labels[:cut]), (images[cut:], labels[cut:])
    return cifar10.Pictures(*train), cifar10.Pictures(*test)


def _first(
    name: str, num_examples: int | None, pixels: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    available = len(labels)
    count = available if num_examples is None else inputs.count("num_examples", num_examples, 0)
    if not 1 <= count <= available:
        raise ValueError(
            f"num_examples={count}, but {name} has {available} training pictures: "
            f"choose from 1 to {available}"
        )
    return pixels[:count], labels[:count]


@partial(jax.jit, donate_argnums=0)
def _write(images, chunk, start):
    return jax.lax.dynamic_update_slice_in_dim(images, chunk, start, 0)


def _place(pixels: np.ndarray, labels: np.ndarray, white: float) -> Examples:
    # Chunk by chunk into the device's array, so that float pictures never lie twice in memory.
    images = jnp.zeros(pixels.shape, jnp.float32)
    for start in range(0, len(pixels), CHUNK):
        images = _write(images, standardise(pixels[start : start + CHUNK], white), start)
    return Examples(images, jnp.asarray(labels, jnp.int32))
