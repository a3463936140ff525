"""Studies of a network of 650 weights with all limits small, in the process or in one of their own.

Checkpoints at every opportunity, chunks of a few steps and every program kept in the cache, so that
there is much to interrupt, to lose and to write amiss, and little to wait for.
"""

import dataclasses
import itertools
import multiprocessing
import os
import signal
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

from antisgd import models, study
from antisgd.study import cli
from antisgd.study.stages import density, eigenpairs, record, tails, train, value_checkpoint
from experiments import cli as experiments_cli
from experiments import pictures
from experiments.lenet import __main__ as lenet

ROOT = Path(__file__).parent.parent
TOY = {
    "dataset": "synthetic", "num_examples": 60, "batch_size": 6, "learning_rate": 0.01,
    "epochs": 6, "analysis_epochs": 3, "eigenpairs": 5, "microbatch_size": 30,
}  # fmt: skip
FLAGS = tuple(f"--{name}={value}" for name, value in TOY.items())

# Half of the compile time, and programs that are slower, which does not matter here.
QUICK_TO_COMPILE = "--xla_backend_optimization_level=0"

# A server that has all of this imported forks the processes: each lives and dies for itself.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.tiny"])


def network(*, smooth=True):
    """Softmax regression on the pixels, with the two functions of a linen module; always smooth."""
    del smooth

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
    patch(density, "PROBES", 2)
    patch(density, "NODES", 5)
    patch(tails, "WINDOWS", 4)
    patch(cli, "KEPT_COMPILE_SECONDS", 0)
    patch(record, "CHUNK_STEPS", 4)
    patch(record, "EXACT_CHUNK_STEPS", 4)
    for stage in (train, eigenpairs, density, record, value_checkpoint):
        patch(stage, "CHECKPOINT_SECONDS", 0)


@contextmanager
def small():
    """All of it, for a while, in this process, and programs that are quick to compile."""
    with pytest.MonkeyPatch.context() as patch, jax.numpy_rank_promotion("allow"):
        shrink(patch.setattr)
        jax.config.update("jax_disable_most_optimizations", True)
        try:
            yield
        finally:
            jax.config.update("jax_disable_most_optimizations", False)


def options(defaults, **changes):
    """The options of an experiment at toy size, each change in that which has such a field."""
    fields = [{field.name for field in dataclasses.fields(one)} for one in defaults]
    assert set(changes) <= set().union(*fields)
    wanted = TOY | changes
    return [
        dataclasses.replace(one, **{name: wanted[name] for name in names & wanted.keys()})
        for one, names in zip(defaults, fields, strict=True)
    ]


def settings(**changes):
    """Those of a toy study."""
    return options([study.Settings()], **changes)[0]


def problem(**changes):
    """The tiny network on a few synthetic pictures."""
    given, chosen, *_ = options(lenet.OPTIONS, **changes)
    return pictures.problem(network(), "tiny", chosen, given)


def run(folder, **changes):
    """The main experiment at toy size, in this process; the folder."""
    with small():
        lenet.main(*options(lenet.OPTIONS, output_dir=str(folder), **changes))
    return folder


def arrays_of(folder):
    """File and name → every array of a run folder but for the checkpoints."""
    found = {}
    for path in sorted(Path(folder).rglob("*.np[yz]")):
        if "checkpoint" in str(path):
            continue
        loaded = np.load(path)
        parts = loaded if isinstance(loaded, np.lib.npyio.NpzFile) else {"": loaded}
        found |= {f"{path.relative_to(folder)}:{name}": np.array(parts[name]) for name in parts}
    return found


def same_arrays(first, second):
    """Every array of both, given as folders or as `arrays_of` gave them, to the last bit."""
    before, after = (one if isinstance(one, dict) else arrays_of(one) for one in (first, second))
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(array, after[name], err_msg=name)


class Doom(NamedTuple):
    """When and how a process ends itself: so long after so many writes, or within the last one."""

    writes: int
    seconds: float = 0.0
    number: int = signal.SIGKILL
    torn: bool = False


def live(folder, *arguments, doom=None, devices=1):
    """The main experiment on toy flags as a process of its own: exit code and words."""
    process, log = begin(folder, *arguments, doom=doom, devices=devices)
    process.join()
    return process.exitcode, log.read_text()


def begin(folder, *arguments, doom=None, devices=1, name="words"):
    """The process, under way, and the file of its words."""
    cache, log = folder.parent / "cache", folder.parent / name
    given = (*FLAGS, *arguments, f"--output_dir={folder}")
    process = CONTEXT.Process(target=_live, args=(given, cache, log, doom, devices))
    process.start()
    return process, log


def _live(arguments, cache, log, doom, devices):
    split = f"--xla_force_host_platform_device_count={devices}"
    os.environ |= {"ANTISGD_CACHE_DIR": str(cache), "XLA_FLAGS": f"{QUICK_TO_COMPILE} {split}"}
    words = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(words, 1)
    os.dup2(words, 2)
    sys.argv = ["tiny", *arguments]
    shrink(setattr)
    if doom:
        _await(doom)
    experiments_cli.run(lenet.main, *lenet.OPTIONS)


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
