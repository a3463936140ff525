"""Measured speed that stays: a file of results per machine and version, and their table.

python -m experiments.benchmarks.training --keep      notes its ratios in results/
python -m experiments.benchmarks.kept                 writes the table into docs/benchmarks.md
"""

import argparse
import os
import platform
import re
from pathlib import Path
from typing import Any

from antisgd import results

__all__ = ["RESULTS", "flag", "keep", "machine", "table"]

ROOT = Path(__file__).parents[2]
RESULTS, PAGE = Path(__file__).parent / "results", ROOT / "docs" / "benchmarks.md"
BEGIN, END = "<!-- kept benchmarks -->\n", "<!-- end of kept benchmarks -->\n"
# What the ratios are, in the order of the table.
TARGETS = {
    "P1": "training step, one network, over PyTorch's",
    "P2": "steps a second of four networks, over PyTorch's",
    "P3": "Hessian product, over PyTorch's double backward",
    "P4": "200 eigenpairs, over ARPACK",
    "P5": "200 eigenpairs, over hessian-eigenthings",
    "P6": "step that records 500 directions, in plain steps",
}


def flag(parser: argparse.ArgumentParser) -> None:
    """Adds --keep to a benchmark's options."""
    parser.add_argument("--keep", action="store_true", help=f"note the ratios in {RESULTS.name}/")


def keep(benchmark: str, ratios: dict[str, float], folder: Path = RESULTS) -> Path:
    """Notes ratios in the file of this machine and version, in place of earlier ones.

    Args:
        benchmark: its name.
        ratios: by id.
        folder: of the files.

    Returns:
        The file.
    """
    origin = results.provenance()
    name = f"{machine()}-{origin['versions']['antisgd']}"
    path = folder / f"{re.sub('[^a-z0-9.]+', '-', name.lower())}.json"
    held: dict[str, Any] = {"machine": machine(), "version": origin["versions"]["antisgd"]}
    held |= results.read_json(path) if path.exists() else {}
    held.setdefault("benchmarks", {})[benchmark] = {
        "ratios": ratios,
        "load": round(os.getloadavg()[0], 1),
        **{key: origin[key] for key in ("date", "git_commit", "versions", "python")},
    }
    results.write_json(path, held)
    return path


def machine() -> str:
    """Cores and model of the processor, or what the accelerator is called."""
    device = results.provenance()["device"]
    if "cpu" not in device.lower():
        return device
    lines = Path("/proc/cpuinfo")
    known = re.search("model name\\s*: (.*)", lines.read_text()) if lines.exists() else None
    model = known[1] if known else platform.processor() or platform.machine()
    return f"{os.cpu_count()} cores of {model}"


def table(folder: Path = RESULTS) -> str:
    """All kept ratios, a column per file, in Markdown; the load of the machine beside them."""
    files = [results.read_json(path) for path in sorted(folder.glob("*.json"))]
    if not files:
        return "None is kept yet.\n"
    lines = ["| |" + "".join(f" {one['machine']}, {one['version']} |" for one in files)]
    lines.append("|---|" + "---|" * len(files))
    for name, words in TARGETS.items():
        cells = [_cell(one["benchmarks"], name) for one in files]
        if any(cells):
            lines.append(f"| {name}: {words} |" + "".join(f" {cell} |" for cell in cells))
    return "\n".join(lines) + "\n"


def _cell(benchmarks: dict[str, Any], name: str) -> str:
    for one in benchmarks.values():
        if name in one["ratios"]:
            day = one["date"].partition(" ")[0]
            return f"{one['ratios'][name]:.3g} ({day}, load {one['load']:g})"
    return ""


def main() -> None:
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    before, _, rest = PAGE.read_text().partition(BEGIN)
    results.write_text(PAGE, before + BEGIN + table() + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()
