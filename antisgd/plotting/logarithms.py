"""Labels of logarithmic axes that span too little for powers of ten alone."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter

__all__ = ["label_short_logarithms"]


def label_short_logarithms(axes: Axes) -> None:
    """On a logarithmic axis of a decade or two, plain numbers at 2 and 5 between the powers."""
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log":
            axis.set_minor_formatter(FuncFormatter(_between_powers(axis)))


def _between_powers(axis: Axis):
    def label(value: float, position: int) -> str:
        del position
        low, high = np.log10(axis.get_view_interval())
        exponent = np.floor(np.log10(value) + 1e-9)
        leading = round(value / 10**exponent)
        if high - low > 2 or leading not in (2, 5):
            return ""
        plain = -3 <= exponent <= 3
        return f"{value:g}" if plain else f"${leading}{{\\times}}10^{{{exponent:.0f}}}$"

    return label
