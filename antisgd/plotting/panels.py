"""One function a panel: axes and arrays in, artists and labels on the axes.

Measured values are points, theory is lines, what belongs to one quantity keeps its colour.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from antisgd.plotting.marks import (
    FITS,
    LINES,
    crosses,
    entry,
    fit_line,
    mark_x,
    mark_y,
    name_hollow,
    name_region,
    points,
    shade,
)
from antisgd.plotting.style import (
    BLACK,
    BLUE,
    CROSS,
    EIGENVALUE,
    GREY,
    NOISE,
    PURPLE,
    THEORY,
    TIME,
    VELOCITY,
    VERMILLION,
    WEIGHT,
    WINDOW,
)

__all__ = [
    "accuracy_panel",
    "autocorrelation_panel",
    "correlation_time_panel",
    "curve_panel",
    "discarded_accuracy_panel",
    "eigenvalue_panel",
    "leading_variances_panel",
    "noise_panel",
    "prediction_lines",
    "projection_panel",
    "variances_panel",
]

# Above this share of the raw variance a direction shows its drift, not its fluctuation.
MOSTLY_DRIFT = 0.5
# Enough points for the shape of an autocorrelation, few enough to see each.
AUTOCORRELATION_POINTS = 60
# Dashes of the two theories of the variances: where they coincide, each fills the other's gaps.
_DASHES = {"stationary": (0, (3, 3)), "window": (3, (3, 3))}

_THEORIES = (
    ("stationary", THEORY, "theory, stationary"),
    ("window", WINDOW, "theory, finite window"),
)


def _known(analysis: Any, source: str) -> bool:
    """Whether there is a theory: of an optimiser that is not linear there is none."""
    return not np.isnan(getattr(analysis, source).correlation_time).all()


def _trend(y: np.ndarray) -> np.ndarray:
    """Running median of y over up to a twentieth of the points to either side, fewer at the ends.

    A median, because directions without noise (dead units) lie many decades below the others.
    """
    n = len(y)
    reach = [min(max(2, n // 20), i, n - 1 - i) for i in range(n)]
    return np.array([np.median(y[i - r : i + r + 1]) for i, r in enumerate(reach)])


def autocorrelation_panel(
    axis: Axes, analysis: Any, band: np.ndarray, steps_per_epoch: int
) -> None:
    """Autocorrelation averaged over directions and windows of lags, 2σ around Eq. 2 (Fig. 1).

    The band narrows with the square root of the window: white noise has independent lags.
    """
    lags, theory = np.asarray(analysis.lags), np.asarray(analysis.autocorrelation_theory)
    width = max(1, len(lags) // AUTOCORRELATION_POINTS)
    whole = len(lags) // width * width
    middle, measured, expected, deviation = (
        np.reshape(values[:whole], (-1, width)).mean(axis=1)
        for values in (lags, analysis.autocorrelation, theory, band)
    )
    spread = 2 * deviation / np.sqrt(width)
    axis.axhline(0, color=GREY, linewidth=0.6, zorder=1)
    axis.fill_between(middle, expected - spread, expected + spread, color=GREY, alpha=0.3,
                      linewidth=0, label="2σ of independent noise")  # fmt: skip
    axis.plot(lags, theory, color=THEORY, label="theory", zorder=LINES)
    points(axis, middle, measured, NOISE)
    entry(axis, "measured" if width == 1 else f"measured, mean of {width} lags", NOISE)
    mark_x(axis, steps_per_epoch, "one epoch")
    axis.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    axis.set(xlabel="lag (update steps)", ylabel="noise autocorrelation", xlim=(0, lags[-1]))


def variances_panel(axis: Axes, analysis: Any, cross: float) -> None:
    """Weight and velocity variance against the eigenvalue, log–log (Fig. 2, left).

    Solid coloured lines are the fits, from bar to bar, dashed lines the theory for the trend of
    the measured noise; hollow points are directions whose drift dominates.
    """
    x, order = np.asarray(analysis.eigenvalues), np.argsort(analysis.eigenvalues)
    hollow = analysis.drift_share > MOSTLY_DRIFT
    noise = np.empty_like(x)
    noise[order] = _trend(np.asarray(analysis.noise)[order])
    shade(axis, x, analysis.blurred)
    for quantity, colour, symbol in (("weight", WEIGHT, "\\theta"), ("velocity", VELOCITY, "v")):
        points(axis, x, getattr(analysis.measured, quantity), colour, hollow)
        fit, span = analysis.fits[quantity], analysis.fit_spans[quantity]
        fit_line(axis, fit, span, f"\\sigma_{symbol}^2", colour)
        for source, dark in (("window", WINDOW), ("stationary", THEORY)):
            expected = noise * getattr(getattr(analysis, source), quantity)
            axis.plot(x[order], expected[order], linestyle=_DASHES[source], color=dark,
                      linewidth=0.9, zorder=FITS + 1)  # fmt: skip
    for source, dark, label in _THEORIES:
        if _known(analysis, source):
            entry(axis, label, dark, "--", linewidth=0.9)
    name_region(axis)
    name_hollow(axis, hollow)
    crosses(axis, x, analysis.measured.weight, analysis.unconverged)
    axis.set(xscale="log", yscale="log", xlabel=EIGENVALUE, ylabel="variance (weights$^2$)")
    mark_x(axis, cross, CROSS)


def correlation_time_panel(axis: Axes, analysis: Any, cross: float, limit: float) -> None:
    """Correlation time against the eigenvalue, log–log (Fig. 2, right)."""
    x, order = np.asarray(analysis.eigenvalues), np.argsort(analysis.eigenvalues)
    hollow = analysis.drift_share > MOSTLY_DRIFT
    band = analysis.spread.correlation_time[:, [0, -1]].T
    low, high = (band * analysis.window.correlation_time)[:, order]
    if not np.isnan(low).all():
        axis.fill_between(x[order], low, high, color=WINDOW, alpha=0.2, linewidth=0, zorder=0,
                          label="95 % of directions")  # fmt: skip
    shade(axis, x, analysis.blurred)
    points(axis, x, analysis.measured.correlation_time, TIME, hollow)
    crosses(axis, x, analysis.measured.correlation_time, analysis.unconverged)
    entry(axis, "measured", TIME)
    for (source, colour, label), style in zip(_THEORIES, ("-", "--"), strict=True):
        if _known(analysis, source):
            time = getattr(analysis, source).correlation_time
            axis.plot(x[order], time[order], style, color=colour, label=label, zorder=LINES)
    name_hollow(axis, hollow)
    axis.set(xscale="log", yscale="log", xlabel=EIGENVALUE)
    axis.set_ylabel("correlation time $\\tau$ (update steps)")
    mark_x(axis, cross, CROSS)
    mark_y(axis, limit, "$\\tau_\\mathrm{SGD}$")


def prediction_lines(axis: Axes, found: Mapping[str, np.ndarray], names: Sequence[str]) -> None:
    """What was predicted without a free parameter, as the running median over directions."""
    order = np.argsort(found["eigenvalues"])
    for name in names:
        axis.plot(found["eigenvalues"][order], _trend(found[name][order]), color=PURPLE,
                  linewidth=1.0, zorder=FITS + 2, label="_prediction")  # fmt: skip
    entry(axis, "predicted from $\\theta_K$ alone", PURPLE, "-", linewidth=1.0)


def eigenvalue_panel(
    axis: Axes, eigenvalues: np.ndarray, cross: float, unconverged: np.ndarray | None = None
) -> None:
    """Eigenvalues against their index (Fig. 11, middle)."""
    index = np.arange(1, len(eigenvalues) + 1)
    axis.plot(index, eigenvalues, color=BLUE)
    crosses(axis, index, eigenvalues, unconverged)
    axis.set(yscale="log", ylabel="eigenvalue $\\lambda_i$")
    mark_y(axis, cross, CROSS)


def discarded_accuracy_panel(
    axis: Axes,
    discarded: np.ndarray,
    accuracy: np.ndarray,
    chance: float,
    paper: Mapping[int, float] | None = None,
) -> None:
    """Test accuracy (fraction) against the number of eigenvectors projected out (Fig. 11, top).

    `paper`, number → fraction, adds the paper's points as squares; the legend gives those beyond
    the last of `discarded`.
    """
    axis.plot(discarded, 100 * np.asarray(accuracy), color=VERMILLION, marker="o", markersize=2,
              zorder=LINES, label="here")  # fmt: skip
    mark_y(axis, 100 * chance, "chance")
    if paper:
        _mark_paper(axis, paper, discarded[-1])
        axis.legend(loc="best")
    axis.set(ylabel="test accuracy (%)", ylim=(0, 1.08 * axis.get_ylim()[1]))


def _mark_paper(axis: Axes, paper: Mapping[int, float], last: int) -> None:
    percent = {n: 100 * fraction for n, fraction in paper.items()}
    inside = [n for n in percent if n <= last]
    beyond = ",\n".join(f"{percent[n]:.0f} % at {n:,}" for n in percent if n > last)
    label = f"the paper\n(beyond: {beyond})" if beyond else "the paper"
    axis.plot(inside, [percent[n] for n in inside], "s", mec=BLACK, mfc="white", markersize=4,
              mew=0.9, zorder=FITS, clip_on=False, label=label)  # fmt: skip
    for n in filter(None, inside):
        axis.annotate(f"{n:,}", (n, percent[n]), xytext=(4, -2), textcoords="offset points",
                      ha="left", va="top", fontsize=6)  # fmt: skip


def projection_panel(axis: Axes, projections: np.ndarray, deviation: float) -> None:
    """Projections of θ with the 2σ band of a random vector of its length (Fig. 11, bottom)."""
    points(axis, np.arange(1, len(projections) + 1), projections, BLUE)
    entry(axis, "$p_i\\cdot\\theta$", BLUE)
    for side in (-2, 2):
        label = "± 2σ of a random vector" if side > 0 else None
        axis.axhline(side * deviation, color=VERMILLION, linewidth=1, zorder=3, label=label)
    axis.axhspan(-2 * deviation, 2 * deviation, color=VERMILLION, alpha=0.2, lw=0, zorder=0)
    axis.set_ylabel("projection $p_i\\cdot\\theta$")


def leading_variances_panel(axis: Axes, alignment: Any, count: int) -> None:
    """The largest noise variances along the eigenvectors of C and of H (Fig. 13)."""
    rank = np.arange(1, min(count, len(alignment.own_variances)) + 1)
    along = np.asarray(alignment.hessian_variances)[: len(rank)]
    points(axis, rank, along, NOISE)
    entry(axis, "along eigenvectors of $H$", NOISE)
    axis.plot(rank, alignment.own_variances[: len(rank)], color=BLACK, linewidth=0.8,
              zorder=LINES, label="eigenvalues of $C$")  # fmt: skip
    axis.set(yscale="log", xlabel="index $i$", ylabel="noise variance (gradients$^2$)")


def noise_panel(
    axis: Axes,
    eigenvalues: np.ndarray,
    noise: np.ndarray,
    fit: Any,
    span: np.ndarray,
    unconverged: np.ndarray | None = None,
) -> None:
    """Noise variance along each eigenvector against its eigenvalue, with the fit (Fig. 14)."""
    points(axis, eigenvalues, noise, NOISE)
    crosses(axis, eigenvalues, noise, unconverged)
    fit_line(axis, fit, span, "\\sigma_{\\delta g}^2", BLACK, 1.0)
    axis.set(xscale="log", yscale="log", xlabel=EIGENVALUE)
    axis.set_ylabel("noise variance (gradients$^2$)")


def curve_panel(
    axis: Axes, train: np.ndarray, test: np.ndarray | None, scale: float, train_epochs: int
) -> None:
    """One quantity, times `scale`, of training and test set after each epoch (Fig. 8)."""
    epochs = np.arange(1, len(train) + 1)
    axis.plot(epochs, scale * np.asarray(train), color=BLUE, label="training set")
    if test is not None:
        axis.plot(epochs, scale * np.asarray(test), "--", color=VERMILLION, label="test set")
    if len(epochs) > train_epochs:
        axis.axvspan(train_epochs, epochs[-1], color=GREY, alpha=0.2, lw=0,
                     label="analysis period")  # fmt: skip
    axis.set(xlabel="epoch", xlim=(0, epochs[-1]))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))


def accuracy_panel(axis: Axes, accuracy: np.ndarray, names: Sequence[str]) -> None:
    """Accuracies [regimes, seeds], one grey line a seed, and their means ± one standard error."""
    places, seeds = np.arange(len(names)), accuracy.shape[1]
    lines = axis.plot(places, accuracy, ".-", color=GREY, linewidth=0.6, markersize=4, alpha=0.5)
    lines[0].set_label("one seed")
    error = accuracy.std(axis=1, ddof=1) / np.sqrt(seeds) if seeds > 1 else np.zeros(len(names))
    axis.errorbar(places, accuracy.mean(axis=1), error, fmt="o", color=BLUE, markersize=5,
                  capsize=4, zorder=3, label="mean ± standard error")  # fmt: skip
    axis.set_xticks(places, names)
    axis.set_xlim(-0.4, len(names) - 0.6)
