"""The paper's figures, composed of panels. Each function returns a figure."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from antisgd.plotting import panels
from antisgd.plotting.marks import mark_x
from antisgd.plotting.style import COLUMN, CROSS, PAGE, legend_if_needed, new_figure, room, styled

__all__ = [
    "accuracy_comparison",
    "discarded_directions",
    "leading_variances",
    "noise_against_curvature",
    "noise_autocorrelation",
    "training_curves",
    "variances_figure",
]


@styled
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
    figure, axes = new_figure(COLUMN if columns == 1 else PAGE, 2.5, 1, columns, sharey=True)
    for axis, (title, analysis) in zip(axes[0], analyses.items(), strict=True):
        panels.autocorrelation_panel(axis, analysis, band, steps_per_epoch)
        axis.set_title(title, pad=12)
        axis.label_outer()
    axes[0, 0].legend(loc="lower right")
    return figure


@styled
def variances_figure(
    analyses: Mapping[str, Any],
    cross: float,
    limit: float,
    predictions: Mapping[str, Mapping[str, np.ndarray]] | None = None,
) -> Figure:
    """Fig. 2 (one regime: panels side by side) or Fig. 7 (two: a column each).

    Args:
        analyses: regime title → object with eigenvalues, noise, measured, stationary, window,
            drift_share, unconverged, blurred, fits and fit_spans.
        cross: λ_cross.
        limit: τ_SGD, update steps.
        predictions: regime title → what was predicted of it without a free parameter: eigenvalues,
            weight, velocity and correlation_time, [p] each.
    """
    single = len(analyses) == 1
    shape = (1, 2) if single else (2, len(analyses))
    share: dict[str, Any] = {} if single else {"sharex": True, "sharey": "row"}
    figure, axes = new_figure(PAGE, 2.8 if single else 5.0, *shape, **share)
    columns = axes if single else axes.T
    for (variance, time), (title, analysis) in zip(columns, analyses.items(), strict=True):
        panels.variances_panel(variance, analysis, cross)
        panels.correlation_time_panel(time, analysis, cross, limit)
        if predictions and title in predictions:
            panels.prediction_lines(variance, predictions[title], ("weight", "velocity"))
            panels.prediction_lines(time, predictions[title], ("correlation_time",))
        variance.legend(loc="upper left", ncols=2)
        time.legend(loc="lower left", ncols=2)
        if not single:
            variance.set_title(title, pad=14)
            variance.label_outer()
            time.label_outer()
    if single:
        figure.suptitle(next(iter(analyses)))
    room(columns[0][0], above=0.4)
    room(columns[0][1], below=0.35)
    return figure


@styled
def training_curves(curves: Mapping[str, np.ndarray], train_epochs: int) -> Figure:
    """Fig. 8: loss and accuracy of training and test examples, the analysis period shaded.

    Args:
        curves: after each epoch, [epochs]: train_loss and, where there are such, train_accuracy,
            test_loss, test_accuracy.
        train_epochs: epochs before the analysis period.
    """
    classified = "train_accuracy" in curves
    figure, axes = new_figure(PAGE if classified else COLUMN, 2.4, 1, 1 + classified)
    for axis, name, scale in zip(axes[0], ("loss", "accuracy"), (1, 100), strict=False):
        train, test = curves[f"train_{name}"], curves.get(f"test_{name}")
        panels.curve_panel(axis, train, test, scale, train_epochs)
    axes[0, 0].set(yscale="log", ylabel="loss")
    if classified:
        axes[0, 1].set(ylabel="accuracy (%)", ylim=(None, 102))
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


@styled
def discarded_directions(
    discarded: np.ndarray,
    accuracy: np.ndarray,
    eigenvalues: np.ndarray,
    projections: np.ndarray,
    cross: float,
    deviation: float,
    chance: float = 0.1,
    unconverged: np.ndarray | None = None,
    paper: Mapping[int, float] | None = None,
) -> Figure:
    """Fig. 11: what is left of the test accuracy without the leading eigenvectors.

    A dotted line through all panels stands after the last eigenvalue above λ_cross.

    Args:
        discarded: numbers of eigenvectors projected out, [n].
        accuracy: test accuracy then, as fractions, [n].
        eigenvalues: descending, [k].
        projections: p_i·θ, [k].
        cross: λ_cross.
        deviation: standard deviation ‖θ‖/√d of the projections of a random vector.
        chance: accuracy of guessing.
        unconverged: which of the eigenvectors are marked as such, bool [k].
        paper: the paper's points, number of eigenvectors → test accuracy as a fraction.
    """
    figure, axes = new_figure(COLUMN, 4.8, 3, 1, sharex=True)
    top, middle, bottom = axes[:, 0]
    panels.discarded_accuracy_panel(top, discarded, accuracy, chance, paper)
    panels.eigenvalue_panel(middle, eigenvalues, cross, unconverged)
    legend_if_needed(middle, "upper right")
    panels.projection_panel(bottom, projections, deviation)
    bottom.set(xlabel="discarded eigenvectors, index $i$", xlim=(0, len(eigenvalues)))
    low, high = bottom.get_ylim()
    bottom.set_ylim(low, high + 0.2 * (high - low))
    bottom.legend(loc="upper left", ncols=2)
    above = int(np.sum(np.asarray(eigenvalues) > cross))
    place = np.nan if np.isnan(cross) else above
    for axis, text in ((top, f"{above} above {CROSS}"), (middle, ""), (bottom, "")):
        mark_x(axis, place, text)
    return figure


@styled
def leading_variances(alignments: Mapping[str, Any], count: int = 200) -> Figure:
    """Fig. 13: the largest noise variances along the eigenvectors of C and of H.

    Args:
        alignments: title → `statistics.Alignment`, for example of the recorded noise and of
            per-example gradients.
        count: variances shown.
    """
    columns = len(alignments)
    figure, axes = new_figure(COLUMN if columns == 1 else PAGE, 2.5, 1, columns, sharey=True)
    for axis, (title, alignment) in zip(axes[0], alignments.items(), strict=True):
        panels.leading_variances_panel(axis, alignment, count)
        axis.set_title(f"{title}, cosine similarity {alignment.cosine:.2f}")
        axis.label_outer()
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


@styled
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
    figure, axes = new_figure(COLUMN, 2.5)
    panels.noise_panel(axes[0, 0], eigenvalues, noise, fit, span, unconverged)
    axes[0, 0].legend(loc="upper left")
    return figure


@styled
def accuracy_comparison(accuracies: Mapping[str, np.ndarray], names: Sequence[str]) -> Figure:
    """Sec. 7: test accuracy of every seed in both regimes, pairs joined, means with errors.

    Args:
        accuracies: panel title → fractions [regimes, seeds].
        names: of the regimes.
    """
    width = COLUMN if len(accuracies) == 1 else PAGE
    figure, axes = new_figure(width, 2.6, 1, len(accuracies), sharey=True)
    for axis, (title, values) in zip(axes[0], accuracies.items(), strict=True):
        panels.accuracy_panel(axis, 100 * np.asarray(values), names)
        axis.set_title(title)
    axes[0, 0].set_ylabel("test accuracy (%)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure
