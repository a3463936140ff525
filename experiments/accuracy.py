"""Loss and accuracy of the trained networks: Fig. 8 and the comparison of regimes of Sec. 7."""

from functools import partial
from typing import Any

import numpy as np
from absl import flags
from scipy import stats

from antisgd import plotting
from experiments import training
from experiments.comparison import mean_row, row
from experiments.figures import TITLES

FLAGS = flags.FLAGS

# Best test accuracy, mean of 20 seeds; their difference is given as 0.008 ± 0.002, taken as one
# standard error: the paper does not say.
PAPER = {"without_replacement": 0.645, "with_replacement": 0.637}


def training_rows(problem: training.Problem, trained: training.Training) -> list[dict[str, Any]]:
    """Fig. 8's end points (the paper's are those of 100 epochs) and, with several seeds, Sec. 7."""
    if not FLAGS.epochs:
        return []
    first, curves = training.network(trained, 0).params, trained.curves
    on_all = partial(training.full_accuracy, problem.apply, first)
    final, final_test = map(on_all, problem.dataset)
    whole = FLAGS.epochs >= 100
    rows = [
        row(
            "train_accuracy",
            "Fig. 8",
            "training accuracy after training",
            final.accuracy,
            paper=1.0 if whole else None,
            note="all training pictures, first seed",
        ),
        row("train_loss", "Fig. 8", "training cross-entropy", final.loss, unit="nat"),
        row(
            "test_accuracy",
            "Fig. 8",
            "test accuracy after training",
            final_test.accuracy,
            paper=0.63 if whole else None,
            note="all test pictures, first seed",
        ),
        row(
            "best_test_accuracy",
            "Fig. 8",
            "best test accuracy over epochs",
            curves["test_accuracy"][0].max(),
            paper=0.645,
            note=f"first seed, {FLAGS.epochs} epochs; the paper's value is the mean of 20",
        ),
    ]
    regimes = len(training.schemes())
    if FLAGS.seeds > 1 and regimes > 1:
        accuracy = curves["test_accuracy"].reshape(regimes, FLAGS.seeds, -1)
        rows += _seed_rows(accuracy.max(axis=-1), "best", PAPER)
        rows += _seed_rows(accuracy[..., -1], "last", {})
    return rows


def _seed_rows(accuracy: np.ndarray, which: str, paper: dict[str, float]) -> list[dict[str, Any]]:
    """Mean accuracy of each regime and their paired difference."""
    names = [name.replace("_", " ") for name in FLAGS.sampling]
    paired = stats.ttest_rel(*accuracy)
    known = [paper.get(name) for name in FLAGS.sampling]
    rows = [
        mean_row(
            f"{which}_accuracy_{FLAGS.sampling[i]}",
            "Sec. 7",
            f"test accuracy, {which} epoch, {names[i]}",
            accuracy[i],
            paper=known[i],
            note=f"{FLAGS.epochs} epochs",
        )
        for i in range(2)
    ]
    rows.append(
        mean_row(
            f"{which}_accuracy_difference",
            "Sec. 7",
            f"difference of test accuracy, {which} epoch, {names[0]} minus {names[1]}",
            accuracy[0] - accuracy[1],
            paper=known[0] - known[1] if paper else None,
            paper_error=0.002 if paper else None,
            note=f"paired by seed, p = {paired.pvalue:.2g}; {FLAGS.epochs} epochs",
        )
    )
    return rows


def training_figures(trained: training.Training) -> dict[str, Any]:
    """Fig. 8 of the first network, and the comparison of regimes if several seeds were trained."""
    if not FLAGS.epochs:
        return {}
    curves = {name: values[0] for name, values in trained.curves.items()}
    panels = {"fig08": plotting.training_curves(curves, FLAGS.epochs)}
    regimes = len(training.schemes())
    if FLAGS.seeds > 1 and regimes > 1:
        accuracy = trained.curves["test_accuracy"].reshape(regimes, FLAGS.seeds, -1)
        compared = {"best epoch": accuracy.max(axis=-1), "last epoch": accuracy[..., -1]}
        names = [TITLES[name] for name in FLAGS.sampling]
        panels["seeds"] = plotting.accuracy_comparison(compared, names)
    return panels
