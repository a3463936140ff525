"""One page of figures of an audited run."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from antisgd.plotting.marks import LINES, entry, mark_x, mark_y, points
from antisgd.plotting.panels import autocorrelation_panel
from antisgd.plotting.style import (
    BLUE,
    CROSS,
    EIGENVALUE,
    GREEN,
    GREY,
    NOISE,
    PAGE,
    THEORY,
    TIME,
    VERMILLION,
    WINDOW,
    new_figure,
    styled,
)

__all__ = ["AuditArrays", "audit_page"]

# Points of a trajectory, and examples of an order, that can still be told apart.
_TIMES, _EXAMPLES = 600, 1500
_TRACES = (VERMILLION, BLUE, GREEN)


class AuditArrays(NamedTuple):
    """What the page shows; None where the recording does not have it.

    Attributes:
        lags: update steps, [L].
        autocorrelation: of the noise, [L].
        autocorrelation_theory: by the law, [L].
        band: deviation of the former for independent noise, [L].
        eigenvalues: λ, [k].
        correlation_time: τ, [k].
        expected: by the finite-window theory, [k].
        low: 2.5 % quantile of τ, [k].
        high: 97.5 % quantile of τ, [k].
        modes: slow motion over its expectation, [degrees, k].
        weights: of some directions in units of their deviation, [T + 1, few].
        names: of these.
        gradients: in units of their deviation, any shape.
        places: batch of every example in two epochs that follow each other, [2, N].
        uses: how often each example was used, [N].
        steps_per_epoch: M.
        crossover: λ_cross.
        limit: τ_SGD.
    """

    lags: np.ndarray
    autocorrelation: np.ndarray | None
    autocorrelation_theory: np.ndarray | None
    band: np.ndarray | None
    eigenvalues: np.ndarray
    correlation_time: np.ndarray
    expected: np.ndarray
    low: np.ndarray
    high: np.ndarray
    modes: np.ndarray
    weights: np.ndarray
    names: Sequence[str]
    gradients: np.ndarray
    places: np.ndarray | None
    uses: np.ndarray | None
    steps_per_epoch: int
    crossover: float
    limit: float


@styled
def audit_page(found: AuditArrays, title: str = "") -> Figure:
    """Six panels: sampling, noise and its sizes above; weights, slow motion and τ below."""
    figure, axes = new_figure(PAGE, 4.8, 2, 3)
    _order(axes[0, 0], found)
    _autocorrelation(axes[0, 1], found)
    _sizes(axes[0, 2], found.gradients)
    _weights(axes[1, 0], found)
    _modes(axes[1, 1], found.modes)
    _times(axes[1, 2], found)
    for letter, axis in zip("abcdef", axes.flat, strict=True):
        # At one height, whatever stands above a panel.
        axis.set_title(letter, loc="left", fontweight="bold", x=-0.22, y=1.07, pad=0)
    if title:
        figure.suptitle(title)
    return figure


def _missing(axis: Axes, words: str) -> None:
    axis.set_axis_off()
    axis.text(0.5, 0.5, words, ha="center", va="center", color=GREY, transform=axis.transAxes)


def _order(axis: Axes, found: AuditArrays) -> None:
    """Where each example stands in two epochs that follow each other, or how often it was used."""
    if found.places is not None:
        chosen = np.random.default_rng(0).permutation(found.places.shape[1])[:_EXAMPLES]
        spread = np.random.default_rng(1).uniform(0, 1, (2, len(chosen)))
        first, second = found.places[:, chosen] + spread
        axis.plot(first, second, ".", color=BLUE, markersize=2.4, alpha=0.6, markeredgewidth=0)
        axis.set(xlabel="batch of an example in an epoch", ylabel="batch in the next epoch")
    elif found.uses is not None:
        values, counts = np.unique(found.uses, return_counts=True)
        mean = found.uses.mean()
        axis.bar(values, counts / len(found.uses), color=BLUE, alpha=0.6, label="examples")
        # Poisson by its recursion: p(n) = p(n − 1)·mean/n.
        n = np.arange(values.max() + 1)
        log_p = n * np.log(mean) - mean - np.cumsum(np.log(np.maximum(n, 1)))
        axis.plot(n, np.exp(log_p), color=THEORY, label="independent draws")
        axis.set(
            xlabel="uses of an example", ylabel="share of the examples", xlim=(values[0] - 2, None)
        )
        axis.legend()
    else:
        _missing(axis, "no indices recorded")


def _autocorrelation(axis: Axes, found: AuditArrays) -> None:
    if found.autocorrelation is None or found.band is None:
        _missing(axis, "neither noise nor\ncurvatures recorded")
    elif found.autocorrelation_theory is None:
        axis.plot(found.lags, found.autocorrelation, ".", color=NOISE, markersize=2)
        axis.set(xlabel="lag (update steps)", ylabel="noise autocorrelation")
    else:
        autocorrelation_panel(axis, found, found.band, found.steps_per_epoch)
        low, high = axis.get_ylim()
        axis.set_ylim(low - 0.45 * (high - low), high)
        axis.legend(loc="lower right")


def _sizes(axis: Axes, gradients: np.ndarray) -> None:
    """Density of the minibatch gradients beside a Gaussian's: rare and large means few examples."""
    reach = max(5.0, float(np.quantile(np.abs(gradients), 1 - 1e-4)) * 1.2)
    density, edges = np.histogram(gradients, np.linspace(-reach, reach, 61), density=True)
    middle = (edges[1:] + edges[:-1]) / 2
    axis.plot(middle, np.where(density > 0, density, np.nan), ".", color=NOISE, label="measured")
    x = np.linspace(-5, 5, 200)
    axis.plot(x, np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi), color=THEORY, label="Gaussian")
    axis.set(yscale="log", ylim=(1e-6, 2 * max(0.4, density.max())), ylabel="density",
             xlabel="gradient of a batch (deviations)")  # fmt: skip
    axis.legend(loc="lower center")


def _weights(axis: Axes, found: AuditArrays) -> None:
    T = len(found.weights) - 1
    shown = np.linspace(0, T, min(_TIMES, T + 1)).astype(int)
    epochs = shown / found.steps_per_epoch
    for i, (name, colour) in enumerate(zip(found.names, _TRACES, strict=False)):
        axis.plot(epochs, found.weights[shown, i] - 6 * i, color=colour, linewidth=0.7)
        axis.annotate(name, (1, found.weights[-1, i] - 6 * i), xytext=(2, 0), color=colour,
                      xycoords=("axes fraction", "data"), textcoords="offset points",
                      fontsize=6.5, va="center")  # fmt: skip
    axis.set(xlabel="epoch", ylabel="weight (deviations)", yticks=[])


def _modes(axis: Axes, modes: np.ndarray) -> None:
    """Root mean square over directions of each degree, and what chance makes of it."""
    degrees = np.arange(1, len(modes) + 1)
    spread = 2 / np.sqrt(2 * modes.shape[1])
    axis.fill_between([0.5, len(modes) + 0.5], max(1 - spread, 0.02), 1 + spread, color=GREY,
                      alpha=0.3, linewidth=0, label="stationary, 2σ")  # fmt: skip
    points(axis, degrees, np.sqrt(np.mean(modes**2, axis=1)), BLUE)
    entry(axis, "measured", BLUE)
    axis.axhline(1, color=THEORY, linewidth=0.8)
    axis.set(yscale="log", xlabel="degree of a polynomial in time", xlim=(0.5, len(modes) + 0.5),
             ylabel="slow motion / theory (rms)")  # fmt: skip
    low, high = axis.get_ylim()
    axis.set_ylim(min(low, 0.3), max(high, 3))
    axis.legend(loc="upper right")


def _times(axis: Axes, found: AuditArrays) -> None:
    usable = np.isfinite(found.expected)
    if not usable.any():
        _missing(axis, "no curvatures recorded, or\nno known law of the noise")
        return
    order = np.flatnonzero(usable)[np.argsort(found.eigenvalues[usable])]
    x = found.eigenvalues[order]
    axis.fill_between(x, found.low[order], found.high[order], color=WINDOW, alpha=0.3, linewidth=0,
                      label="theory, 95 %")  # fmt: skip
    axis.plot(x, found.expected[order], color=WINDOW, zorder=LINES, label="theory")
    points(axis, x, found.correlation_time[order], TIME)
    entry(axis, "measured", TIME)
    axis.set(xscale="log", yscale="log", xlabel=EIGENVALUE, ylabel="correlation time (steps)")
    if x[0] / 3 < found.crossover < 3 * x[-1]:
        mark_x(axis, found.crossover, CROSS)
    mark_y(axis, found.limit, "$\\tau_\\mathrm{SGD}$")
    axis.legend(loc="best")
