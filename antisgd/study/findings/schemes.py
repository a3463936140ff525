"""What the anti-correlations change, both periods side by side: Sec. 7, Eq. 111, App. G."""

from collections.abc import Mapping

import numpy as np

from antisgd import theory
from antisgd.study.conditions import Conditions
from antisgd.study.findings.rows import Rows, mean_row, median_row, row
from antisgd.study.stages.analysis import Analysis

__all__ = ["rows"]


def rows(conditions: Conditions, analyses: Mapping[str, Analysis]) -> Rows:
    """The loss fluctuation of theory, then both schemes below the crossover.

    Args:
        conditions: of the periods.
        analyses: scheme → analysis, of one network.
    """
    if "without_replacement" not in analyses or not conditions.has_theory:
        return []
    one = analyses["without_replacement"]
    M, rate, beta = conditions.steps_per_epoch, conditions.learning_rate, conditions.momentum
    white, _ = conditions.stationary_variances(one.eigenvalues, theory.with_replacement())
    known = ~np.isnan(white)
    k = int(known.sum())
    if not k:
        return []
    reduction = theory.loss_fluctuation_reduction(
        one.eigenvalues[known], one.stationary.weight[known], white[known]
    )
    note = f"by the theory with C = H, for {k} eigenvalues"
    quantity = "reduction of the loss fluctuation"
    made = [row("loss_fluctuation_reduction", "Sec. 7", quantity, reduction, n=k, note=note)]
    flat = one.eigenvalues < conditions.crossover
    if flat.any() and conditions.heavy_ball:
        exact = one.noise[flat] @ one.stationary.weight[flat] / (one.noise @ (white * flat))
        ratio = theory.trace_ratio(one.eigenvalues, rate, beta, M, one.noise)
        made.append(
            row("trace_ratio", "Eq. 111", f"{_TRACES}, by Eq. 111 as corrected", ratio,
                n=int(flat.sum()), note=f"of the limits of Eq. 8 and 9; by Eq. 6 {exact:.3g}")
        )  # fmt: skip
    if flat.any() and "with_replacement" in analyses:
        other = analyses["with_replacement"]
        made += _flat_rows(one, other, flat)
        made += _plateau_rows(conditions, other)
    return made


_TRACES = "trace of the flat weight variances, without over with replacement"


def _flat_rows(one: Analysis, other: Analysis, flat: np.ndarray) -> Rows:
    """Both schemes below the crossover, as measured in the window."""
    ratio = other.measured.correlation_time[flat] / one.measured.correlation_time[flat]
    expected = other.window.correlation_time[flat] / one.window.correlation_time[flat]
    upper, lower = (of.spread.correlation_time[flat, 1:-1] for of in (other, one))
    scattered = expected[:, None, None] * upper[:, :, None] / lower[:, None, :]
    quantity = "correlation time with over without replacement below the crossover, median"
    ratios = median_row("regime_ratio", "App. G", quantity, ratio)
    ratios["note"] = f"finite-window theory {np.median(scattered):.3g}"
    anti, white = (of.measured.weight[flat] for of in (one, other))
    traces = anti.sum() / white.sum()
    # Of a ratio of sums over independent directions, to first order.
    error = np.linalg.norm(anti - traces * white) / white.sum()
    window = (of.noise[flat] @ of.window.weight[flat] for of in (one, other))
    return [
        ratios,
        row(
            "trace_ratio_measured", "Eq. 111", f"{_TRACES}, measured", traces, error,
            n=int(flat.sum()), note=f"finite-window theory {np.divide(*window):.3g}",
        ),
    ]  # fmt: skip


def _plateau_rows(conditions: Conditions, other: Analysis) -> Rows:
    """Where with replacement only the window limits the correlation time: λ < λ_cross M/T."""
    limit = conditions.max_correlation_time
    there = other.eigenvalues < conditions.crossover / conditions.epochs
    if there.sum() < 3:
        return []
    quantity = "correlation time with replacement over tau_SGD, where the window limits it, mean"
    return [
        mean_row(
            "plateau", "App. G", quantity, other.measured.correlation_time[there] / limit,
            note=f"finite-window theory {np.mean(other.window.correlation_time[there]) / limit:.3g}"
            f"; T/2M = {conditions.epochs / 2:g} in the flattest directions",
        )
    ]  # fmt: skip
