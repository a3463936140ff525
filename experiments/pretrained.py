"""Puts the network of a finished training into the package, for `antisgd.pretrained`.

    python -m experiments.pretrained --run=runs/digits --name=lenet_digits
    python -m experiments.pretrained --run=runs/lenet_cpu --name=lenet_cifar10

Takes the first network of the run folder's training.npz.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from antisgd import models, pretrained, results
from experiments import cli, kept

PICTURES = {"cifar10": (1, 32, 32, 3), "digits": (1, 8, 8, 1)}


def named_weights(flat: np.ndarray, dataset: str) -> dict[str, np.ndarray]:
    """LeNet's weights [d] as the arrays of its leaves, by names such as 'params/Conv_0/kernel'."""
    images = jnp.zeros(PICTURES[dataset])
    shapes = jax.eval_shape(models.lenet().init, jax.random.key(0), images)
    leaves = jax.tree_util.tree_leaves_with_path(shapes)
    parts = np.split(flat, np.cumsum([leaf.size for _, leaf in leaves[:-1]]))
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): part.reshape(leaf.shape)
        for (path, leaf), part in zip(leaves, parts, strict=True)
    }


def keep(run: Path, name: str, place: Path) -> None:
    """Writes NAME.npz and NAME.json into a folder.

    Args:
        run: run folder with config.json and training.npz.
        name: what `antisgd.pretrained.load` shall know it by.
        place: the folder.
    """
    training, config = results.read_arrays(run / "training.npz"), kept.portable_config(run)
    weights = named_weights(training["params"][0], config["settings"]["dataset"])
    results.write_arrays(place / f"{name}.npz", **weights)
    record = {
        "learning_rate": training["learning_rate"][-1],
        "test_accuracy": training["test_accuracy"][0, -1],
        "settings": config["settings"],
        "provenance": config.get("begun_with", config["provenance"]),
        "data_fingerprint": config["data_fingerprint"],
        "data": config["data"],
    }
    results.write_json(place / f"{name}.json", record)


def main(options: kept.Options) -> None:
    """Keeps the network of a run under a name."""
    if not (options.run and options.name):
        raise ValueError("give --run, the folder of a finished training, and --name")
    keep(Path(options.run), options.name, Path(pretrained.__file__).parent)


if __name__ == "__main__":
    cli.run(main, kept.Options())
