"""Learning rate, momentum and batch size varied (Fig. 9, 10, App. I): τ_SGD and λ_cross.

    python -m experiments.hyperparameters                                       the paper's size
    python -m experiments.hyperparameters --flagfile=experiments/presets/hyperparameters_cpu.flags
    python -m experiments.hyperparameters --flagfile=experiments/presets/hyperparameters_demo.flags

For each of 13 settings: training, eigenpairs and one analysis period of every seed, each setting
in a folder of its own. Settings of one batch size train side by side, η and β being arguments of
one program. Of a network that is analysed its eigenvalues and variances are kept; eigenvectors
and recordings, a gigabyte each, are dropped. The summary is written anew after every setting.
A run folder takes further values of a hyper-parameter and more seeds: what is done is not done
again.
Where S does not divide N the last batch of an epoch is smaller, and the theory is that of such
epochs.
"""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import jax
import numpy as np

from antisgd import models, results
from antisgd.study import Place, Problem, Settings, preflight
from antisgd.study.conditions import conditions_of
from antisgd.study.fields import setting
from antisgd.study.stages import analysis, eigenpairs, record, train
from antisgd.study.stages.cohorts import Cohort, cohorts
from experiments import cli, outcome, paper, pictures
from experiments.hyperparameters import summary
from experiments.hyperparameters.summary import Point

SCHEME = "without_replacement"
LISTS = ("learning_rates", "momenta", "batch_sizes")


@dataclass(frozen=True, kw_only=True)
class Varied:
    """The values of each hyper-parameter."""

    learning_rates: tuple[float, ...] = setting(
        (0.005, 0.01, 0.02, 0.03, 0.04),
        "Eta of the first epoch, varied at --momentum and --batch_size.",
        of=float,
    )
    momenta: tuple[float, ...] = setting(
        (0, 0.5, 0.75, 0.9, 0.95),
        "Beta, varied at --momenta_learning_rate and --batch_size.",
        of=float,
    )
    batch_sizes: tuple[int, ...] = setting(
        (32, 50, 64, 100, 128), "S, varied at --learning_rate and --momentum.", of=int
    )
    momenta_learning_rate: float = setting(0.02, "Eta of the first epoch where beta is varied.")


# The scales of App. I are those of weights and velocities: a million exact full gradients would
# change only the noise beside them.
OPTIONS = cli.options(
    "hyperparameters", Varied(), seeds=5, batch_size=64, eigenpairs=2000, sampling=(SCHEME,),
    full_gradient="quadratic", analysis_seeds=None,
)  # fmt: skip


def main(settings: Settings, chosen: pictures.Pictures, place: Place, own: Varied) -> None:
    """All settings, those of one batch size after those of the other."""
    if settings.analysis_seeds is None:
        settings = replace(settings, analysis_seeds=settings.seeds)
    varied = grid(settings, own)
    points = list(dict.fromkeys(chain(*varied.values())))
    _check(settings, points)
    problem = pictures.problem(models.lenet(), "LeNet", chosen, settings)
    _check_batches(problem, points)
    needed = work(settings, points, place)
    settings = preflight.sized(problem, settings, place, needed)
    # The most steps an epoch: the settings say what the largest recording needs.
    shown = min((one.of(settings) for one in points), key=lambda one: one.batch_size)
    print(f"{len(points)} settings x {settings.seeds} seeds", flush=True)
    opened = preflight.opened(
        problem, shown, place, work=needed,
        may_grow=("seeds", "analysis_seeds", *LISTS), config=_config(settings, own),
    )  # fmt: skip
    with opened as folder:
        if folder is not None:
            _run(problem, settings, chosen, varied, folder)


def _run(
    problem: Problem,
    settings: Settings,
    chosen: pictures.Pictures,
    varied: dict[str, list[Point]],
    folder: Path,
) -> None:
    points = list(dict.fromkeys(chain(*varied.values())))
    done = {one: kept for one in points if (kept := _kept(folder, settings, one))}
    for batch_size in dict.fromkeys(one.batch_size for one in points):
        group = [one for one in points if one.batch_size == batch_size]
        _train(problem, settings, group, folder)
        for point in group:
            done[point] = _measured(problem, settings, point, folder)
            rows = summary.rows(folder, problem, settings, varied, done)
            rows = paper.only_on_its_pictures(rows, chosen)
            results.write_json(folder / "summary.json", rows)
    panels = summary.panels(problem, settings, varied, done)
    outcome.write(folder, rows, panels, shown=problem.data)


def grid(settings: Settings, own: Varied) -> dict[str, list[Point]]:
    """The settings in which each hyper-parameter takes its values, some of them in two lists.

    Raises:
        ValueError: no value; names the flag.
    """
    for name in LISTS:
        if not getattr(own, name):
            raise ValueError(f"--{name} is empty: give at least one value")
    base = Point(settings.learning_rate, settings.momentum, settings.batch_size)
    other = base._replace(learning_rate=own.momenta_learning_rate)
    return {
        "learning_rate": [base._replace(learning_rate=x) for x in own.learning_rates],
        "momentum": [other._replace(momentum=x) for x in own.momenta],
        "batch_size": [base._replace(batch_size=x) for x in own.batch_sizes],
    }


def _config(settings: Settings, own: Varied) -> dict:
    """The lists as a command line gives them, beside the settings they are varied around."""
    lists = {name: [f"{x:g}" for x in getattr(own, name)] for name in LISTS}
    return settings.to_json() | lists | {"momenta_learning_rate": own.momenta_learning_rate}


def _check(settings: Settings, points: Sequence[Point]) -> None:
    """Refuses what cannot be before anything is computed."""
    if settings.sampling != (SCHEME,):
        raise ValueError(f"--sampling: the scales of App. I are those of {SCHEME}")
    if not settings.analysis_seeds:
        raise ValueError("--analysis_seeds=0 leaves no network to analyse: give 1 or more")
    for point in points:
        point.of(settings).check()


def _check_batches(problem: Problem, points: Sequence[Point]) -> None:
    largest = max(one.batch_size for one in points)
    if problem.num_examples < largest:
        raise ValueError(
            f"--batch_size={largest} is larger than the {problem.num_examples} training examples"
        )


def work(settings: Settings, points: Sequence[Point], place: Place) -> preflight.Work:
    """One period of one network lies on disk at a time."""
    seeds, folder = range(settings.analysis_seeds), place.folder
    places = [folder / one.folder / f"seed_{seed}" for one in points for seed in seeds]
    left = sum(place.missing(one / "analysis.npz") for one in places)
    untrained = sum(
        place.missing(path) for one in points for _, path in _cohorts(settings, one, folder)
    )
    return preflight.Work(
        pairs=settings.eigenpairs,
        directions=settings.eigenpairs,
        periods=1,
        train=untrained,
        solves=left,
        records=left,
        products=0,
        stored=1,
    )


def _train(problem: Problem, settings: Settings, group: list[Point], folder: Path) -> None:
    """Trains those networks of one batch size that are not yet, side by side."""
    untrained: dict[Cohort, list[tuple[Point, Path]]] = {}
    for point in group:
        for cohort, path in _cohorts(settings, point, folder):
            if not path.exists():
                untrained.setdefault(cohort, []).append((point, path))
    for cohort, places in untrained.items():
        _train_cohort(problem, settings, cohort, places, folder)


def _train_cohort(
    problem: Problem,
    settings: Settings,
    cohort: Cohort,
    places: list[tuple[Point, Path]],
    folder: Path,
) -> None:
    points, seeds = [point for point, _ in places], len(cohort.seeds)
    # Other settings asked for meanwhile make another batch.
    batch = hashlib.sha256(repr((points, cohort.seeds)).encode()).hexdigest()[:8]
    shared_checkpoint = folder / "checkpoints" / f"training_{batch}.npz"
    varied = [point.of(settings) for point in points]
    states, curves, _ = train.train_networks(problem, varied, shared_checkpoint, cohort)
    for i, (_, path) in enumerate(places):
        own = jax.tree.map(lambda leaf, i=i: leaf[i * seeds :][:seeds], states)
        own_curves = np.stack(list(curves.values()), -1)[i * seeds :][:seeds]
        results.write_checkpoint(path, (own, {"curves": own_curves}, settings.epochs))
    results.remove(shared_checkpoint)


def _cohorts(settings: Settings, point: Point, folder: Path) -> list[tuple[Cohort, Path]]:
    """Which networks of a setting are trained side by side, and where they lie when they are."""
    return list(cohorts(settings, folder / "checkpoints" / f"{point.folder}.npz"))


def _measured(
    problem: Problem, settings: Settings, point: Point, folder: Path
) -> list[analysis.Analysis]:
    """Analyses the networks that are not yet, and drops their eigenvectors."""
    own = point.of(settings)
    parts = [
        (cohort, train.train_networks(problem, [own], path, cohort))
        for cohort, path in _cohorts(settings, point, folder)
    ]
    trained = train.together(own, parts)
    train.write(folder / point.folder / "training.npz", trained, own)
    for seed in range(own.analysis_seeds):
        place = folder / point.folder / f"seed_{seed}"
        if not (place / "analysis.npz").exists():
            print(f"{point.folder}, seed {seed}", flush=True)
            state = train.network(trained, seed)
            analysis.write(place / "analysis.npz", _analysed(problem, own, state, seed, place))
        results.remove(place / "eigenvectors.npy")
        for bulk in ("checkpoints", f"trajectory_{SCHEME}"):
            shutil.rmtree(place / bulk, ignore_errors=True)
    return _kept(folder, settings, point)


def _kept(folder: Path, settings: Settings, point: Point) -> list[analysis.Analysis]:
    """The analyses of a setting whose networks are all done, else none."""
    seeds = range(settings.analysis_seeds)
    paths = [folder / point.folder / f"seed_{seed}" / "analysis.npz" for seed in seeds]
    return [analysis.read(path) for path in paths if all(p.exists() for p in paths)]


def _analysed(
    problem: Problem, settings: Settings, state, seed: int, place: Path
) -> analysis.Analysis:
    pairs = eigenpairs.find(problem, settings, state.params, place)
    recorded = record.record(
        problem, settings, state, np.asarray(pairs.vectors), pairs.values, scheme=SCHEME,
        folder=place / f"trajectory_{SCHEME}", seed=seed,
    )  # fmt: skip
    conditions = conditions_of(problem.num_examples, settings)
    return analysis.marked(analysis.analyse(recorded, pairs.values, SCHEME, conditions), pairs)


if __name__ == "__main__":
    cli.run(main, *OPTIONS)
