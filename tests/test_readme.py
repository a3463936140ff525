"""The README runs: every Python block is executed, every command exists."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from experiments import kept

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
COMMANDS = sorted(set(re.findall(r"python -m (experiments[\w.]*)((?: --[\w=./,]+)*)", README)))


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.strip().splitlines()[0])
def test_python_blocks_run(block, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", block], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_own_model_example_agrees_with_theory():
    """The printed ratios of measured to predicted correlation time lie within a factor of two."""
    example = next(block for block in BLOCKS if "leading_eigenpairs" in block)
    check = example + "\nratio = measured.correlation_time / predicted\n"
    check += "assert 0.5 < np.median(ratio) < 2, ratio\nassert pairs.converged.all()\n"
    subprocess.run([sys.executable, "-c", check], check=True)


@pytest.mark.parametrize("module", sorted({module for module, _ in COMMANDS}))
def test_commands_have_modules_flags_and_presets(module):
    """Each command's flags are read by its module, all those of a module in one process."""
    given = [arguments for name, arguments in COMMANDS if name == module]
    script = (
        f"import sys; from absl import flags; import {module} as experiment\n"
        "for line in sys.argv[1:]:\n"
        "    flags.FLAGS(['x', *line.split()])\n"
    )
    command = [sys.executable, "-c", script, *given]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


def test_both_make_commands_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)$", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_links_and_pictures_exist():
    for target in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_tables_are_what_the_kept_results_say():
    assert kept.tables() in README
    assert README.count("| Fig. 2 |") >= 4


def test_kept_results_name_no_place_of_this_machine():
    for config in kept.FOLDER.glob("*/config.json"):
        assert "_dir=" not in config.read_text()
        assert "/home" not in config.read_text()
