"""The figures of SGD on quadratics: measured points with two standard errors, theory as lines."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from antisgd.plotting import style
from antisgd.plotting.marks import entry, points
from antisgd.plotting.style import PAGE, new_figure, room, styled

__all__ = ["BUILDERS", "autocorrelations", "phase", "two_bases", "variances", "windows"]

_COLOURS = (style.BLUE, style.VERMILLION, style.GREEN, style.ORANGE)
_WORDS = {
    "weight": "weight variance over $\\sigma_{\\delta g}^2$",
    "velocity": "velocity variance over $\\sigma_{\\delta g}^2$",
    "correlation_time": "correlation time $\\tau$ (update steps)",
}


_PALETTE = (*_COLOURS, style.PURPLE, style.BLACK)
_REFERENCES = ("without_replacement", "with_replacement", "shuffle_once", "flip_flop", "anti_pgd")


_REGIMES = {
    "without_replacement": "without replacement",
    "with_replacement": "with replacement",
    "switched": "with, after without, replacement",
}


class _Column(NamedTuple):
    measured: np.ndarray
    error: np.ndarray
    expected: np.ndarray


def _compared(axis: Axes, x: np.ndarray, one: Any, colour: str, label: str) -> None:
    axis.plot(x, one.expected, color=colour, linewidth=1)
    axis.errorbar(x, one.measured, 2 * one.error, fmt="o", color=colour, markersize=2.6,
                  elinewidth=0.8, mec="white", mew=0.3, zorder=3, label=label)  # fmt: skip


def _key() -> list[Line2D]:
    """What points and lines are, in every panel."""
    measured, theory = "measured ± two standard errors", "theory"
    return [
        Line2D([], [], color=style.GREY, marker="o", markersize=2.6, linestyle="none",
               label=measured),
        Line2D([], [], color=style.GREY, linewidth=1, label=theory),
    ]  # fmt: skip


@styled
def variances(part: Any) -> Figure:
    """Weight variance and correlation time against λ, schemes above and optimisers below.

    Args:
        part: `x`, the eigenvalues, and `found`: case → quantity → measured, error, expected.
    """
    figure, axes = new_figure(PAGE, 7.2, 3, 2, sharex=True)
    others = ("nesterov", "average")
    schemes = [name for name in part.found if not name.startswith(others)]
    first = [n for n in _REFERENCES if n in schemes]
    rows = (first, [n for n in schemes if n not in first],
            ["without_replacement", *(n for n in part.found if n.startswith(others))])  # fmt: skip
    for row, names in zip(axes, rows, strict=True):
        for axis, quantity in zip(row, ("weight", "correlation_time"), strict=True):
            for i, name in enumerate(names):
                _compared(axis, part.x, part.found[name][quantity], _PALETTE[i], _title(name))
            axis.set(xscale="log", yscale="log", ylabel=_WORDS[quantity])
        row[1].legend(loc="upper right")
        room(row[1], above=0.25)
    for axis in axes[-1]:
        axis.set_xlabel(style.EIGENVALUE)
    figure.legend(handles=_key(), loc="outside upper center", ncols=2)
    return figure


def _title(name: str) -> str:
    name = name.replace("_", " ").replace("anti pgd", "anti-PGD")
    return name.replace("average", "weight average,").replace("nesterov", "Nesterov,")


@styled
def autocorrelations(part: Any) -> Figure:
    """Noise autocorrelation of every scheme against the lag, without lag 0."""
    names = list(part.found)
    rows = -(-len(names) // 3)
    figure, axes = new_figure(PAGE, 1.7 * rows, rows, 3, sharex=True)
    for axis, name in zip(axes.flat, names, strict=False):
        one = part.found[name]["autocorrelation"]
        axis.axhline(0, color=style.GREY, linewidth=0.6, zorder=1)
        axis.plot(part.x[1:], one.expected[1:], color=style.THEORY, linewidth=1)
        axis.errorbar(part.x[1:], one.measured[1:], 2 * one.error[1:], fmt="o",
                      color=style.NOISE, markersize=2, elinewidth=0.7)  # fmt: skip
        axis.set_title(_title(name), loc="right")
        axis.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    for axis in axes[-1]:
        axis.set_xlabel("lag (update steps)")
    for axis in axes[:, 0]:
        axis.set_ylabel("autocorrelation")
    figure.legend(handles=_key(), loc="outside upper center", ncols=2)
    return figure


@styled
def phase(part: Any) -> Figure:
    """Variances by position within the epoch, over their mean, at four curvatures."""
    (quantities,) = part.found.values()
    figure, axes = new_figure(PAGE, 2.8, 1, 2)
    picked = np.linspace(0, len(part.x) - 1, 4).round().astype(int)
    for axis, quantity in zip(axes[0], ("weight", "velocity"), strict=True):
        one = quantities[quantity]
        position = np.arange(1, len(one.expected) + 1)
        for colour, k in zip(_COLOURS, picked, strict=True):
            scale = one.expected[:, k].mean()
            column = _Column(*(getattr(one, f)[:, k] / scale for f in _Column._fields))
            _compared(axis, position, column, colour, f"$\\lambda$ = {part.x[k]:.2g}")
        axis.set(xlabel="step within the epoch", ylabel=f"{quantity} variance over its mean")
    handles, _ = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles=[*handles, *_key()], loc="outside upper center", ncols=3)
    return figure


@styled
def windows(part: Any) -> Figure:
    """Weight variance and correlation time in finite windows, a column for each regime."""
    regimes = ("without_replacement", "with_replacement", "switched")
    figure, axes = new_figure(PAGE, 4.6, 2, 3, sharex=True, sharey="row")
    for column, regime in zip(axes.T, regimes, strict=True):
        for axis, quantity in zip(column, ("weight", "correlation_time"), strict=True):
            for colour, drift in zip(
                _COLOURS, ("none", "mean", "mean_velocity", "line"), strict=True
            ):
                one = part.found[f"{regime}_{drift}"][quantity]
                label = {"none": "nothing"}.get(drift, f"the {drift}").replace("_", " ")
                _compared(axis, part.x, one, colour, f"{label} removed")
            axis.set(xscale="log", yscale="log", ylabel=_WORDS[quantity])
            axis.label_outer()
        column[0].set_title(_REGIMES[regime])
        column[1].set_xlabel(style.EIGENVALUE)
    axes[0, 0].legend(loc="upper right")
    figure.legend(handles=_key(), loc="outside upper center", ncols=2)
    return figure


@styled
def two_bases(found: Mapping[str, np.ndarray]) -> Figure:
    """Fig. 3: variances and correlation time in the original basis and in that of Σ.

    Args:
        found: `own_weight`, `own_velocity`, `principal_weight`, `principal_velocity`, [d] each, and
            `expected_weight`, `expected_velocity`, [1].
    """
    figure, axes = new_figure(PAGE, 4.6, 2, 2, sharex=True, sharey="row")
    expected = {name: found[f"expected_{name}"][0] for name in ("weight", "velocity")}
    titles = {"own": "original basis", "principal": "eigenbasis of $\\Sigma$"}
    for (variance, time), (basis, title) in zip(axes.T, titles.items(), strict=True):
        weight, velocity = found[f"{basis}_weight"], found[f"{basis}_velocity"]
        index = np.arange(1, len(weight) + 1)
        for name, values, colour in (("weight", weight, style.WEIGHT),
                                     ("velocity", velocity, style.VELOCITY)):  # fmt: skip
            points(variance, index, values, colour)
            entry(variance, f"{name} variance", colour)
            variance.axhline(expected[name], color=style.THEORY, linewidth=0.9, zorder=4)
        points(time, index, 2 * weight / velocity, style.TIME)
        time.axhline(
            2 * expected["weight"] / expected["velocity"],
            color=style.THEORY,
            linewidth=0.9,
            zorder=4,
        )
        entry(variance, "theory", style.THEORY, "-")
        variance.set(yscale="log", ylabel="variance", title=title)
        time.set(yscale="log", ylabel="correlation time (steps)", xlabel="direction $i$")
    for axis in axes.flat:
        axis.label_outer()
    axes[0, 1].legend(loc="upper right")
    return figure


BUILDERS: dict[str, Callable[[Any], Figure]] = {
    "variances": variances,
    "autocorrelations": autocorrelations,
    "phase": phase,
    "windows": windows,
}
