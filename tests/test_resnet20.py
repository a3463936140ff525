"""Fig. 12: the shared stages under the names and values of App. K.

The network itself is compared with the library's in test_models; compiled into a training run it
takes most of a minute, so the fast test puts a tiny one in its place.
"""

import json
import subprocess
import sys

import numpy as np
import pytest

from tests import tiny

TOY = (
    "--dataset=synthetic", "--num_examples=60", "--batch_size=6", "--learning_rate=0.01",
    "--epochs=3", "--analysis_epochs=3", "--eigenpairs=6", "--full_gradient=quadratic",
)  # fmt: skip


def run(base, setup=""):
    done = tiny.finish("resnet20", base / "run", *TOY, setup=setup)
    assert done.returncode == 0, done.stderr
    return base / "run"


def check(folder):
    rows = {row["id"]: row for row in json.loads((folder / "summary.json").read_text())}
    names = {path.stem for path in (folder / "figures").glob("*.png")}
    assert names == {"fig12", "noise_autocorrelation", "eigenvalue_density", "training_curves"}
    assert rows["weight_exponent_without_replacement"]["paper_item"] == "Fig. 12"
    assert rows["test_accuracy"]["paper_item"] == "App. K"
    assert "best_test_accuracy" not in rows and "regime_ratio" not in rows
    assert not [row for row in rows.values() if row["paper"] is not None]
    assert not [row for row in rows.values() if row["paper_item"] in ("Fig. 2", "Fig. 8")]
    weights = np.load(folder / "trajectory_without_replacement" / "weights.npy")
    assert weights.shape == (31, 6)


@pytest.mark.slow
def test_a_toy_run_has_the_figures_and_rows_of_app_k(tmp_path):
    check(run(tmp_path, "from antisgd import models\nmodels.resnet20 = tiny.network"))


@pytest.mark.slow
def test_a_toy_run_of_the_network_itself(tmp_path):
    folder = run(tmp_path)
    check(folder)
    # Pictures of one channel where the paper's have three.
    assert np.load(folder / "training.npz")["params"].shape == (1, 271_690 - 2 * 9 * 16)


VALUES = """
import json
import subprocess
import sys
from experiments import resnet20
rows = [
    {"id": name, "paper_item": "Fig. 2", "paper": 1.077, "paper_error": 0.006, "note": ""}
    for name in (*resnet20.PAPER, "crossover_eigenvalue", "best_test_accuracy")
]
print(json.dumps(resnet20.present(rows, {"fig02": 1, "fig13": 2})))
"""


def test_the_papers_values_are_those_of_the_resnet_with_halved_errors():
    done = subprocess.run(
        [sys.executable, "-c", VALUES], capture_output=True, text=True, check=True
    )
    rows, panels = json.loads(done.stdout)
    values = {row["id"]: (row["paper"], row["paper_error"]) for row in rows}
    assert values == {
        "train_accuracy": (1.0, None),
        "test_accuracy": (0.73, None),
        "weight_exponent_without_replacement": (0.82, 0.099 / 2),
        "velocity_exponent_without_replacement": (0.965, 0.005 / 2),
        "crossover_eigenvalue": (None, None),
    }
    assert panels == {"fig12": 1, "fig13": 2}
