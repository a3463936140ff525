"""What the density of all eigenvalues says: Fig. 5, Sec. 7."""

import numpy as np

from antisgd import plotting, theory
from antisgd.lanczos import SpectralDensity
from antisgd.study.conditions import Conditions
from antisgd.study.findings.rows import Panels, Rows, row

__all__ = ["LEADING", "panels", "reduction", "rows"]

# Sec. 7's 62 % is of the paper's 5,000 eigenvalues, which is not the number of fewer or of all.
LEADING = (300, 5000)


def rows(
    conditions: Conditions, found: SpectralDensity, dimension: int, noiseless_curvature: float
) -> Rows:
    """Sec. 7's reduction of the loss fluctuation for all directions; eigenvalues above λ_cross.

    Args:
        conditions: of the period.
        found: the density.
        dimension: d.
        noiseless_curvature: of the penalty, the same in every batch.
    """
    cross, d = conditions.crossover, dimension
    above, above_error = found.mean(lambda x: x > cross)
    vectors = f"{len(found.nodes)} random vectors"
    note = f"by the theory with C = H but for the penalty, which makes no noise; {vectors}"
    made = []
    for leading in (*(k for k in LEADING if k < d), None) if conditions.heavy_ball else ():
        name = "all" if leading is None else str(leading)
        which = "all" if leading is None else f"the {leading:,} leading"
        fluctuation, error = reduction(conditions, found, noiseless_curvature, d, leading)
        quantity = f"reduction of the loss fluctuation, {which} directions of positive curvature"
        made.append(
            row(f"loss_fluctuation_reduction_{name}", "Sec. 7", quantity, fluctuation, error,
                n=leading or d, note=note)
        )  # fmt: skip
    count = "eigenvalues above the crossover, by the spectral density"
    above_row = row(
        "density_above_crossover", "Fig. 5", count, d * above, d * above_error, n=d, note=vectors
    )
    return [*made, above_row] if conditions.has_theory else []


def panels(
    conditions: Conditions, found: SpectralDensity, dimension: int, eigenvalues: np.ndarray
) -> Panels:
    """How many eigenvalues lie above each λ: all, by the density, and those found."""
    figure = plotting.spectrum_count(
        found.nodes, found.weights * dimension, eigenvalues, conditions.crossover
    )
    return {"spectrum": figure}


def reduction(
    conditions: Conditions,
    found: SpectralDensity,
    noiseless_curvature: float,
    dimension: int,
    leading: int | None = None,
) -> tuple[float, float]:
    """1 − Σ λcV/Σ λcV_white over the nodes, and its error by leaving out one random vector.

    c is λ less the noiseless curvature.

    Args:
        conditions: of the period.
        found: the density.
        noiseless_curvature: of the penalty.
        dimension: d.
        leading: only so many of the largest eigenvalues, as each random vector tells them; the
            node that the number falls into counts in part. None for all.
    """
    weights = found.weights
    if leading is not None:
        # Ritz values come largest first.
        before = np.cumsum(weights, axis=1) - weights
        weights = np.clip(leading / dimension - before, 0, weights)
    sums, positive = [], np.clip(found.nodes, 1e-12, None)
    noise = np.clip(found.nodes - noiseless_curvature, 0, None)
    M = conditions.steps_per_epoch
    for law in (theory.without_replacement(M), theory.with_replacement()):
        V = theory.stationary_variances(
            positive, conditions.learning_rate, conditions.momentum, law
        )
        sums.append(np.sum(weights * positive * noise * V.weight, axis=1))
    anti, white = sums
    left_out = 1 - (anti.sum() - anti) / (white.sum() - white)
    error = np.sqrt((len(anti) - 1) * left_out.var())
    return float(1 - anti.sum() / white.sum()), float(error)
