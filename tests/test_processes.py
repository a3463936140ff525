"""Two processes of two devices each end like one process of one device, whatever stops them.

Processes of one machine, over the loopback. The network is that of `tests.tiny`.
"""

import os
import signal
import socket
import subprocess
import sys
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
SCRIPT = """
import os, signal, sys
from tests import tiny
from experiments import cli
from experiments.lenet import __main__ as lenet
tiny.shrink(setattr)
if doom := os.environ.get("DOOM"):
    tiny._await(tiny.Doom(int(doom)))
sys.argv = ["tiny", *sys.argv[1:]]
cli.run(lenet.main, *lenet.OPTIONS)
"""


def start(folder, *arguments, devices=1, **environment):
    """The main experiment on toy flags as a process; its words go to a pipe."""
    given = {
        "ANTISGD_CACHE_DIR": str(folder.parent / f"cache_{devices}"),
        "JAX_NUM_CPU_DEVICES": str(devices), "XLA_FLAGS": tiny.QUICK_TO_COMPILE,
    }  # fmt: skip
    command = [sys.executable, "-c", SCRIPT, *tiny.FLAGS, *arguments, f"--output_dir={folder}"]
    return subprocess.Popen(
        command, env=os.environ | given | environment, cwd=tiny.ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def together(folder, *arguments, doom=None, others=()):
    """The same in two processes of two devices: exit codes and words of both."""
    join = (f"--coordinator=127.0.0.1:{free_port()}", "--processes=2")
    second = start(folder, *arguments, *others, *join, "--process=1", devices=2)
    dying = {} if doom is None else {"DOOM": str(doom)}
    first = start(folder, *arguments, *join, "--process=0", devices=2, **dying)
    words = [one.communicate(timeout=300)[0] for one in (first, second)]
    return [first.returncode, second.returncode], words


def alone(folder, *arguments):
    process = start(folder, *arguments)
    words = process.communicate(timeout=300)[0]
    assert process.returncode == 0, words
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
    assert together(whole, *SHORT)[0] == [0, 0]
    for doom in (6, 12, 60):
        codes, words = together(killed, *SHORT, doom=doom)
        assert codes[0] == -signal.SIGKILL and codes[1] != 0, words
    assert (killed / "trajectory_without_replacement" / "checkpoint.npz").exists()
    codes, words = together(killed, *SHORT)
    assert codes == [0, 0], words
    tiny.same_arrays(whole, killed)


@pytest.mark.slow
def test_a_signal_of_one_process_stops_both_at_a_checkpoint(tmp_path):
    join = (f"--coordinator=127.0.0.1:{free_port()}", "--processes=2")
    given = ("--epochs=5000", *join)
    run = tmp_path / "run"
    first, second = (start(run, *given, f"--process={i}", devices=2) for i in (0, 1))
    checkpoint = run / "checkpoints" / "training.npz"
    while not checkpoint.exists() and first.poll() is None:
        time.sleep(0.1)
    second.send_signal(signal.SIGTERM)
    words = [one.communicate(timeout=60)[0] for one in (first, second)]
    assert [first.returncode, second.returncode] == [1, 1], words
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
        for name in ("here", "here_error"):
            if before[name] is not None:
                assert after[name] == pytest.approx(before[name], rel=1e-2, abs=1e-6), before["id"]
