"""The curvature along the path of a period, and what it explains of the times (Sec. 5).

By Hessian products, and by secants that count the kinks of the loss which no product sees.
"""

import numpy as np

from antisgd import statistics
from antisgd.study.conditions import Conditions
from antisgd.study.findings.rows import Rows, median_row, row
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
    positive = values > 0
    sides = {"": positive}
    if conditions.has_theory:
        above = values >= conditions.crossover
        sides |= {"_above": positive & above, "_below": positive & ~above}
    made = [end, *_noise_rows(found, one, eigenvalues, scheme)]
    for side, usable in sides.items():
        if usable.any():
            made += _secant_rows(found, one, eigenvalues, usable, side, scheme, figure)
    return made + _weight_rows(found, one, eigenvalues, scheme, figure)


def _noise_rows(found: PathCurvature, one: Analysis, eigenvalues: np.ndarray, scheme: str) -> Rows:
    """The recorded noise over that of the examples' gradients at places of the path."""
    usable = (eigenvalues[found.directions] > 0) & np.all(found.noise > 0, axis=0)
    if not usable.any():
        return []
    inside = (np.cumsum(eigenvalues > 0) - 1)[found.directions[usable]]
    ratio = one.noise[inside] / found.noise[:, usable].mean(axis=0)
    made = median_row(
        f"noise_over_path_{scheme}", "App. G",
        "recorded noise variance over that of the gradients of all examples at the ends of "
        "epochs, median", ratio,
    )  # fmt: skip
    each = ", ".join(f"{x:.3g}" for x in np.median(one.noise[inside] / found.noise[:, usable], 1))
    made["note"] = f"over each of the places {each}; error over directions, of one run"
    return [made]


def _secant_rows(
    found: PathCurvature,
    one: Analysis,
    eigenvalues: np.ndarray,
    usable: np.ndarray,
    side: str,
    scheme: str,
    figure: str,
) -> Rows:
    """Of the directions on one side of the crossover or on both."""
    ratio = found.secant / eigenvalues[found.directions]
    where = f", {side[1:]} the crossover" if side else ""
    words = f"curvature of secants over the Hessian's of theta_K, median{where}"
    secant = median_row(
        f"secant_curvature{side}_{scheme}", figure, words, ratio.mean(axis=0)[usable]
    )
    start = np.median(ratio[0, usable])
    secant["note"] = f"over the fluctuation, kinks counted; about theta_K alone {start:.3g}"
    known = usable & np.isfinite(found.expected_time) & np.isfinite(found.secant_time)
    if not known.any():
        return [secant]
    inside = (np.cumsum(eigenvalues > 0) - 1)[found.directions[known]]
    return [secant, *_time_rows(one, inside, found, known, side, where, scheme, figure)]


def _weight_rows(
    found: PathCurvature, one: Analysis, eigenvalues: np.ndarray, scheme: str, figure: str
) -> Rows:
    """Weight variances of all directions of positive curvature, and their exponent by theory."""
    positive = eigenvalues > 0
    lam, at_secants = eigenvalues[positive], one.noise * found.secant_weight[positive]
    known = np.isfinite(one.window.weight) & np.isfinite(at_secants)
    if not known.any():
        return []
    measured, quantity = one.measured.weight[known], "weight variance over the finite-window theory"
    start = median_row(
        f"weight_over_theory_at_start_{scheme}", figure,
        f"{quantity} at the curvature of theta_K, median",
        measured / (one.noise * one.window.weight)[known],
    )  # fmt: skip
    secant = median_row(
        f"weight_over_theory_at_secant_{scheme}", figure,
        f"{quantity} at the curvature of secants, kinks counted, median",
        measured / at_secants[known],
    )  # fmt: skip
    low, high = one.fit_spans["weight"]
    fitted = known & (lam >= low) & (lam <= high)
    words = (
        f"secants of {len(found.directions)} directions, between them interpolated in log lambda"
    )
    secant["note"] = words
    if fitted.sum() < 3:
        return [start, secant]
    exponent = row(
        f"weight_exponent_theory_at_secant_{scheme}", figure,
        "exponent of the weight variance, by the finite-window theory with the measured noise at "
        "the curvature of secants, kinks counted",
        statistics.fit_power_law(lam[fitted], at_secants[fitted]).exponent,
    )  # fmt: skip
    return [start, secant, exponent | {"note": words}]


def _time_rows(
    one: Analysis,
    inside: np.ndarray,
    found: PathCurvature,
    known: np.ndarray,
    side: str,
    where: str,
    scheme: str,
    figure: str,
) -> Rows:
    """Of some directions of the analysis, on one side of the crossover or on both."""
    measured = one.measured.correlation_time[inside]
    ways = {
        "start": ("of theta_K", one.window.correlation_time[inside]),
        "path": ("measured along the path", found.expected_time[known]),
        "secant": ("of secants, kinks counted", found.secant_time[known]),
    }
    return [
        median_row(
            f"tau_over_theory_at_{name}{side}_{scheme}", figure,
            f"correlation time over the finite-window theory at the curvature {words}, median of "
            f"the directions where all are known{where}", measured / expected,
        )
        for name, (words, expected) in ways.items()
    ]  # fmt: skip
