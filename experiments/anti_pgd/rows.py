"""What the six ways to descend lead to, in rows."""

from typing import Any

import numpy as np
from scipy import stats

from antisgd.study.findings.rows import Rows, mean_row, row
from experiments.anti_pgd import descents as ways
from experiments.anti_pgd import minima

__all__ = ["TITLES", "minima_rows", "noise_rows", "precision_rows", "window_rows"]

TITLES = {
    "without_replacement": "without replacement",
    "with_replacement": "with replacement",
    "full_batch": "full batches",
    "white_noise": "white noise",
    "anti_correlated_noise": "anti-correlated noise",
    "strong_noise": "strong anti-correlated noise",
}
PAIRS = (
    ("without_replacement", "with_replacement"),
    ("without_replacement", "full_batch"),
    ("anti_correlated_noise", "white_noise"),
    ("anti_correlated_noise", "full_batch"),
    ("strong_noise", "full_batch"),
)
# Identifier → words, item of the paper, and the value of every seed.
QUANTITIES = {
    "test_accuracy": ("test accuracy", "Sec. 7", lambda found: found.curves[:, 3]),
    "trace": ("trace of the Hessian", "Conclusion", lambda found: found.trace),
    "largest_eigenvalue": (
        "largest Hessian eigenvalue", "Conclusion", lambda found: found.eigenvalues[:, 0],
    ),
    "train_loss": ("training cross-entropy", "Conclusion", lambda found: found.curves[:, 0]),
}  # fmt: skip


def minima_rows(found: dict[str, minima.Minima]) -> Rows:
    """Every quantity at the minima, mean over the seeds, and the differences paired by seed."""
    rows = []
    for key, (words, item, of) in QUANTITIES.items():
        values = {name: np.asarray(of(one), np.float64) for name, one in found.items()}
        rows += [
            mean_row(f"{key}_{name}", item, f"{words}, {TITLES[name]}", values[name])
            for name in found
        ]
        rows += [_difference(key, item, words, values, *pair) for pair in PAIRS]
    return rows


def _difference(key, item, words, values, first, second) -> dict[str, Any]:
    p = stats.ttest_rel(values[first], values[second]).pvalue
    return mean_row(
        f"{key}_{first}_minus_{second}", item,
        f"{words}, {TITLES[first]} minus {TITLES[second]}",
        values[first] - values[second], note=f"paired by seed, p = {p:.2g}",
    )  # fmt: skip


def noise_rows(trained: dict[str, ways.Descent]) -> Rows:
    """How strong the matched noise is, and whether drawing with replacement makes it stronger."""
    without, other = (trained[name].deviations for name in ways.MINIBATCHES)
    words = "standard deviation of the noise of one weight"
    return [
        mean_row("noise_first", "Sec. 2", f"{words}, first epoch", without[:, 0]),
        mean_row("noise_mean", "Sec. 2", f"{words}, root mean square over training",
                 np.sqrt(np.mean(without**2, axis=1))),
        mean_row("noise_last", "Sec. 2", f"{words}, last epoch and recorded window",
                 without[:, -1]),
        mean_row("noise_ratio", "App. G", "noise variance with over without replacement, training",
                 np.mean(other**2, axis=1) / np.mean(without**2, axis=1)),
    ]  # fmt: skip


def window_rows(windows: dict[str, list[minima.Window]]) -> Rows:
    """Variances of the shaken weights over the theory of their own noise, and of white noise."""
    rows = []
    for name, seeds in windows.items():
        for quantity in ("weight", "velocity"):
            ratio = [_ratio(one.measured, one.expected, quantity) for one in seeds]
            words = f"{quantity} variance over the finite-window theory of its law, {TITLES[name]}"
            note = "mean over the leading eigenvectors; above 1 also where descent is left"
            identifier = f"{quantity}_over_theory_{name}"
            rows.append(mean_row(identifier, "Eq. 6", words, ratio, note=note))
    seeds = windows["anti_correlated_noise"]
    expected = np.mean([_ratio(one.expected, one.white, "weight") for one in seeds])
    ratio = [_ratio(one.measured, one.white, "weight") for one in seeds]
    words = "weight variance over the theory of white noise, anti-correlated noise"
    note = f"the theory of its own law gives {expected:.3g}"
    return [*rows, mean_row("weight_over_white_theory", "Eq. 6", words, ratio, note=note)]


def _ratio(one: Any, other: Any, quantity: str) -> float:
    return float(np.mean(getattr(one, quantity) / getattr(other, quantity)))


def precision_rows(found: dict[str, minima.Minima]) -> Rows:
    """How exact the traces are, and how near the networks are to their minima."""
    error = np.sqrt(np.mean([one.trace_error**2 for one in found.values()]))
    gradient = np.concatenate([one.gradient for one in found.values()])
    return [
        row("trace_error", "Conclusion", "standard error of one trace by its random vectors", error,
            n=gradient.size),
        row("gradient_norm", "Conclusion", "norm of the gradient at the minima, largest",
            gradient.max(), n=gradient.size),
    ]  # fmt: skip
