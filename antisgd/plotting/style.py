"""How every figure looks: its colours, sizes and fonts, and the line that names its data.

Colours are Okabe and Ito's palette, which colour-blind readers can tell apart.
"""

import functools
import textwrap
from collections.abc import Callable
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from antisgd.plotting.logarithms import label_logarithms

__all__ = ["label_source"]

BLUE, VERMILLION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
PURPLE, BLACK, GREY = "#CC79A7", "#000000", "#6E6E6E"
WEIGHT, VELOCITY, TIME, NOISE = BLUE, VERMILLION, GREEN, PURPLE
THEORY, WINDOW = BLACK, ORANGE

EIGENVALUE = "Hessian eigenvalue $\\lambda$"
CROSS = "$\\lambda_\\mathrm{cross}$"

# Widths in inches: one column of the page, or all of it.
COLUMN, PAGE = 3.4, 6.9
# The line that names the data: its letters in points, how many make an inch, inches of its height.
SOURCE_SIZE, SOURCE_CHARACTERS, SOURCE_HEIGHT = 5.5, 21, 0.1

STYLE: dict[Any, Any] = {
    "font.family": "sans-serif",
    "font.size": 8,
    "axes.titlesize": 8,
    "figure.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 6.5,
    "legend.edgecolor": "none",
    "legend.framealpha": 0.85,
    "legend.borderpad": 0.2,
    "legend.labelspacing": 0.3,
    "legend.handlelength": 1.9,
    "legend.columnspacing": 1.2,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.2,
    "axes.formatter.use_mathtext": True,
}


def styled(build: Callable[..., Figure]) -> Callable[..., Figure]:
    """A figure made in this style and with logarithmic axes labelled by one rule."""

    @functools.wraps(build)
    def made(*arguments, **options):
        with matplotlib.rc_context(STYLE):
            figure = build(*arguments, **options)
        for axes in figure.axes:
            label_logarithms(axes)
        return figure

    return made


def new_figure(
    width: float, height: float, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, Any]:
    """A figure of so many inches and its panels, Axes [rows, columns]."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def room(axis: Axes, *, above: float = 0.0, below: float = 0.0) -> None:
    """Free space for a legend, as shares of the height of a logarithmic panel."""
    low, high = axis.get_ylim()
    axis.set_ylim(low / (high / low) ** below, high * (high / low) ** above)


def legend_if_needed(axis: Axes, place: Any) -> None:
    """A legend, where something has a name."""
    if axis.get_legend_handles_labels()[0]:
        axis.legend(loc=place)


def label_source(figure: Figure, text: str) -> Figure:
    """Writes in small grey letters below all panels where the data come from.

    Long texts go on in a second line. The figure grows by what the text needs.

    Args:
        figure: one of this package's.
        text: for example "digits, commit 0123abc".

    Returns:
        The same figure.
    """
    width, height = figure.get_size_inches()
    lines = textwrap.fill(text, int(SOURCE_CHARACTERS * width))
    figure.set_size_inches(width, height + SOURCE_HEIGHT * (1 + lines.count("\n")))
    figure.supxlabel(lines, x=0.01, ha="left", fontsize=SOURCE_SIZE, color=GREY)
    return figure
