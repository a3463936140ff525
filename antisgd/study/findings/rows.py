"""Rows 'paper | here ± error' of summary.json; a study has no values of the paper."""

from typing import Any, SupportsFloat

import numpy as np

__all__ = ["Panels", "Rows", "exponent_row", "mean_row", "median_row", "row", "table", "with_error"]

Rows = list[dict[str, Any]]
# Name of the file → figure.
Panels = dict[str, Any]


def row(
    identifier: str,
    paper_item: str,
    quantity: str,
    here: SupportsFloat,
    here_error: SupportsFloat | None = None,
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


def mean_row(
    identifier: str, paper_item: str, quantity: str, values: np.ndarray, **more: Any
) -> dict[str, Any]:
    """A row with the mean of independent values and its standard error."""
    values = np.asarray(values, np.float64)
    error = values.std(ddof=1) / np.sqrt(values.size) if values.size > 1 else None
    return row(identifier, paper_item, quantity, values.mean(), error, n=values.size, **more)


def median_row(
    identifier: str, paper_item: str, quantity: str, values: np.ndarray
) -> dict[str, Any]:
    """Median over directions; its error is 1.25 standard errors of a mean of equal quartiles."""
    low, high = np.percentile(values, [25, 75])
    error = 1.2533 * (high - low) / 1.349 / np.sqrt(values.size)
    return row(identifier, paper_item, quantity, np.median(values), error, n=values.size)


def exponent_row(
    identifier: str, paper_item: str, quantity: str, law: Any, *, note: str = "", **more: Any
) -> dict[str, Any]:
    """A row with the exponent of a `statistics.PowerLaw` and its robust error."""
    words = f"robust error; of a fit with equal errors {law.exponent_error:.2g}{note}"
    return row(
        identifier, paper_item, quantity, law.exponent, law.robust_error, n=law.num_points,
        note=words, **more,
    )  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as text: item, quantity, paper, here ± error."""
    lines = [f"{'item':10} {'quantity':78} {'paper':>16} {'here':>20}"]
    for one in rows:
        paper = with_error(one["paper"], one["paper_error"])
        here = with_error(one["here"], one["here_error"])
        lines.append(f"{one['paper_item']:10} {one['quantity'][:78]:78} {paper:>16} {here:>20}")
    return "\n".join(lines)


def with_error(value: float | None, error: float | None) -> str:
    """'value ± error' as far as there are any."""
    if value is None:
        return ""
    return f"{value:.4g}" if error is None else f"{value:.4g} ± {error:.2g}"
