"""Trained networks that come with the package, so that curvature can be tried without training.

    lenet_digits     `models.lenet()` on scikit-learn's digits, 21,386 weights
    lenet_cifar10    `models.lenet()` on CIFAR-10 (JPEG copy) after 100 epochs, 136,886 weights

Each is NAME.npz, float32 arrays by the names of the leaves, and NAME.json, where it comes from.
"""

from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp

from antisgd import display, results

__all__ = ["NAMES", "Trained", "load"]

NAMES = ("lenet_cifar10", "lenet_digits")


class Trained(NamedTuple):
    """A network at the end of its training.

    Attributes:
        params: θ_K as `models.lenet().apply` takes it, a dict of dicts of float32 arrays.
        learning_rate: η of its last epoch.
        test_accuracy: fraction of the test pictures that it classifies rightly.
        settings: of the run: dataset, batch_size, momentum, weight_decay, epochs …
        provenance: command, versions, device and commit of the run.
        data_fingerprint: `data.fingerprint` of the pictures it saw.
        data: what these pictures are called: weights trained on one copy of CIFAR-10 are not to be
            evaluated on another.
    """

    params: dict[str, Any]
    learning_rate: float
    test_accuracy: float
    settings: dict[str, Any]
    provenance: dict[str, Any]
    data_fingerprint: str
    data: str

    def __repr__(self) -> str:
        return display.described(self)


def load(name: str) -> Trained:
    """Reads the trained network of this name; nothing is downloaded.

    Raises:
        ValueError: there is no network of this name.
    """
    if name not in NAMES:
        raise ValueError(f"no trained network {name!r}: choose {' or '.join(NAMES)}")
    path = Path(__file__).parent / name
    params: dict[str, Any] = {}
    for leaf, array in results.read_arrays(path.with_suffix(".npz")).items():
        *modules, last = leaf.split("/")
        place = params
        for module in modules:
            place = place.setdefault(module, {})
        place[last] = jnp.asarray(array)
    return Trained(params, **results.read_json(path.with_suffix(".json")))
