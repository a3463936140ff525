"""A grid of runs: every combination once, finished points skipped, one table."""

import csv
import subprocess
import sys
import time

import pytest

from experiments import sweep


def command(folder, *more):
    return [
        sys.executable, "-m", "experiments.sweep", "--module=tests.toy_experiment",
        "--grid=x=1,2", "--grid=y=a,b", f"--sweep_dir={folder}", *more,
    ]  # fmt: skip


def read_table(folder):
    with open(folder / "table.csv") as file:
        return list(csv.DictReader(file))


def test_every_combination_is_a_command_with_its_own_folder(tmp_path):
    made = sweep.points("experiments.lenet", ["a=1,2", "b=x,y,z"], "--c='d e' --f", tmp_path)
    assert len({point.folder for point in made}) == 6
    assert made[4].settings == {"a": "2", "b": "y"}
    expected = ["-m", "experiments.lenet", "--c=d e", "--f", "--a=2", "--b=y"]
    assert made[4].command[1:-1] == expected
    assert made[4].command[-1] == f"--output_dir={tmp_path / 'a=2,b=y'}"


@pytest.mark.parametrize("grid", [["a"], ["=1,2"], ["a=1,,2"], ["a="], ["a=1", "a=2"]])
def test_a_grid_that_is_none_is_refused(grid, tmp_path):
    with pytest.raises(ValueError, match="--grid"):
        sweep.points("experiments.lenet", grid, "", tmp_path)


def test_killed_and_started_again_it_ends_with_all_points_and_one_table(tmp_path):
    slow = "--with_flags=--seconds=0.5"
    process = subprocess.Popen(command(tmp_path, slow))
    while not (tmp_path / "x=1,y=b" / "report.html").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    first = (tmp_path / "x=1,y=a" / "report.html").stat().st_mtime_ns
    assert not (tmp_path / "table.csv").exists()
    subprocess.run(command(tmp_path, slow), check=True)
    lines = read_table(tmp_path)
    assert [(line["x"], line["y"], float(line["square"])) for line in lines] == [
        ("1", "a", 1.0), ("1", "b", 1.0), ("2", "a", 4.0), ("2", "b", 4.0),
    ]  # fmt: skip
    assert (tmp_path / "x=1,y=a" / "report.html").stat().st_mtime_ns == first


def test_a_point_that_fails_is_named_and_the_others_are_in_the_table(tmp_path):
    done = subprocess.run(
        command(tmp_path, "--with_flags=--broken=2"), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "not finished: x=2,y=a; x=2,y=b" in done.stderr
    lines = read_table(tmp_path)
    assert [line["x"] for line in lines if line["state"] == "finished"] == ["1", "1"]
    failed = [(line["x"], line["square"]) for line in lines if line["state"] == "not finished"]
    assert failed == [("2", ""), ("2", "")]


def test_local_jobs_of_submitit(tmp_path):
    pytest.importorskip("submitit")
    subprocess.run(command(tmp_path, "--engine=local", "--hours=0.1"), check=True)
    assert len(read_table(tmp_path)) == 4


def test_without_submitit_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(ValueError, match="pip install"):
        sweep.run_submitted([], sweep.Options(engine="local", sweep_dir=str(tmp_path)))


def test_slurm_is_asked_for_gpus_partition_and_account(tmp_path):
    submitit = pytest.importorskip("submitit")
    options = sweep.Options(engine="slurm", hours=2, gpus=4, partition="long", account="lab")
    asked = sweep.parameters(options)
    assert asked["timeout_min"] == 120 and asked["gpus_per_node"] == 4
    assert asked["slurm_partition"] == "long" and asked["slurm_account"] == "lab"
    # Submitit refuses names that it does not know.
    submitit.AutoExecutor(folder=tmp_path, cluster="local").update_parameters(**asked)
    with pytest.raises(ValueError, match="--engine=slurm"):
        sweep.parameters(sweep.Options(engine="local", gpus=1))
