"""The rows on curvature and fluctuations in summary.json: paper | here ± standard error."""

from typing import Any

import numpy as np
from absl import flags

from antisgd import statistics, theory
from experiments import training
from experiments.comparison import exponent_row, median_row, row

FLAGS = flags.FLAGS


def curvature_rows(problem: training.Problem, pairs: Any) -> list[dict[str, Any]]:
    """Fig. 5: the eigenvalues found, and how many lie above the crossover."""
    M = problem.steps_per_epoch
    cross = training.crossover(problem)
    k = len(pairs.values)
    complete = pairs.values[-1] < cross
    reach = "of those found" + ("" if complete else ", all of them: there may be more")
    above = row(
        "eigenvalues_above_crossover",
        "App. J",
        "eigenvalues above the crossover",
        np.sum(pairs.values > cross),
        paper=35,
        n=k,
        note=reach,
    )
    ends = []
    for name, index, paper in (("largest", 0, None), ("smallest", -1, 0.005)):
        quantity = f"{name} of the Hessian eigenvalues found"
        value, error = pairs.values[index], pairs.residuals[index]
        paper = paper if k == 5000 else None
        note = "error: residual norm"
        identifier = f"{name}_eigenvalue"
        ends.append(row(identifier, "Fig. 5", quantity, value, error, paper=paper, n=k, note=note))
    unconverged = row(
        "unconverged_eigenpairs",
        "Fig. 5",
        "eigenpairs not converged",
        np.sum(~pairs.converged),
        n=k,
        note="residual above 1e-3 of the eigenvalue and above the noise of the product",
    )
    blurred = row(
        "blurred_eigenpairs",
        "Fig. 5",
        "eigenpairs that are no single eigenvectors for sure",
        np.sum(pairs.blurred),
        n=k,
        note="eigenvalues nearer than the noise of the product, and all smaller ones",
    )
    return [*_scale_rows(cross, M), above, *ends, unconverged, blurred]


def _scale_rows(cross: float, steps_per_epoch: int) -> list[dict[str, Any]]:
    """The two scales of Sec. 4.3 at this run's settings."""
    limit = theory.max_correlation_time(FLAGS.momentum, steps_per_epoch)
    quantity = "tau_SGD = M/3 (1+beta)/(1-beta)"
    return [
        row("crossover_eigenvalue", "Sec. 4.3", "3(1-beta)/(eta M)", cross),
        row("max_correlation_time", "Sec. 4.3", quantity, limit, unit="steps"),
    ]


def analysis_rows(
    problem: training.Problem, one: Any, recorded: Any, regime: str
) -> list[dict[str, Any]]:
    """Fig. 1, 2, 6, 7 in numbers for one regime."""
    figure = "Fig. 2" if regime == "without_replacement" else "Fig. 7"
    rows = _noise_rows(problem.steps_per_epoch, one, recorded, regime)
    rows += _exponent_rows(one, regime, figure)
    for name in _REFERENCES:
        rows += _agreement_rows(one, name, regime, figure)
    for name in _SPREADS:
        rows += _band_rows(one, name, regime, figure)
    ratio = one.measured.velocity / (one.noise * one.stationary.velocity)
    quantity = "velocity variance over Eq. 6, median"
    rows.append(median_row(f"velocity_over_theory_{regime}", figure, quantity, ratio))
    return rows


def _exponent_rows(one: Any, regime: str, figure: str) -> list[dict[str, Any]]:
    without = regime == "without_replacement"
    papers = {"weight": (1.077, 0.006), "velocity": (1.066, 0.001)} if without else {}
    k, rows = len(one.eigenvalues), []
    for name, law in one.fits.items():
        paper, error = papers.get(name, (None, None))
        low, high = one.fit_spans[name]
        region = f"; fitted from {low:.2g} to {high:.2g}"
        region += f"; {k} of the paper's 5,000 directions" * (without and k < 5000)
        quantity = f"exponent of the {name} variance"
        errors = {"paper": paper, "paper_error": error, "note": region}
        rows.append(exponent_row(f"{name}_exponent_{regime}", figure, quantity, law, **errors))
        expected = _expected_exponent(one, name)
        quantity += ", by the finite-window theory with the measured noise"
        rows.append(row(f"{name}_exponent_theory_{regime}", figure, quantity, expected))
    return rows


def _expected_exponent(one: Any, name: str) -> float:
    """Of the theory along the same directions: near the crossover no power law holds."""
    low, high = one.fit_spans[name]
    region = (one.eigenvalues >= low) & (one.eigenvalues <= high)
    variance = one.noise * getattr(one.window, name)
    return statistics.fit_power_law(one.eigenvalues[region], variance[region]).exponent


_SPREADS = {"window": "spread", "effective": "effective_spread"}
_REFERENCES = {
    "stationary": "Eq. 6",
    "window": "the finite-window theory",
    "effective": "the finite-window theory at the window's own curvature",
}


def _agreement_rows(one: Any, name: str, regime: str, figure: str) -> list[dict[str, Any]]:
    """Median of measured over expected correlation time, and percentiles of |ratio − 1|.

    Beside them what a single window's scatter makes of them where the theory is exact.
    """
    ratio = one.measured.correlation_time / getattr(one, name).correlation_time
    ratio = ratio[np.isfinite(ratio)]
    if not ratio.size:
        return []
    reference = _REFERENCES[name]
    made = [
        median_row(
            f"tau_over_theory_{name}_{regime}",
            figure,
            f"correlation time over {reference}, median",
            ratio,
        ),
        median_row(
            f"tau_deviation_{name}_{regime}",
            figure,
            f"|correlation time over {reference} - 1|, median",
            np.abs(ratio - 1),
        ),
        row(
            f"tau_deviation_p90_{name}_{regime}",
            figure,
            f"|correlation time over {reference} - 1|, 90th percentile",
            np.percentile(np.abs(ratio - 1), 90),
            n=ratio.size,
        ),
    ]
    if name in _SPREADS:
        scatter = getattr(one, _SPREADS[name]).correlation_time[:, 1:-1]
        scatter = scatter[np.isfinite(scatter)]
        off = np.abs(scatter - 1)
        exact = np.median(scatter), np.median(off), np.percentile(off, 90)
        for row_of, value in zip(made, exact, strict=True):
            row_of["note"] = f"by the theory {value:.3g}: one window's time scatters, and skewly"
    return made


def _band_rows(one: Any, name: str, regime: str, figure: str) -> list[dict[str, Any]]:
    """Share of the directions inside the band that the theory and its sampling spread predict."""
    expected, spread, rows = getattr(one, name), getattr(one, _SPREADS[name]), []
    for quantity in ("correlation_time", "weight"):
        ratio = getattr(one.measured, quantity) / getattr(expected, quantity)
        if quantity == "weight":
            ratio = ratio / one.noise
        low, high = getattr(spread, quantity)[:, [0, -1]].T
        known = np.isfinite(ratio)
        if not known.any():
            continue
        inside = np.mean((ratio > low)[known] & (ratio < high)[known])
        words = "correlation times" if quantity == "correlation_time" else "weight variances"
        rows.append(
            row(
                f"{quantity}_within_band_{name}_{regime}",
                figure,
                f"share of {words} within the 95 % band of {_REFERENCES[name]}",
                inside,
                np.sqrt((inside * (1 - inside) + 1 / known.sum()) / known.sum()),
                n=int(known.sum()),
                note="theory 0.95",
            )
        )
    return rows


def _noise_rows(M: int, one: Any, recorded: Any, regime: str) -> list[dict[str, Any]]:
    """Mean noise autocorrelation over a few ranges of lags against the law of the regime."""
    figure = "Fig. 1" if regime == "without_replacement" else "Fig. 6"
    share = _full_gradient_share(recorded)
    shift = f"; the full gradient's own error may shift it by up to {share:.1g}" if share else ""
    rows = []
    for name, low, high in (
        ("near", 1, M // 20),
        ("middle", M * 2 // 5, M * 3 // 5),
        ("beyond", M + 1, 2 * M),
    ):
        inside = (one.lags >= low) & (one.lags <= max(high, low))
        if not inside.any():
            continue
        expected = one.autocorrelation_theory[inside].mean()
        values = one.autocorrelations[inside].mean(axis=0, dtype=np.float64)
        rows.append(
            row(
                f"noise_autocorrelation_{name}_{regime}",
                figure,
                f"noise autocorrelation, mean of lags {low} to {max(high, low)}",
                values.mean(),
                values.std(ddof=1) / np.sqrt(one.directions),
                n=values.size,
                note=f"theory {expected:.3g}; the directions are worth {one.directions:.0f} "
                f"independent ones{shift}",
            )
        )
    rows.append(
        row(
            f"full_gradient_error_{regime}",
            figure,
            "error of the full gradient over the noise, root mean square",
            np.sqrt(share),
            note="0 for --full_gradient=exact",
        )
    )
    return rows


def _full_gradient_share(recorded: Any) -> float:
    """Error of the modelled full gradient over the noise, mean square over the directions."""
    noise = recorded.trajectory.noise
    variance = np.einsum("tk,tk->k", noise, noise) / len(noise)
    return float(np.mean(np.square(recorded.full_gradient_error) / variance))
