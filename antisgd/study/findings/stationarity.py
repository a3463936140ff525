"""Whether a period is stationary, by the fluctuation relation, and by nothing of the theory."""

import numpy as np

from antisgd import plotting
from antisgd.study.conditions import Conditions
from antisgd.study.findings.rows import Rows, mean_row, median_row, row
from antisgd.study.stages.analysis import Analysis

__all__ = ["rows"]


def rows(conditions: Conditions, one: Analysis, scheme: str) -> Rows:
    """ηE[θ_{k−1}g_k] over ½(1+β)E[v²], less one, in both halves; the slope of full gradients.

    The relation holds for any loss and any noise, so that it tests stationarity and nothing else;
    it needs no full gradient. The slope on displacements, which does, obeys it too.
    """
    made = []
    if len(one.balance):
        residual = one.balance.mean(axis=0)
        item, quantity = "beyond", "fluctuation relation, work over motion less one, mean"
        note = "0 if stationary, whatever the loss; mean over both halves, error over directions"
        made.append(mean_row(f"stationarity_{scheme}", item, quantity, residual, note=note))
        # Drift that slows down leaves the relation, by more than what else there is.
        steady = one.drift_share <= plotting.MOSTLY_DRIFT
        if steady.sum() > 1:
            id, words = f"stationarity_without_drift_{scheme}", ", of directions not mostly drift"
            made.append(mean_row(id, item, quantity + words, residual[steady], note=note))
        far = np.abs(one.balance) > 2 * one.balance_error
        made.append(
            row(
                f"not_stationary_{scheme}", item,
                "share of directions and halves that leave the fluctuation relation by 2 errors",
                far.mean(), n=far.size, note="0.05 if stationary",
            )
        )  # fmt: skip
    time = (1 + conditions.momentum) / (conditions.learning_rate * one.slope)
    usable = np.isfinite(time) & (time > 0)
    if usable.any():
        ratio = one.measured.correlation_time[usable] / time[usable]
        quantity = "correlation time over (1+beta)/(eta slope of full gradients), median"
        slope = median_row(f"slope_stationarity_{scheme}", "beyond", quantity, ratio)
        words = "1 for white noise in a stationary state, whatever the loss: no test of curvature"
        made.append(slope | {"note": words})
    return made
