"""LeNet on CIFAR-10, the paper's main experiment (Fig. 1, 2, 5-8, 11, 13, 14, Sec. 7).

    python -m experiments.lenet                                              the paper's size
    python -m experiments.lenet --flagfile=experiments/presets/cpu.flags     2 cores, 2 hours
    python -m experiments.lenet --flagfile=experiments/presets/demo.flags    digits, minutes

Trains LeNet, finds the leading Hessian eigenpairs at the end θ_K, records from that point one
analysis period without and one with replacement along them, and writes the noise
autocorrelation, variances and correlation times beside the theory. With --seeds above 1 it also
compares the test accuracy of the two ways of drawing examples.
"""

from pathlib import Path
from typing import Any

import numpy as np
from absl import flags, logging

from antisgd import models, results
from experiments import (
    accuracy,
    analysis,
    comparison,
    covariance,
    curvature,
    discarding,
    figures,
    recording,
    report,
    start,
    summary,
    training,
    validity,
)
from experiments import flags as shared

FLAGS = flags.FLAGS
shared.define(default_output_dir="runs/lenet")


def main(argv: Any) -> None:
    """Runs the stages that --stages names, each going on from what the run folder holds."""
    del argv
    problem, folder = start.start(models.lenet(), may_grow=("eigenpairs", "analysis_seeds"))
    if FLAGS.plan:
        return
    trained = _trained(problem, folder)
    rows = accuracy.training_rows(problem, trained)
    panels = accuracy.training_figures(trained)
    for seed in range(FLAGS.analysis_seeds):
        more_rows, more_panels = _analysed(problem, trained, seed, folder)
        rows += more_rows
        panels |= more_panels
    if "figures" in FLAGS.stages:
        _write(folder, rows, panels)


def _trained(problem: training.Problem, folder: Path) -> training.Training:
    if "train" not in FLAGS.stages and not (folder / "training.npz").exists():
        raise ValueError(f"{folder} holds no trained network: add train to --stages")
    return training.train(problem, folder)


def _analysed(
    problem: training.Problem, trained: training.Training, seed: int, folder: Path
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Eigenpairs and analysis periods of one network, as far as --stages goes."""
    state = training.network(trained, seed)
    place = folder if seed == 0 else folder / f"seed_{seed}"
    if "eigenpairs" in FLAGS.stages:
        pairs = curvature.find(problem, state.params, place)
    elif (place / "eigenpairs.npz").exists():
        pairs = curvature.load(place)
    else:
        return [], {}
    recorded = {}
    for regime in FLAGS.sampling:
        inside = place / f"trajectory_{regime}"
        if "analysis" in FLAGS.stages or (inside / "anchors.npz").exists():
            recorded[regime] = recording.record(
                problem, state, np.asarray(pairs.vectors), pairs.values, regime=regime,
                key=training.stream_key(seed), folder=inside, seed=seed,
            )  # fmt: skip
    rate, N = training.final_learning_rate(), problem.num_examples
    analyses = {
        regime: analysis.marked(analysis.analyse(one, pairs.values, regime, N, rate), pairs)
        for regime, one in recorded.items()
    }
    rows = summary.curvature_rows(problem, pairs)
    for regime, one in analyses.items():
        rows += summary.analysis_rows(problem, one, recorded[regime], regime)
    rows += summary.comparison_rows(problem, analyses)
    panels = figures.analysis_figures(problem, trained, pairs, analyses, recorded)
    more_rows, more_panels = _examined(problem, state, pairs, recorded, place)
    rows, panels = rows + more_rows, panels | more_panels
    suffix = "" if seed == 0 else f"_seed{seed}"
    for one in rows:
        one["id"] += suffix
    return rows, {f"{name}{suffix}": panel for name, panel in panels.items()}


def _examined(
    problem: training.Problem, state: Any, pairs: Any, recorded: dict[str, Any], place: Path
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Noise against curvature, discarded directions and the checks of the quadratic picture."""
    rows, panels = [], {}
    without = recorded.get("without_replacement")
    if _wanted("covariance", place) and without:
        noise = without.trajectory.noise
        found = covariance.find(problem, state.params, pairs.vectors, noise, place)
        rows += covariance.rows(found, pairs.values, len(noise))
        panels |= covariance.figures(found, pairs.values, ~pairs.converged)
    if _wanted("discard", place):
        found = discarding.discard(problem, state.params, pairs.vectors, pairs.values, place)
        rows += discarding.rows(problem, found, pairs.values)
        panels["fig11"] = discarding.figure(problem, found, pairs.values, ~pairs.converged)
    if _wanted("validity", place) and without:
        rows += validity.end_curvature_rows(problem, without.final, pairs, place)
    if _wanted("density", place):
        rows += validity.density_rows(problem, state.params, place)
    return rows, panels


def _wanted(stage: str, place: Path) -> bool:
    """Asked for, or found before: a later command does not drop what the folder holds."""
    return stage in FLAGS.stages or (place / f"{stage}.npz").exists()


def _write(folder: Path, rows: list[dict[str, Any]], panels: dict[str, Any]) -> None:
    rows = comparison.for_data(rows, FLAGS.dataset)
    for name, panel in panels.items():
        results.write_figure(folder / "figures" / name, panel)
    results.write_json(folder / "summary.json", rows)
    results.write_text(folder / "report.html", report.render(folder))
    for row in rows:
        logging.info("%s: %s", row["id"], row["here"])
    print(comparison.table(rows))
    print(f"figures, summary.json and report.html are in {folder}")


if __name__ == "__main__":
    shared.run(main)
