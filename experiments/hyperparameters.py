"""Learning rate, momentum and batch size varied (Fig. 9, 10, App. I): τ_SGD and λ_cross.

    python -m experiments.hyperparameters                                       the paper's size
    python -m experiments.hyperparameters --flagfile=experiments/presets/hyperparameters_cpu.flags
    python -m experiments.hyperparameters --flagfile=experiments/presets/hyperparameters_demo.flags

For each of 13 settings: training, eigenpairs and one analysis period of every seed, each setting
in a folder of its own. Settings of one batch size train side by side, η and β being arguments of
one program. Of a network that is analysed its eigenvalues and variances are kept; eigenvectors
and recordings, a gigabyte each, are dropped. The summary is written anew after every setting.
Where S does not divide N the last batch of an epoch is smaller, and the theory is that of such
epochs.
"""

import shutil
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags

from antisgd import data, heavy_ball, models, plotting, results, theory
from experiments import analysis, comparison, curvature, recording, report, scales, training
from experiments import flags as shared

FLAGS = flags.FLAGS
shared.define(default_output_dir="runs/hyperparameters")
FLAGS.set_default("seeds", 5)
FLAGS.set_default("batch_size", 64)
FLAGS.set_default("eigenpairs", 2000)
FLAGS.set_default("sampling", ["without_replacement"])
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


class Setting(NamedTuple):
    """η of the first epoch, β and S."""

    learning_rate: float
    momentum: float
    batch_size: int

    @property
    def folder(self) -> str:
        """Name of its folder in the run folder."""
        return ",".join(f"{name}={value:g}" for name, value in self._asdict().items())


def main(argv: Any) -> None:
    """All settings, those of one batch size after those of the other."""
    del argv
    FLAGS.set_default("analysis_seeds", FLAGS.seeds)
    varied = grid()
    settings = list(dict.fromkeys(chain(*varied.values())))
    folder, problem = _start(settings)
    done = {one: kept for one in settings if (kept := _kept(folder, one))}
    for batch_size in dict.fromkeys(one.batch_size for one in settings):
        group = [one for one in settings if one.batch_size == batch_size]
        trained = _trained(problem, group, folder)
        for setting, states in zip(group, trained, strict=True):
            done[setting] = _measured(problem, setting, states, folder)
            rows = _rows(folder, problem, varied, done)
            results.write_json(folder / "summary.json", rows)
    _draw(folder, problem, varied, done)
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


def _start(settings: list[Setting]) -> tuple[Path, training.Problem]:
    """Refuses what cannot be before anything is computed."""
    if FLAGS.sampling != [REGIME]:
        raise ValueError(f"--sampling: the scales of App. I are those of {REGIME}")
    if not FLAGS.analysis_seeds:
        raise ValueError("--analysis_seeds=0 leaves no network to analyse: give 1 or more")
    lists = {name: FLAGS[name].value for name in ("learning_rates", "momenta", "batch_sizes")}
    config = shared.settings() | lists | {"momenta_learning_rate": FLAGS.momenta_learning_rate}
    for setting in sorted(settings, key=lambda one: one.batch_size):
        _use(setting)
        shared.check()
    # Every flag now says what the setting of the largest batches needs.
    folder = results.open_run(
        Path(FLAGS.output_dir), config, overwrite=FLAGS.overwrite, may_grow=("analysis_seeds",)
    )
    problem = training.load_problem(models.lenet(), weight_decay=FLAGS.weight_decay)
    results.check_fingerprint(folder, data.fingerprint(problem.dataset))
    _use(min(settings, key=lambda one: one.batch_size))
    plan = training.plan(problem, kept=1)
    print(f"{len(settings)} settings x {FLAGS.seeds} seeds; {plan}", flush=True)
    return folder, problem


def _use(setting: Setting) -> None:
    """The stages read their hyper-parameters from the flags."""
    FLAGS.learning_rate, FLAGS.momentum, FLAGS.batch_size = setting


def _trained(
    problem: training.Problem, group: list[Setting], folder: Path
) -> list[list[heavy_ball.TrainState]]:
    """The networks of each setting of one batch size, all trained side by side."""
    _use(group[0])
    checkpoint = folder / "checkpoints" / f"training_{FLAGS.batch_size}.npz"
    settings = [(one.learning_rate, one.momentum) for one in group]
    trained = training.train_networks(problem, training.schemes(), settings, checkpoint)
    found = []
    for i, setting in enumerate(group):
        own = jax.tree.map(lambda leaf, i=i: leaf[i * FLAGS.seeds :][: FLAGS.seeds], trained)
        _use(setting)
        training.write(folder / setting.folder / "training.npz", own, 1)
        found.append([training.network(own, seed) for seed in range(FLAGS.analysis_seeds)])
    return found


def _measured(
    problem: training.Problem,
    setting: Setting,
    states: list[heavy_ball.TrainState],
    folder: Path,
) -> list[analysis.Analysis]:
    """Analyses the networks that are not yet, and drops their eigenvectors."""
    _use(setting)
    for seed, state in enumerate(states):
        place = folder / setting.folder / f"seed_{seed}"
        if not (place / "analysis.npz").exists():
            print(f"{setting.folder}, seed {seed}", flush=True)
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


def _analysed(
    problem: training.Problem, state: heavy_ball.TrainState, seed: int, place: Path
) -> analysis.Analysis:
    pairs = curvature.find(problem, state.params, place)
    recorded = recording.record(
        problem, state, np.asarray(pairs.vectors), pairs.values, regime=REGIME,
        key=training.stream_key(seed), folder=place / f"trajectory_{REGIME}",
    )  # fmt: skip
    rate = training.final_learning_rate()
    return analysis.analyse(recorded, pairs.values, REGIME, problem.num_examples, rate)


def _rows(
    folder: Path,
    problem: training.Problem,
    varied: dict[str, list[Setting]],
    done: dict[Setting, list[analysis.Analysis]],
) -> list[dict[str, Any]]:
    """The rows of the settings that are done."""
    compared = _compared(problem, varied, done)
    rows = [_accuracy_row(folder, done)] * bool(FLAGS.epochs) + [_unconverged_row(folder, done)]
    rows += scales.grid_rows(
        {
            name.replace("_", " "): [compared[one] for one in settings if one in done]
            for name, settings in varied.items()
        }
    )
    for setting, one in compared.items():
        rate, beta, size = setting
        words = f"eta {rate:g}, beta {beta:g}, S {size}"
        rows += scales.setting_rows(f"eta{rate:g}_beta{beta:g}_S{size}", words, one)
    return comparison.for_data(rows, FLAGS.dataset)


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
    quantity, note = "smallest training accuracy of all networks", "first 10,000 pictures"
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


def _draw(
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


if __name__ == "__main__":
    shared.run(main)
