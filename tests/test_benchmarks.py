"""What keeps and compares measured speed; nothing here depends on how long anything takes."""

import argparse
import json
import re
import subprocess
import sys

import numpy as np
import pytest

from experiments.benchmarks import compare, kept


def test_ratios_are_kept_by_machine_and_version_the_last_of_each_benchmark(tmp_path):
    path = kept.keep("training", {"P1": 1.2}, tmp_path)
    assert kept.keep("recording", {"P6": 1.1, "other": 3}, tmp_path) == path
    kept.keep("training", {"P1": 1.34}, tmp_path)
    assert re.fullmatch("[a-z0-9.-]+[.]json", path.name) and list(tmp_path.iterdir()) == [path]
    held = json.loads(path.read_text())
    assert held["machine"] == kept.machine() and held["version"] in path.name
    assert held["benchmarks"]["training"]["ratios"] == {"P1": 1.34}
    assert {"date", "git_commit", "versions", "load"} <= held["benchmarks"]["training"].keys()
    (header, _, *lines) = kept.table(tmp_path).splitlines()
    assert kept.machine() in header and held["version"] in header
    assert [line[:4] for line in lines] == ["| P1", "| P6"]
    assert " 1.34 (" in lines[0] and " 1.1 (" in lines[1]


def test_without_the_flag_nothing_is_kept():
    parser = argparse.ArgumentParser()
    kept.flag(parser)
    assert not parser.parse_args([]).keep and parser.parse_args(["--keep"]).keep


def test_the_page_has_the_table_of_the_files():
    assert kept.BEGIN + kept.table() + kept.END in kept.PAGE.read_text()


def test_versions_take_turns_and_each_goes_first_as_often(monkeypatch):
    asked = []

    class Worker(argparse.Namespace):
        def wait(self):
            self.waited = True

    class Pipe:
        def close(self):
            pass

    workers = [Worker(name=name, stdin=Pipe()) for name in "ab"]

    def seconds(worker, name):
        asked.append(worker.name + name)
        return 3.0 if worker.name == "a" else 2.0

    monkeypatch.setattr(compare, "_asked", seconds)
    times = compare.take_turns(workers, ["x", "y"], 2)
    assert asked == ["ax", "bx", "ay", "by", "bx", "ax", "by", "ay"]
    assert compare.ratios(*times) == {"x": 1.5, "y": 1.5}
    assert all(worker.waited for worker in workers)
    assert isinstance(times[0]["x"], np.ndarray)


def test_a_version_is_its_own_files(tmp_path):
    """A repository of two commits, whose files say which they are of."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "--quiet"], check=True)
    for number in (1, 2):
        (tmp_path / "version").write_text(str(number))
        subprocess.run([*git, "add", "version"], check=True)
        subprocess.run([*git, "commit", "--quiet", "--message=a"], check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "ROOT", tmp_path)
        assert compare.unpacked(".", tmp_path / "unused") == tmp_path
        old = compare.unpacked("HEAD~1", tmp_path / "old")
        assert (old / "version").read_text() == "1"
        with pytest.raises(ValueError, match="no revision HEAD~2: give a commit"):
            compare.unpacked("HEAD~2", tmp_path / "none")


@pytest.mark.slow
def test_the_command_compares_the_working_tree_with_itself():
    done = subprocess.run(
        [sys.executable, "-m", "experiments.benchmarks.compare", ".", ".", "--turns=1",
         "--timed=product"],
        cwd=kept.ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout.splitlines()[-1]).keys() == {"product"}
