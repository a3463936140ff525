"""The paper's main experiment as a command: what it may be told, what it refuses.

What its stages write is in test_stages, its flags in test_settings, its values in test_paper.
"""

import json

import pytest

from experiments.lenet import __main__ as lenet
from tests import mains, tiny

SHORT = ("--seeds=2", "--epochs=1", "--analysis_seeds=0", "--stages=train,figures")


def run(folder, *arguments):
    return mains.run(lenet, folder, *tiny.FLAGS, *arguments)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return run(tmp_path_factory.mktemp("lenet") / "run", *SHORT)


def test_a_training_alone_shows_what_it_has(finished):
    assert {path.stem for path in (finished / "figures").glob("*.png")} == {"fig08", "seeds"}
    rows = {row["id"] for row in json.loads((finished / "summary.json").read_text())}
    assert {"test_accuracy", "best_accuracy_difference"} <= rows


def test_its_settings_are_those_of_the_flags(finished):
    settings = json.loads((finished / "config.json").read_text())["settings"]
    assert settings == {
        "dataset": "synthetic", "num_examples": 60, "weight_decay": 1e-4, "seed": 0, "seeds": 2,
        "batch_size": 6, "learning_rate": 0.01, "learning_rate_decay": 0.98, "momentum": 0.9,
        "epochs": 1, "sampling": ["without_replacement", "with_replacement"],
        "curve_examples": None, "eigenpairs": 5, "analysis_epochs": 3, "analysis_seeds": 0,
        "full_gradient": "exact", "analysis_periods": 1, "track_every": None,
        "track_eigenpairs": None,
    }  # fmt: skip


def test_the_smooth_one_says_so(finished, tmp_path):
    """Neither may go on from the other's folder."""
    smooth = run(tmp_path / "smooth", *SHORT, "--smooth")
    described = json.loads((smooth / "config.json").read_text())["settings"]
    usual = json.loads((finished / "config.json").read_text())["settings"]
    assert described == usual | {"smooth": True}
    with pytest.raises(SystemExit, match="error: .*smooth"):
        run(smooth, *SHORT)


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
        run(finished, *SHORT, "--seed=1")
    assert (finished / "summary.json").read_bytes() == before


def test_an_unwritable_output_folder_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="give a writable --output_dir"):
        run(tmp_path / "file" / "run")
