"""Fig. 12: the shared stages under the names of App. K; its values are in test_paper.

The network itself is compared with the library's in test_models; compiled into a training run it
takes most of a minute, so the first test puts a tiny one in its place.
"""

import json

import numpy as np
import pytest

from antisgd import models
from experiments.lenet import __main__ as lenet
from experiments.resnet20 import __main__ as resnet20
from experiments.resnet20 import quieter
from tests import mains, tiny

TOY = (*tiny.FLAGS, "--epochs=3", "--eigenpairs=6")


def check(folder):
    rows = {row["id"]: row for row in json.loads((folder / "summary.json").read_text())}
    names = {path.stem for path in (folder / "figures").glob("*.png")}
    assert names == {
        "agreement",
        "fig12",
        "noise_autocorrelation",
        "eigenvalue_density",
        "training_curves",
    }
    assert rows["weight_exponent_without_replacement"]["paper_item"] == "Fig. 12"
    assert rows["test_accuracy"]["paper_item"] == "App. K"
    assert "best_test_accuracy" not in rows and "regime_ratio" not in rows
    assert not [row for row in rows.values() if row["paper"] is not None]
    assert not [row for row in rows.values() if row["paper_item"] in ("Fig. 2", "Fig. 8")]
    weights = np.load(folder / "trajectory_without_replacement" / "weights.npy")
    assert weights.shape == (31, 6)


@pytest.mark.slow
def test_a_toy_run_has_the_figures_and_rows_of_app_k(tmp_path, monkeypatch):
    monkeypatch.setattr(models, "resnet20", tiny.network)
    check(mains.run(resnet20, tmp_path / "run", *TOY))


@pytest.mark.slow
def test_a_toy_run_of_the_network_itself(tmp_path):
    folder = mains.run(resnet20, tmp_path / "run", *TOY)
    check(folder)
    # Pictures of one channel where the paper's have three.
    assert np.load(folder / "training.npz")["params"].shape == (1, 271_690 - 2 * 9 * 16)


@pytest.mark.slow
def test_a_quieter_analysis_has_the_networks_and_eigenpairs_of_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(models, "resnet20", tiny.network)
    flags = (*TOY, "--seeds=2", "--analysis_seeds=2")
    run = mains.run(resnet20, tmp_path / "run", *flags)
    quiet = mains.run(quieter, tmp_path / "quieter", *flags, f"--run={run}", "--fraction=0.25")
    for inside in (".", "seed_1"):
        pairs = (np.load(folder / inside / "eigenvectors.npy") for folder in (run, quiet))
        np.testing.assert_array_equal(*pairs)
        period = "trajectory_without_replacement/velocities.npy"
        loud, soft = (np.load(folder / inside / period) for folder in (run, quiet))
        # Velocities go with eta, but for their noise's own path: within a factor of two.
        assert 0.125 < soft.std() / loud.std() < 0.5
    before, after = (
        {row["id"]: row["here"] for row in json.loads((folder / "summary.json").read_text())}
        for folder in (run, quiet)
    )
    np.testing.assert_allclose(
        after["crossover_eigenvalue"], 4 * before["crossover_eigenvalue"], rtol=1e-12
    )
    weights = (np.load(folder / "training.npz")["params"] for folder in (run, quiet))
    np.testing.assert_array_equal(*weights)
    with pytest.raises(ValueError, match=r"seed_1/eigenpairs\.npz: let its eigenpairs be solved"):
        (run / "seed_1" / "eigenpairs.npz").unlink()
        quieter.copy(run, quiet, 2)


def test_networks_of_another_run_are_refused(tmp_path):
    np.savez(tmp_path / "training.npz", params=np.zeros((2, 5)))
    problem, settings = tiny.problem(), tiny.settings(seeds=3)
    with pytest.raises(ValueError, match="has 2 networks, --seeds=3"):
        quieter.trained(problem, settings, tmp_path)


def test_what_it_is_told_where_the_main_experiment_is_told_otherwise():
    """The defaults of `python -m experiments.resnet20 --help` that are not those of LeNet."""
    own, shared = (
        {name: value for one in options for name, value in vars(one).items()}
        for options in (resnet20.OPTIONS, lenet.OPTIONS)
    )
    assert own.keys() == shared.keys() - {"smooth"}
    assert {name: value for name, value in own.items() if value != shared[name]} == {
        "eigenpairs": 400, "full_gradient": "quadratic", "microbatch_size": 100,
        "output_dir": "runs/resnet20", "sampling": ("without_replacement",),
        "stages": ("train", "eigenpairs", "analysis", "figures"),
    }  # fmt: skip
