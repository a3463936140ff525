"""Rows 'paper | here ± error' of summary.json, and the texts that every experiment shares."""

from typing import Any

import numpy as np

__all__ = ["mean_row", "row"]


def row(
    identifier: str,
    paper_item: str,
    quantity: str,
    here: float,
    here_error: float | None = None,
    *,
    unit: str = "1",
    paper: float | None = None,
    paper_error: float | None = None,
    n: int | None = None,
    note: str = "",
) -> dict[str, Any]:
    """One row of summary.json; errors are one standard error.

    Args:
        identifier: stable name, for tables and tests.
        paper_item: figure, equation or section.
        quantity: what is compared, in words.
        here: the value of this run.
        here_error: its standard error, None if it has none.
        unit: of both values.
        paper: the paper's value, None if it gives none.
        paper_error: half of the paper's 2σ error.
        n: number of seeds, directions or points behind `here`.
        note: what a reader should know.
    """
    return {
        "id": identifier,
        "paper_item": paper_item,
        "quantity": quantity,
        "unit": unit,
        "paper": paper,
        "paper_error": paper_error,
        "here": float(here),
        "here_error": None if here_error is None else float(here_error),
        "n": n,
        "note": note,
    }


def mean_row(identifier: str, paper_item: str, quantity: str, values: np.ndarray, **more: Any):
    """A row with the mean of independent values and its standard error."""
    values = np.asarray(values, np.float64)
    error = values.std(ddof=1) / np.sqrt(values.size) if values.size > 1 else None
    return row(identifier, paper_item, quantity, values.mean(), error, n=values.size, **more)
