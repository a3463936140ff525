"""What several panels draw alike: points, fits over them, named marks, entries of legends."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import withStroke

from antisgd.plotting.style import BLACK, GREY

__all__ = [
    "crosses",
    "fit_line",
    "mark_x",
    "mark_y",
    "entry",
    "name_hollow",
    "name_region",
    "points",
    "shade",
]

# From so many points on they are drawn small, and from so many smaller still.
MANY, CROWDED = 100, 1000
# Heights of what is drawn: points, lines of theory, fits.
POINTS, LINES, FITS = 2, 4, 6
_BARS: Any = {"marker": "|", "markersize": 8, "markeredgewidth": 1.2}


def mark_x(axis: Axes, x: float, text: str) -> None:
    """A dotted line with its name above the panel, where no point can hide it; none for nan."""
    if np.isnan(x):
        return
    axis.axvline(x, color=GREY, linestyle=":", linewidth=0.9, zorder=1)
    axis.annotate(
        text, (x, 1), xycoords=("data", "axes fraction"), xytext=(0, 1.5),
        textcoords="offset points", ha="center", va="bottom", fontsize=7, color=GREY,
    )  # fmt: skip


def mark_y(axis: Axes, y: float, text: str) -> None:
    """A dotted line with its name to the right of the panel; none for nan."""
    if np.isnan(y):
        return
    axis.axhline(y, color=GREY, linestyle=":", linewidth=0.9, zorder=1)
    axis.annotate(
        text, (1, y), xycoords=("axes fraction", "data"), xytext=(2, 0),
        textcoords="offset points", ha="left", va="center", fontsize=7, color=GREY,
    )  # fmt: skip


def points(axis: Axes, x: Any, y: Any, colour: str, hollow: np.ndarray | None = None) -> None:
    """Measured values, smaller and paler the more there are.

    Args:
        axis: where to draw.
        x: [n].
        y: [n].
        colour: of the points.
        hollow: which of them are drawn hollow, bool [n].
    """
    x, y = np.asarray(x), np.asarray(y)
    hollow = np.zeros(len(x), bool) if hollow is None else hollow
    size, alpha = (3.2, 0.7)
    if len(x) >= MANY:
        size, alpha = (1.5, 0.3) if len(x) >= CROWDED else (2.8, 0.45)
    style: Any = {"marker": "o", "linestyle": "none", "markersize": size, "zorder": POINTS}
    axis.plot(x[~hollow], y[~hollow], color=colour, alpha=alpha, label="_measured",
              markeredgewidth=0, **style)  # fmt: skip
    axis.plot(x[hollow], y[hollow], mec=colour, mfc="none", label="_mostly drift",
              markeredgewidth=0.5, **style)  # fmt: skip


def entry(axis: Axes, label: str, colour: str, style: str = "o", **options: Any) -> None:
    """A legend entry of its own: the points may be too small and pale to tell their colour."""
    axis.plot([], [], style, **{"color": colour, "label": label, "markersize": 3, **options})


def name_hollow(axis: Axes, hollow: np.ndarray) -> None:
    """The legend entry of hollow points, if there are any."""
    if hollow.any():
        entry(axis, "mostly drift", GREY, mfc="none", mew=0.6)


def name_region(axis: Axes) -> None:
    """The legend entry of the bars at the ends of fits."""
    entry(axis, "ends of the fitted region", GREY, "none", **_BARS | {"markersize": 6})


def crosses(axis: Axes, x: Any, y: Any, unconverged: np.ndarray | None) -> None:
    """Crosses over the points of eigenpairs that are not converged, named if there are any."""
    if unconverged is None or not np.any(unconverged):
        return
    x, y = np.asarray(x)[unconverged], np.asarray(y)[unconverged]
    axis.plot(x, y, "x", color=BLACK, markersize=4, mew=0.8, zorder=5, label="not converged")


def shade(axis: Axes, x: np.ndarray, blurred: np.ndarray | None) -> None:
    """Grey where eigenvalues lie so near to each other that no eigenvector is known alone."""
    if blurred is not None and np.any(blurred):
        axis.axvspan(x[blurred].min(), x[blurred].max(), color=GREY, alpha=0.15, lw=0, zorder=0,
                     label="no single eigenvectors")  # fmt: skip


def fit_line(
    axis: Axes, fit: Any, span: np.ndarray, symbol: str, colour: str, width: float = 1.4
) -> None:
    """A power law over its fitted region, above the points and set off from them in white.

    Bars mark the ends of the region; the legend gives two standard errors, as the paper does.

    Args:
        axis: where to draw.
        fit: `statistics.PowerLaw`.
        span: end points of the fitted region, [2].
        symbol: of what was fitted, mathematical text.
        colour: of the line.
        width: of the line, points.
    """
    span = np.asarray(span)
    values = fit.prefactor * span**fit.exponent
    axis.plot(span, values, color=colour, linewidth=width, zorder=FITS, label="_fit",
              path_effects=[withStroke(linewidth=width + 1.2, foreground="white")],
              **_BARS)  # fmt: skip
    exponent = f"{fit.exponent:.3f} \\pm {2 * fit.exponent_error:.3f}"
    label = f"${symbol} \\propto \\lambda^{{{exponent}}}$ (2σ)"
    entry(axis, label, colour, "-", linewidth=width)
