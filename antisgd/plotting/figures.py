"""The paper's figures, composed of panels. Each function returns a figure."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from antisgd.plotting import panels
from antisgd.plotting.logarithms import label_short_logarithms

__all__ = [
    "accuracy_comparison",
    "discarded_directions",
    "eigenvalue_density",
    "leading_variances",
    "noise_against_curvature",
    "noise_autocorrelation",
    "spectrum_count",
    "training_curves",
    "variances_figure",
]

STYLE = {
    "font.family": "sans-serif",
    "font.size": 8,
    "axes.titlesize": 8,
    "figure.titlesize": 8,
    "axes.labelsize": 8,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "legend.fontsize": 6.5,
    "legend.edgecolor": "none",
    "legend.framealpha": 0.85,
    "legend.borderpad": 0.2,
    "legend.labelspacing": 0.3,
    "legend.handlelength": 1.6,
    "legend.columnspacing": 1.2,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.2,
    "axes.formatter.use_mathtext": True,
}
# Widths in inches: one column of the page, or all of it.
COLUMN, PAGE = 3.4, 6.9


def _styled(build: Callable[..., Figure]) -> Callable[..., Figure]:
    @functools.wraps(build)
    def styled(*arguments, **options):
        with matplotlib.rc_context(STYLE):
            figure = build(*arguments, **options)
        for axes in figure.axes:
            label_short_logarithms(axes)
        return figure

    return styled


def _figure(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any):
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False, **options)


def _room(axis: Axes, *, above: float = 0.0, below: float = 0.0) -> None:
    """Free space for a legend, as shares of the height of a logarithmic panel."""
    low, high = axis.get_ylim()
    axis.set_ylim(low / (high / low) ** below, high * (high / low) ** above)


def _legend_if_needed(axis: Axes, place: Any) -> None:
    if axis.get_legend_handles_labels()[0]:
        axis.legend(loc=place)


@_styled
def noise_autocorrelation(
    analyses: Mapping[str, Any], band: np.ndarray, steps_per_epoch: int
) -> Figure:
    """Fig. 1 (one regime) or Fig. 6 (two): mean noise autocorrelation against the lag.

    Args:
        analyses: regime title → object with lags, autocorrelation and autocorrelation_theory.
        band: standard deviation of the mean for independent noise, [lags].
        steps_per_epoch: M.
    """
    columns = len(analyses)
    figure, axes = _figure(COLUMN if columns == 1 else PAGE, 2.5, 1, columns, sharey=True)
    for axis, (title, analysis) in zip(axes[0], analyses.items(), strict=True):
        panels.autocorrelation_panel(axis, analysis, band, steps_per_epoch)
        axis.set_title(title, pad=12)
        axis.label_outer()
    axes[0, 0].legend(loc="lower right")
    return figure


@_styled
def variances_figure(analyses: Mapping[str, Any], cross: float, limit: float) -> Figure:
    """Fig. 2 (one regime: panels side by side) or Fig. 7 (two: a column each).

    Args:
        analyses: regime title → object with eigenvalues, noise, measured, stationary, window,
            drift_share, unconverged, blurred, fits and fit_spans.
        cross: λ_cross.
        limit: τ_SGD, update steps.
    """
    single = len(analyses) == 1
    shape = (1, 2) if single else (2, len(analyses))
    share: dict[str, Any] = {} if single else {"sharex": True, "sharey": "row"}
    figure, axes = _figure(PAGE, 2.8 if single else 5.0, *shape, **share)
    columns = axes if single else axes.T
    for (variance, time), (title, analysis) in zip(columns, analyses.items(), strict=True):
        panels.variances_panel(variance, analysis, cross)
        panels.correlation_time_panel(time, analysis, cross, limit)
        variance.legend(loc="upper left", ncols=2)
        time.legend(loc="lower left", ncols=2)
        if not single:
            variance.set_title(title, pad=14)
            variance.label_outer()
            time.label_outer()
    if single:
        figure.suptitle(next(iter(analyses)))
    _room(columns[0][0], above=0.4)
    _room(columns[0][1], below=0.35)
    return figure


@_styled
def eigenvalue_density(
    eigenvalues: np.ndarray, cross: float, unconverged: np.ndarray | None = None
) -> Figure:
    """Fig. 5: histogram of the eigenvalues found, the smaller half of them in the inset.

    Args:
        eigenvalues: [k].
        cross: λ_cross.
        unconverged: which of them are marked as such, bool [k].
    """
    figure, axes = _figure(COLUMN, 2.5)
    panels.spectrum_panel(axes[0, 0], eigenvalues, cross, unconverged)
    _legend_if_needed(axes[0, 0], (0.2, 0.88))
    return figure


@_styled
def spectrum_count(
    nodes: np.ndarray, weights: np.ndarray, eigenvalues: np.ndarray, cross: float
) -> Figure:
    """Fig. 5 for the whole spectrum: how many eigenvalues lie above each λ.

    Args:
        nodes: of a quadrature rule for each random vector, [probes, steps].
        weights: eigenvalues that each node stands for, [probes, steps].
        eigenvalues: those found, [k].
        cross: λ_cross.
    """
    figure, axes = _figure(COLUMN, 2.5)
    axis, found = axes[0, 0], np.sort(eigenvalues)[::-1]
    positive = nodes[nodes > 0]
    grid = np.geomspace(max(positive.min(), 1e-3 * found[-1]), positive.max(), 400)
    above = nodes[:, None, :] > grid[:, None]
    counts = np.sum(weights[:, None, :] * above, axis=2)
    mean, error = counts.mean(0), counts.std(0, ddof=1) / len(counts) ** 0.5
    axis.plot(grid, mean, color=panels.ORANGE, label="all, by the density")
    axis.fill_between(grid, mean - error, mean + error, color=panels.ORANGE, alpha=0.25, lw=0)
    axis.step(found, np.arange(1, len(found) + 1), color=panels.BLUE, label="those found")
    axis.set(
        xscale="log", yscale="log", xlabel=panels.EIGENVALUE, ylabel="eigenvalues above",
        ylim=(0.5, 2 * weights.sum(1).max()),
    )  # fmt: skip
    panels.mark_x(axis, cross, "$\\lambda_\\mathrm{cross}$")
    axis.legend(loc="lower left")
    return figure


@_styled
def training_curves(curves: Mapping[str, np.ndarray], train_epochs: int) -> Figure:
    """Fig. 8: loss and accuracy of training and test examples, the analysis period shaded.

    Args:
        curves: after each epoch, [epochs]: train_loss and, where there are such, train_accuracy,
            test_loss, test_accuracy.
        train_epochs: epochs before the analysis period.
    """
    classified = "train_accuracy" in curves
    figure, axes = _figure(PAGE if classified else COLUMN, 2.4, 1, 1 + classified)
    for axis, name, scale in zip(axes[0], ("loss", "accuracy"), (1, 100), strict=False):
        train, test = curves[f"train_{name}"], curves.get(f"test_{name}")
        panels.curve_panel(axis, train, test, scale, train_epochs)
    axes[0, 0].set(yscale="log", ylabel="cross-entropy (nat)" if classified else "loss")
    if classified:
        axes[0, 1].set(ylabel="accuracy (%)", ylim=(None, 102))
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


@_styled
def discarded_directions(
    discarded: np.ndarray,
    accuracy: np.ndarray,
    eigenvalues: np.ndarray,
    projections: np.ndarray,
    cross: float,
    deviation: float,
    chance: float = 0.1,
    unconverged: np.ndarray | None = None,
) -> Figure:
    """Fig. 11: what is left of the test accuracy without the leading eigenvectors.

    Args:
        discarded: numbers of eigenvectors projected out, [n].
        accuracy: test accuracy then, as fractions, [n].
        eigenvalues: descending, [k].
        projections: p_i·θ, [k].
        cross: λ_cross.
        deviation: standard deviation ‖θ‖/√d of the projections of a random vector.
        chance: accuracy of guessing.
        unconverged: which of the eigenvectors are marked as such, bool [k].
    """
    figure, axes = _figure(COLUMN, 4.8, 3, 1, sharex=True)
    top, middle, bottom = axes[:, 0]
    panels.discarded_accuracy_panel(top, discarded, accuracy, chance)
    panels.eigenvalue_panel(middle, eigenvalues, cross, unconverged)
    _legend_if_needed(middle, "upper right")
    panels.projection_panel(bottom, projections, deviation)
    bottom.set(xlabel="discarded eigenvectors, index $i$", xlim=(0, len(eigenvalues)))
    low, high = bottom.get_ylim()
    bottom.set_ylim(low, high + 0.2 * (high - low))
    bottom.legend(loc="upper left", ncols=2)
    return figure


@_styled
def leading_variances(alignments: Mapping[str, Any], count: int = 200) -> Figure:
    """Fig. 13: the largest noise variances along the eigenvectors of C and of H.

    Args:
        alignments: title → `statistics.Alignment`, for example of the recorded noise and of
            per-example gradients.
        count: variances shown.
    """
    columns = len(alignments)
    figure, axes = _figure(COLUMN if columns == 1 else PAGE, 2.5, 1, columns, sharey=True)
    for axis, (title, alignment) in zip(axes[0], alignments.items(), strict=True):
        panels.leading_variances_panel(axis, alignment, count)
        axis.set_title(f"{title}, cosine similarity {alignment.cosine:.2f}")
        axis.label_outer()
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


@_styled
def noise_against_curvature(
    eigenvalues: np.ndarray,
    noise: np.ndarray,
    fit: Any,
    span: np.ndarray,
    unconverged: np.ndarray | None = None,
) -> Figure:
    """Fig. 14: noise variance along each eigenvector against its eigenvalue, with the fit.

    Args:
        eigenvalues: λ, [k].
        noise: σ_δg², [k].
        fit: `statistics.PowerLaw`.
        span: end points of the fitted region, [2].
        unconverged: which of the directions are marked as such, bool [k].
    """
    figure, axes = _figure(COLUMN, 2.5)
    panels.noise_panel(axes[0, 0], eigenvalues, noise, fit, span, unconverged)
    axes[0, 0].legend(loc="upper left")
    return figure


@_styled
def accuracy_comparison(accuracies: Mapping[str, np.ndarray], names: Sequence[str]) -> Figure:
    """Sec. 7: test accuracy of every seed in both regimes, pairs joined, means with errors.

    Args:
        accuracies: panel title → fractions [regimes, seeds].
        names: of the regimes.
    """
    width = COLUMN if len(accuracies) == 1 else PAGE
    figure, axes = _figure(width, 2.6, 1, len(accuracies), sharey=True)
    for axis, (title, values) in zip(axes[0], accuracies.items(), strict=True):
        panels.accuracy_panel(axis, 100 * np.asarray(values), names)
        axis.set_title(title)
    axes[0, 0].set_ylabel("test accuracy (%)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure
