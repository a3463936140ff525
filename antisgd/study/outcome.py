"""What a run ends with: figures, summary.json, report.html, and its large rows in the log."""

import logging
from collections.abc import Mapping
from pathlib import Path

from antisgd import plotting, results
from antisgd.study import report
from antisgd.study.findings.rows import Panels, Rows, table

__all__ = ["write"]

_log = logging.getLogger(__name__)


def write(
    folder: Path,
    rows: Rows,
    panels: Panels,
    *,
    shown: str = "",
    captions: Mapping[str, report.Caption] = report.CAPTIONS,
    headlines: Mapping[str, tuple[str, str | None]] = report.HEADLINES,
) -> None:
    """Writes the figures, the rows and the page; prints the large rows, all where none is large.

    Args:
        folder: of the run.
        rows: of its summary.
        panels: figures by name.
        shown: what the data are called, below every figure.
        captions: of the figures.
        headlines: rows that are large, see `report.HEADLINES`.
    """
    for name, panel in panels.items():
        if shown:
            plotting.label_source(panel, shown)
        results.write_figure(folder / "figures" / name, panel)
    results.write_json(folder / "summary.json", rows)
    results.write_text(folder / "report.html", report.render(folder, captions, headlines))
    for row in rows:
        _log.info("%s: %s", row["id"], row["here"])
    print(table([row for row in rows if row["id"] in headlines] or rows))
    print(f"figures, all {len(rows)} rows (summary.json) and report.html are in {folder}")
