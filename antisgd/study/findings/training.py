"""Loss and accuracy of the trained networks: Fig. 8 and the comparison of schemes of Sec. 7."""

from collections.abc import Mapping

import numpy as np
from scipy import stats

from antisgd import plotting
from antisgd.study.findings.rows import Panels, Rows, mean_row, row
from antisgd.study.settings import Training
from antisgd.study.stages.period import Recording

__all__ = ["TITLES", "panels", "rows"]

TITLES = {"without_replacement": "without replacement", "with_replacement": "with replacement"}
_STEPS = (
    "first seed, with its own state and keys; all else is of the loss that is measured, at the "
    "state that training left, whose recorded noise comes from the sampling alone"
)
_WORDS = {"train": "training", "test": "test"}


def rows(
    settings: Training,
    curves: Mapping[str, np.ndarray],
    final: Mapping[str, float],
    steps: Mapping[str, np.ndarray] | None = None,
) -> Rows:
    """Every metric after training, the best test accuracy, and with several seeds Sec. 7.

    Args:
        settings: of the training.
        curves: name → values after every epoch, [networks, epochs].
        final: metrics of the first network over all examples, by the names of the curves.
        steps: what a training loss of its own told, name → means over the steps of each epoch,
            [networks, epochs].
    """
    if not settings.epochs:
        return []
    made = [
        row(name, "beyond", f"{name.partition('_')[2]} of the training loss, mean over the steps "
            "of the last epoch", values[0, -1], note=_STEPS)
        for name, values in (steps or {}).items()
    ]  # fmt: skip
    for name, value in final.items():
        part, _, metric = name.partition("_")
        quantity = f"{_WORDS[part]} {metric} after training"
        note = f"all {_WORDS[part]} examples, first seed"
        made.append(row(name, "Fig. 8", quantity, value, note=note))
    accuracy = curves.get("test_accuracy")
    if accuracy is None:
        return made
    quantity, note = "best test accuracy over epochs", f"first seed, {settings.epochs} epochs"
    made.append(row("best_test_accuracy", "Fig. 8", quantity, accuracy[0].max(), note=note))
    if len(settings.trained_schemes) == 2:
        each = accuracy.reshape(2, settings.seeds, -1)
        made += _seed_rows(settings, each.max(axis=-1), "best")
        made += _seed_rows(settings, each[..., -1], "last")
    return made


def _seed_rows(settings: Training, accuracy: np.ndarray, which: str) -> Rows:
    """Mean accuracy of each scheme and their paired difference; accuracy [schemes, seeds]."""
    names = [TITLES[name] for name in settings.sampling]
    note = f"{settings.epochs} epochs"
    made = [
        mean_row(
            f"{which}_accuracy_{scheme}", "Sec. 7", f"test accuracy, {which} epoch, {name}",
            values, note=note,
        )
        for scheme, name, values in zip(settings.sampling, names, accuracy, strict=True)
    ]  # fmt: skip
    paired = stats.ttest_rel(*accuracy)
    quantity = f"difference of test accuracy, {which} epoch, {names[0]} minus {names[1]}"
    difference = mean_row(
        f"{which}_accuracy_difference", "Sec. 7", quantity, accuracy[0] - accuracy[1],
        note=f"paired by seed, p = {paired.pvalue:.2g}; {note}",
    )  # fmt: skip
    return [*made, difference]


def panels(
    settings: Training, curves: Mapping[str, np.ndarray], period: Recording | None = None
) -> Panels:
    """Fig. 8 of the first network, and the comparison of schemes if several seeds were trained.

    Args:
        settings: of the training.
        curves: name → values after every epoch, [networks, epochs].
        period: its first analysis period, whose curves follow those of the training.
    """
    if not settings.epochs and period is None:
        return {}
    whole = {name: values[0] for name, values in curves.items()}
    if period is not None:
        whole = {
            name: np.concatenate([values, period.curves[1:, i]])
            for i, (name, values) in enumerate(whole.items())
        }
    made = {"training_curves": plotting.training_curves(whole, settings.epochs)}
    if len(settings.trained_schemes) == 2 and "test_accuracy" in curves:
        each = curves["test_accuracy"].reshape(2, settings.seeds, -1)
        compared = {"best epoch": each.max(axis=-1), "last epoch": each[..., -1]}
        names = [TITLES[name] for name in settings.sampling]
        made["seeds"] = plotting.accuracy_comparison(compared, names)
    return made
