"""What every experiment of its own pipeline ends with, with the paper's captions."""

from pathlib import Path

from antisgd.study import outcome
from antisgd.study.findings.rows import Panels, Rows
from experiments import paper

__all__ = ["write"]


def write(folder: Path, rows: Rows, panels: Panels, *, shown: str = "") -> None:
    """Figures, rows and page of a run, as `antisgd.study.outcome.write` has them."""
    outcome.write(
        folder, rows, panels, shown=shown, captions=paper.CAPTIONED, headlines=paper.HEADLINED
    )
