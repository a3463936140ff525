"""A study from its problem to its report: the stages in their order, then what they found."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from antisgd import data, devices, heavy_ball, results
from antisgd.study import findings, outcome, preflight, report
from antisgd.study.conditions import conditions_of
from antisgd.study.findings.rows import Panels, Rows
from antisgd.study.problem import Problem
from antisgd.study.settings import Place, Settings
from antisgd.study.stages import (
    cohorts,
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
from antisgd.study.stages.period import Recording, folder_of
from antisgd.study.stages.table import STAGES, Stage

__all__ = ["Presentation", "measure", "run"]


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
    grown = ("seeds", "eigenpairs", "analysis_seeds", "analysis_periods", "analysis_epochs")
    settings = preflight.sized(problem, settings, place)
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
            With `Problem.init_state` it has to hold the state that the loss is frozen at.
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
    problem = problem.frozen(state.loss_state)
    place = Place(output_dir=str(folder), overwrite=overwrite, plan=plan, json=json)
    start = {"measured_from": data.fingerprint(state)}
    grown = ("eigenpairs", "analysis_periods", "analysis_epochs")
    trained = train.Trained(jax.tree.map(lambda leaf: leaf[None], state), {})
    settings = preflight.sized(problem, settings, place)
    opened = preflight.opened(problem, settings, place, may_grow=grown, config=start)
    with opened as inside:
        if inside is not None:
            _analysed(problem, settings, trained, inside, presentation or Presentation())


def _trained(problem: Problem, settings: Settings, folder: Path) -> train.Trained:
    held = cohorts.finished(folder)
    if "train" not in settings.stages and held < settings.networks:
        words = (
            f"{held} of the {settings.networks} trained networks" if held else "no trained network"
        )
        raise ValueError(f"{folder} holds {words}: add train to --stages")
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
    first = train.network(trained, 0)
    alone = problem.frozen(first.loss_state)
    final = train.final_metrics(alone, first.params) if settings.epochs else {}

    def shown() -> None:
        marks = presentation.marks
        rows, panels = findings.of_study(problem, settings, trained, final, found, marks)
        outcome.write(
            folder, *presentation.present(rows, panels), shown=problem.data,
            captions=presentation.captions, headlines=presentation.headlines,
        )  # fmt: skip

    devices.alone(shown)


def computed(problem: Problem, settings: Settings, network: Network) -> dict[str, Any]:
    """Results of the stages of one network that are asked for or were found before, by name."""
    state = network.state
    results.tie(network.folder, data.fingerprint((state.params, state.loss_state)))
    problem = problem.frozen(state.loss_state)
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
        return eigenpairs.load(network.folder, settings, problem.optimizer)
    return eigenpairs.find(problem, settings, network.state.params, network.folder)


def _recorded(
    problem: Problem, settings: Settings, network: Network, found: Mapping[str, Any]
) -> list[dict[str, Recording]] | None:
    """Of each period, scheme → recording; only those made before where none is asked for."""
    pairs = found["eigenpairs"]
    made: list[dict[str, Recording]] = [{} for _ in range(settings.analysis_periods)]
    for (number, period), scheme in itertools.product(enumerate(made), settings.sampling):
        inside = folder_of(network.folder, scheme, number)
        if "analysis" in settings.stages or results.exists(inside / "anchors.npz"):
            period[scheme] = record.record(
                problem, settings, network.state, np.asarray(pairs.vectors), pairs.values,
                scheme=scheme, folder=inside, seed=network.seed, number=number,
            )  # fmt: skip
    return [period for period in made if period] or None


def _covariance(
    problem: Problem, settings: Settings, network: Network, found: Mapping[str, Any]
) -> covariance.Covariances | None:
    without = found["analysis"][0].get("without_replacement")
    if without is None:
        return None
    return covariance.find(
        problem, settings, network.state.params, found["eigenpairs"],
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
    for scheme, recorded in found["analysis"][0].items():
        one = validity.path_curvature(
            problem, settings, network.state.params, recorded, pairs.vectors, pairs.values, scheme,
            network.folder,
        )  # fmt: skip
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
    if not conditions_of(problem.num_examples, settings, problem.optimizer).heavy_ball:
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
