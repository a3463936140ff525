"""Mains of the experiments at toy size: in the tests' own process, or in one of theirs."""

import os
import subprocess
import sys

import pytest

from antisgd import models
from antisgd.study import cli
from tests import tiny


def run(module, folder, *arguments, network=True):
    """An experiment's main with the small limits; bad input ends in a SystemExit, as in a shell.

    `network` says whether LeNet is replaced by a network of 650 weights as well.
    """
    lenet = models.lenet
    with tiny.small(), pytest.MonkeyPatch.context() as patch:
        if not network:
            patch.setattr(models, "lenet", lenet)
        chosen = [*arguments, f"--output_dir={folder}"]
        cli.guarded(lambda: module.main(*cli.parse(chosen, *module.OPTIONS)))
    return folder


def run_apart(name, folder, *arguments):
    """The same in a process that keeps its compiled programs beside the folder, for their count."""
    script = (
        f"from tests import tiny\nfrom antisgd.study import cli\n"
        f"from experiments.{name}.__main__ import OPTIONS, main\n"
        "tiny.shrink(setattr)\ncli.run(main, *OPTIONS)\n"
    )
    environment = {
        "ANTISGD_CACHE_DIR": str(folder.parent / "cache"),
        "XLA_FLAGS": tiny.QUICK_TO_COMPILE,
    }
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments, f"--output_dir={folder}"],
        env=os.environ | environment, cwd=tiny.ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
