"""What the density of all eigenvalues says: Fig. 5, Sec. 7."""

import numpy as np

from antisgd import plotting, theory
from antisgd.lanczos import SpectralDensity
from antisgd.study.conditions import Conditions
from antisgd.study.findings.rows import Panels, Rows, row

__all__ = ["panels", "reduction", "rows"]


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
    fluctuation, error = reduction(conditions, found, noiseless_curvature)
    vectors = f"{len(found.nodes)} random vectors"
    quantity = "reduction of the loss fluctuation, all directions of positive curvature"
    note = f"by the theory with C = H but for the penalty, which makes no noise; {vectors}"
    count = "eigenvalues above the crossover, by the spectral density"
    return [
        row("loss_fluctuation_reduction_all", "Sec. 7", quantity, fluctuation, error, n=d,
            note=note),
        row("density_above_crossover", "Fig. 5", count, d * above, d * above_error, n=d,
            note=vectors),
    ]  # fmt: skip


def panels(
    conditions: Conditions, found: SpectralDensity, dimension: int, eigenvalues: np.ndarray
) -> Panels:
    """How many eigenvalues lie above each λ: all, by the density, and those found."""
    figure = plotting.spectrum_count(
        found.nodes, found.weights * dimension, eigenvalues, conditions.crossover
    )
    return {"spectrum": figure}


def reduction(
    conditions: Conditions, found: SpectralDensity, noiseless_curvature: float
) -> tuple[float, float]:
    """1 − Σ λcV/Σ λcV_white over the nodes, and its error by leaving out one random vector.

    c is λ less the noiseless curvature.
    """
    sums, positive = [], np.clip(found.nodes, 1e-12, None)
    noise = np.clip(found.nodes - noiseless_curvature, 0, None)
    M = conditions.steps_per_epoch
    for law in (theory.without_replacement(M), theory.with_replacement()):
        V = theory.stationary_variances(
            positive, conditions.learning_rate, conditions.momentum, law
        )
        sums.append(np.sum(found.weights * positive * noise * V.weight, axis=1))
    anti, white = sums
    left_out = 1 - (anti.sum() - anti) / (white.sum() - white)
    error = np.sqrt((len(anti) - 1) * left_out.var())
    return float(1 - anti.sum() / white.sum()), float(error)
