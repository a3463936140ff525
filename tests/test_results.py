"""Run folders: files are whole or absent, settings are compared, arrays come back bit for bit."""

import errno
import fcntl
import itertools
import json
import os
import re
import resource
import socket
import time

import numpy as np
import pytest

from antisgd import results
from antisgd.results import files
from tests import tiny


def test_a_folder_with_the_same_settings_goes_on(tmp_path):
    results.open_run(tmp_path / "run", {"seed": 1, "eigenpairs": 10})
    results.open_run(tmp_path / "run", {"seed": 1, "eigenpairs": 10})
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    assert stored["settings"] == {"seed": 1, "eigenpairs": 10}
    assert set(stored["provenance"]) >= {"command", "git_commit", "versions", "device"}


def test_a_folder_gone_on_in_names_the_command_of_then_and_now(tmp_path, monkeypatch):
    def opened(command):
        monkeypatch.setattr("sys.argv", ["lenet.py", command])
        grow = {"may_grow": ("eigenpairs",)}
        results.open_run(tmp_path / "run", {"eigenpairs": int(command[-2:])}, **grow)
        return json.loads((tmp_path / "run" / "config.json").read_text())

    first = opened("--eigenpairs=10")
    assert opened("--eigenpairs=10") == first
    for command in ("--eigenpairs=20", "--eigenpairs=30"):
        stored = opened(command)
        assert stored["provenance"]["command"].endswith(command)
        assert stored["begun_with"] == first["provenance"]


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


def test_a_list_that_may_grow_takes_more_entries_but_loses_none(tmp_path):
    def opened(values):
        results.open_run(tmp_path / "run", {"momenta": values}, may_grow=("momenta",))
        return json.loads((tmp_path / "run" / "config.json").read_text())["settings"]["momenta"]

    opened(["0.9", "0.5"])
    assert opened(["0", "0.5", "0.9"]) == ["0", "0.5", "0.9"]
    with pytest.raises(ValueError, match="momenta"):
        opened(["0", "0.5", "0.75"])


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


@pytest.mark.parametrize("kept", [0, 100, -1])
def test_a_checkpoint_that_is_not_whole_is_ignored_and_said(tmp_path, caplog, kept):
    path, template = tmp_path / "checkpoint.npz", {"a": np.zeros(50)}
    assert results.read_checkpoint(path, template) is template
    assert not caplog.messages
    results.write_checkpoint(path, {"a": np.ones(50)})
    path.write_bytes(path.read_bytes()[:kept])
    assert results.read_checkpoint(path, template) is template
    (words,) = caplog.messages
    assert words.startswith(f"{path} is damaged") and words.endswith("the checkpoint is ignored")


def test_what_was_cut_short_is_removed_and_said(tmp_path, caplog):
    folder = results.open_run(tmp_path / "run", {"seed": 1})
    (folder / "checkpoints").mkdir()
    torn = folder / "checkpoints" / "training.npz.partial"
    torn.write_bytes(b"half")
    results.open_run(folder, {"seed": 1})
    assert caplog.messages == [f"{torn} was cut short by a stop and is ignored"]
    assert not torn.exists()


def test_killed_before_its_first_file_a_run_starts_all_the_same(tmp_path):
    (tmp_path / "config.json.partial").write_bytes(b"{")
    results.open_run(tmp_path, {"seed": 1})
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_files_of_others_are_left_alone(tmp_path):
    (tmp_path / "thesis.partial").touch()
    with pytest.raises(ValueError, match="not a run folder"):
        results.open_run(tmp_path, {"seed": 1})
    assert (tmp_path / "thesis.partial").exists()


def test_killed_in_the_midst_of_overwriting_it_can_be_overwritten_again(tmp_path, monkeypatch):
    folder = results.open_run(tmp_path / "run", {"seed": 1})
    for name in ("a", "z"):
        results.write_text(folder / name / "old.txt", "old")

    def killed(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("shutil.rmtree", killed)
        results.open_run(folder, {"seed": 2}, overwrite=True)
    results.open_run(folder, {"seed": 2}, overwrite=True)
    assert [path.name for path in folder.iterdir()] == ["config.json"]


@pytest.mark.parametrize("content", ["[]", "{}", '{"settings": 1}', "{", ""])
def test_a_strange_config_is_named(tmp_path, content):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match="config.json is"):
        results.open_run(tmp_path, {"seed": 1})
    assert (tmp_path / "config.json").read_text() == content


WRITERS = {
    "arrays": lambda path: results.write_arrays(path, a=np.ones(10_000)),
    "array": lambda path: results.write_array(path, np.ones(10_000)),
    "recording": lambda path: results.open_recording(path, (100, 100)),
    "text": lambda path: results.write_text(path, "word" * 10_000),
    "rows": lambda path: results.write_rows(path, np.ones((100, 100)), 0),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_named_and_costs_nothing_that_was_there(tmp_path, writer):
    """A limit on the size of files stands for the full disk: the system refuses the write."""
    path = tmp_path / "file"
    if writer != "rows":
        path.write_bytes(b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        with pytest.raises(OSError, match=f"^cannot write {path} .*: free some space") as found:
            WRITERS[writer](path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(found.value)
    assert writer == "rows" or path.read_bytes() == b"old"
    assert list(tmp_path.glob("*.partial")) == []
    WRITERS[writer](path)


def test_a_recording_is_on_disk_before_it_is_filled(tmp_path):
    """A mapped hole in a file meets a full disk as a crash."""
    path = tmp_path / "velocities.npy"
    results.open_recording(path, (1000, 300))
    assert path.stat().st_blocks * 512 >= 1000 * 300 * 4


@pytest.mark.parametrize("content", [b"", b"no numpy file", None], ids=["empty", "text", "short"])
def test_a_damaged_recording_is_noticed(tmp_path, content):
    path = tmp_path / "velocities.npy"
    results.open_recording(path, (10, 3))[:] = 1
    assert results.holds(path, (10, 3))
    path.write_bytes(path.read_bytes()[:-4] if content is None else content)
    assert not results.holds(path, (10, 3))
    with pytest.raises(ValueError, match="velocities.npy is damaged .*: remove it and run again"):
        results.read_array(path)


def test_objects_are_not_written(tmp_path):
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):
        results.write_array(tmp_path / "array.npy", np.array([{}], object))
    assert list(tmp_path.iterdir()) == []


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


def write_forever(path):
    """Arrays of one number each, one after the other."""
    for number in itertools.count():
        results.write_array(path, np.full(200_000, number))


def test_killed_while_writing_the_file_is_whole(tmp_path):
    """SIGKILL at random moments: what is there is always one of the arrays, complete."""
    rng, path = np.random.default_rng(0), tmp_path / "array.npy"
    for _ in range(5):
        path.unlink(missing_ok=True)
        process = tiny.CONTEXT.Process(target=write_forever, args=(path,))
        process.start()
        while not path.exists():
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.1))
        process.kill()
        process.join()
        array = np.load(path)
        assert array.shape == (200_000,)
        assert len(np.unique(array)) == 1


# --- the lock -------------------------------------------------------------------------------


def hold(folder, ready):
    """A process that works in a folder until it is killed."""
    with results.held(folder):
        ready.set()
        time.sleep(600)


@pytest.fixture
def holder(tmp_path):
    ready = tiny.CONTEXT.Event()
    process = tiny.CONTEXT.Process(target=hold, args=(tmp_path / "run", ready))
    process.start()
    assert ready.wait(60)
    yield process
    process.kill()
    process.join()


def test_a_second_process_is_told_who_works_in_the_folder(tmp_path, holder):
    who = re.escape(f"process {holder.pid} on {socket.gethostname()} since 20")
    message = rf"run is being worked in by {who}\S+ \S+ UTC: wait for it, stop it, or give another"
    with pytest.raises(ValueError, match=message) as found, results.held(tmp_path / "run"):
        pytest.fail("two processes in one folder")
    assert "\n" not in str(found.value)


def test_a_holder_that_is_killed_frees_the_folder(tmp_path, holder):
    holder.kill()
    holder.join()
    with results.held(tmp_path / "run"):
        assert (tmp_path / "run" / ".lock").read_text().startswith(f"process {os.getpid()} on ")
    # And one that ends, by an error too.
    with pytest.raises(KeyError), results.held(tmp_path / "run"):
        raise KeyError
    with results.held(tmp_path / "run"):
        pass


def test_a_lock_makes_no_run_folder_of_another_and_is_not_overwritten(tmp_path):
    with results.held(tmp_path / "run"):
        results.open_run(tmp_path / "run", {"seed": 1})
        results.open_run(tmp_path / "run", {"seed": 2}, overwrite=True)
        with pytest.raises(ValueError, match="is being worked in"), results.held(tmp_path / "run"):
            pytest.fail("overwriting freed the folder")
    (tmp_path / "others").mkdir()
    (tmp_path / "others" / "thesis.tex").touch()
    with results.held(tmp_path / "others"), pytest.raises(ValueError, match="not a run folder"):
        results.open_run(tmp_path / "others", {"seed": 1})


def test_a_lock_in_an_unwritable_folder_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    place = tmp_path / "file" / "run"
    with pytest.raises(OSError, match="give a writable --output_dir"), results.held(place):
        pytest.fail("held a folder that cannot be")


def test_a_file_system_without_locks_is_no_other_process(tmp_path, monkeypatch):
    def refused(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refused)
    with pytest.raises(OSError, match=r"cannot lock .*\.lock .*has locks"):
        with results.held(tmp_path / "run"):
            pytest.fail("held what cannot be")
