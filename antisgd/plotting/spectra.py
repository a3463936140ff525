"""The spectrum of the Hessian: the eigenvalues found, and all of them by their density (Fig. 5)."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from antisgd.plotting.marks import crosses, mark_x
from antisgd.plotting.style import (
    BLUE,
    COLUMN,
    CROSS,
    EIGENVALUE,
    GREY,
    ORANGE,
    legend_if_needed,
    new_figure,
    styled,
)

__all__ = [
    "count_panel", "eigenvalue_density", "spectrum_count", "spectrum_panel", "tracked_eigenvalues",
]  # fmt: skip

# Fewer eigenvalues are counted one by one: most bins of a histogram would hold none.
FEW = 50


@styled
def eigenvalue_density(
    eigenvalues: np.ndarray, cross: float, unconverged: np.ndarray | None = None
) -> Figure:
    """Fig. 5: the eigenvalues found, as a histogram with the smaller half in the inset.

    Fewer than 50 are counted instead: how many are at least λ, with a line below for each.

    Args:
        eigenvalues: [k].
        cross: λ_cross.
        unconverged: which of them are marked as such, bool [k].
    """
    figure, axes = new_figure(COLUMN, 2.5)
    few = len(eigenvalues) < FEW
    (count_panel if few else spectrum_panel)(axes[0, 0], eigenvalues, cross, unconverged)
    legend_if_needed(axes[0, 0], "upper right" if few else (0.2, 0.88))
    return figure


def spectrum_panel(
    axis: Axes, eigenvalues: np.ndarray, cross: float, unconverged: np.ndarray | None = None
) -> None:
    """Histogram of the eigenvalues, the smaller half of them in an inset (Fig. 5)."""
    values = np.asarray(eigenvalues)
    _, edges, _ = axis.hist(values, 60, color=BLUE)
    crosses(axis, values, np.ones_like(values), unconverged)
    axis.set(yscale="log", xlabel=EIGENVALUE, ylabel=f"eigenvalues per {np.diff(edges)[0]:.2g}")
    _mark_crossover(axis, values, cross)
    # Nothing of the panel shows between the inset's labels.
    axis.add_patch(Rectangle((0.41, 0.4), 0.59, 0.58, transform=axis.transAxes, color="white",
                             zorder=3))  # fmt: skip
    inset = axis.inset_axes((0.52, 0.5, 0.48, 0.4))
    _, edges, _ = inset.hist(values[values <= np.median(values)], 25, color=BLUE)
    inset.set_title(f"smaller half, down to {values.min():.2g}", fontsize=6.5, pad=2)
    inset.set_ylabel(f"per {np.diff(edges)[0]:.2g}", fontsize=6, labelpad=1)
    inset.tick_params(labelsize=6, pad=1.5)
    inset.locator_params(nbins=4)


def count_panel(
    axis: Axes, eigenvalues: np.ndarray, cross: float, unconverged: np.ndarray | None = None
) -> None:
    """How many eigenvalues are at least λ, and a short line at each (Fig. 5 of few of them)."""
    values = np.asarray(eigenvalues)
    order = np.argsort(values)[::-1]
    falling, counts = values[order], np.arange(1, len(values) + 1)
    axis.step(falling, counts, where="post", color=BLUE, linewidth=0.9, label="_count")
    axis.plot(falling, counts, "o", color=BLUE, markersize=2.5)
    axis.plot(falling, np.full(len(values), 0.02), "|", transform=axis.get_xaxis_transform(),
              color=BLUE, markersize=6, markeredgewidth=0.7, label="_rug")  # fmt: skip
    marked = None if unconverged is None else np.asarray(unconverged)[order]
    crosses(axis, falling, counts, marked)
    scale = "log" if falling[-1] > 0 else "linear"
    axis.set(xscale=scale, xlabel=EIGENVALUE, ylabel="eigenvalues of at least $\\lambda$")
    axis.set_ylim(-0.08 * len(values), None)
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    _mark_crossover(axis, values, cross)


def _mark_crossover(axis: Axes, values: np.ndarray, cross: float) -> None:
    if cross <= values.max():
        mark_x(axis, cross, CROSS)
    elif not np.isnan(cross):
        axis.set_title(f"all below {CROSS} = {cross:.2g}", color=GREY, fontsize=7)


@styled
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
    figure, axes = new_figure(COLUMN, 2.5)
    axis, found = axes[0, 0], np.sort(eigenvalues)[::-1]
    positive = nodes[nodes > 0]
    grid = np.geomspace(max(positive.min(), 1e-3 * found[-1]), positive.max(), 400)
    above = nodes[:, None, :] > grid[:, None]
    counts = np.sum(weights[:, None, :] * above, axis=2)
    mean, error = counts.mean(0), counts.std(0, ddof=1) / len(counts) ** 0.5
    axis.plot(grid, mean, color=ORANGE, label="all, by the density, ± one standard error")
    axis.fill_between(grid, mean - error, mean + error, color=ORANGE, alpha=0.35, lw=0)
    axis.step(found, np.arange(1, len(found) + 1), color=BLUE, label="those found", where="post")
    axis.set(
        xscale="log", yscale="log", xlabel=EIGENVALUE, ylabel="eigenvalues above $\\lambda$",
        ylim=(0.5, 2 * weights.sum(1).max()),
    )  # fmt: skip
    mark_x(axis, cross, CROSS)
    axis.legend(loc="lower left")
    return figure


@styled
def tracked_eigenvalues(
    epochs: np.ndarray, values: np.ndarray, cross: np.ndarray, edge: np.ndarray
) -> Figure:
    """The leading eigenvalues along training, with λ_cross and the edge of stability.

    Args:
        epochs: passes over the examples before each solve, [n].
        values: descending, [n, k].
        cross: λ_cross at the learning rate of each epoch, nan where there is none, [n].
        edge: 2(1+β)/η at that of each epoch, nan where there is none, [n].
    """
    figure, axes = new_figure(COLUMN, 2.5)
    axis = axes[0, 0]
    shown = np.where(np.asarray(values) > 0, values, np.nan)
    axis.plot(epochs, shown[:, 1:], color=BLUE, linewidth=0.6, marker="o", markersize=1.2,
              alpha=0.5)  # fmt: skip
    axis.plot(epochs, shown[:, 0], color=BLUE, marker="o", markersize=2.5,
              label=f"largest of {shown.shape[1]} eigenvalues")  # fmt: skip
    for line, style, name in ((edge, "--", "stability, $2(1+\\beta)/\\eta$"), (cross, ":", CROSS)):
        if np.isfinite(line).any():
            axis.plot(epochs, line, style, color=GREY, label=name)
    axis.set(yscale="log", xlabel="epoch of training", ylabel=EIGENVALUE)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure
