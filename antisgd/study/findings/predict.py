"""The prediction from θ_K alone beside what the period shows: Fig. 2 and 7 without a parameter."""

from collections.abc import Mapping

import numpy as np

from antisgd.study.conditions import Conditions
from antisgd.study.findings import bins
from antisgd.study.findings.rows import Rows, median_row, row
from antisgd.study.stages.analysis import Analysis
from antisgd.study.stages.predict import Prediction

__all__ = ["rows", "shown"]

_WORDS = "correlation time over the parameter-free prediction"


def rows(
    conditions: Conditions,
    found: Prediction,
    one: Analysis | None,
    eigenvalues: np.ndarray,
    scheme: str,
) -> Rows:
    """What was predicted and, where a period was recorded, measured over predicted.

    Args:
        conditions: of the period.
        found: the prediction.
        one: the period's statistics, along the directions of positive curvature; None: no period.
        eigenvalues: λ of all directions, [k].
        scheme: of the period.
    """
    figure = "Fig. 2" if scheme == "without_replacement" else "Fig. 7"
    refused = bool(found.refused)
    count = row(
        f"predicted_directions_{scheme}", figure,
        "directions with a prediction from theta_K alone", 0 if refused else len(found.places),
        n=len(eigenvalues), note=found.refused or _conditions(found),
    )  # fmt: skip
    if refused:
        return [count]
    made = [count, *_average_rows(found, eigenvalues, scheme, figure), *_sum_rows(found, scheme)]
    if one is None:
        return made
    made += _measured_rows(found, one, eigenvalues, scheme, figure)
    return made + _binned_rows(conditions, found, one, eigenvalues, scheme)


def _conditions(found: Prediction) -> str:
    spread = (
        "nothing drawn outside them (no spectral density)"
        if np.isnan(found.length_outside)
        else f"outside them draws of the noise, {found.length_outside:.2g} long, by the spectral "
        "density"
    )
    pairs, n = found.pair_curvature.shape
    return (
        f"averages over {2 * pairs} drawn weights at {n} directions, interpolated between; "
        f"{spread}; {found.iterations} iterations"
    )


def _average_rows(found: Prediction, eigenvalues: np.ndarray, scheme: str, figure: str) -> Rows:
    """Averaged curvature and noise over those of θ_K; what the draws leave uncertain."""
    made = []
    for name, words, values, pairs in (
        ("curvature", "curvature", found.curvature / eigenvalues[found.places],
         found.pair_curvature),
        ("noise", "noise variance", found.noise / found.start_noise, found.pair_noise),
    ):  # fmt: skip
        ratio = median_row(
            f"predicted_{name}_{scheme}", figure,
            f"{words} averaged over the weights of the period, predicted, over that at theta_K, "
            "median", values,
        )  # fmt: skip
        low, high = np.percentile(values, [10, 90])
        error = _drawn_error(pairs)
        ratio["note"] = (
            f"10th to 90th percentile {low:.3g} to {high:.3g}; the draws leave {error:.2g}; error "
            "over directions"
        )
        made.append(ratio)
        made.append(
            row(
                f"predicted_{name}_error_{scheme}", figure,
                f"standard error of the averaged {words}, relative, from the draws", error,
                n=len(pairs), note="scatter of the mean over directions between pairs of draws",
            )
        )  # fmt: skip
    return made


def _sum_rows(found: Prediction, scheme: str) -> Rows:
    """What reshuffling makes of the noise: how far it cancels, and of examples not yet drawn."""
    if not found.changing.size:
        return []
    return [
        row(
            f"predicted_epoch_sums_{scheme}", "Sec. 3",
            "variance of the noise summed over an epoch, over that of independent noise, predicted",
            found.changing.mean(),
            found.changing.std(ddof=1) / np.sqrt(len(found.changing)), n=len(found.changing),
            note="what the examples' gradients change within an epoch; error from the draws",
        ),
        median_row(
            f"predicted_own_step_{scheme}", "App. G",
            "noise of examples drawn before their own step of the epoch over that of all, "
            "predicted, median", found.own_step,
        ),
    ]  # fmt: skip


def _drawn_error(pairs: np.ndarray) -> float:
    """Relative standard error of the mean over directions, from pairs of draws [pairs, n]."""
    means = pairs.mean(axis=1)
    return float(means.std(ddof=1) / np.sqrt(len(means)) / means.mean())


def _measured_rows(
    found: Prediction, one: Analysis, eigenvalues: np.ndarray, scheme: str, figure: str
) -> Rows:
    """Measured over predicted, the harmonic theory at θ_K along the same directions beside it."""
    inside = _inside(found, eigenvalues)
    measured = one.measured.correlation_time[inside]
    ratio = measured / found.correlation_time
    harmonic = measured / one.window.correlation_time[inside]
    low, high = found.time_band.T
    within = np.mean((ratio > low) & (ratio < high))
    count = len(ratio)
    made = [
        median_row(f"tau_over_prediction_{scheme}", figure, f"{_WORDS}, median", ratio)
        | {"note": "of theta_K alone; theory 1, less the skewness of a single window"},
        median_row(
            f"tau_over_harmonic_{scheme}", figure,
            "correlation time over the theory at the curvature of theta_K, same directions, median",
            harmonic,
        ),
        row(
            f"tau_within_prediction_{scheme}", figure,
            "share of correlation times within the 95 % band of the prediction", within,
            np.sqrt((within * (1 - within) + 1 / count) / count), n=count, note="theory 0.95",
        ),
    ]  # fmt: skip
    for name, words in (("weight", "weight variance"), ("velocity", "velocity variance")):
        each = getattr(one.measured, name)[inside] / getattr(found, name)
        quantity = f"{words} over the parameter-free prediction, median"
        made.append(median_row(f"{name}_over_prediction_{scheme}", figure, quantity, each))
    changed = one.noise[inside] / found.noise
    quantity = "recorded noise variance over the averaged one of the prediction, median"
    return [*made, median_row(f"noise_over_prediction_{scheme}", figure, quantity, changed)]


def _binned_rows(
    conditions: Conditions, found: Prediction, one: Analysis, eigenvalues: np.ndarray, scheme: str
) -> Rows:
    """Weight variance and correlation time over their prediction, in bins of λ/λ_cross."""
    inside, position = _inside(found, eigenvalues), eigenvalues[found.places] / conditions.crossover
    made = []
    for name, key, words in (
        ("weight", "weight", "weight variance"), ("correlation_time", "tau", "correlation time"),
    ):  # fmt: skip
        ratio = getattr(one.measured, name)[inside] / getattr(found, name)
        words = f"{words} over the parameter-free prediction"
        made += bins.mean_rows(f"{key}_over_prediction", words, position, ratio, scheme)
    return made


def _inside(found: Prediction, eigenvalues: np.ndarray) -> np.ndarray:
    """Where the predicted directions stand among those of positive curvature."""
    return (np.cumsum(eigenvalues > 0) - 1)[found.places]


def shown(
    found: Mapping[str, Prediction], eigenvalues: np.ndarray, titles: Mapping[str, str]
) -> dict[str, dict[str, np.ndarray]]:
    """What Fig. 2 and 7 draw of the predictions: title → λ and three quantities, [p] each."""
    return {
        titles[scheme]: {
            "eigenvalues": eigenvalues[one.places],
            "weight": one.weight,
            "velocity": one.velocity,
            "correlation_time": one.correlation_time,
        }
        for scheme, one in found.items()
        if not one.refused
    }
