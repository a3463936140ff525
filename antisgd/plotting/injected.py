"""The figures of injected noise: the minima of several ways to descend, and the shaken weights."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from antisgd.plotting import panels
from antisgd.plotting.figures import PAGE, _figure, _styled

__all__ = ["minima", "shaken_weights"]

_COLOURS = (panels.ORANGE, panels.BLUE, panels.GREEN)


@_styled
def minima(quantities: Mapping[str, np.ndarray], names: Sequence[str]) -> Figure:
    """What each way to descend arrives at: every seed, means ± one standard error.

    Args:
        quantities: axis label → values [ways, seeds].
        names: of the ways.
    """
    figure, axes = _figure(PAGE, 1.5 * len(quantities) + 0.5, len(quantities), sharex=True)
    names = [name.replace(" ", "\n", 1) for name in names]
    for axis, (label, values) in zip(axes[:, 0], quantities.items(), strict=True):
        panels.accuracy_panel(axis, np.asarray(values), names)
        axis.set_ylabel(label)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


@_styled
def shaken_weights(windows: Mapping[str, Sequence[Any]]) -> Figure:
    """Weight variance and correlation time along eigenvectors, with the theory of each noise.

    Args:
        windows: name of the noise → one object a seed with eigenvalues [k], measured and
            expected, variances per noise variance, [k] each.
    """
    figure, axes = _figure(PAGE, 2.7, 1, 2, sharex=True)
    words = {
        "weight": "weight variance over $\\sigma^2$ (squared steps)",
        "correlation_time": "correlation time $\\tau$ (update steps)",
    }
    for axis, (quantity, label) in zip(axes[0], words.items(), strict=True):
        for colour, (name, seeds) in zip(_COLOURS, windows.items(), strict=True):
            x = np.concatenate([one.eigenvalues for one in seeds])
            order = np.argsort(x)
            measured, expected = (
                np.concatenate([getattr(getattr(one, side), quantity) for one in seeds])
                for side in ("measured", "expected")
            )
            panels._points(axis, x, measured, colour)
            axis.plot(x[order], expected[order], color=panels.BLACK, linewidth=0.9, zorder=5)
            panels._name(axis, name, colour)
        axis.set(xscale="log", yscale="log", xlabel=panels.EIGENVALUE, ylabel=label)
    panels._name(axes[0, 0], "theory, finite window", panels.BLACK, "-")
    axes[0, 0].legend(loc="best")
    return figure
