"""Rows and figures of the settings of `experiments.hyperparameters` that are done."""

from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from antisgd import plotting, results, theory
from antisgd.study import Problem, Settings
from antisgd.study.findings.rows import Panels, Rows, row
from antisgd.study.stages.analysis import Analysis
from antisgd.study.stages.train import CURVE_EXAMPLES
from experiments.hyperparameters import scales

__all__ = ["Point", "panels", "rows"]


class Point(NamedTuple):
    """η of the first epoch, β and S."""

    learning_rate: float
    momentum: float
    batch_size: int

    @property
    def folder(self) -> str:
        """Name of its folder in the run folder."""
        return ",".join(f"{name}={value:g}" for name, value in self._asdict().items())

    def of(self, settings: Settings) -> Settings:
        """The settings of the experiment with these three."""
        return replace(settings, **self._asdict())


Varied = dict[str, list[Point]]
Done = dict[Point, list[Analysis]]


def rows(folder: Path, problem: Problem, settings: Settings, varied: Varied, done: Done) -> Rows:
    """The rows of the settings that are done."""
    compared = _compared(problem, settings, varied, done)
    made = [_accuracy_row(folder, settings, done)] * bool(settings.epochs)
    made += [_unconverged_row(folder, done)]
    made += scales.grid_rows(
        {
            name.replace("_", " "): [compared[one] for one in points if one in done]
            for name, points in varied.items()
        }
    )
    for point, one in compared.items():
        rate, beta, size = point
        words = f"eta {rate:g}, beta {beta:g}, S {size}"
        made += scales.setting_rows(f"eta{rate:g}_beta{beta:g}_S{size}", words, one)
    return made


def _compared(
    problem: Problem, settings: Settings, varied: Varied, done: Done
) -> dict[Point, scales.Comparison]:
    """Settings that are done, in an order that does not depend on when."""
    return {
        point: scales.compare(done[point], *_expected(problem, settings, point))
        for point in dict.fromkeys(chain(*varied.values()))
        if point in done
    }


def _expected(problem: Problem, settings: Settings, point: Point) -> tuple[float, float]:
    """τ_SGD and λ_cross of Eq. 109, where N/S need not be an integer."""
    steps, beta = problem.num_examples / point.batch_size, point.momentum
    rate = point.of(settings).final_learning_rate
    return (
        theory.max_correlation_time(beta, steps),
        theory.crossover_eigenvalue(rate, beta, steps),
    )


def _accuracy_row(folder: Path, settings: Settings, done: Done) -> dict[str, Any]:
    last = [
        results.read_arrays(folder / point.folder / "training.npz")["train_accuracy"][:, -1:]
        for point in done
    ]
    quantity = "smallest training accuracy of all networks"
    note = f"first {settings.curve_examples or CURVE_EXAMPLES:,} pictures"
    n = sum(len(one) for one in last)
    return row("train_accuracy", "App. I", quantity, np.min(last), paper=1.0, n=n, note=note)


def _unconverged_row(folder: Path, done: Done) -> dict[str, Any]:
    paths = [path for one in done for path in (folder / one.folder).glob("*/eigenpairs.npz")]
    converged = np.concatenate([results.read_arrays(path)["converged"] for path in paths])
    quantity = "eigenpairs not converged"
    return row("unconverged_eigenpairs", "App. I", quantity, np.sum(~converged), n=converged.size)


def panels(problem: Problem, settings: Settings, varied: Varied, done: Done) -> Panels:
    """Fig. 10, and Fig. 9 with the first seed of every batch size."""
    compared = _compared(problem, settings, varied, done)
    axes = {
        "learning rate $\\eta$ of the analysis period": [
            one.of(settings).final_learning_rate for one in varied["learning_rate"]
        ],
        "momentum $\\beta$": [one.momentum for one in varied["momentum"]],
        "batch size $S$": [one.batch_size for one in varied["batch_size"]],
    }
    columns = {
        label: (np.array(x), [compared[one] for one in points])
        for (label, x), points in zip(axes.items(), varied.values(), strict=True)
    }
    titled = {f"$S$ = {one.batch_size}": one for one in varied["batch_size"]}
    analyses = {title: done[one][0] for title, one in titled.items()}
    marks = {title: _expected(problem, settings, one)[::-1] for title, one in titled.items()}
    return {
        "fig10": plotting.scales_figure(columns),
        "fig09": plotting.variances_by_setting(analyses, marks),
    }
