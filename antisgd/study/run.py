"""A study from its problem to its report: the stages in their order, then what they found."""

import dataclasses
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from antisgd import data, devices, heavy_ball, plotting, results
from antisgd.study import findings, preflight, report
from antisgd.study.conditions import conditions_of
from antisgd.study.findings.rows import Panels, Rows, table
from antisgd.study.problem import Problem
from antisgd.study.settings import Place, Settings
from antisgd.study.stages import (
    covariance,
    density,
    discard,
    eigenpairs,
    predict,
    record,
    track,
    train,
    validity,
)
from antisgd.study.stages.period import Recording
from antisgd.study.stages.table import STAGES, Stage

__all__ = ["Presentation", "measure", "run"]

_log = logging.getLogger(__name__)


class Presentation(NamedTuple):
    """How findings are shown.

    Attributes:
        present: (rows, figures) → those that are shown, under the names that they are shown by.
        captions: of the figures, by the names that they are shown by.
        headlines: rows that the report shows large, see `report.HEADLINES`.
        marks: accuracies of the paper without so many leading directions, for Fig. 11.
    """

    present: Callable[[Rows, Panels], tuple[Rows, Panels]] = lambda rows, panels: (rows, panels)
    captions: Mapping[str, report.Caption] = report.CAPTIONS
    headlines: Mapping[str, tuple[str, str | None]] = report.HEADLINES
    marks: Mapping[int, float] | None = None


class Network(NamedTuple):
    """A network that is analysed: its seed, where training ended, and the folder of its results."""

    seed: int
    state: heavy_ball.TrainState
    folder: Path


def run(
    problem: Problem,
    settings: Settings,
    folder: str | Path,
    *,
    overwrite: bool = False,
    plan: bool = False,
    json: bool = False,
    presentation: Presentation | None = None,
) -> None:
    """Trains, measures and reports; stopped and called again it goes on where it was.

    Args:
        problem: network, loss and examples.
        settings: what is done with them; `settings.stages` says which stages.
        folder: the run folder.
        overwrite: start afresh in a folder that holds something.
        plan: only say what the run will need.
        json: with `plan`, as JSON.
        presentation: how findings are shown.

    Raises:
        ValueError, OSError, MemoryError: impossible settings, data or folder, what cannot fit.
        FloatingPointError: training or a product diverged; names the step and the cause.
        KeyboardInterrupt: stopped, after a checkpoint.
    """
    place = Place(output_dir=str(folder), overwrite=overwrite, plan=plan, json=json)
    grown = ("eigenpairs", "analysis_seeds", "analysis_epochs")
    with preflight.opened(problem, settings, place, may_grow=grown) as opened:
        if opened is None:
            return
        trained = _trained(problem, settings, opened)
        _analysed(problem, settings, trained, opened, presentation or Presentation())


def measure(
    problem: Problem,
    state: Any,
    settings: Settings,
    folder: str | Path,
    *,
    overwrite: bool = False,
    plan: bool = False,
    json: bool = False,
    presentation: Presentation | None = None,
) -> None:
    """The analysis of a network that was trained elsewhere.

    Args:
        problem: network, loss and examples.
        state: `heavy_ball.TrainState` at θ_K, or the weights alone, which then start from rest.
        settings: η of the period is the learning rate after `epochs` of decay.
        folder: the run folder, and so on as in `run`.

    Raises:
        ValueError: more than one network is asked for, and as in `run`.
    """
    if settings.analysis_seeds > 1:
        raise ValueError(f"--analysis_seeds={settings.analysis_seeds}: one network is measured")
    if settings.track_every is not None:
        raise ValueError("--track_every: weights trained elsewhere have no epochs to track")
    stages = tuple(name for name in settings.stages if name != "train")
    settings = dataclasses.replace(settings, stages=stages)
    if not isinstance(state, heavy_ball.TrainState):
        swept = train.hyperparameters(settings)
        optimizer = train.optimizer_at(settings, settings.epochs, *swept, problem.optimizer)
        state = heavy_ball.init(optimizer, state)
    place = Place(output_dir=str(folder), overwrite=overwrite, plan=plan, json=json)
    start = {"measured_from": data.fingerprint(state)}
    grown = ("eigenpairs", "analysis_epochs")
    trained = train.Trained(jax.tree.map(lambda leaf: leaf[None], state), {})
    opened = preflight.opened(problem, settings, place, may_grow=grown, config=start)
    with opened as inside:
        if inside is not None:
            _analysed(problem, settings, trained, inside, presentation or Presentation())


def _trained(problem: Problem, settings: Settings, folder: Path) -> train.Trained:
    if "train" not in settings.stages and not results.exists(folder / "training.npz"):
        raise ValueError(f"{folder} holds no trained network: add train to --stages")
    return train.train(problem, settings, folder)


def _analysed(
    problem: Problem,
    settings: Settings,
    trained: train.Trained,
    folder: Path,
    presentation: Presentation,
) -> None:
    """The stages of every network that is analysed and, if asked for, all findings."""
    found = []
    for seed in range(settings.analysis_seeds):
        inside = folder / f"seed_{seed}" if seed else folder
        one = Network(seed, train.network(trained, seed), inside)
        found.append(computed(problem, settings, one))
    if "figures" not in settings.stages:
        return
    first = train.network(trained, 0).params
    final = train.final_metrics(problem, first) if settings.epochs else {}

    def shown() -> None:
        marks = presentation.marks
        rows, panels = findings.of_study(problem, settings, trained, final, found, marks)
        _write(folder, problem.data, presentation, *presentation.present(rows, panels))

    devices.alone(shown)


def computed(problem: Problem, settings: Settings, network: Network) -> dict[str, Any]:
    """Results of the stages of one network that are asked for or were found before, by name."""
    results.tie(network.folder, data.fingerprint(network.state.params))
    found: dict[str, Any] = {"train": network.state}
    for stage in STAGES:
        compute = _COMPUTE.get(stage.name)
        if compute is None or not _wanted(stage, settings, network.folder):
            continue
        if all(need in found for need in stage.needs):
            result = compute(problem, settings, network, found)
            found |= {} if result is None else {stage.name: result}
    return found


def _wanted(stage: Stage, settings: Settings, folder: Path) -> bool:
    """Asked for, or found before: a later command does not drop what the folder holds."""
    return stage.name in settings.stages or stage.done(folder)


def _eigenpairs(
    problem: Problem, settings: Settings, network: Network, found: Mapping[str, Any]
) -> eigenpairs.Curvature:
    if "eigenpairs" not in settings.stages:
        return eigenpairs.load(network.folder, settings)
    return eigenpairs.find(problem, settings, network.state.params, network.folder)


def _recorded(
    problem: Problem, settings: Settings, network: Network, found: Mapping[str, Any]
) -> dict[str, Recording] | None:
    """Scheme → its period; only those recorded before where no recording is asked for."""
    pairs, made = found["eigenpairs"], {}
    for scheme in settings.sampling:
        inside = network.folder / f"trajectory_{scheme}"
        if "analysis" in settings.stages or results.exists(inside / "anchors.npz"):
            made[scheme] = record.record(
                problem, settings, network.state, np.asarray(pairs.vectors), pairs.values,
                scheme=scheme, folder=inside, seed=network.seed,
            )  # fmt: skip
    return made or None


def _covariance(
    problem: Problem, settings: Settings, network: Network, found: Mapping[str, Any]
) -> covariance.Covariances | None:
    without = found["analysis"].get("without_replacement")
    if without is None:
        return None
    return covariance.find(
        problem, settings, network.state.params, found["eigenpairs"].vectors,
        without.trajectory.noise, network.folder,
    )  # fmt: skip


def _discarded(
    problem: Problem, settings: Settings, network: Network, found: Mapping[str, Any]
) -> discard.Discarding | None:
    if "test_accuracy" not in problem.curve_names:
        return None
    pairs = found["eigenpairs"]
    cross = conditions_of(problem.num_examples, settings, problem.optimizer).crossover
    return discard.discard(
        problem, network.state.params, pairs.vectors, pairs.values, cross, network.folder
    )


def _path_curvature(
    problem: Problem, settings: Settings, network: Network, found: Mapping[str, Any]
) -> dict[str, validity.PathCurvature] | None:
    """Scheme → the curvature along its period."""
    pairs = found["eigenpairs"]
    made: dict[str, validity.PathCurvature] = {}
    for scheme, recorded in found["analysis"].items():
        one = validity.path_curvature(
            problem, settings, recorded, pairs.vectors, pairs.values, scheme, network.folder
        )
        made |= {} if one is None else {scheme: one}
    return made or None


def _density(
    problem: Problem, settings: Settings, network: Network, found: Mapping[str, Any]
) -> Any:
    return density.density(problem, settings, network.state.params, network.folder)


def _predicted(
    problem: Problem, settings: Settings, network: Network, found: Mapping[str, Any]
) -> dict[str, predict.Prediction] | None:
    """Scheme → what its period will show; the spread outside by the density, if there is one.

    Heavy ball's only: None for another optimiser.
    """
    if problem.optimizer is not None:
        return None
    pairs = found["eigenpairs"]
    return predict.predict(
        problem, settings, network.state.params, pairs.vectors, pairs.values,
        found.get("density"), network.folder,
    )  # fmt: skip


_COMPUTE = {
    "eigenpairs": _eigenpairs,
    "analysis": _recorded,
    "covariance": _covariance,
    "discard": _discarded,
    "validity": _path_curvature,
    "density": _density,
    "predict": _predicted,
    "track": track.track,
}


def _write(
    folder: Path, shown: str, presentation: Presentation, rows: Rows, panels: Panels
) -> None:
    for name, panel in panels.items():
        if shown:
            plotting.label_source(panel, shown)
        results.write_figure(folder / "figures" / name, panel)
    results.write_json(folder / "summary.json", rows)
    page = report.render(folder, presentation.captions, presentation.headlines)
    results.write_text(folder / "report.html", page)
    for row in rows:
        _log.info("%s: %s", row["id"], row["here"])
    large = [row for row in rows if row["id"] in presentation.headlines]
    print(table(large))
    print(f"figures, all {len(rows)} rows (summary.json) and report.html are in {folder}")
