"""The figures of injected noise: the minima of several ways to descend, and the shaken weights."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from antisgd.plotting import panels, style
from antisgd.plotting.marks import LINES, entry, points
from antisgd.plotting.style import PAGE, new_figure, styled

__all__ = ["minima", "shaken_weights"]

_COLOURS = (style.ORANGE, style.BLUE, style.GREEN)
# Lines of two noises of one law coincide: each shows in the other's gaps.
_DASHES: Any = ("-", (0, (4, 4)), (4, (4, 4)))
# Lines keep the colour of their points and stand out from them by an edge.
_EDGE = [withStroke(linewidth=2.4, foreground="black")]


@styled
def minima(quantities: Mapping[str, np.ndarray], names: Sequence[str]) -> Figure:
    """What each way to descend arrives at: every seed, means ± one standard error.

    Args:
        quantities: axis label → values [ways, seeds].
        names: of the ways.
    """
    figure, axes = new_figure(PAGE, 1.5 * len(quantities) + 0.5, len(quantities), sharex=True)
    names = [name.replace(" ", "\n", 1) for name in names]
    for axis, (label, values) in zip(axes[:, 0], quantities.items(), strict=True):
        panels.accuracy_panel(axis, np.asarray(values), names)
        axis.set_ylabel(label)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


@styled
def shaken_weights(windows: Mapping[str, Sequence[Any]]) -> Figure:
    """Weight variance and correlation time along eigenvectors, with the theory of each noise.

    Args:
        windows: name of the noise → one object a seed with eigenvalues [k], measured and
            expected, variances per noise variance, [k] each.
    """
    figure, axes = new_figure(PAGE, 2.7, 1, 2, sharex=True)
    words = {
        "weight": "weight variance / $\\sigma^2$ (steps$^2$)",
        "correlation_time": "correlation time $\\tau$ (update steps)",
    }
    for axis, (quantity, label) in zip(axes[0], words.items(), strict=True):
        for colour, dashes, (noise, seeds) in zip(_COLOURS, _DASHES, windows.items(), strict=False):
            x = np.concatenate([one.eigenvalues for one in seeds])
            order = np.argsort(x)
            measured, expected = (
                np.concatenate([getattr(getattr(one, side), quantity) for one in seeds])
                for side in ("measured", "expected")
            )
            points(axis, x, measured, colour)
            entry(axis, f"{noise}, measured", colour)
            axis.plot(x[order], expected[order], color=colour, linestyle=dashes, zorder=LINES,
                      path_effects=_EDGE, label=f"{noise}, theory of its window")  # fmt: skip
        axis.set(xscale="log", yscale="log", xlabel=style.EIGENVALUE, ylabel=label)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure
