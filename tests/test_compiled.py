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
# At the paper's size also two hosts and eight GPUs: minutes a program for a TPU.
LARGE = (*TARGETS, "v5e:2x4", "H100:1x1x8")
SIZED = [(target, "small") for target in TARGETS] + [
    pytest.param(target, "paper", marks=pytest.mark.slow) for target in LARGE
]
# Bytes of a chip that a program may take.
MEMORY = {"v5e": 15.75 * 2**30, "H100": 80e9}
# What measures curvature or noise rounds as little as float32 allows; training as it likes.
EXACT = (
    "product of 8", "recorder", "quadratic recorder", "example gradients", "orthogonalisation",
    "rotation", "ResNet-20 product of 8",
)  # fmt: skip
# What several chips do without a word to each other.
ALONE = ("evaluation", "rotation")
# Bytes beside arguments and results when this was written, with libtpu 0.0.52 and jax 0.10.2.
TEMPORARY = {
    "v5e:1x1": {"epoch": 1_196_032, "evaluation": 245_760, "rotation": 0},
    "v5e:2x2": {
        "epoch": 1_163_264, "evaluation": 278_528, "product of 8": 704_512,
        "recorder": 1_245_184, "example gradients": 0, "orthogonalisation": 0,
        "factorisation": 0,
    },
    "H100": {
        "epoch": 1_157_848, "evaluation": 399_480, "product of 8": 8_215_184,
        "recorder": 12_577_808, "example gradients": 12_759_064, "orthogonalisation": 68_239_360,
        "factorisation": 288, "rotation": 0,
    },
}  # fmt: skip
# Kernels of a step, a microbatch or, without a loop, the whole program on an H100.
KERNELS = {
    "epoch": 50, "evaluation": 21, "product of 8": 92, "recorder": 73,
    "example gradients": 38,
    "orthogonalisation": 5, "factorisation": 4, "rotation": 1,
}  # fmt: skip


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


@pytest.mark.parametrize(("target", "size"), SIZED)
def test_every_program_compiles_and_fits(target, size):
    found = compiled(target, size)
    assert not {name: one["error"] for name, one in found.items() if "error" in one}
    for name, one in found.items():
        held = one["arguments"] + one["results"] + one["temporary"]
        assert held < MEMORY[target.partition(":")[0]], name


@pytest.mark.parametrize(("target", "size"), SIZED)
def test_curvature_and_noise_keep_the_highest_precision(target, size):
    for name, found in compiled(target, size).items():
        if name in EXACT:
            assert found["products"] > 0 and found["highest"] == found["products"], name


@pytest.mark.parametrize(("target", "size"), SIZED)
def test_programs_exchange_what_they_must(target, size):
    """On one device nothing; of networks their losses; else sums, and vectors put together."""
    for name, found in compiled(target, size).items():
        exchanged = set(found["collectives"])
        if target in ("v5e:1x1", "H100") or name in ALONE:
            assert not exchanged, name
        elif "epoch" in name:
            assert sum(found["collectives"].values()) == 1, name
        else:
            assert exchanged and exchanged <= {"all-reduce", "all-gather", "reduce-scatter"}, name


@pytest.mark.parametrize("target", TARGETS)
def test_temporary_memory_has_not_grown(target):
    for name, recorded in TEMPORARY[target].items():
        assert compiled(target)[name]["temporary"] <= 1.5 * recorded + 2**16, name


def test_kernels_of_a_gpu_have_not_grown():
    for name, recorded in KERNELS.items():
        assert compiled("H100")[name]["kernels"] <= 1.15 * recorded, name


def test_forty_networks_use_sixteen_chips():
    found = compiled("v5e:4x4", "small", "epoch of 40")["epoch of 40"]
    assert found["rows"] == [3, 48]
