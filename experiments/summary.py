"""The rows of the main experiment's summary.json: paper | here ± standard error."""

from typing import Any

import numpy as np
from absl import flags
from scipy import stats

from antisgd import theory
from experiments import training
from experiments.comparison import mean_row, row

FLAGS = flags.FLAGS


def training_rows(problem: training.Problem, trained: training.Training) -> list[dict[str, Any]]:
    """Fig. 8's end points and, with several seeds, the comparison of Sec. 7."""
    if not FLAGS.epochs:
        return []
    first = training.network(trained, 0).params
    final = training.full_accuracy(problem.apply, first, problem.dataset.train)
    curves = trained.curves
    rows = [
        row("train_accuracy", "Fig. 8", "training accuracy after training", final.accuracy,
            paper=1.0, note="all training pictures, first seed"),
        row("train_loss", "Fig. 8", "training cross-entropy after training", final.loss,
            unit="nat"),
        row("test_accuracy", "Fig. 8", "test accuracy after training",
            curves["test_accuracy"][0, -1], paper=0.63, note="first seed"),
        row("best_test_accuracy", "Fig. 8", "best test accuracy over epochs",
            curves["test_accuracy"][0].max(), paper=0.645,
            note="first seed; the paper's value is the mean of 20"),
    ]  # fmt: skip
    regimes = len(training.schemes())
    if FLAGS.seeds > 1 and regimes > 1:
        accuracy = curves["test_accuracy"].reshape(regimes, FLAGS.seeds, -1)
        rows += _seed_rows(accuracy.max(axis=-1), "best", (0.645, 0.637, 0.008, 0.002))
        rows += _seed_rows(accuracy[..., -1], "last", (None, None, None, None))
    return rows


def _seed_rows(accuracy: np.ndarray, which: str, paper: tuple) -> list[dict[str, Any]]:
    """Mean accuracy of each regime and their paired difference."""
    names = [name.replace("_", " ") for name in FLAGS.sampling]
    paired = stats.ttest_rel(*accuracy)
    rows = [
        mean_row(f"{which}_accuracy_{FLAGS.sampling[i]}", "Sec. 7",
                 f"test accuracy, {which} epoch, {names[i]}", accuracy[i], paper=paper[i])
        for i in range(2)
    ]  # fmt: skip
    rows.append(
        mean_row(f"{which}_accuracy_difference", "Sec. 7",
                 f"difference of test accuracy, {which} epoch, {names[0]} minus {names[1]}",
                 accuracy[0] - accuracy[1], paper=paper[2], paper_error=paper[3],
                 note=f"paired by seed, p = {paired.pvalue:.2g}")
    )  # fmt: skip
    return rows


def curvature_rows(problem: training.Problem, pairs: Any) -> list[dict[str, Any]]:
    """Fig. 5 and the scales of Sec. 4.3."""
    M, rate = problem.steps_per_epoch, training.final_learning_rate()
    cross = theory.crossover_eigenvalue(rate, FLAGS.momentum, M)
    above = int(np.sum(pairs.values > cross))
    k = len(pairs.values)
    reach = "" if pairs.values[-1] < cross else "; all of those found, so there may be more"
    return [
        row("crossover_eigenvalue", "Sec. 4.3", "crossover eigenvalue 3(1-beta)/(eta M)", cross,
            paper=0.452, unit="1"),
        row("max_correlation_time", "Sec. 4.3", "tau_SGD = M/3 (1+beta)/(1-beta)",
            theory.max_correlation_time(FLAGS.momentum, M), paper=6333, unit="steps"),
        row("eigenvalues_above_crossover", "App. J", "eigenvalues above the crossover", above,
            paper=35, n=k, note="of those found" + reach),
        row("largest_eigenvalue", "Fig. 5", "largest Hessian eigenvalue", pairs.values[0],
            pairs.residuals[0], n=k, note="error: residual norm"),
        row("smallest_eigenvalue", "Fig. 5", "smallest of the eigenvalues found",
            pairs.values[-1], pairs.residuals[-1], n=k, paper=0.005 if k == 5000 else None,
            note="error: residual norm; the paper's is the 5,000th"),
        row("unconverged_eigenpairs", "Fig. 5", "eigenpairs not converged",
            np.sum(~pairs.converged), n=k, note="residual above 1e-3 of the eigenvalue and noise"),
    ]  # fmt: skip


def analysis_rows(
    problem: training.Problem, one: Any, recorded: Any, regime: str
) -> list[dict[str, Any]]:
    """Fig. 1, 2, 6, 7 in numbers for one regime."""
    without = regime == "without_replacement"
    figure = "Fig. 2" if without else "Fig. 7"
    n = len(one.eigenvalues)
    papers = {"weight": (1.077, 0.006), "velocity": (1.066, 0.001)} if without else {}
    rows = _noise_rows(problem.steps_per_epoch, one, recorded, regime)
    for name, law in one.fits.items():
        paper, error = papers.get(name, (None, None))
        rows.append(
            row(f"{name}_exponent_{regime}", figure, f"exponent of the {name} variance", law.exponent,
                law.robust_error, paper=paper, paper_error=error, n=law.num_points,
                note=f"robust error; least squares as in the paper: {law.exponent_error:.2g}"
                + ("; fitted below the crossover" if name == "weight" else ""))
        )  # fmt: skip
    for name, expected in (
        ("", one.stationary),
        ("_window", one.window),
        ("_effective", one.effective),
    ):
        rows += _agreement_rows(one, expected, name, regime, figure, n)
    ratio = one.measured.velocity / (one.noise * one.stationary.velocity)
    rows.append(_median_row(f"velocity_over_theory_{regime}", figure,
                            "velocity variance over Eq. 6, median", ratio))  # fmt: skip
    drifting = float(np.mean(one.drift_share > 0.5))
    rows.append(row(f"drifting_{regime}", "Sec. 5.3", "share of directions mostly drift", drifting,
                    n=n, note="the straight line makes over half of the raw variance"))  # fmt: skip
    losses = recorded.curves[[0, -1], 0]
    rows.append(row(f"loss_change_{regime}", "Fig. 8", "relative change of the training loss over "
                    "the analysis period", losses[1] / losses[0] - 1))  # fmt: skip
    return rows


_REFERENCES = {
    "": "Eq. 6",
    "_window": "the finite-window theory",
    "_effective": "the finite-window theory at the window's own curvature",
}


def _agreement_rows(one: Any, expected: Any, name: str, regime: str, figure: str, n: int):
    """Median of measured over expected correlation time, and the 90th percentile of |ratio − 1|."""
    ratio = one.measured.correlation_time / expected.correlation_time
    ratio = ratio[np.isfinite(ratio)]
    if not ratio.size:
        return []
    reference = _REFERENCES[name]
    return [
        _median_row(f"tau_over_theory{name}_{regime}", figure,
                    f"correlation time over {reference}, median", ratio),
        _median_row(f"tau_deviation{name}_{regime}", figure,
                    f"|correlation time over {reference} - 1|, median", np.abs(ratio - 1)),
        row(f"tau_deviation_p90{name}_{regime}", figure,
            f"|correlation time over {reference} - 1|, 90th percentile",
            np.percentile(np.abs(ratio - 1), 90), n=ratio.size),
    ]  # fmt: skip


def _median_row(identifier: str, item: str, quantity: str, values: np.ndarray) -> dict[str, Any]:
    """Median over directions; its error is 1.25 standard errors of a mean of equal quartiles."""
    low, high = np.percentile(values, [25, 75])
    error = 1.2533 * (high - low) / 1.349 / np.sqrt(values.size)
    return row(identifier, item, quantity, np.median(values), error, n=values.size)


def _noise_rows(M: int, one: Any, recorded: Any, regime: str) -> list[dict[str, Any]]:
    """Mean noise autocorrelation over a few ranges of lags against the law of the regime."""
    figure = "Fig. 1" if regime == "without_replacement" else "Fig. 6"
    rows = []
    for name, low, high in (("near", 1, M // 20), ("middle", M * 2 // 5, M * 3 // 5),
                            ("beyond", M + 1, 2 * M)):  # fmt: skip
        inside = (one.lags >= low) & (one.lags <= max(high, low))
        if not inside.any():
            continue
        expected = one.autocorrelation_theory[inside].mean()
        rows.append(
            mean_row(f"noise_autocorrelation_{name}_{regime}", figure,
                     f"noise autocorrelation, mean of lags {low} to {max(high, low)}",
                     one.autocorrelations[inside].mean(axis=0, dtype=np.float64),
                     note=f"theory {expected:.3g}; error over directions, taken as independent")
        )  # fmt: skip
    share = np.mean(np.square(recorded.full_gradient_error)) / np.mean(one.noise)
    rows.append(row(f"full_gradient_error_{regime}", figure, "error of the full gradient over the "
                    "noise, root mean square", np.sqrt(share), note="0 for --full_gradient=exact"))  # fmt: skip
    return rows


def comparison_rows(problem: training.Problem, analyses: Any) -> list[dict[str, Any]]:
    """Sec. 7 and App. G: both regimes side by side, and what the spectrum says of the loss."""
    if "without_replacement" not in analyses:
        return []
    one = analyses["without_replacement"]
    M, rate, beta = problem.steps_per_epoch, training.final_learning_rate(), FLAGS.momentum
    white = theory.stationary_variances(one.eigenvalues, rate, beta, theory.with_replacement())
    reduction = theory.loss_fluctuation_reduction(
        one.eigenvalues, one.stationary.weight, white.weight
    )
    n = len(one.eigenvalues)
    rows = [row("loss_fluctuation_reduction", "Sec. 7", "reduction of the loss fluctuation",
                reduction, paper=0.62, n=n, note="theory for the measured spectrum; the paper's is "
                "for 5,000 eigenvalues")]  # fmt: skip
    cross = theory.crossover_eigenvalue(rate, beta, M)
    flat = one.eigenvalues < cross
    if flat.any():
        rows.append(row("trace_ratio", "Eq. 111", "trace of the flat weight variances, with over "
                        "without anti-correlations, theory",
                        theory.trace_ratio(one.eigenvalues, rate, beta, M, one.noise),
                        n=int(flat.sum()), note="Eq. 111 as corrected"))  # fmt: skip
    other = analyses.get("with_replacement")
    if other is None or not flat.any():
        return rows
    ratio = other.measured.correlation_time[flat] / one.measured.correlation_time[flat]
    expected = other.window.correlation_time[flat] / one.window.correlation_time[flat]
    rows.append(_median_row("regime_ratio", "App. G", "correlation time with over without "
                            "replacement below the crossover, median", ratio)
                | {"paper": 10.0 if FLAGS.analysis_epochs == 20 else None,
                   "note": f"finite-window theory {np.median(expected):.3g}"})  # fmt: skip
    traces = one.measured.weight[flat].sum() / other.measured.weight[flat].sum()
    rows.append(row("trace_ratio_measured", "Eq. 111", "the same, measured in the window", traces,
                    n=int(flat.sum()), note="the window cuts the variance with replacement"))  # fmt: skip
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as text: item, quantity, paper, here ± error."""
    lines = [f"{'item':10} {'quantity':78} {'paper':>16} {'here':>20}"]
    for one in rows:
        paper = _with_error(one["paper"], one["paper_error"])
        here = _with_error(one["here"], one["here_error"])
        lines.append(f"{one['paper_item']:10} {one['quantity'][:78]:78} {paper:>16} {here:>20}")
    return "\n".join(lines)


def _with_error(value: float | None, error: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if error is None else f"{value:.4g} ± {error:.2g}"
