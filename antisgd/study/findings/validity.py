"""The curvature along the path of a period, and what it explains of the times (Sec. 5)."""

import numpy as np

from antisgd.study.conditions import Conditions
from antisgd.study.findings.rows import Rows, median_row
from antisgd.study.stages.analysis import Analysis
from antisgd.study.stages.validity import PathCurvature

__all__ = ["rows"]


def rows(
    conditions: Conditions,
    found: PathCurvature,
    one: Analysis,
    eigenvalues: np.ndarray,
    scheme: str,
) -> Rows:
    """p·H(θ_t)p over λ, and measured over predicted correlation times with and without it.

    Args:
        conditions: of the period.
        found: curvature along some directions.
        one: the period's statistics, along the directions of positive curvature.
        eigenvalues: λ of all directions, [k].
        scheme: of the period.
    """
    values = eigenvalues[found.directions]
    ratio = found.curvature / values
    figure = "Sec. 5" if scheme == "without_replacement" else "App. G"
    end = median_row(
        f"end_curvature_{scheme}", figure,
        "curvature along the directions at the period's end over its start, median", ratio[-1],
    )  # fmt: skip
    along = ", ".join(f"{value:.3g}" for value in np.median(ratio, axis=1))
    low, high = np.percentile(ratio[-1], [10, 90])
    end["note"] = (
        f"by Hessian products, medians along the path {along}; at the end 10th to 90th percentile "
        f"{low:.3g} to {high:.3g}; error over directions, of one run"
    )
    made = [end]
    place = np.cumsum(eigenvalues > 0) - 1
    known = (values > 0) & np.isfinite(found.expected_time)
    sides = {"": known}
    if conditions.has_theory:
        above = values >= conditions.crossover
        sides |= {"_above": known & above, "_below": known & ~above}
    for side, usable in sides.items():
        if usable.any():
            inside = place[found.directions[usable]]
            times = found.expected_time[usable]
            made += _time_rows(one, inside, times, side, scheme, figure)
    return made


def _time_rows(
    one: Analysis, inside: np.ndarray, expected: np.ndarray, side: str, scheme: str, figure: str
) -> Rows:
    """Of some directions of the analysis, on one side of the crossover or on both."""
    measured = one.measured.correlation_time[inside]
    where = f", {side[1:]} the crossover" if side else ""
    ways = {
        "start": ("of theta_K", measured / one.window.correlation_time[inside]),
        "path": ("measured along the path", measured / expected),
    }
    return [
        median_row(
            f"tau_over_theory_at_{name}{side}_{scheme}", figure,
            f"correlation time over the finite-window theory at the curvature {words}, median of "
            f"the directions where both are known{where}", values,
        )
        for name, (words, values) in ways.items()
    ]  # fmt: skip
