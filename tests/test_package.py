"""The public interface is what `__all__` says, importing is cheap, help shows our flags."""

import importlib
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import antisgd

ROOT = Path(__file__).parent.parent
MODULES = [info.name for info in pkgutil.walk_packages(antisgd.__path__, "antisgd.")]


def python(*arguments):
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def test_the_package_names_its_modules_and_loads_none_of_them():
    top = {name.removeprefix("antisgd.") for name in MODULES if name.count(".") == 1}
    assert set(antisgd.__all__) == top
    script = "import sys, antisgd; assert not {'jax', 'numpy'} & set(sys.modules)"
    done = python("-c", script)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_exists_and_is_documented(name):
    module = importlib.import_module(name)
    assert module.__doc__
    assert len(set(module.__all__)) == len(module.__all__) > 0
    for public in module.__all__:
        value = getattr(module, public)
        if inspect.isfunction(value) or inspect.isclass(value):
            assert value.__doc__, public


@pytest.mark.parametrize("module", ["experiments.lenet", "experiments.first_layer"])
def test_help_shows_the_shared_flags_with_the_papers_values(module):
    found = python("-m", module, "--help").stdout
    own, _, _ = found.partition("--helpfull")
    for flag in ("--batch_size", "--eigenpairs", "--output_dir", "--stages", "--weight_decay"):
        assert f"\n  {flag}: " in own
    assert own.count("Paper:") >= 10
