"""A study of anybody's network: from weights, without a test set, two in a process, a command."""

import dataclasses
import json
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from antisgd import results, study
from antisgd.study import outcome, report
from antisgd.study.findings.rows import row
from antisgd.study.run import Presentation
from antisgd.study.stages import train
from tests import tiny

MEASURED = ("train", "eigenpairs", "analysis")


@pytest.fixture(autouse=True)
def small():
    with tiny.small():
        yield


def bare(size=40):
    """A line through points: one dictionary of examples, no test set, no metrics."""
    x = np.linspace(-1, 1, size, dtype=np.float32)[:, None] ** np.arange(1, 6)
    y = x @ np.ones((5, 1), np.float32) + np.sin(9 * x[:, :1])

    def loss(params, examples, weights):
        off = examples["x"] @ params["kernel"] + params["bias"][None] - examples["y"]
        return jnp.sum(weights * jnp.sum(off**2, axis=1)) / jnp.sum(weights)

    def init(key):
        return {"kernel": 0.1 * jax.random.normal(key, (5, 1)), "bias": jnp.zeros(1)}

    return study.Problem(init, loss, {"x": jnp.asarray(x), "y": jnp.asarray(y)})


BARE = study.Settings(
    batch_size=5, learning_rate=0.01, epochs=2, analysis_epochs=4, eigenpairs=4, microbatch_size=20
)
ALONE = dataclasses.replace(BARE, sampling=("without_replacement",))


def rows_of(folder):
    return {row["id"]: row for row in json.loads((folder / "summary.json").read_text())}


def test_a_problem_without_test_set_and_metrics(tmp_path):
    """What needs an accuracy is left out, all else is there; the loss is the mean of all."""
    problem = bare()
    study.run(problem, ALONE, tmp_path / "run")
    figures = {path.stem for path in (tmp_path / "run" / "figures").glob("*.png")}
    assert {"variances", "training_curves", "noise_autocorrelation", "spectrum"} <= figures
    assert "discarded_directions" not in figures
    assert not (tmp_path / "run" / "discard.npz").exists()
    trained = results.read_arrays(tmp_path / "run" / "training.npz")
    assert [name for name in trained if "_" in name and "rate" not in name] == ["train_loss"]
    template = problem.init(jax.random.key(0))
    params = jax.flatten_util.ravel_pytree(template)[1](trained["params"][0])
    loss = float(problem.loss(params, problem.train, jnp.ones(40)))
    assert trained["train_loss"][0, -1] == pytest.approx(loss, rel=1e-6)
    rows = rows_of(tmp_path / "run")
    assert rows["train_loss"]["here"] == pytest.approx(loss, rel=1e-6)
    assert not [name for name in rows if "accuracy" in name]


@pytest.mark.parametrize("count", [7, 40])
def test_the_mean_loss_without_metrics_is_that_of_all_examples(count, monkeypatch):
    """Piece by piece, with an end that does not fill its piece."""
    problem = bare(count)
    monkeypatch.setattr("antisgd.study.problem.EVALUATED", 6)
    params = problem.init(jax.random.key(1))
    exact = problem.loss(params, problem.train, jnp.ones(count))
    np.testing.assert_allclose(problem.evaluate(params, problem.train)["loss"], exact, rtol=1e-6)


def test_the_loss_comes_first_and_both_sets_have_every_metric():
    def metrics(params, examples):
        return {"error": 1.0, "accuracy": 0.5, "loss": 2.0}

    problem = bare()
    problem = dataclasses.replace(problem, metrics=metrics, test=problem.train)
    assert problem.curve_names == (
        "train_loss", "train_accuracy", "train_error", "test_loss", "test_accuracy", "test_error",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": {"x": jnp.ones((4, 5)), "y": jnp.ones((3, 1))}}, r"\[3, 4\].*one leading axis"),
        ({"train": {"x": jnp.ones((0, 5)), "y": jnp.ones((0, 1))}}, r"\[0\]"),
        ({"test": {"x": jnp.ones((4, 5)), "y": 1.0}}, r"the test examples .*\[0, 4\]"),
        ({"init": lambda key: {"kernel": jnp.ones((5, 1)), "bias": jnp.zeros(1, int)}}, "no float"),
    ],
)
def test_a_problem_that_cannot_be_trained_is_refused(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        study.run(dataclasses.replace(bare(), **changes), BARE, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_two_settings_live_in_one_process(tmp_path):
    """A study in between, of other settings and another network, changes no bit of the next."""
    other = dataclasses.replace(BARE, stages=MEASURED, learning_rate=0.02, momentum=0.5)
    for name in ("first", "again"):
        tiny.run(tmp_path / name, stages=MEASURED)
        study.run(bare(), other, tmp_path / f"{name}_other")
    tiny.same_arrays(tmp_path / "first", tmp_path / "again")
    tiny.same_arrays(tmp_path / "first_other", tmp_path / "again_other")
    for name, settings in (("first", tiny.settings()), ("first_other", other)):
        config = results.read_json(tmp_path / name / "config.json")
        assert config["settings"]["batch_size"] == settings.batch_size
        inside = tmp_path / name / "trajectory_without_replacement"
        velocities, gradients = (
            np.load(inside / f"{one}.npy") for one in ("velocities", "gradients")
        )
        # Eq. 1 with its own rate and momentum.
        kicks = velocities[1:] - settings.momentum * velocities[:-1]
        expected = -settings.final_learning_rate * gradients[1:]
        np.testing.assert_allclose(kicks, expected, atol=1e-5 * np.abs(velocities).max())


def test_a_state_that_was_trained_elsewhere_is_measured_like_ones_own(tmp_path):
    """With its velocity and the key of its stream the period is the same to the last bit."""
    problem, settings = bare(), dataclasses.replace(BARE, stages=MEASURED)
    study.run(problem, settings, tmp_path / "own")
    trained = train.train(problem, settings, tmp_path / "own")
    study.measure(problem, train.network(trained, 0), settings, tmp_path / "measured")
    own, measured = map(tiny.arrays_of, (tmp_path / "own", tmp_path / "measured"))
    tiny.same_arrays({k: v for k, v in own.items() if not k.startswith("training.")}, measured)


def test_weights_alone_are_measured_from_rest(tmp_path):
    problem = bare()
    params = {"kernel": jnp.ones((5, 1)), "bias": jnp.zeros(1)}
    settings = dataclasses.replace(ALONE, stages=(*MEASURED, "figures"))
    study.measure(problem, params, settings, tmp_path / "run")
    inside = tmp_path / "run" / "trajectory_without_replacement"
    first = np.load(inside / "gradients.npy")[0]
    rate = BARE.final_learning_rate
    np.testing.assert_allclose(np.load(inside / "velocities.npy")[0], -rate * first, rtol=1e-5)
    values = results.read_arrays(tmp_path / "run" / "eigenpairs.npz")["values"]
    # 2 X'X/N of the points with a column of ones.
    x = np.column_stack([np.asarray(problem.train["x"], np.float64), np.ones(40)])
    exact = np.sort(np.linalg.eigvalsh(2 * x.T @ x / 40))[::-1][:4]
    np.testing.assert_allclose(values, exact, rtol=1e-4)
    # No training, so nothing of it is shown.
    assert "train_loss" not in rows_of(tmp_path / "run")
    assert "weight_exponent_without_replacement" in rows_of(tmp_path / "run")
    assert not (tmp_path / "run" / "training.npz").exists()
    figures = {path.stem for path in (tmp_path / "run" / "figures").glob("*.png")}
    assert "variances" in figures and "training_curves" not in figures


def test_other_weights_are_refused_in_the_folder_of_the_first(tmp_path):
    problem, settings = bare(), dataclasses.replace(BARE, stages=("eigenpairs",))
    params = problem.init(jax.random.key(0))
    study.measure(problem, params, settings, tmp_path)
    study.measure(problem, params, settings, tmp_path)
    with pytest.raises(ValueError, match="measured_from .* then, .* now"):
        study.measure(problem, problem.init(jax.random.key(1)), settings, tmp_path)


def test_the_plan_of_a_measurement_trains_nothing(tmp_path, capsys):
    problem = bare()
    settings = dataclasses.replace(BARE, epochs=100)
    study.run(problem, settings, tmp_path / "run", plan=True)
    assert "(training " in capsys.readouterr().out
    study.measure(problem, problem.init(jax.random.key(0)), settings, tmp_path / "run", plan=True)
    words = capsys.readouterr().out
    assert "recording" in words and "training" not in words.partition("time:")[2]
    assert not (tmp_path / "run").exists()


def test_one_network_is_measured(tmp_path):
    problem, several = bare(), dataclasses.replace(BARE, seeds=2, analysis_seeds=2)
    with pytest.raises(ValueError, match="--analysis_seeds=2.*one network"):
        study.measure(problem, problem.init(jax.random.key(0)), several, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_finished_folder_takes_more_periods_each_with_a_stream_of_its_own(tmp_path):
    problem, scheme = bare(), "without_replacement"
    study.run(problem, ALONE, tmp_path)
    first = np.load(tmp_path / f"trajectory_{scheme}/noise.npy")
    assert not any("over_periods" in name for name in rows_of(tmp_path))
    study.run(problem, dataclasses.replace(ALONE, analysis_periods=3), tmp_path)
    paths = ("trajectory", "period_1/trajectory", "period_2/trajectory")
    noise = [np.load(tmp_path / f"{path}_{scheme}/noise.npy") for path in paths]
    np.testing.assert_array_equal(noise[0], first)
    # From the same weights along the same directions, but with batches of their own.
    starts = [np.load(tmp_path / f"{path}_{scheme}/anchors.npz")["gradients"][0] for path in paths]
    np.testing.assert_array_equal(starts[1], starts[0])
    np.testing.assert_array_equal(starts[2], starts[0])
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert not np.any(np.all(noise[i] == noise[j], axis=1))
    rows = rows_of(tmp_path)
    mean, one = (rows[f"velocity_over_theory_{scheme}{end}"] for end in ("_over_periods", ""))
    assert mean["n"] == 3 and mean["quantity"].endswith("mean of 3 periods")
    each = [float(value) for value in mean["note"].removeprefix("of each: ").split(", ")]
    np.testing.assert_allclose(each[0], one["here"], rtol=5e-3)
    np.testing.assert_allclose(np.mean(each), mean["here"], rtol=5e-3)
    with pytest.raises(ValueError, match="analysis_periods"):
        study.run(problem, ALONE, tmp_path)


def test_a_folder_that_another_process_works_in_is_left_to_it(tmp_path):
    folder = tmp_path / "run"
    with results.held(folder), pytest.raises(ValueError, match="is being worked in by process"):
        study.run(bare(), BARE, folder)
    assert [path.name for path in folder.iterdir()] == [".lock"]
    # It takes nothing to look what a run will need.
    with results.held(folder):
        study.run(bare(), BARE, folder, plan=True)


def test_presentation_is_the_callers(tmp_path):
    def present(rows, panels):
        chosen = [row | {"paper": 5.0} for row in rows if row["id"] == "train_loss"]
        return chosen, {"shown": panels["training_curves"]}

    caption = report.Caption("The curves", "They fall.")
    shown = Presentation(present, {"shown": caption}, {"train_loss": ("loss", "")})
    settings = dataclasses.replace(BARE, stages=("train", "figures"), analysis_seeds=0)
    study.run(bare(), settings, tmp_path, presentation=shown)
    assert rows_of(tmp_path)["train_loss"]["paper"] == 5.0 and len(rows_of(tmp_path)) == 1
    page = (tmp_path / "report.html").read_text()
    assert "<h3>The curves</h3>" in page and "They fall." in page
    assert "<div class=card>loss<b>" in page


MODULE = """
import jax
import jax.numpy as jnp
from antisgd import study

def loss(params, examples, weights):
    return jnp.sum(weights * (examples @ params - 1) ** 2) / jnp.sum(weights)

def init(key):
    return jax.random.normal(key, (3,))

def problem():
    return study.Problem(init, loss, jax.random.normal(jax.random.key(1), (24, 3)))

made = problem()
number = 3
"""
SHORT = ("--batch_size=4", "--epochs=1", "--analysis_epochs=1", "--eigenpairs=2", "--stages=train")


def test_your_own_problem_from_a_shell(tmp_path):
    (tmp_path / "mine.py").write_text(MODULE)

    def shell(*arguments, environment=None):
        return subprocess.run(
            [sys.executable, "-m", "antisgd.study", *arguments, f"--output_dir={tmp_path / 'run'}"],
            cwd=tmp_path, capture_output=True, text=True, check=False,
            env=os.environ | (environment or {}),
        )  # fmt: skip

    done = shell("mine:problem", *SHORT)
    assert done.returncode == 0, done.stderr
    config = results.read_json(tmp_path / "run" / "config.json")
    assert config["settings"]["batch_size"] == 4
    assert config["provenance"]["command"].startswith(
        "python -m antisgd.study mine:problem --batch"
    )
    assert results.read_arrays(tmp_path / "run" / "training.npz")["params"].shape == (1, 3)
    # A problem and a function that makes one are the same; settings are compared as ever.
    plain = {"PYTHONIOENCODING": "ascii", "JAX_ENABLE_X64": "1"}
    done = shell("mine:made", *SHORT, "--plan", environment=plain)
    assert done.returncode == 0, done.stderr
    done = shell("mine:made", *SHORT, "--momentum=0.5")
    # XLA of the lowest version has lines of its own on programs that it loads.
    said = [line for line in done.stderr.splitlines() if not re.match(r"[IWE]\d{4} .*\.cc:", line)]
    assert done.returncode == 1 and len(said) == 1 and said[0].startswith("error: ")
    assert "momentum 0.9 then, 0.5 now" in said[0]


def test_the_log_has_the_large_rows_and_says_where_the_others_are(tmp_path, capsys, monkeypatch):
    """A run of 127 rows used to print all of them, 16 KB of a log."""
    monkeypatch.setattr(report, "render", lambda *_: "")
    names = ["regime_ratio", *(f"other_{i}" for i in range(126))]
    rows = [row(name, "Fig. 2", f"quantity {name}", 1.5) for name in names]
    outcome.write(tmp_path, rows, {})
    log = capsys.readouterr().out
    assert "quantity regime_ratio" in log and "other_" not in log
    assert f"all 127 rows (summary.json) and report.html are in {tmp_path}" in log
    assert len(results.read_json(tmp_path / "summary.json")) == 127
    outcome.write(tmp_path, rows[1:3], {})
    assert "quantity other_0" in capsys.readouterr().out, "none is large: all are shown"
