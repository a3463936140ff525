"""Experiments with a network of 650 weights and all limits small, for tests of a run.

A process can hold one experiment, since each defines the flags that they share: in the tests' own
it is the main one, and others get processes of theirs. Checkpoints at every opportunity, chunks of
a few steps and every program kept in the cache, so that there is much to interrupt, to lose and to
write amiss, and little to wait for.
"""

import importlib
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import flagsaver

from antisgd import models, results
from experiments import curvature, flags, recording, training, validity

FLAGS = (
    "--dataset=synthetic", "--num_examples=60", "--batch_size=6", "--learning_rate=0.01",
    "--epochs=6", "--analysis_epochs=3", "--eigenpairs=5", "--microbatch_size=30",
)  # fmt: skip

ROOT = Path(__file__).parent.parent

# Half of the compile time, and programs that are slower, which does not matter here.
QUICK_TO_COMPILE = "--xla_backend_optimization_level=0"

# A server that has all of this imported forks the processes: each lives and dies for itself.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.tiny"])


class Doom(NamedTuple):
    """When and how a process ends itself: so long after so many writes, or within the last one."""

    writes: int
    seconds: float = 0.0
    number: int = signal.SIGKILL
    torn: bool = False


def network():
    """Softmax regression on the pixels, with the two functions of a linen module."""

    def init(key, images):
        shape = (images[0].size, 10)
        dense = {"kernel": 0.1 * jax.random.normal(key, shape), "bias": jnp.zeros(10)}
        return {"params": {"Dense_0": dense}}

    def apply(variables, images):
        dense = variables["params"]["Dense_0"]
        return images.reshape(len(images), -1) @ dense["kernel"] + dense["bias"][None]

    return SimpleNamespace(init=init, apply=apply)


def shrink(patch):
    """Sets all of it with `patch(owner, name, value)`."""
    patch(models, "lenet", network)
    patch(validity, "PROBES", 2)
    patch(validity, "NODES", 5)
    patch(flags, "KEPT_COMPILE_SECONDS", 0)
    patch(recording, "CHUNK_STEPS", 4)
    patch(recording, "EXACT_CHUNK_STEPS", 4)
    for stage in (training, curvature, recording):
        patch(stage, "CHECKPOINT_SECONDS", 0)


def run(arguments, cache, log, doom=None, devices=1):
    """The experiment as the work of a process of its own, its words in a file."""
    lenet = importlib.import_module("experiments.lenet")
    split = f"--xla_force_host_platform_device_count={devices}"
    os.environ |= {"ANTISGD_CACHE_DIR": str(cache), "XLA_FLAGS": f"{QUICK_TO_COMPILE} {split}"}
    words = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(words, 1)
    os.dup2(words, 2)
    sys.argv = ["tiny", *arguments]
    shrink(setattr)
    if doom:
        _await(doom)
    flags.run(lenet.main)


def finish(experiment, folder, *arguments, setup=""):
    """Another experiment's main with the small limits, after some lines of Python, to its end.

    Returns the finished process; its compiled programs are kept beside the folder.
    """
    script = (
        f"from tests import tiny\nfrom experiments import flags, {experiment}\n"
        f"tiny.shrink(setattr)\n{setup}\nflags.run({experiment}.main)\n"
    )
    environment = {"ANTISGD_CACHE_DIR": str(folder.parent / "cache"), "XLA_FLAGS": QUICK_TO_COMPILE}
    return subprocess.run(
        [sys.executable, "-c", script, *arguments, f"--output_dir={folder}"],
        env=os.environ | environment, cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip


@contextmanager
def given(*arguments):
    """These flags, as a command line would give them, with the small limits, in this process."""
    importlib.import_module("experiments.lenet")
    with flagsaver.flagsaver(), pytest.MonkeyPatch.context() as patch:
        shrink(patch.setattr)
        flags.parse(["tiny", *FLAGS, *arguments])
        with jax.numpy_rank_promotion("allow"):
            yield


def main(folder, *arguments):
    """The experiment in this process; bad input ends in a SystemExit as on the command line."""
    with given(*arguments, f"--output_dir={folder}"):
        flags.guarded(importlib.import_module("experiments.lenet").main)(["tiny"])


def problem():
    """The loss and the pictures of the flags given."""
    return training.load_problem(network(), weight_decay=1e-4)


def write_forever(path):
    """Arrays of one number each, one after the other."""
    for number in itertools.count():
        results.write_array(path, np.full(200_000, number))


def _await(doom):
    count, fsync = itertools.count(1), os.fsync

    def counted(file):
        fsync(file)
        if next(count) != doom.writes:
            return
        if doom.torn and os.readlink(f"/proc/self/fd/{file}").endswith(".partial"):
            os.truncate(file, Path(f"/proc/self/fd/{file}").stat().st_size // 2)
        if doom.torn:
            os.kill(os.getpid(), doom.number)
        timer = threading.Timer(doom.seconds, os.kill, (os.getpid(), doom.number))
        timer.daemon = True
        timer.start()

    os.fsync = counted
