"""What every experiment of its own pipeline ends with: figures, summary.json, report.html."""

from pathlib import Path

from antisgd import plotting, results
from antisgd.study import report
from antisgd.study.findings.rows import Panels, Rows, table
from experiments import paper

__all__ = ["write"]


def write(folder: Path, rows: Rows, panels: Panels, *, shown: str = "") -> None:
    """Writes the figures, the rows and the page, and prints the rows.

    Args:
        folder: of the run.
        rows: of its summary.
        panels: figures by name.
        shown: what the data are called, below every figure.
    """
    for name, panel in panels.items():
        if shown:
            plotting.label_source(panel, shown)
        results.write_figure(folder / "figures" / name, panel)
    results.write_json(folder / "summary.json", rows)
    page = report.render(folder, paper.CAPTIONED, paper.HEADLINED)
    results.write_text(folder / "report.html", page)
    print(table(rows))
    print(f"figures, summary.json and report.html are in {folder}")
