"""One function a panel: axes and arrays in, artists and labels on the axes.

Measured values are points, theory is lines, what belongs to one quantity keeps its colour
(Okabe and Ito's palette, which colour-blind readers can tell apart).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

__all__ = [
    "accuracy_panel",
    "autocorrelation_panel",
    "correlation_time_panel",
    "curve_panel",
    "discarded_accuracy_panel",
    "eigenvalue_panel",
    "leading_variances_panel",
    "noise_panel",
    "projection_panel",
    "spectrum_panel",
    "variances_panel",
]

BLUE, VERMILLION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
PURPLE, BLACK, GREY = "#CC79A7", "#000000", "#7F7F7F"
WEIGHT, VELOCITY, TIME, NOISE = BLUE, VERMILLION, GREEN, PURPLE
THEORY, WINDOW = BLACK, ORANGE

# Above this share of the raw variance a direction shows its drift, not its fluctuation.
MOSTLY_DRIFT = 0.5
# Enough points for the shape of an autocorrelation, few enough to see each.
AUTOCORRELATION_POINTS = 60
# From so many points on they hide a line drawn among them, unless it has a white edge.
CROWDED = 1000

EIGENVALUE = "Hessian eigenvalue $\\lambda$"


def mark_x(axis: Axes, x: float, text: str) -> None:
    """A dotted line with its name above the panel, where no point can hide it."""
    axis.axvline(x, color=GREY, linestyle=":", linewidth=0.9, zorder=1)
    axis.annotate(
        text, (x, 1), xycoords=("data", "axes fraction"), xytext=(0, 1.5),
        textcoords="offset points", ha="center", va="bottom", fontsize=7, color=GREY,
    )  # fmt: skip


def mark_y(axis: Axes, y: float, text: str) -> None:
    """A dotted line with its name to the right of the panel."""
    axis.axhline(y, color=GREY, linestyle=":", linewidth=0.9, zorder=1)
    axis.annotate(
        text, (1, y), xycoords=("axes fraction", "data"), xytext=(2, 0),
        textcoords="offset points", ha="left", va="center", fontsize=7, color=GREY,
    )  # fmt: skip


def _points(axis: Axes, x, y, colour: str, hollow: np.ndarray | None = None) -> None:
    x, y = np.asarray(x), np.asarray(y)
    hollow = np.zeros(len(x), bool) if hollow is None else hollow
    crowded = len(x) >= CROWDED
    size, alpha = (1.2, 0.35) if crowded else (2.2, 0.6) if len(x) >= 100 else (3.2, 0.8)
    style: Any = {"marker": "o", "linestyle": "none", "markersize": size, "markeredgewidth": 0.4}
    axis.plot(x[~hollow], y[~hollow], color=colour, alpha=alpha, label="_measured", **style)
    axis.plot(x[hollow], y[hollow], mec=colour, mfc="none", label="_mostly drift", **style)


def _name(axis: Axes, label: str, colour: str, style: str = "o", **options: Any) -> None:
    """A legend entry of its own: the points may be too small and pale to tell their colour."""
    axis.plot([], [], style, color=colour, label=label, markersize=3, **options)


def _cross(axis: Axes, x, y, unconverged: np.ndarray | None) -> None:
    """Crosses over the points of eigenpairs that are not converged, named if there are any."""
    if unconverged is None or not np.any(unconverged):
        return
    x, y = np.asarray(x)[unconverged], np.asarray(y)[unconverged]
    axis.plot(x, y, "x", color=BLACK, markersize=4, mew=0.8, zorder=5, label="not converged")


def _shade(axis: Axes, x: np.ndarray, blurred: np.ndarray | None) -> None:
    """Grey where eigenvalues lie so near to each other that no eigenvector is known alone."""
    if blurred is not None and np.any(blurred):
        axis.axvspan(x[blurred].min(), x[blurred].max(), color=GREY, alpha=0.15, lw=0, zorder=0,
                     label="no single eigenvectors")  # fmt: skip


def _name_hollow(axis: Axes, hollow: np.ndarray) -> None:
    if hollow.any():
        _name(axis, "mostly drift", GREY, mfc="none", mew=0.6)


def _fit_line(
    axis: Axes, fit: Any, span: np.ndarray, symbol: str, colours: tuple[str, str], crowded: bool
) -> None:
    """The fitted region; the legend gives two standard errors, as the paper does."""
    span, (points, line) = np.asarray(span), colours
    values = fit.prefactor * span**fit.exponent
    if crowded:
        axis.plot(span, values, color="white", linewidth=3, zorder=3)
    axis.plot(span, values, color=line, linewidth=1.4, zorder=4, label="_fit")
    exponent = f"{fit.exponent:.3f} \\pm {2 * fit.exponent_error:.3f}"
    label = f"${symbol} \\propto \\lambda^{{{exponent}}}$ (2σ)"
    _name(axis, label, line, "o-", mfc=points, mec=points)


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
    axis.plot(lags, theory, color=THEORY, label="theory (Eq. 2)", zorder=3)
    _points(axis, middle, measured, NOISE)
    _name(axis, "measured" if width == 1 else f"measured, mean of {width} lags", NOISE)
    mark_x(axis, steps_per_epoch, "one epoch")
    axis.ticklabel_format(axis="y", style="sci", scilimits=(-2, 2))
    axis.set(xlabel="lag (update steps)", ylabel="noise autocorrelation", xlim=(0, lags[-1]))


def variances_panel(axis: Axes, analysis: Any, cross: float) -> None:
    """Weight and velocity variance against the eigenvalue, log–log (Fig. 2, left).

    Solid coloured lines are the fits over their regions, dashed lines the theory for the trend
    of the measured noise; hollow points are directions whose drift dominates.
    """
    x, order = np.asarray(analysis.eigenvalues), np.argsort(analysis.eigenvalues)
    hollow = analysis.drift_share > MOSTLY_DRIFT
    noise = np.empty_like(x)
    noise[order] = _trend(np.asarray(analysis.noise)[order])
    _shade(axis, x, analysis.blurred)
    for name, colour, symbol in (("weight", WEIGHT, "\\theta"), ("velocity", VELOCITY, "v")):
        _points(axis, x, getattr(analysis.measured, name), colour, hollow)
        _fit_line(axis, analysis.fits[name], analysis.fit_spans[name], f"\\sigma_{symbol}^2",
                  (colour, colour), len(x) >= CROWDED)  # fmt: skip
        for source, line_colour in ((analysis.window, WINDOW), (analysis.stationary, THEORY)):
            expected = noise * getattr(source, name)
            axis.plot(x[order], expected[order], "--", color=line_colour, linewidth=0.9, zorder=5)
    _name(axis, "theory (Eq. 6)", THEORY, "--")
    _name(axis, "theory, finite window", WINDOW, "--")
    _name_hollow(axis, hollow)
    _cross(axis, x, analysis.measured.weight, analysis.unconverged)
    axis.set(xscale="log", yscale="log", xlabel=EIGENVALUE, ylabel="variance (squared weights)")
    mark_x(axis, cross, "$\\lambda_\\mathrm{cross}$")


def correlation_time_panel(axis: Axes, analysis: Any, cross: float, limit: float) -> None:
    """Correlation time against the eigenvalue, log–log (Fig. 2, right)."""
    x, order = np.asarray(analysis.eigenvalues), np.argsort(analysis.eigenvalues)
    hollow = analysis.drift_share > MOSTLY_DRIFT
    band = analysis.spread.correlation_time[:, [0, -1]].T
    low, high = (band * analysis.window.correlation_time)[:, order]
    axis.fill_between(x[order], low, high, color=WINDOW, alpha=0.2, linewidth=0, zorder=0,
                      label="95 % of directions")  # fmt: skip
    _shade(axis, x, analysis.blurred)
    _points(axis, x, analysis.measured.correlation_time, TIME, hollow)
    _cross(axis, x, analysis.measured.correlation_time, analysis.unconverged)
    _name(axis, "measured", TIME)
    for source, colour, style, label in (
        (analysis.stationary, THEORY, "-", "theory (Eq. 6)"),
        (analysis.window, WINDOW, "--", "theory, finite window"),
    ):
        axis.plot(x[order], source.correlation_time[order], style, color=colour, label=label,
                  zorder=3)  # fmt: skip
    _name_hollow(axis, hollow)
    axis.set(xscale="log", yscale="log", xlabel=EIGENVALUE)
    axis.set_ylabel("correlation time $\\tau$ (update steps)")
    mark_x(axis, cross, "$\\lambda_\\mathrm{cross}$")
    mark_y(axis, limit, "$\\tau_\\mathrm{SGD}$")


def spectrum_panel(
    axis: Axes, eigenvalues: np.ndarray, cross: float, unconverged: np.ndarray | None = None
) -> None:
    """Histogram of the eigenvalues, the smaller half of them in an inset (Fig. 5)."""
    values = np.asarray(eigenvalues)
    _, edges, _ = axis.hist(values, 60, color=BLUE)
    _cross(axis, values, np.ones_like(values), unconverged)
    axis.set(yscale="log", xlabel=EIGENVALUE, ylabel=f"eigenvalues per {np.diff(edges)[0]:.2g}")
    if cross <= values.max():
        mark_x(axis, cross, "$\\lambda_\\mathrm{cross}$")
    else:
        axis.set_title(f"all below $\\lambda_\\mathrm{{cross}}$ = {cross:.2g}", color=GREY)
    inset = axis.inset_axes((0.52, 0.5, 0.48, 0.4))
    _, edges, _ = inset.hist(values[values <= np.median(values)], 25, color=BLUE)
    inset.set_title(f"smaller half, down to {values.min():.2g}", fontsize=6.5, pad=2)
    inset.set_ylabel(f"per {np.diff(edges)[0]:.2g}", fontsize=6, labelpad=1)
    inset.tick_params(labelsize=6, pad=1.5)
    inset.locator_params(nbins=4)


def eigenvalue_panel(
    axis: Axes, eigenvalues: np.ndarray, cross: float, unconverged: np.ndarray | None = None
) -> None:
    """Eigenvalues against their index (Fig. 11, middle)."""
    index = np.arange(1, len(eigenvalues) + 1)
    axis.plot(index, eigenvalues, color=BLUE)
    _cross(axis, index, eigenvalues, unconverged)
    axis.set(yscale="log", ylabel="eigenvalue $\\lambda_i$")
    mark_y(axis, cross, "$\\lambda_\\mathrm{cross}$")


def discarded_accuracy_panel(
    axis: Axes, discarded: np.ndarray, accuracy: np.ndarray, chance: float
) -> None:
    """Test accuracy (fraction) against the number of eigenvectors projected out (Fig. 11, top)."""
    axis.plot(discarded, 100 * np.asarray(accuracy), color=VERMILLION, marker="o", markersize=2)
    mark_y(axis, 100 * chance, "chance")
    axis.set(ylabel="test accuracy (%)", ylim=(0, None))


def projection_panel(axis: Axes, projections: np.ndarray, deviation: float) -> None:
    """Projections of θ with the 2σ band of a random vector of its length (Fig. 11, bottom)."""
    _points(axis, np.arange(1, len(projections) + 1), projections, BLUE)
    _name(axis, "$p_i\\cdot\\theta$", BLUE)
    for side in (-2, 2):
        label = "± 2σ of a random vector" if side > 0 else None
        axis.axhline(side * deviation, color=VERMILLION, linewidth=1, zorder=3, label=label)
    axis.axhspan(-2 * deviation, 2 * deviation, color=VERMILLION, alpha=0.2, lw=0, zorder=0)
    axis.set_ylabel("projection $p_i\\cdot\\theta$")


def leading_variances_panel(axis: Axes, alignment: Any, count: int) -> None:
    """The largest noise variances along the eigenvectors of C and of H (Fig. 13)."""
    rank = np.arange(1, min(count, len(alignment.own_variances)) + 1)
    along = np.asarray(alignment.hessian_variances)[: len(rank)]
    _points(axis, rank, along, NOISE)
    _name(axis, "along eigenvectors of $H$", NOISE)
    axis.plot(rank, alignment.own_variances[: len(rank)], color=BLACK, label="eigenvalues of $C$")
    axis.set(yscale="log", xlabel="index $i$", ylabel="noise variance (squared gradients)")


def noise_panel(
    axis: Axes,
    eigenvalues: np.ndarray,
    noise: np.ndarray,
    fit: Any,
    span: np.ndarray,
    unconverged: np.ndarray | None = None,
) -> None:
    """Noise variance along each eigenvector against its eigenvalue, with the fit (Fig. 14)."""
    _points(axis, eigenvalues, noise, NOISE)
    _cross(axis, eigenvalues, noise, unconverged)
    crowded = len(eigenvalues) >= CROWDED
    _fit_line(axis, fit, span, "\\sigma_{\\delta g}^2", (NOISE, BLACK), crowded)
    axis.set(xscale="log", yscale="log", xlabel=EIGENVALUE)
    axis.set_ylabel("noise variance (squared gradients)")


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
