"""Two processes of two devices each end like one process of one device, whatever stops them.

Processes of one machine, over the loopback. The network is that of `tests.tiny`.
"""

import os
import signal
import socket
import time

import numpy as np
import pytest

from antisgd import results
from tests import tiny

# Several seeds in both regimes, twenty pairs, recording along them and a report.
WHOLE = ("--seeds=3", "--eigenpairs=20")
# As short as it can be: two networks on four devices, a recording, no figures.
SHORT = (
    "--seeds=1", "--eigenpairs=3", "--epochs=1", "--analysis_epochs=1", "--num_examples=24",
    "--sampling=without_replacement", "--stages=train,eigenpairs,analysis",
)  # fmt: skip


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def begin(folder, *arguments, others=()):
    """The main experiment on toy flags in two processes of two devices, under way."""
    join = (f"--coordinator=127.0.0.1:{free_port()}", "--processes=2")
    first = (*arguments, *join, "--process=0")
    second = (*arguments, *others, *join, "--process=1")
    return (
        tiny.begin(folder, *first, devices=2, name="first"),
        tiny.begin(folder, *second, devices=2, name="second"),
    )


def ended(begun):
    """Exit codes and words."""
    for process, _ in begun:
        process.join(timeout=300)
    return [process.exitcode for process, _ in begun], [log.read_text() for _, log in begun]


def wait_for(path, begun):
    """Until a file is there, or a process has ended."""
    while not path.exists() and all(process.is_alive() for process, _ in begun):
        time.sleep(0.01)


def together(folder, *arguments, **more):
    return ended(begin(folder, *arguments, **more))


def alone(folder, *arguments):
    code, words = tiny.live(folder, *arguments)
    assert code == 0, words
    return folder


def assert_same_numbers(one, two, steps):
    """Every array of two folders within rounding, the eigenvalues within 1e-5 of the first."""
    before, after = tiny.arrays_of(one), tiny.arrays_of(two)
    assert before.keys() == after.keys()
    first = before["eigenpairs.npz:values"]
    found = after["eigenpairs.npz:values"]
    np.testing.assert_allclose(found, first, atol=1e-5 * first[0], rtol=0)
    # Steps that round each on their own, by some 100 operations each.
    tolerance = 100 * steps * np.finfo(np.float32).eps
    params = before["training.npz:params"]
    np.testing.assert_allclose(after["training.npz:params"], params, atol=tolerance)


def test_two_processes_end_like_one(tmp_path):
    one = alone(tmp_path / "one", *SHORT)
    codes, words = together(tmp_path / "two", *SHORT)
    assert codes == [0, 0], words
    assert_same_numbers(one, tmp_path / "two", 4)
    # The first alone is to be heard.
    assert "weights, 24 examples" in words[0] and "recording" in words[0]
    assert "weights, 24 examples" not in words[1] and "recording" not in words[1]
    config = results.read_json(tmp_path / "two" / "config.json")
    assert config["provenance"]["device"] == "4 x cpu, 2 processes"


@pytest.mark.slow
def test_an_error_of_one_process_ends_both_with_its_message(tmp_path):
    codes, words = together(tmp_path / "run", *SHORT, others=("--momentum=2",))
    assert codes == [1, 1], words
    assert "error: --momentum=2.0 is outside [0, 1)" in words[0]
    assert "Traceback" not in "".join(words)


@pytest.mark.slow
def test_killed_in_every_stage_and_started_again_two_processes_end_with_the_same_bits(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    longer = (*SHORT, "--epochs=3", "--analysis_epochs=3")
    assert together(whole, *longer)[0] == [0, 0]
    period = "trajectory_without_replacement/checkpoint.npz"
    for mark in ("checkpoints/training.npz", "checkpoints/eigenpairs.npz", period):
        begun = begin(killed, *longer)
        wait_for(killed / mark, begun)
        os.kill(begun[0][0].pid, signal.SIGKILL)
        codes, words = ended(begun)
        assert codes[0] == -signal.SIGKILL and codes[1] != 0, words
    codes, words = together(killed, *longer)
    assert codes == [0, 0], words
    tiny.same_arrays(whole, killed)


@pytest.mark.slow
def test_a_signal_of_one_process_stops_both_at_a_checkpoint(tmp_path):
    run = tmp_path / "run"
    begun = begin(run, "--epochs=5000")
    wait_for(run / "checkpoints" / "training.npz", begun)
    os.kill(begun[1][0].pid, signal.SIGTERM)
    codes, words = ended(begun)
    assert codes == [1, 1], words
    assert "stopped; the same command goes on from the last checkpoint" in words[0]


@pytest.mark.slow
def test_a_whole_study_in_two_processes_has_the_rows_of_one(tmp_path):
    """Rows are means over directions and steps: rounding moves them by far less than a percent."""
    one, two = alone(tmp_path / "one", *WHOLE), tmp_path / "two"
    codes, words = together(two, *WHOLE)
    assert codes == [0, 0], words
    assert_same_numbers(one, two, 60)
    assert (two / "report.html").exists()
    assert sorted(p.name for p in (one / "figures").glob("*")) == sorted(
        p.name for p in (two / "figures").glob("*")
    )
    rows = [results.read_json(folder / "summary.json") for folder in (one, two)]
    assert [row["id"] for row in rows[0]] == [row["id"] for row in rows[1]]
    for before, after in zip(*rows, strict=True):
        # A prediction is a fixed point found to 2 %; how its few draws scatter is less sure yet.
        predicted = before["id"].startswith("predicted_")
        if predicted and "_error_" in before["id"]:
            continue
        allowed = 0.1 if predicted else 1e-2
        for name in ("here", "here_error"):
            if before[name] is not None:
                expected = pytest.approx(before[name], rel=allowed, abs=1e-6)
                assert after[name] == expected, before["id"]
