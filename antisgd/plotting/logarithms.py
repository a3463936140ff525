"""One rule for the labels of logarithmic axes: powers of ten, or plain numbers, never both."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import Formatter, LogLocator, MaxNLocator, NullFormatter

__all__ = ["label_logarithms"]

# From so many decades on the powers of ten are enough.
DECADES = 2
# Between these values a number is as readable written out.
PLAIN = (1e-4, 1e5)


def label_logarithms(axes: Axes) -> None:
    """Labels the logarithmic axes by what they show when they are drawn.

    Two decades or more: powers of ten. Less: 1, 2 and 5 times them, written out, or as m×10ⁿ
    throughout where that would take many zeros. Ticks that were set by hand stay.
    """
    for axis in (axes.xaxis, axes.yaxis):
        if axis.get_scale() == "log" and isinstance(axis.get_major_locator(), LogLocator):
            axis.set_major_locator(_Ticks())
            axis.set_major_formatter(_Labels())
            axis.set_minor_formatter(NullFormatter())


def _shown(axis: Any) -> tuple[float, float, bool]:
    """Ends of what an axis shows, and whether that is long enough for powers of ten."""
    low, high = sorted(axis.get_view_interval())
    return low, high, bool(np.log10(high / low) > DECADES - 1e-9)


class _Ticks(LogLocator):
    """Powers of ten, on a short axis also 2 and 5 times them, or even steps if those are few."""

    def __call__(self) -> Sequence[float]:
        low, high, long = _shown(self.axis)
        return super().__call__() if long else _between(low, high)


def _between(low: float, high: float) -> list[float]:
    powers = 10.0 ** np.arange(np.floor(np.log10(low)), np.ceil(np.log10(high)) + 1)
    for ticks in (np.outer(powers, (1, 2, 5)).ravel(), MaxNLocator(4).tick_values(low, high)):
        inside = [float(tick) for tick in ticks if low <= tick <= high]
        if len(inside) > 1:
            break
    return inside


class _Labels(Formatter):
    def __call__(self, value: float, position: int | None = None) -> str:
        low, high, long = _shown(self.axis)
        exponent = int(np.floor(np.log10(value) + 1e-9))
        if long:
            return f"$10^{{{exponent}}}$"
        if PLAIN[0] <= low and high <= PLAIN[1]:
            return f"{value:g}"
        return f"${value / 10**exponent:g}{{\\times}}10^{{{exponent}}}$"
