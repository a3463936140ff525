"""The networks that come with the package classify as their records say."""

import json
import os

import jax
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from antisgd import data, models, objective, pretrained, results
from experiments import pretrained as keeper

CIFAR10 = os.environ.get("ANTISGD_DATA_DIR")


def classified(trained, dataset):
    """How many test pictures the network classifies rightly."""
    found = objective.evaluate(models.lenet().apply, trained.params, dataset.test)
    return float(found.accuracy) * len(dataset.test.labels)


def test_the_digits_network_has_its_recorded_accuracy():
    trained, dataset = pretrained.load("lenet_digits"), data.load("digits")
    assert data.fingerprint(dataset) == trained.data_fingerprint
    assert classified(trained, dataset) == pytest.approx(297 * trained.test_accuracy, abs=0.1)
    assert trained.test_accuracy > 0.9


@pytest.mark.skipif(CIFAR10 is None, reason="ANTISGD_DATA_DIR names no CIFAR-10")
def test_the_cifar10_network_has_its_recorded_accuracy():
    trained, dataset = pretrained.load("lenet_cifar10"), data.load("cifar10", directory=CIFAR10)
    assert data.fingerprint(dataset) == trained.data_fingerprint
    # Another machine's rounding may turn a picture or two whose leading logits are nearly equal.
    assert classified(trained, dataset) == pytest.approx(10_000 * trained.test_accuracy, abs=2.1)
    assert trained.test_accuracy > 0.6


@pytest.mark.parametrize("name, size", [("lenet_digits", 21_386), ("lenet_cifar10", 136_886)])
def test_weights_and_records_are_complete(name, size):
    trained = pretrained.load(name)
    leaves = jax.tree.leaves(trained.params)
    assert sum(leaf.size for leaf in leaves) == size
    assert {leaf.dtype.name for leaf in leaves} == {"float32"}
    decayed = trained.settings["learning_rate"] * trained.settings["learning_rate_decay"] ** 99
    assert trained.settings["epochs"] == 100
    assert trained.learning_rate == pytest.approx(decayed)
    assert trained.provenance["command"].startswith("python -m experiments.lenet --flagfile=")
    assert "_dir" not in trained.provenance["command"]


def test_all_names_load_and_others_are_refused():
    assert all(pretrained.load(name).params for name in pretrained.NAMES)
    with pytest.raises(ValueError, match="no trained network 'vgg': choose lenet_cifar10 or"):
        pretrained.load("vgg")


def test_what_is_kept_of_a_run_is_its_first_network(tmp_path, monkeypatch):
    params = np.arange(2 * 21_386, dtype=np.float32).reshape(2, -1)
    accuracy = np.array([[0.1, 0.5], [0.2, 0.3]])
    results.write_arrays(
        tmp_path / "training.npz", params=params, learning_rate=[2.0, 1.0], test_accuracy=accuracy
    )
    config = {
        "settings": {"dataset": "digits"},
        "provenance": {"command": "python -m experiments.lenet --data_dir=/x/y --eigenpairs=9"},
        "begun_with": {"command": "python -m experiments.lenet --data_dir=/x/y --seeds=2"},
        "data_fingerprint": "feedbeef",
        "data": "scikit-learn's digits",
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "__init__.py").touch()
    keeper.keep(tmp_path, "lenet_digits", tmp_path)
    monkeypatch.setattr(pretrained, "__file__", str(tmp_path / "__init__.py"))
    trained = pretrained.load("lenet_digits")
    np.testing.assert_array_equal(ravel_pytree(trained.params)[0], params[0])
    assert (trained.learning_rate, trained.test_accuracy) == (1.0, 0.5)
    assert trained.provenance["command"] == "python -m experiments.lenet --seeds=2"
    assert trained.data == "scikit-learn's digits"
    images = np.zeros((1, 8, 8, 1), np.float32)
    assert jax.eval_shape(models.lenet().apply, trained.params, images).shape == (1, 10)
