"""Weight and velocity variances and correlation times against theory (Fig. 2, 7)."""

from collections.abc import Mapping

import numpy as np

from antisgd import plotting, statistics
from antisgd.study.conditions import Conditions
from antisgd.study.findings.rows import Panels, Rows, exponent_row, median_row, row
from antisgd.study.stages.analysis import Analysis

__all__ = ["panels", "rows"]


def rows(one: Analysis, scheme: str, optimizer: str = "") -> Rows:
    """Fig. 2 and 7 in numbers for one scheme.

    Args:
        one: the period's statistics.
        scheme: of the period.
        optimizer: what moved the weights, in words, for a note where it has no theory.
    """
    figure = "Fig. 2" if scheme == "without_replacement" else "Fig. 7"
    made = _exponent_rows(one, scheme, figure)
    if not _has_theory(one):
        quantity, time = "correlation time, median", one.measured.correlation_time
        alone = median_row(f"correlation_time_{scheme}", figure, quantity, time)
        words = f"measured alone: the optimiser ({optimizer}) is not linear and has no theory"
        return [*made, alone | {"unit": "steps", "note": words}]
    for name in _REFERENCES:
        made += _agreement_rows(one, name, scheme, figure)
    for name in _SPREADS:
        made += _band_rows(one, name, scheme, figure)
    ratio = one.measured.velocity / (one.noise * one.stationary.velocity)
    ratio = ratio[~np.isnan(one.stationary.velocity)]
    if not ratio.size:
        return made
    quantity = "velocity variance over Eq. 6, median"
    made.append(median_row(f"velocity_over_theory_{scheme}", figure, quantity, ratio))
    return made


def _has_theory(one: Analysis) -> bool:
    return bool(np.isfinite([one.window.weight, one.stationary.weight]).any())


def _exponent_rows(one: Analysis, scheme: str, figure: str) -> Rows:
    rows = []
    for name, law in one.fits.items():
        low, high = one.fit_spans[name]
        region = f"; fitted from {low:.2g} to {high:.2g}"
        quantity = f"exponent of the {name} variance"
        identifier = f"{name}_exponent_{scheme}"
        rows.append(exponent_row(identifier, figure, quantity, law, note=region))
        if not _has_theory(one):
            continue
        expected = _expected_exponent(one, name)
        quantity += ", by the finite-window theory with the measured noise"
        rows.append(row(f"{name}_exponent_theory_{scheme}", figure, quantity, expected))
    return rows


def _expected_exponent(one: Analysis, name: str) -> float:
    """Of the theory along the same directions: near the crossover no power law holds."""
    low, high = one.fit_spans[name]
    region = (one.eigenvalues >= low) & (one.eigenvalues <= high)
    variance = one.noise * getattr(one.window, name)
    return statistics.fit_power_law(one.eigenvalues[region], variance[region]).exponent


_SPREADS = {"window": "spread"}
_REFERENCES = {
    "stationary": "Eq. 6",
    "window": "the finite-window theory",
}


def _agreement_rows(one: Analysis, name: str, scheme: str, figure: str) -> Rows:
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
            f"tau_over_theory_{name}_{scheme}",
            figure,
            f"correlation time over {reference}, median",
            ratio,
        ),
        median_row(
            f"tau_deviation_{name}_{scheme}",
            figure,
            f"|correlation time over {reference} - 1|, median",
            np.abs(ratio - 1),
        ),
        row(
            f"tau_deviation_p90_{name}_{scheme}",
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


def _band_rows(one: Analysis, name: str, scheme: str, figure: str) -> Rows:
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
                f"{quantity}_within_band_{name}_{scheme}",
                figure,
                f"share of {words} within the 95 % band of {_REFERENCES[name]}",
                inside,
                np.sqrt((inside * (1 - inside) + 1 / known.sum()) / known.sum()),
                n=int(known.sum()),
                note="theory 0.95",
            )
        )
    return rows


def panels(
    conditions: Conditions,
    analyses: Mapping[str, Analysis],
    predictions: Mapping[str, Mapping[str, np.ndarray]] | None = None,
) -> Panels:
    """Fig. 2 of the first scheme and, with several, Fig. 7.

    Args:
        conditions: of the periods.
        analyses: title of the scheme → its analysis.
        predictions: title of a scheme → what was predicted from θ_K alone, see `predict.shown`.
    """
    marks = conditions.crossover, conditions.max_correlation_time, predictions
    first = dict([next(iter(analyses.items()))])
    made = {"variances": plotting.variances_figure(first, *marks)}
    if len(analyses) > 1:
        made["variances_schemes"] = plotting.variances_figure(analyses, *marks)
    return made
