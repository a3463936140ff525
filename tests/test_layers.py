"""The architecture, read off the imports: a star of leaves, heavy libraries in one place each."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = sorted((ROOT / "antisgd").rglob("*.py"))
EXPERIMENTS = sorted((ROOT / "experiments").rglob("*.py"))

INTERNAL_EDGES = {
    ("ensemble", "heavy_ball"),
    ("ensemble", "sampling"),
    ("models", "convolution"),
    ("pretrained", "results"),
    ("averaging", "inputs"),
    ("averaging", "weights"),
    ("weights", "inputs"),
    ("injection", "inputs"),
    ("sampling", "display"),
    ("sampling", "inputs"),
    ("statistics", "display"),
    ("statistics", "inputs"),
    ("theory", "display"),
    ("theory", "inputs"),
    ("data", "display"),
    ("data", "inputs"),
    ("objective", "display"),
    ("pretrained", "display"),
    ("lanczos", "display"),
    ("lanczos", "inputs"),
    ("ensemble", "averaging"),
    ("ensemble", "inputs"),
    ("heavy_ball", "averaging"),
    ("heavy_ball", "display"),
    ("heavy_ball", "inputs"),
    ("heavy_ball", "weights"),
    ("objective", "averaging"),
    ("objective", "inputs"),
    ("objective", "weights"),
    ("trajectory", "averaging"),
    ("trajectory", "display"),
    ("trajectory", "inputs"),
    ("trajectory", "weights"),
    ("hessian", "averaging"),
    ("hessian", "inputs"),
    ("hessian", "weights"),
}
ONLY_IN = {
    "matplotlib": {"plotting"},
    "sklearn": {"data"},
    "tensorflow_datasets": {"data"},
    "flax": {"models"},
    "absl": set(),
}


def imported(path):
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def module_of(path):
    return path.relative_to(ROOT / "antisgd").parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", PACKAGE, ids=lambda p: str(p.relative_to(ROOT)))
def test_inside_the_package_only_the_stated_edges(path):
    here = module_of(path)
    for name in imported(path):
        parts = name.split(".")
        if parts[0] == "antisgd" and len(parts) > 1 and parts[1] != here and here != "__init__":
            assert (here, parts[1]) in INTERNAL_EDGES, f"{here} imports {parts[1]}"
        assert parts[0] != "experiments"


@pytest.mark.parametrize("path", PACKAGE, ids=lambda p: str(p.relative_to(ROOT)))
def test_heavy_libraries_have_one_place(path):
    for name in imported(path):
        library = name.split(".")[0]
        assert library not in ONLY_IN or module_of(path) in ONLY_IN[library]


@pytest.mark.parametrize("path", PACKAGE + EXPERIMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_modules_and_functions_are_short(path):
    text = path.read_text()
    assert text.count("\n") <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            docstring = ast.get_docstring(node, clean=False) or ""
            length = node.end_lineno - node.lineno + 1 - (docstring.count("\n") + 1)
            assert length <= 40, f"{node.name} has {length} lines"


def test_only_results_writes_files():
    for path in PACKAGE:
        writes = {"os.replace", "np.save", "np.savez", ".write_text(", ".write_bytes(", "savefig("}
        found = {word for word in writes if word in path.read_text()}
        # The download of the official archive is data's own, into a cache and not a run folder.
        assert not found or module_of(path) in {"results", "data"}, f"{path.name}: {found}"
