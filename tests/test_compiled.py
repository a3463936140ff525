"""The programs of a study compile for accelerators that are not here, with the flags a user gets.

Compiled and not run: `pip install '.[aot_tpu]'` and `'.[aot_gpu]'` bring the compilers, and these
tests are skipped where they are missing. Pictures are small but for the slow ones.
"""

import importlib.util
import json
import os
import subprocess
import sys
from functools import cache

import pytest

from tests import tiny

NEEDS = {"v5e": ("libtpu", "aot_tpu"), "H100": ("jax_cuda12_plugin", "aot_gpu")}
# One chip, four chips of one host, one GPU.
TARGETS = ("v5e:1x1", "v5e:2x2", "H100")
# What measures curvature or noise rounds as little as float32 allows; training as it likes.
EXACT = ("product of 8", "recorder", "example gradients", "orthogonalisation")


@cache
def compiled(target, size="small", *programs):
    package, extra = NEEDS[target.partition(":")[0]]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is missing: pip install '.[{extra}]'")
    done = subprocess.run(
        [sys.executable, "tests/programs.py", target, size, *programs], cwd=tiny.ROOT,
        env=os.environ | {"PYTHONPATH": str(tiny.ROOT)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("target", TARGETS)
def test_every_program_compiles(target):
    wrong = {name: one["error"] for name, one in compiled(target).items() if "error" in one}
    assert not wrong


@pytest.mark.parametrize("target", TARGETS)
def test_curvature_and_noise_keep_the_highest_precision(target):
    for name in EXACT:
        found = compiled(target)[name]
        assert found["products"] > 0 and found["highest"] == found["products"], name


@pytest.mark.parametrize("target", TARGETS)
def test_programs_exchange_no_more_than_sums(target):
    """On one device nothing; networks never; products and passes one sum or gather each."""
    for name, found in compiled(target).items():
        exchanged = set(found["collectives"])
        if target != "v5e:2x2" or name in ("epoch", "evaluation"):
            assert not exchanged, name
        elif name == "orthogonalisation":
            assert exchanged == {"all-reduce"}, name
        else:
            assert exchanged, name


@pytest.mark.parametrize("target", TARGETS)
def test_temporary_memory_has_not_grown(target):
    """Against what was recorded when this was written, with half as much room."""
    for name, found in compiled(target).items():
        assert found["temporary"] <= 1.5 * TEMPORARY[target][name], name
