"""The paper's main experiment as a command: what it shows, what it refuses, what it may be told."""

import json

import pytest

from experiments.lenet import __main__ as lenet
from tests import mains, tiny

FIGURES = {
    "agreement", "fig01", "fig02", "fig05", "fig05_density", "fig06", "fig07", "fig08", "fig11",
    "fig13", "fig14", "seeds",
}  # fmt: skip


def run(folder, *arguments):
    return mains.run(lenet, folder, *tiny.FLAGS, *arguments)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lenet") / "run"
    return run(folder, "--seeds=2", "--epochs=1", "--analysis_epochs=2")


def test_a_run_has_the_papers_figures_under_their_numbers(finished):
    for ending in ("png", "pdf"):
        assert {path.stem for path in (finished / "figures").glob(f"*.{ending}")} == FIGURES
    page = (finished / "report.html").read_text()
    assert "<h3>Fig. 2: variances and correlation time against curvature</h3>" in page


def test_its_settings_are_those_of_the_flags(finished):
    settings = json.loads((finished / "config.json").read_text())["settings"]
    assert settings == {
        "dataset": "synthetic", "num_examples": 60, "weight_decay": 1e-4, "seed": 0, "seeds": 2,
        "batch_size": 6, "learning_rate": 0.01, "learning_rate_decay": 0.98, "momentum": 0.9,
        "epochs": 1, "sampling": ["without_replacement", "with_replacement"],
        "curve_examples": None, "eigenpairs": 5, "analysis_epochs": 2, "analysis_seeds": 1,
        "full_gradient": "exact",
    }  # fmt: skip


def test_other_pictures_have_no_values_of_the_paper_beside_them(finished):
    rows = json.loads((finished / "summary.json").read_text())
    assert "best_test_accuracy" in {row["id"] for row in rows}
    assert not [row for row in rows if row["paper"] is not None]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch_size=61"], "batch_size=61 is larger than the 60"),
        (["--momentum=1.0"], r"momentum=1.0 is outside \[0, 1\)"),
        (["--momentum=-0.1"], "outside"),
        (["--learning_rate=0"], "not positive"),
        (["--learning_rate_decay=1.5"], "outside"),
        (["--weight_decay=-1"], "negative"),
        (["--eigenpairs=1000000"], "more than the 650 weights"),
        (["--eigenpairs=0"], "eigenpairs"),
        (["--epochs=some"], "epochs"),
        (["--stages=trian"], "unknown trian"),
        (["--sampling=with_replacement"] * 2, "twice"),
        (["--sampling=alternating"], "sampling"),
        (["--analysis_seeds=2"], "more than --seeds"),
        (["--num_examples=1000000", "--dataset=digits"], "1500|1,500"),
        (["--dataset=cifar10", "--data_dir=/nonexistent"], "nonexistent"),
        (["--stages=figures"], "no trained network"),
        (["--unknown=1"], "unknown"),
        (["words"], "unexpected argument words: flags begin with --"),
        (
            ["--learning_rate=1e6", "--seeds=2"],
            r"the loss of seed 0 is \S+ at step \d.*lower --learning_rate",
        ),
    ],
)
def test_bad_input_is_one_line(tmp_path, arguments, message):
    with pytest.raises(SystemExit, match=message) as stopped:
        run(tmp_path / "bad", *arguments)
    assert str(stopped.value).startswith("error: ")
    assert "\n" not in str(stopped.value)


def test_a_finished_run_is_not_damaged_by_other_flags(finished):
    before = (finished / "summary.json").read_bytes()
    with pytest.raises(SystemExit, match="error: .* seed 0 then, 1 now.*--overwrite"):
        run(finished, "--seeds=2", "--epochs=1", "--analysis_epochs=2", "--seed=1")
    assert (finished / "summary.json").read_bytes() == before


def test_an_unwritable_output_folder_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="give a writable --output_dir"):
        run(tmp_path / "file" / "run")
