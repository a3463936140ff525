"""What every experiment of its own pipeline ends with: figures, summary.json, report.html."""

from pathlib import Path

from antisgd import results
from antisgd.study import report
from antisgd.study.findings.rows import Panels, Rows, table
from experiments import paper

__all__ = ["write"]


def write(folder: Path, rows: Rows, panels: Panels) -> None:
    """Writes the figures, the rows and the page, and prints the rows."""
    for name, panel in panels.items():
        results.write_figure(folder / "figures" / name, panel)
    results.write_json(folder / "summary.json", rows)
    page = report.render(folder, paper.CAPTIONED, paper.HEADLINED)
    results.write_text(folder / "report.html", page)
    print(table(rows))
    print(f"figures, summary.json and report.html are in {folder}")
