"""Run folders: files are whole or absent, settings are compared, arrays come back bit for bit."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from antisgd import results
from antisgd.results import files


def test_a_folder_with_the_same_settings_goes_on(tmp_path):
    results.open_run(tmp_path / "run", {"seed": 1, "eigenpairs": 10})
    results.open_run(tmp_path / "run", {"seed": 1, "eigenpairs": 10})
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    assert stored["settings"] == {"seed": 1, "eigenpairs": 10}
    assert set(stored["provenance"]) >= {"command", "git_commit", "versions", "device"}


def test_other_settings_are_refused_with_what_differs(tmp_path):
    results.open_run(tmp_path / "run", {"seed": 1, "momentum": 0.9})
    with pytest.raises(ValueError, match=r"momentum 0\.9 then, 0\.5 now.*--overwrite"):
        results.open_run(tmp_path / "run", {"seed": 1, "momentum": 0.5})


def test_a_setting_that_may_grow_grows_but_does_not_shrink(tmp_path):
    grow = {"may_grow": ("eigenpairs",)}
    results.open_run(tmp_path / "run", {"eigenpairs": 10}, **grow)
    results.open_run(tmp_path / "run", {"eigenpairs": 20}, **grow)
    with pytest.raises(ValueError, match="eigenpairs 20 then, 10 now"):
        results.open_run(tmp_path / "run", {"eigenpairs": 10}, **grow)


def test_overwrite_starts_afresh_and_only_removes_run_folders(tmp_path):
    results.open_run(tmp_path / "run", {"seed": 1})
    results.write_text(tmp_path / "run" / "old.txt", "old")
    results.open_run(tmp_path / "run", {"seed": 2}, overwrite=True)
    assert not (tmp_path / "run" / "old.txt").exists()
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.tex").touch()
    with pytest.raises(ValueError, match="not a run folder"):
        results.open_run(tmp_path / "precious", {"seed": 1}, overwrite=True)
    assert (tmp_path / "precious" / "thesis.tex").exists()


def test_an_unwritable_folder_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="give a writable --output_dir"):
        results.open_run(tmp_path / "file" / "run", {"seed": 1})


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "array.npy"
    results.write_array(path, np.arange(3))

    def fail(file):
        file.write(b"half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        files.write(path, fail)
    np.testing.assert_array_equal(np.load(path), np.arange(3))


def test_checkpoints_come_back_bit_for_bit_and_misfits_are_refused(tmp_path):
    tree = {"a": np.random.default_rng(0).normal(size=(3, 2)).astype(np.float32), "b": (1, 2.5)}
    path = tmp_path / "checkpoint.npz"
    results.write_checkpoint(path, tree)
    read = results.read_checkpoint(path, tree)
    np.testing.assert_array_equal(read["a"], tree["a"])
    assert tuple(map(float, read["b"])) == (1, 2.5)
    with pytest.raises(ValueError, match="does not fit this run"):
        results.read_checkpoint(path, {"a": np.zeros((4, 2)), "b": (1, 2.5)})
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="damaged"):
        results.read_checkpoint(path, tree)


def test_no_pickle_is_read(tmp_path):
    path = tmp_path / "evil.npz"
    np.savez(path, leaf_0=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="damaged"):
        results.read_arrays(path)


def test_a_recording_is_reopened_as_it_was(tmp_path):
    path = tmp_path / "velocities.npy"
    first = results.open_recording(path, (10, 3))
    first[:5] = 1
    first.flush()
    again = results.open_recording(path, (10, 3))
    np.testing.assert_array_equal(again[:5], 1)
    np.testing.assert_array_equal(again[5:], 0)
    assert results.open_recording(path, (10, 4)).shape == (10, 4)


def test_rows_are_appended_and_read_back(tmp_path):
    rows = np.random.default_rng(0).normal(size=(7, 4)).astype(np.float32)
    path = tmp_path / "basis.f32"
    results.write_rows(path, rows[:3], 0)
    results.write_rows(path, rows[2:], 2)
    np.testing.assert_array_equal(results.read_rows(path, 7, 4), rows)
    with pytest.raises(ValueError, match="fewer than 8 rows"):
        results.read_rows(path, 8, 4)


def test_json_holds_no_nan(tmp_path):
    path = tmp_path / "rows.json"
    results.write_json(path, [{"here": float("nan"), "n": np.int64(3), "error": np.float32(0.5)}])
    assert results.read_json(path) == [{"here": None, "n": 3, "error": 0.5}]


WRITER = """
import sys, numpy as np, pathlib
from antisgd import results
from antisgd.results import files
path = pathlib.Path(sys.argv[1])
for i in range(10**6):
    results.write_array(path, np.full(200_000, i))
    if i == 0: print("first", flush=True)
"""


def test_killed_while_writing_the_file_is_whole(tmp_path):
    """SIGKILL at three random moments: what is there is always one of the arrays, complete."""
    rng = np.random.default_rng(0)
    path = tmp_path / "array.npy"
    command = [sys.executable, "-c", WRITER, str(path)]
    for _ in range(3):
        process = subprocess.Popen(command, stdout=subprocess.PIPE)
        process.stdout.readline()
        signal.sigtimedwait([], rng.uniform(0, 0.1))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        array = np.load(path)
        assert array.shape == (200_000,)
        assert len(np.unique(array)) == 1
