"""The curvature along the path of a period, and what it explains of the times (Sec. 5)."""

import numpy as np

from antisgd.study.findings.rows import Rows, median_row
from antisgd.study.stages.analysis import Analysis
from antisgd.study.stages.validity import PathCurvature

__all__ = ["rows"]


def rows(found: PathCurvature, one: Analysis, eigenvalues: np.ndarray, scheme: str) -> Rows:
    """p·H(θ_t)p over λ, and measured over predicted correlation times with and without it.

    Args:
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
    return [end, *_time_rows(found, one, eigenvalues, scheme, figure)]


def _time_rows(
    found: PathCurvature, one: Analysis, eigenvalues: np.ndarray, scheme: str, figure: str
) -> Rows:
    place = np.cumsum(eigenvalues > 0) - 1
    usable = (eigenvalues[found.directions] > 0) & np.isfinite(found.expected_time)
    if not usable.any():
        return []
    inside = place[found.directions[usable]]
    measured = one.measured.correlation_time[inside]
    at_start = measured / one.window.correlation_time[inside]
    on_the_way = measured / found.expected_time[usable]
    quantity = "correlation time over the finite-window theory at the curvature "
    made = []
    for name, words, values in (
        ("start", "of theta_K", at_start),
        ("path", "measured along the path", on_the_way),
    ):
        made.append(
            median_row(
                f"tau_over_theory_at_{name}_{scheme}", figure,
                f"{quantity}{words}, median of the directions where both are known", values,
            )
        )  # fmt: skip
    return made
