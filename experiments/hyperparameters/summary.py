"""Rows and figures of the settings of `experiments.hyperparameters` that are done."""

from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from antisgd import plotting, results, theory
from experiments import analysis, comparison, scales, training

FLAGS = flags.FLAGS


class Setting(NamedTuple):
    """η of the first epoch, β and S."""

    learning_rate: float
    momentum: float
    batch_size: int

    @property
    def folder(self) -> str:
        """Name of its folder in the run folder."""
        return ",".join(f"{name}={value:g}" for name, value in self._asdict().items())


def rows(
    folder: Path,
    problem: training.Problem,
    varied: dict[str, list[Setting]],
    done: dict[Setting, list[analysis.Analysis]],
) -> list[dict[str, Any]]:
    """The rows of the settings that are done."""
    compared = _compared(problem, varied, done)
    made = [_accuracy_row(folder, done)] * bool(FLAGS.epochs) + [_unconverged_row(folder, done)]
    made += scales.grid_rows(
        {
            name.replace("_", " "): [compared[one] for one in settings if one in done]
            for name, settings in varied.items()
        }
    )
    for setting, one in compared.items():
        rate, beta, size = setting
        words = f"eta {rate:g}, beta {beta:g}, S {size}"
        made += scales.setting_rows(f"eta{rate:g}_beta{beta:g}_S{size}", words, one)
    return comparison.for_data(made, training.on_the_papers_pictures())


def _compared(
    problem: training.Problem,
    varied: dict[str, list[Setting]],
    done: dict[Setting, list[analysis.Analysis]],
) -> dict[Setting, scales.Comparison]:
    """Settings that are done, in an order that does not depend on when."""
    return {
        setting: scales.compare(done[setting], *_expected(problem, setting))
        for setting in dict.fromkeys(chain(*varied.values()))
        if setting in done
    }


def _expected(problem: training.Problem, setting: Setting) -> tuple[float, float]:
    """τ_SGD and λ_cross of Eq. 109, where N/S need not be an integer."""
    steps, beta = problem.num_examples / setting.batch_size, setting.momentum
    limit = theory.max_correlation_time(beta, steps)
    return limit, theory.crossover_eigenvalue(_final_rate(setting), beta, steps)


def _final_rate(setting: Setting) -> float:
    return setting.learning_rate * FLAGS.learning_rate_decay**FLAGS.epochs


def _accuracy_row(folder: Path, done: dict[Setting, Any]) -> dict[str, Any]:
    last = [
        results.read_arrays(folder / setting.folder / "training.npz")["train_accuracy"][:, -1:]
        for setting in done
    ]
    quantity = "smallest training accuracy of all networks"
    note = f"first {training.curve_examples():,} pictures"
    n = sum(len(one) for one in last)
    return comparison.row(
        "train_accuracy", "App. I", quantity, np.min(last), paper=1.0, n=n, note=note
    )


def _unconverged_row(folder: Path, done: dict[Setting, Any]) -> dict[str, Any]:
    paths = [path for one in done for path in (folder / one.folder).glob("*/eigenpairs.npz")]
    converged = np.concatenate([results.read_arrays(path)["converged"] for path in paths])
    quantity = "eigenpairs not converged"
    return comparison.row(
        "unconverged_eigenpairs", "App. I", quantity, np.sum(~converged), n=converged.size
    )


def draw(
    folder: Path,
    problem: training.Problem,
    varied: dict[str, list[Setting]],
    done: dict[Setting, list[analysis.Analysis]],
) -> None:
    """Fig. 10, and Fig. 9 with the first seed of every batch size."""
    compared = _compared(problem, varied, done)
    axes = {
        "learning rate $\\eta$ of the analysis period": map(_final_rate, varied["learning_rate"]),
        "momentum $\\beta$": (one.momentum for one in varied["momentum"]),
        "batch size $S$": (one.batch_size for one in varied["batch_size"]),
    }
    columns = {
        label: (np.array(list(x)), [compared[one] for one in settings])
        for (label, x), settings in zip(axes.items(), varied.values(), strict=True)
    }
    results.write_figure(folder / "figures" / "fig10", plotting.scales_figure(columns))
    titled = {f"$S$ = {one.batch_size}": one for one in varied["batch_size"]}
    analyses = {title: done[one][0] for title, one in titled.items()}
    marks = {title: _expected(problem, one)[::-1] for title, one in titled.items()}
    figure = plotting.variances_by_setting(analyses, marks)
    results.write_figure(folder / "figures" / "fig09", figure)
