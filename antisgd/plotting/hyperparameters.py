"""Hyper-parameters varied: variances by setting (Fig. 9), τ_SGD and λ_cross (Fig. 10)."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from antisgd.plotting import panels, style
from antisgd.plotting.style import PAGE, new_figure, styled

__all__ = ["scale_panel", "scales_figure", "variances_by_setting"]

_SCALES = {
    "limit": "$\\tau_\\mathrm{SGD}$ (update steps)",
    "crossover": "$\\lambda_\\mathrm{cross}$",
}


def _odds(momentum: np.ndarray) -> np.ndarray:
    return (1 + momentum) / (1 - momentum)


def _friction(momentum: np.ndarray) -> np.ndarray:
    return 1 - momentum


# What of the momentum Eq. 109 makes a power of, by scale.
_MOMENTUM: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "limit": _odds,
    "crossover": _friction,
}


def scale_panel(
    axis: Axes,
    x: np.ndarray,
    settings: Sequence[Any],
    scale: str,
    coordinate: Callable[[np.ndarray], np.ndarray] | None = None,
) -> None:
    """One scale against a hyper-parameter: Eq. 109, the window's theory, measured (Fig. 10).

    Points are means over the seeds that give the scale with their standard deviation; for a single
    seed with the error over its directions. Eq. 109 is a line, what is known at the settings alone
    is points.

    Args:
        axis: where to draw.
        x: values of the hyper-parameter, [n].
        settings: [n] objects whose `expected`, `measured`, `window` and `error` hold the scales.
        scale: "limit" or "crossover".
        coordinate: that of x of which Eq. 109 is a power, where it is not one of x itself: what
            the curve between the settings follows.
    """
    order = np.argsort(x)
    x, settings = np.asarray(x)[order], [settings[i] for i in order]
    expected = np.array([getattr(one.expected, scale) for one in settings])
    curve = (x, expected) if coordinate is None else _between(x, expected, coordinate)
    axis.plot(*curve, color=style.THEORY, label="theory (Eq. 109)")
    axis.plot(x, [_mean(getattr(one.window, scale)) for one in settings], "x", markersize=5,
              mew=1.2, color=style.WINDOW, label="theory, finite window")  # fmt: skip
    if scale == "limit":
        every = [_mean(one.measured.limit_of_all) for one in settings]
        axis.plot(x, every, "o", mec=style.TIME, mfc="none", markersize=5,
                  label="measured, all directions")  # fmt: skip
    values = np.array([_mean(getattr(one.measured, scale)) for one in settings])
    spread = [_spread(one, scale) for one in settings]
    axis.errorbar(x, values, spread, fmt="o", color=style.TIME, markersize=3, capsize=2,
                  linewidth=0.9, label="measured", zorder=4)  # fmt: skip
    axis.set(yscale="log", ylabel=_SCALES[scale])


def _between(x: np.ndarray, y: np.ndarray, coordinate: Callable[[np.ndarray], np.ndarray]):
    """The curve through the points that is straight in log y against log coordinate."""
    dense = np.linspace(x[0], x[-1], 200)
    place, known = np.log(coordinate(dense)), np.log(coordinate(x))
    rising = np.argsort(known)
    return dense, np.exp(np.interp(place, known[rising], np.log(y)[rising]))


def _spread(one: Any, scale: str) -> float:
    values = getattr(one.measured, scale)
    known = np.isfinite(values)
    if known.sum() > 1:
        return values[known].std(ddof=1)
    return getattr(one.error, scale)[known.argmax()]


def _mean(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return known.mean() if known.size else np.nan


@styled
def scales_figure(varied: Mapping[str, tuple[np.ndarray, Sequence[Any]]]) -> Figure:
    """Fig. 10: τ_SGD above, λ_cross below, a column for each hyper-parameter.

    Args:
        varied: axis label → values and, for each, what `scale_panel` reads; a label that begins
            with "momentum" has a linear axis.
    """
    figure, axes = new_figure(PAGE, 3.9, 2, len(varied), sharex="col", sharey="row")
    for column, (label, (x, settings)) in zip(axes.T, varied.items(), strict=True):
        momentum = label.startswith("momentum")
        # From β = 1 on there is no stationary state, hence no Eq. 109 to be drawn between.
        curved = momentum and np.max(x) < 1
        for axis, scale in zip(column, _SCALES, strict=True):
            scale_panel(axis, x, settings, scale, _MOMENTUM[scale] if curved else None)
        column[1].set_xlabel(label)
        column[1].set_xscale("linear" if momentum else "log")
        column[1].set_xticks(x, [f"{value:.3g}" for value in x])
        column[1].xaxis.set_minor_locator(NullLocator())
        column[0].label_outer()
        column[1].label_outer()
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


@styled
def variances_by_setting(
    analyses: Mapping[str, Any], scales: Mapping[str, tuple[float, float]]
) -> Figure:
    """Fig. 9: variances above, correlation times below, a column for each setting.

    Args:
        analyses: column title → what `variances_figure` reads.
        scales: column title → λ_cross and τ_SGD.
    """
    figure, axes = new_figure(PAGE, 4.2, 2, len(analyses), sharex=True, sharey="row")
    for (variance, time), (title, analysis) in zip(axes.T, analyses.items(), strict=True):
        cross, limit = scales[title]
        panels.variances_panel(variance, analysis, cross)
        panels.correlation_time_panel(time, analysis, cross, limit)
        time.set(ylabel="$\\tau$ (update steps)")
        variance.set_title(title, pad=14)
        variance.label_outer()
        time.label_outer()
    figure.legend(*_names(*axes[:, 0]), loc="outside upper center", ncols=4)
    return figure


def _names(variance: Axes, time: Axes) -> tuple[list[Any], list[str]]:
    """One legend for all columns: without the exponents, which differ from column to column."""
    named = {}
    for axis, measured in ((variance, ""), (time, "$\\tau$, measured")):
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True):
            symbol, fitted, _ = label.partition(" \\propto")
            label = measured if label == "measured" else label
            named[f"{symbol}$, fitted" if fitted else label] = handle
    return list(named.values()), list(named)
