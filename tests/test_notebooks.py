"""Notebooks run, hold what their sources say, and were executed from top to bottom."""

import json
import re
import time
from pathlib import Path

import jax
import matplotlib
import pytest

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "notebooks").glob("*.py"))
ADDRESS = re.search("repository-code: (.*)", (ROOT / "CITATION.cff").read_text())[1]


def by_name(path):
    return path.stem


def cells(source):
    """The cells of a percent-format source: kind and text."""
    found = []
    for part in re.split(r"^# %%", source.read_text(), flags=re.MULTILINE)[1:]:
        mark, _, text = part.partition("\n")
        if mark.strip() == "[markdown]":
            text = re.sub("^# ?", "", text, flags=re.MULTILINE)
        found.append(("markdown" if mark.strip() else "code", text.strip()))
    return found


def test_there_are_three():
    assert [source.stem for source in SOURCES] == ["lenet", "own_model", "theory"]


@pytest.mark.slow
@pytest.mark.parametrize("source", SOURCES, ids=by_name)
@pytest.mark.filterwarnings("ignore")
def test_sources_run_in_three_minutes_on_two_cores(source):
    matplotlib.use("agg")
    start = time.process_time()
    with jax.numpy_rank_promotion("allow"):
        exec(compile(source.read_text(), str(source), "exec"), {"__name__": "__main__"})
    assert time.process_time() - start < 2 * 180


@pytest.mark.parametrize("source", SOURCES, ids=by_name)
def test_notebooks_equal_their_sources_and_were_run_from_top_to_bottom(source):
    notebook = json.loads(source.with_suffix(".ipynb").read_text())
    held = [(cell["cell_type"], "".join(cell["source"]).strip()) for cell in notebook["cells"]]
    assert held == cells(source)
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"stream", "display_data"}
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 1
    assert source.with_suffix(".ipynb").stat().st_size < 600_000


@pytest.mark.parametrize("source", SOURCES, ids=by_name)
def test_badge_and_installation_name_the_repository(source):
    (_, head), (_, install), *_ = cells(source)
    place = ADDRESS.removeprefix("https://github.com/")
    colab = "https://colab.research.google.com/github"
    assert f"({colab}/{place}/blob/main/notebooks/{source.stem}.ipynb)" in head
    assert f"git+{ADDRESS}" in install
    assert '"google.colab" in sys.modules' in install
