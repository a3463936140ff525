"""The stages of an experiment with one network: training, eigenpairs, analysis, what they show."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags, logging

from antisgd import results
from experiments import (
    accuracy,
    analysis,
    comparison,
    covariance,
    curvature,
    discarding,
    drift,
    figures,
    recording,
    regimes,
    report,
    start,
    summary,
    training,
    validity,
)

FLAGS = flags.FLAGS

Rows = list[dict[str, Any]]
Panels = dict[str, Any]


def run(model: Any, present: Callable[[Rows, Panels], tuple[Rows, Panels]] | None = None) -> None:
    """Runs the stages that --stages names, each going on from what the run folder holds.

    Args:
        model: linen module.
        present: renames rows and figures, which are LeNet's by default.
    """
    problem, folder = start.start(model, may_grow=("eigenpairs", "analysis_seeds"))
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
        _write(folder, *(present(rows, panels) if present else (rows, panels)))


def _trained(problem: training.Problem, folder: Path) -> training.Training:
    if "train" not in FLAGS.stages and not (folder / "training.npz").exists():
        raise ValueError(f"{folder} holds no trained network: add train to --stages")
    return training.train(problem, folder)


def _analysed(
    problem: training.Problem, trained: training.Training, seed: int, folder: Path
) -> tuple[Rows, Panels]:
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
    rows, panels = _examined(problem, state, pairs, recorded, place)
    if "figures" in FLAGS.stages:
        more_rows, more_panels = _compared(problem, trained, pairs, recorded)
        rows, panels = more_rows + rows, more_panels | panels
    suffix = "" if seed == 0 else f"_seed{seed}"
    for one in rows:
        one["id"] += suffix
    return rows, {f"{name}{suffix}": panel for name, panel in panels.items()}


def _compared(
    problem: training.Problem, trained: training.Training, pairs: Any, recorded: dict[str, Any]
) -> tuple[Rows, Panels]:
    """Eigenvalues, and both periods beside the theory."""
    rate, N = training.final_learning_rate(), problem.num_examples
    analyses = {
        regime: analysis.marked(analysis.analyse(one, pairs.values, regime, N, rate), pairs)
        for regime, one in recorded.items()
    }
    rows = summary.curvature_rows(problem, pairs)
    for regime, one in analyses.items():
        rows += summary.analysis_rows(problem, one, recorded[regime], regime)
        rows += drift.rows(problem, one, recorded[regime], pairs.values, regime)
    rows += regimes.rows(problem, analyses)
    return rows, figures.analysis_figures(problem, trained, pairs, analyses, recorded)


def _examined(
    problem: training.Problem, state: Any, pairs: Any, recorded: dict[str, Any], place: Path
) -> tuple[Rows, Panels]:
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
        whole = validity.density(problem, state.params, place)
        rows += validity.density_rows(problem, whole)
        panels["fig05_density"] = validity.density_figure(problem, whole, pairs)
    return rows, panels


def _wanted(stage: str, place: Path) -> bool:
    """Asked for, or found before: a later command does not drop what the folder holds."""
    return stage in FLAGS.stages or (place / f"{stage}.npz").exists()


def _write(folder: Path, rows: Rows, panels: Panels) -> None:
    rows = comparison.for_data(rows, training.on_the_papers_pictures())
    for name, panel in panels.items():
        results.write_figure(folder / "figures" / name, panel)
    results.write_json(folder / "summary.json", rows)
    results.write_text(folder / "report.html", report.render(folder))
    for row in rows:
        logging.info("%s: %s", row["id"], row["here"])
    print(comparison.table(rows))
    print(f"figures, summary.json and report.html are in {folder}")
