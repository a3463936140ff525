"""Runs that are killed at random moments end with the bits of one that nobody disturbed."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.test_experiments import arrays_of

# Checkpoints at every opportunity, so that there is something to lose and to write amiss.
SCRIPT = """
import sys
from experiments import curvature, flags, lenet, training
training.CHECKPOINT_SECONDS = curvature.CHECKPOINT_SECONDS = flags.KEPT_COMPILE_SECONDS = 0
flags.run(lenet.main)
"""
FLAGS = (
    "--dataset=synthetic", "--num_examples=120", "--batch_size=6", "--learning_rate=0.01",
    "--epochs=10", "--analysis_epochs=4", "--eigenpairs=4", "--full_gradient=quadratic",
    "--stages=train,eigenpairs,analysis,covariance,discard,validity",
)  # fmt: skip
# Seconds from the plan's line to the latest kill: a run survives several before its end.
LIFE = 6.0


def start(folder, cache):
    command = [sys.executable, "-c", SCRIPT, *FLAGS, f"--output_dir={folder}"]
    environment = {**os.environ, "ANTISGD_CACHE_DIR": str(cache)}
    return subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def finish(process):
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-2000:]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Folder and compilation cache of a run that nobody killed."""
    base = tmp_path_factory.mktemp("undisturbed")
    finish(start(base / "run", base / "cache"))
    return base / "run", base / "cache"


def interrupted(process, number, seconds):
    """Sends the signal so long after the plan's line; whether it came before the end."""
    process.stdout.readline()
    time.sleep(seconds)
    process.send_signal(number)
    _, errors = process.communicate(timeout=300)
    return process.returncode, errors


def same_bits(first, second):
    before, after = arrays_of(first), arrays_of(second)
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(array, after[name], err_msg=name)


@pytest.mark.parametrize("kills", [2, pytest.param(50, marks=pytest.mark.slow)])
def test_killed_at_random_moments_and_started_again(undisturbed, tmp_path, kills):
    folder, cache = undisturbed
    rng = np.random.default_rng(kills)
    for _ in range(kills):
        process = start(tmp_path / "killed", cache)
        code, errors = interrupted(process, signal.SIGKILL, rng.uniform(0, LIFE))
        assert code in (-signal.SIGKILL, 0), errors[-2000:]
    finish(start(tmp_path / "killed", cache))
    same_bits(folder, tmp_path / "killed")


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_asked_to_stop_it_says_how_to_go_on(undisturbed, tmp_path, number):
    folder, cache = undisturbed
    code, errors = interrupted(start(tmp_path / "stopped", cache), number, LIFE / 2)
    assert code == 1
    assert "stopped; the same command goes on" in errors
    finish(start(tmp_path / "stopped", cache))
    same_bits(folder, tmp_path / "stopped")
