"""The public interface is what `__all__` says, importing is cheap, help shows our flags."""

import configparser
import importlib
import inspect
import pkgutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

import antisgd

ROOT = Path(__file__).parent.parent
FOUND = list(pkgutil.walk_packages(antisgd.__path__, "antisgd."))
MODULES = [info.name for info in FOUND]
PACKAGES = [info for info in FOUND if info.ispkg]


def python(*arguments):
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def test_the_package_names_its_modules_and_loads_none_of_them():
    top = {name.removeprefix("antisgd.") for name in MODULES if name.count(".") == 1}
    assert set(antisgd.__all__) == top
    script = "import sys, antisgd; assert not {'jax', 'numpy'} & set(sys.modules)"
    done = python("-c", script)
    assert done.returncode == 0, done.stderr


def test_a_bug_report_can_say_where_it_comes_from():
    told = antisgd.provenance()
    assert told["versions"]["jax"] and told["python"] and told["device"]
    template = (ROOT / ".github" / "ISSUE_TEMPLATE" / "bug.yml").read_text()
    assert "antisgd.provenance()" in template


def test_version_and_citation_agree():
    configured = configparser.ConfigParser()
    configured.read(ROOT / "setup.cfg")
    version = configured["metadata"]["version"]
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("name", MODULES)
def test_every_public_name_exists_and_is_documented(name):
    module = importlib.import_module(name)
    assert module.__doc__
    if name.endswith(".__main__"):
        return
    assert len(set(module.__all__)) == len(module.__all__) > 0
    for public in module.__all__:
        value = getattr(module, public)
        if inspect.isfunction(value) or inspect.isclass(value):
            assert value.__doc__, public


WITHOUT_ABSL = """
import builtins, sys
real = builtins.__import__
def watched(name, globals=None, *rest, **more):
    by = (globals or {}).get("__name__", "")
    assert not (name.startswith("absl") and by.startswith("antisgd")), f"{by} imports {name}"
    return real(name, globals, *rest, **more)
builtins.__import__ = watched
import antisgd.study
assert {"antisgd.study.cli", "flax", "experiments"}.isdisjoint(sys.modules), "too much is loaded"
"""


def test_a_study_needs_no_flags_and_no_network_of_the_papers():
    """Libraries that it builds on may import absl for themselves, as optax does."""
    done = python("-c", WITHOUT_ABSL)
    assert done.returncode == 0, done.stderr


def test_what_a_study_needs_is_installed_with_the_package():
    """Every package of the tree, and the style of the report, which is no module."""
    configured = configparser.ConfigParser()
    configured.read(ROOT / "setup.cfg")
    included = configured["options.packages.find"]["include"].split()
    installed = {"antisgd", *(info.name for info in PACKAGES)}
    assert all(any(fnmatch(name, one) for one in included) for name in installed)
    assert not any(fnmatch("experiments", one) for one in included)
    data = configured["options.package_data"]
    for path in (ROOT / "antisgd").rglob("*"):
        if path.is_file() and path.suffix not in (".py", ".pyc", ".typed"):
            package = ".".join(path.parent.relative_to(ROOT).parts)
            assert package in installed and f"*{path.suffix}" in data[package]


@pytest.mark.parametrize("module", ["experiments.first_layer"])
def test_help_shows_the_shared_flags_with_the_papers_values(module):
    """That of the main experiment is looked at closely in test_settings."""
    found = python("-m", module, "--help").stdout
    own, _, _ = found.partition("--helpfull")
    for flag in ("--batch_size", "--eigenpairs", "--output_dir", "--stages", "--weight_decay"):
        assert f"\n  {flag}: " in own
    assert own.count("Paper:") >= 10
