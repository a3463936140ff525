"""Learning rate, momentum and batch size varied (Fig. 9, 10, App. I): τ_SGD and λ_cross.

    python -m experiments.hyperparameters                                       the paper's size
    python -m experiments.hyperparameters --flagfile=experiments/presets/hyperparameters_cpu.flags
    python -m experiments.hyperparameters --flagfile=experiments/presets/hyperparameters_demo.flags

For each of 13 settings: training, eigenpairs and one analysis period of every seed, each setting
in a folder of its own. Settings of one batch size train side by side, η and β being arguments of
one program. Of a network that is analysed its eigenvalues and variances are kept; eigenvectors
and recordings, a gigabyte each, are dropped. The summary is written anew after every setting.
A run folder takes further values of a hyper-parameter: what is done is not done again.
Where S does not divide N the last batch of an epoch is smaller, and the theory is that of such
epochs.
"""

import hashlib
import shutil
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags

from antisgd import models, results
from experiments import (
    analysis,
    comparison,
    curvature,
    plan,
    recording,
    report,
    start,
    training,
)
from experiments import flags as shared
from experiments import hyperparameters_summary as summary
from experiments.hyperparameters_summary import Setting

FLAGS = flags.FLAGS
shared.define(default_output_dir="runs/hyperparameters")
FLAGS.set_default("seeds", 5)
FLAGS.set_default("batch_size", 64)
FLAGS.set_default("eigenpairs", 2000)
FLAGS.set_default("sampling", ["without_replacement"])
# The scales of App. I are those of weights and velocities: a million exact full gradients would
# change only the noise beside them.
FLAGS.set_default("full_gradient", "quadratic")
flags.DEFINE_list(
    "learning_rates", ["0.005", "0.01", "0.02", "0.03", "0.04"],
    "Eta of the first epoch, varied at --momentum and --batch_size.",
)  # fmt: skip
flags.DEFINE_list(
    "momenta", ["0", "0.5", "0.75", "0.9", "0.95"],
    "Beta, varied at --momenta_learning_rate and --batch_size.",
)  # fmt: skip
flags.DEFINE_list(
    "batch_sizes", ["32", "50", "64", "100", "128"],
    "S, varied at --learning_rate and --momentum.",
)  # fmt: skip
flags.DEFINE_float("momenta_learning_rate", 0.02, "Eta of the first epoch where beta is varied.")

REGIME = "without_replacement"
LISTS = ("learning_rates", "momenta", "batch_sizes")


def main(argv: Any) -> None:
    """All settings, those of one batch size after those of the other."""
    del argv
    FLAGS.set_default("analysis_seeds", FLAGS.seeds)
    varied = grid()
    settings = list(dict.fromkeys(chain(*varied.values())))
    problem, folder = _start(settings)
    if FLAGS.plan:
        return
    done = {one: kept for one in settings if (kept := _kept(folder, one))}
    for batch_size in dict.fromkeys(one.batch_size for one in settings):
        group = [one for one in settings if one.batch_size == batch_size]
        _train(problem, group, folder)
        for setting in group:
            done[setting] = _measured(problem, setting, folder)
            rows = summary.rows(folder, problem, varied, done)
            results.write_json(folder / "summary.json", rows)
    summary.draw(folder, problem, varied, done)
    results.write_text(folder / "report.html", report.render(folder))
    print(comparison.table(rows))


def grid() -> dict[str, list[Setting]]:
    """The settings in which each hyper-parameter takes its values, some of them in two lists.

    Raises:
        ValueError: no value, or one that is not a number; names the flag.
    """
    base = Setting(FLAGS.learning_rate, FLAGS.momentum, FLAGS.batch_size)
    other = base._replace(learning_rate=FLAGS.momenta_learning_rate)
    return {
        "learning_rate": [base._replace(learning_rate=x) for x in _numbers("learning_rates")],
        "momentum": [other._replace(momentum=x) for x in _numbers("momenta")],
        "batch_size": [base._replace(batch_size=x) for x in _numbers("batch_sizes", int)],
    }


def _numbers(flag: str, kind: type = float) -> list[Any]:
    try:
        values = [kind(text) for text in FLAGS[flag].value]
    except ValueError as error:
        raise ValueError(f"--{flag}: {error}") from error
    if not values:
        raise ValueError(f"--{flag} is empty: give at least one value")
    return values


def _start(settings: list[Setting]) -> tuple[training.Problem, Path]:
    """Refuses what cannot be before anything is computed."""
    if FLAGS.sampling != [REGIME]:
        raise ValueError(f"--sampling: the scales of App. I are those of {REGIME}")
    if not FLAGS.analysis_seeds:
        raise ValueError("--analysis_seeds=0 leaves no network to analyse: give 1 or more")
    lists = {name: FLAGS[name].value for name in LISTS}
    config = shared.settings() | lists | {"momenta_learning_rate": FLAGS.momenta_learning_rate}
    largest, smallest = (end(settings, key=lambda one: one.batch_size) for end in (max, min))
    for setting in [*settings, largest]:
        _use(setting)
        shared.check()
    training.load_problem(models.lenet(), weight_decay=FLAGS.weight_decay)
    # The most steps an epoch: every flag now says what the largest recording needs.
    _use(smallest)
    print(f"{len(settings)} settings x {FLAGS.seeds} seeds", flush=True)
    return start.start(
        models.lenet(), work=partial(work, settings), may_grow=("analysis_seeds", *LISTS), **config
    )


def work(settings: list[Setting], problem: training.Problem, folder: Path) -> plan.Work:
    """One period of one network lies on disk at a time."""
    del problem
    seeds = range(FLAGS.analysis_seeds)
    places = [folder / one.folder / f"seed_{seed}" for one in settings for seed in seeds]
    left = sum(plan.missing(place / "analysis.npz") for place in places)
    untrained = sum(plan.missing(_checkpoint(folder, one)) for one in settings)
    return plan.Work(
        pairs=FLAGS.eigenpairs,
        directions=FLAGS.eigenpairs,
        periods=1,
        train=untrained,
        solves=left,
        records=left,
        products=0,
        stored=1,
    )


def _use(setting: Setting) -> None:
    """The stages read their hyper-parameters from the flags."""
    FLAGS.learning_rate, FLAGS.momentum, FLAGS.batch_size = setting


def _train(problem: training.Problem, group: list[Setting], folder: Path) -> None:
    """Trains those settings of one batch size that are not yet, side by side."""
    untrained = [one for one in group if not _checkpoint(folder, one).exists()]
    if not untrained:
        return
    _use(untrained[0])
    # Other settings asked for meanwhile make another batch.
    batch = hashlib.sha256(repr(untrained).encode()).hexdigest()[:8]
    shared_checkpoint = folder / "checkpoints" / f"training_{batch}.npz"
    settings = [one[:2] for one in untrained]
    states, curves = training.train_networks(
        problem, training.schemes(), settings, shared_checkpoint
    )
    for i, setting in enumerate(untrained):
        own = jax.tree.map(lambda leaf, i=i: leaf[i * FLAGS.seeds :][: FLAGS.seeds], states)
        own_curves = np.stack(list(curves.values()), -1)[i * FLAGS.seeds :][: FLAGS.seeds]
        results.write_checkpoint(_checkpoint(folder, setting), (own, own_curves, FLAGS.epochs))
    shared_checkpoint.unlink(missing_ok=True)


def _checkpoint(folder: Path, setting: Setting) -> Path:
    """Where a setting's trained networks lie."""
    return folder / "checkpoints" / f"{setting.folder}.npz"


def _measured(problem: training.Problem, setting: Setting, folder: Path) -> list[analysis.Analysis]:
    """Analyses the networks that are not yet, and drops their eigenvectors."""
    _use(setting)
    place = _checkpoint(folder, setting)
    trained = training.train_networks(problem, training.schemes(), [setting[:2]], place)
    training.write(folder / setting.folder / "training.npz", trained, 1)
    for seed in range(FLAGS.analysis_seeds):
        place = folder / setting.folder / f"seed_{seed}"
        if not (place / "analysis.npz").exists():
            print(f"{setting.folder}, seed {seed}", flush=True)
            state = training.network(trained, seed)
            analysis.write(place / "analysis.npz", _analysed(problem, state, seed, place))
        (place / "eigenvectors.npy").unlink(missing_ok=True)
        for bulk in ("checkpoints", f"trajectory_{REGIME}"):
            shutil.rmtree(place / bulk, ignore_errors=True)
    return _kept(folder, setting)


def _kept(folder: Path, setting: Setting) -> list[analysis.Analysis]:
    """The analyses of a setting whose networks are all done, else none."""
    seeds = range(FLAGS.analysis_seeds)
    paths = [folder / setting.folder / f"seed_{seed}" / "analysis.npz" for seed in seeds]
    return [analysis.read(path) for path in paths if all(p.exists() for p in paths)]


def _analysed(problem: training.Problem, state: Any, seed: int, place: Path) -> analysis.Analysis:
    pairs = curvature.find(problem, state.params, place)
    recorded = recording.record(
        problem, state, np.asarray(pairs.vectors), pairs.values, regime=REGIME,
        key=training.stream_key(seed), folder=place / f"trajectory_{REGIME}", seed=seed,
    )  # fmt: skip
    rate = training.final_learning_rate()
    one = analysis.analyse(recorded, pairs.values, REGIME, problem.num_examples, rate)
    return analysis.marked(one, pairs)


if __name__ == "__main__":
    shared.run(main)
