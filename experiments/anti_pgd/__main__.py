"""Does anti-correlated noise find flatter minima? (Sec. 7, Conclusion; Orvieto et al. 2022)

    python -m experiments.anti_pgd --flagfile=experiments/presets/anti_pgd_demo.flags

From the same initial weights LeNet descends in six ways: by minibatches without and with
replacement, and by full batches without noise, with white noise, with anti-correlated noise (the
law of Eq. 2 with M = 2) and with much stronger anti-correlated noise. All make --epochs times
ceil(N/S) steps. The injected noise is isotropic and has in every epoch the mean per-weight variance
of the minibatch noise of the same seed's run without replacement; the strong one --strong_factor
times that deviation, because Orvieto et al. add steps of the weights, not of the gradients, and
those are far larger. Full batches without noise then bring every network to its minimum, where
accuracy, trace and leading eigenvalues of the Hessian are compared over the seeds. At last the
injected noise is put on again in these minima, and the variances of the weights along the leading
eigenvectors are compared with theory.

Every step of full batches takes all pictures: sized for digits, not for 50,000 pictures on a CPU.
"""

from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from scipy import stats

from antisgd import models, results
from antisgd.plotting import injected as plots
from experiments import anti_pgd_minima as minima
from experiments import anti_pgd_training as ways
from experiments import comparison, plan, report, start, training
from experiments import flags as shared
from experiments.comparison import mean_row, row

FLAGS = flags.FLAGS
shared.define(default_output_dir="runs/anti_pgd")
flags.DEFINE_integer(
    "settle_epochs", 20, "Epochs without noise that lead to the minimum; as many with noise go "
    "before the recorded ones.", lower_bound=1,
)  # fmt: skip
flags.DEFINE_float(
    "strong_factor", 100.0, "Standard deviation of the strong anti-correlated noise over that of "
    "the matched one.", lower_bound=0.0,
)  # fmt: skip
FLAGS.set_default("seeds", 5)
FLAGS.set_default("eigenpairs", 20)

OWN = ("settle_epochs", "strong_factor")
TITLES = {
    "without_replacement": "without replacement",
    "with_replacement": "with replacement",
    "full_batch": "full batches",
    "white_noise": "white noise",
    "anti_correlated_noise": "anti-correlated noise",
    "strong_noise": "strong anti-correlated noise",
}
PAIRS = (
    ("without_replacement", "with_replacement"),
    ("without_replacement", "full_batch"),
    ("anti_correlated_noise", "white_noise"),
    ("anti_correlated_noise", "full_batch"),
    ("strong_noise", "full_batch"),
)
# Identifier → words, item of the paper, and the value of every seed.
QUANTITIES = {
    "test_accuracy": ("test accuracy", "Sec. 7", lambda found: found.curves[:, 3]),
    "trace": ("trace of the Hessian", "Conclusion", lambda found: found.trace),
    "largest_eigenvalue": (
        "largest Hessian eigenvalue", "Conclusion", lambda found: found.eigenvalues[:, 0],
    ),
    "train_loss": ("training cross-entropy", "Conclusion", lambda found: found.curves[:, 0]),
}  # fmt: skip


def main(argv: Any) -> None:
    """Trains all ways, settles, examines the minima, injects noise there, writes the results."""
    del argv
    if FLAGS.epochs < 1:
        raise ValueError("--epochs=0 leaves no minibatch noise to match: give at least 1")
    own = {name: FLAGS[name].value for name in OWN}
    problem, folder = start.start(models.lenet(), work=work, **own)
    if FLAGS.plan:
        return
    trained = ways.train(problem, folder)
    settled = ways.settle(problem, trained, folder)
    found = {name: minima.examine(problem, settled[name], folder, name) for name in settled}
    windows = {
        name: minima.windows(problem, settled[name], trained[name].deviations[:, -1], folder, name)
        for name in ways.INJECTED
    }
    rows = minima_rows(found) + precision_rows(found)
    rows += noise_rows(trained) + window_rows(windows)
    _write(folder, rows, found, windows)


def work(problem: training.Problem, folder: Path) -> plan.Work:
    """Eigenpairs of every network; the descents say themselves how long they take."""
    del problem
    places = [folder / f"{name}_{i}" for name in ways.METHODS for i in range(FLAGS.seeds)]
    return plan.Work(
        pairs=FLAGS.eigenpairs,
        directions=0,
        periods=0,
        train=0,
        solves=sum(plan.missing(place / "eigenpairs.npz") for place in places),
        records=0,
        products=0,
    )


def minima_rows(found: dict[str, minima.Minima]) -> list[dict[str, Any]]:
    """Every quantity at the minima, mean over the seeds, and the differences paired by seed."""
    rows = []
    for key, (words, item, of) in QUANTITIES.items():
        values = {name: np.asarray(of(one), np.float64) for name, one in found.items()}
        rows += [
            mean_row(f"{key}_{name}", item, f"{words}, {TITLES[name]}", values[name])
            for name in found
        ]
        rows += [_difference(key, item, words, values, *pair) for pair in PAIRS]
    return rows


def _difference(key, item, words, values, first, second) -> dict[str, Any]:
    p = stats.ttest_rel(values[first], values[second]).pvalue
    return mean_row(
        f"{key}_{first}_minus_{second}", item,
        f"{words}, {TITLES[first]} minus {TITLES[second]}",
        values[first] - values[second], note=f"paired by seed, p = {p:.2g}",
    )  # fmt: skip


def noise_rows(trained: dict[str, ways.Descent]) -> list[dict[str, Any]]:
    """How strong the matched noise is, and whether drawing with replacement makes it stronger."""
    without, other = (trained[name].deviations for name in ways.MINIBATCHES)
    words = "standard deviation of the noise of one weight"
    return [
        mean_row("noise_first", "Sec. 2", f"{words}, first epoch", without[:, 0]),
        mean_row("noise_mean", "Sec. 2", f"{words}, root mean square over training",
                 np.sqrt(np.mean(without**2, axis=1))),
        mean_row("noise_last", "Sec. 2", f"{words}, last epoch and recorded window",
                 without[:, -1]),
        mean_row("noise_ratio", "App. G", "noise variance with over without replacement, training",
                 np.mean(other**2, axis=1) / np.mean(without**2, axis=1)),
    ]  # fmt: skip


def window_rows(windows: dict[str, list[minima.Window]]) -> list[dict[str, Any]]:
    """Variances of the shaken weights over the theory of their own noise, and of white noise."""
    rows = []
    for name, seeds in windows.items():
        for quantity in ("weight", "velocity"):
            ratio = [_ratio(one.measured, one.expected, quantity) for one in seeds]
            words = f"{quantity} variance over the finite-window theory of its law, {TITLES[name]}"
            note = "mean over the leading eigenvectors; above 1 also where descent is left"
            identifier = f"{quantity}_over_theory_{name}"
            rows.append(mean_row(identifier, "Eq. 6", words, ratio, note=note))
    seeds = windows["anti_correlated_noise"]
    expected = np.mean([_ratio(one.expected, one.white, "weight") for one in seeds])
    ratio = [_ratio(one.measured, one.white, "weight") for one in seeds]
    words = "weight variance over the theory of white noise, anti-correlated noise"
    note = f"the theory of its own law gives {expected:.3g}"
    return [*rows, mean_row("weight_over_white_theory", "Eq. 6", words, ratio, note=note)]


def _ratio(one: Any, other: Any, quantity: str) -> float:
    return float(np.mean(getattr(one, quantity) / getattr(other, quantity)))


def precision_rows(found: dict[str, minima.Minima]) -> list[dict[str, Any]]:
    """How exact the traces are, and how near the networks are to their minima."""
    error = np.sqrt(np.mean([one.trace_error**2 for one in found.values()]))
    gradient = np.concatenate([one.gradient for one in found.values()])
    return [
        row("trace_error", "Conclusion", "standard error of one trace by its random vectors", error,
            n=gradient.size),
        row("gradient_norm", "Conclusion", "norm of the gradient at the minima, largest",
            gradient.max(), n=gradient.size),
    ]  # fmt: skip


def _write(
    folder: Path,
    rows: list[dict[str, Any]],
    found: dict[str, minima.Minima],
    windows: dict[str, list[minima.Window]],
) -> None:
    quantities = {
        "test accuracy (%)": [100 * one.curves[:, 3] for one in found.values()],
        "trace of the Hessian": [one.trace for one in found.values()],
        "largest eigenvalue": [one.eigenvalues[:, 0] for one in found.values()],
    }
    panels = {
        "anti_pgd_minima": plots.minima(quantities, list(TITLES.values())),
        "anti_pgd_variances": plots.shaken_weights(
            {TITLES[name]: seeds for name, seeds in windows.items()}
        ),
    }
    for name, panel in panels.items():
        results.write_figure(folder / "figures" / name, panel)
    for name, one in found.items():
        results.write_arrays(folder / f"minima_{name}.npz", **one._asdict())
    rows = comparison.for_data(rows, training.on_the_papers_pictures())
    results.write_json(folder / "summary.json", rows)
    results.write_text(folder / "report.html", report.render(folder))
    print(comparison.table(rows))
    print(f"figures, summary.json and report.html are in {folder}")


if __name__ == "__main__":
    shared.run(main)
