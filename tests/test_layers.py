"""The architecture, read off the code: a star of leaves, the study above them, the paper above all.

Heavy libraries, files, flags and devices have one place each.
"""

import ast
from functools import cache
from itertools import chain
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = sorted((ROOT / "antisgd").rglob("*.py"))
STUDY = sorted((ROOT / "antisgd" / "study").rglob("*.py"))
FINDINGS = sorted((ROOT / "antisgd" / "study" / "findings").rglob("*.py"))
EXPERIMENTS = sorted((ROOT / "experiments").rglob("*.py"))

INTERNAL_EDGES = {
    # An audit is made of what is measured and of what theory says of it; plotting shows it.
    ("audit", "display"),
    ("audit", "fluctuations"),
    ("audit", "inputs"),
    ("audit", "plotting"),
    ("audit", "results"),
    ("audit", "statistics"),
    ("audit", "theory"),
    ("compilation", "devices"),
    ("ensemble", "devices"),
    ("hessian", "compilation"),
    ("hessian", "devices"),
    ("lanczos", "compilation"),
    ("lanczos", "devices"),
    ("objective", "devices"),
    ("results", "devices"),
    ("theory", "devices"),
    ("trajectory", "anchors"),
    ("trajectory", "devices"),
    ("anchors", "display"),
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
    ("renormalisation", "hessian"),
    # Examples that are read piece by piece: reading them, and the sums and steps over them.
    ("sources", "devices"),
    ("sources", "inputs"),
    ("sources", "sampling"),
    *(
        ("streaming", part)
        for part in (
            "averaging",
            "devices",
            "ensemble",
            "heavy_ball",
            "hessian",
            "objective",
            "sampling",
            "sources",
            "trajectory",
            "weights",
        )
    ),
}
# The parts of the study, in layers: a part takes from lower layers alone, not from beside it.
LAYERS = (
    {"problem", "interruption", "optimiser", "stages.table", "fields"},
    {"settings"},
    {"conditions", "divergence"},
    {"stages"},
    {"findings", "preflight", "report"},
    {"outcome"},
    {"run"},
    {"__init__", "cli"},
    {"__main__"},
)
# Of the library alone; scripts of benchmarks are no part of it.
ONLY_IN = {
    "matplotlib": {"plotting"},
    "sklearn": {"data"},
    "tensorflow_datasets": {"data"},
    "flax": {"models"},
    "torch": {"pytorch"},
    "absl": {"study.cli"},
}
WRITES = {
    "save", "savez", "savez_compressed", "savetxt", "tofile", "write_text", "write_bytes",
    "savefig", "open_memmap",
}  # fmt: skip
READS = {"load", "loadtxt", "genfromtxt", "fromfile", "memmap", "read_text", "read_bytes"}
DEVICES = {"devices", "local_devices", "device_count", "local_device_count", "device_put"}


def by_path(path):
    return str(path.relative_to(ROOT))


@cache
def nodes(path):
    return list(ast.walk(ast.parse(path.read_text())))


@cache
def imported(path):
    names = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def parts_of(path):
    return path.relative_to(ROOT / "antisgd").with_suffix("").parts


def module_of(path):
    return parts_of(path)[0]


def part_of(words):
    """The part of the study that 'stages.train.network' or a path's parts belong to."""
    name = ".".join(words)
    return "stages.table" if name.startswith("stages.table") else words[0]


def attributes(path, of):
    """Names taken from a module called `of`, such as load of np.load."""
    for node in nodes(path):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == of:
                yield node.attr


@pytest.mark.parametrize("path", PACKAGE, ids=by_path)
def test_inside_the_package_only_the_stated_edges(path):
    """The study may take from all, and nothing below knows it."""
    here = module_of(path)
    for name in imported(path):
        parts = name.split(".")
        assert parts[0] != "experiments"
        if parts[0] != "antisgd" or here in ("__init__", "study") or parts[1:2] in ([], [here]):
            continue
        assert (here, parts[1]) in INTERNAL_EDGES, f"{here} imports {parts[1]}"


@pytest.mark.parametrize("path", PACKAGE, ids=by_path)
def test_theory_and_heavy_ball_never_meet(path):
    """What is measured does not come out of what it is compared with."""
    taken = {name.split(".")[1] for name in imported(path) if name.startswith("antisgd.")}
    assert not {"theory", "heavy_ball"} <= taken | {module_of(path)}


@pytest.mark.parametrize("path", STUDY, ids=by_path)
def test_the_study_has_layers(path):
    layer = {part: number for number, parts in enumerate(LAYERS) for part in parts}
    here = part_of(parts_of(path)[1:])
    for name in imported(path):
        if not name.startswith("antisgd.study."):
            continue
        there = part_of(name.split(".")[2:])
        # Names that the package itself hands on: from antisgd.study import Settings.
        there = there if there in layer else "__init__"
        assert there == here or layer[there] < layer[here], f"{here} imports {there}"


@pytest.mark.parametrize("path", PACKAGE, ids=by_path)
def test_heavy_libraries_have_one_place(path):
    here = ".".join(parts_of(path))
    for name in imported(path):
        places = ONLY_IN.get(name.split(".")[0], {module_of(path)})
        assert {here, module_of(path)} & places, f"{here} imports {name}"


@pytest.mark.parametrize("path", PACKAGE + EXPERIMENTS, ids=by_path)
def test_flags_are_known_to_command_lines_alone(path):
    """The library's one is taken by its own command and by the experiments' one alone."""
    names, here = imported(path), by_path(path)
    if here != "antisgd/study/cli.py":
        assert not [name for name in names if name.split(".")[0] == "absl"]
    if here not in ("antisgd/study/__main__.py", "experiments/cli.py"):
        assert not [name for name in names if name.startswith("antisgd.study.cli")]


@pytest.mark.parametrize("path", STUDY + EXPERIMENTS, ids=by_path)
def test_nothing_below_a_command_line_reads_a_global_or_sets_one(path):
    """Settings are arguments: no flags, environment or words, no module that another changes."""
    here = by_path(path)
    commands = {"antisgd/study/cli.py", "experiments/report.py"}
    if here not in commands and "benchmarks" not in here:
        assert not {"environ", "getenv"} & set(attributes(path, "os"))
        assert "argv" not in attributes(path, "sys")
    modules = {name.split(".")[-1] for name in imported(path)}
    for node in nodes(path):
        assert not isinstance(node, ast.Global), here
        assert here in commands or "FLAGS" not in (getattr(node, key, 0) for key in ("id", "attr"))
        for target in getattr(node, "targets", [getattr(node, "target", None)]):
            if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name):
                # What stands for chips that are not here has to change what tells of those here.
                modules -= {"os", "devices"} if here.endswith("/chips.py") else set()
                assert target.value.id not in modules, f"{here} sets {ast.unparse(target)}"


@pytest.mark.parametrize("path", PACKAGE + EXPERIMENTS, ids=by_path)
def test_only_results_writes_files(path):
    here = by_path(path)
    # The download of the official archive is data's own, into a cache and not a run folder.
    if here.startswith(("antisgd/results/", "antisgd/data/")):
        return
    for node in nodes(path):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        owner, _, name = called.rpartition(".")
        assert owner == "results" or name not in WRITES, f"{here}: {called}"
        assert called not in ("os.replace", "os.rename"), f"{here}: {called}"
        if name == "open":
            modes = [*node.args[not owner :], *(k.value for k in node.keywords if k.arg == "mode")]
            assert not set("wax+") & set("".join(map(ast.unparse, modes))), f"{here}: {called}"


@pytest.mark.parametrize("path", FINDINGS, ids=by_path)
def test_findings_touch_neither_files_nor_devices(path):
    """Rows and figures are functions of results: they can be drawn anew without a device."""
    assert not [
        name for name in imported(path) if name.startswith(("antisgd.results", "os", "pathlib"))
    ]
    assert not (READS | WRITES) & set(attributes(path, "np"))
    assert not DEVICES & set(attributes(path, "jax"))


@pytest.mark.parametrize("path", PACKAGE + EXPERIMENTS, ids=by_path)
def test_modules_and_functions_are_short(path):
    assert path.read_text().count("\n") <= 300
    for node in nodes(path):
        if isinstance(node, ast.FunctionDef):
            docstring = ast.get_docstring(node, clean=False) or ""
            length = node.end_lineno - node.lineno + 1 - (docstring.count("\n") + 1)
            assert length <= 40, f"{node.name} has {length} lines"


@pytest.mark.parametrize("path", PACKAGE, ids=by_path)
def test_functions_that_others_call_have_all_their_types(path):
    """Arguments and result; private and inner functions have them where they tell something."""
    body = ast.parse(path.read_text()).body
    inside = [node.body for node in body if isinstance(node, ast.ClassDef)]
    for node in chain(body, *inside):
        if not isinstance(node, ast.FunctionDef) or node.name.startswith("_"):
            continue
        given = node.args
        known = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
        bare = [a.arg for a in known if a and a.annotation is None and a.arg not in ("self", "cls")]
        assert node.returns is not None and not bare, (node.name, bare)
