"""Measured over theory against λ/λ_cross: where the theory holds, and where it does not."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from antisgd.plotting.marks import LINES
from antisgd.plotting.style import (
    CROSS,
    GREY,
    PAGE,
    THEORY,
    TIME,
    VELOCITY,
    WEIGHT,
    new_figure,
    styled,
)

__all__ = ["Bins", "binned_agreement", "bins_panel"]

_QUANTITIES = {
    "weight": ("weight variance", WEIGHT),
    "velocity": ("velocity variance", VELOCITY),
    "correlation_time": ("correlation time", TIME),
}


_ENTRY = "mean of a bin ± one standard error, n directions"


class Bins(NamedTuple):
    """One quantity of the directions of each bin of λ/λ_cross; no unit in any of it.

    Attributes:
        centre: λ/λ_cross of the bin, increasing, [bins].
        ratio: mean of measured over theory, [bins].
        error: one standard error of `ratio`, [bins].
        number: directions behind it, integers [bins]; where 0, the ratio is not drawn.
    """

    centre: np.ndarray
    ratio: np.ndarray
    error: np.ndarray
    number: np.ndarray


@styled
def binned_agreement(bins_by_scheme: Mapping[str, Mapping[str, Bins]]) -> Figure:
    """Measured over theory in bins of λ/λ_cross, a column a scheme and a row a quantity.

    Args:
        bins_by_scheme: title of the sampling scheme → "weight" and "velocity" (variances) and
            "correlation_time" → their bins, which may differ.
    """
    figure, axes = new_figure(PAGE, 5.0, 3, len(bins_by_scheme), sharex=True, sharey="row")
    for column, (title, found) in zip(axes.T, bins_by_scheme.items(), strict=True):
        for axis, (quantity, (label, colour)) in zip(column, _QUANTITIES.items(), strict=True):
            bins_panel(axis, found[quantity], colour)
            axis.set_ylabel(f"{label},\nmeasured / theory")
        column[0].set_title(title, pad=8)
        column[-1].set_xlabel(f"$\\lambda$ / {CROSS}")
    for row in axes:
        low, high = row[0].get_ylim()
        row[0].set_ylim(low - 0.15 * (high - low), high)
    for axis in axes.flat:
        axis.label_outer()
    key = Line2D([], [], marker="o", markersize=3.5, linestyle="none", color=GREY, label=_ENTRY)
    figure.legend(handles=[key], loc="outside upper center")
    return figure


def bins_panel(axis: Axes, bins: Bins, colour: str) -> None:
    """One quantity's ratios ± one standard error, with the number of directions n of each bin."""
    bins = Bins(*(np.asarray(values)[np.asarray(bins.number) > 0] for values in bins))
    axis.axhline(1, color=THEORY, linewidth=0.8, zorder=1)
    axis.axvline(1, color=GREY, linestyle=":", linewidth=0.9, zorder=1)
    axis.errorbar(bins.centre, bins.ratio, bins.error, fmt="o", color=colour, markersize=3.5,
                  capsize=2, elinewidth=0.9, zorder=LINES, label="_ratio")  # fmt: skip
    axis.set_xscale("log")
    axis.margins(x=0.13, y=0.1)
    for x, n in zip(bins.centre, bins.number, strict=True):
        axis.annotate(
            f"{n:,}", (x, 0), xycoords=("data", "axes fraction"), xytext=(0, 2),
            textcoords="offset points", ha="center", va="bottom", fontsize=5.5, color=GREY,
        )  # fmt: skip
    axis.annotate(
        "n =", (0, 0), xycoords="axes fraction", xytext=(1, 2), textcoords="offset points",
        ha="left", va="bottom", fontsize=5.5, color=GREY,
    )  # fmt: skip
