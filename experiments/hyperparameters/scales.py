"""τ_SGD and λ_cross as App. I determines them, measured and predicted, and their rows (Fig. 10)."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from antisgd import statistics
from antisgd.study.findings.rows import mean_row, row

# Eigenvalues whose correlation times make the fitted line.
LEADING = 20


class Scales(NamedTuple):
    """The two scales, of one network or [networks]; nan where the directions do not give one.

    Attributes:
        limit: τ_SGD, the mean correlation time of the directions below the theoretical λ_cross.
        limit_of_all: the same over all directions.
        crossover: λ where the line through the leading directions reaches `limit`.
    """

    limit: Any
    limit_of_all: Any
    crossover: Any


class Comparison(NamedTuple):
    """One setting's scales.

    Attributes:
        expected: of Eq. 109.
        measured: [seeds] each.
        window: what App. I makes of the finite-window theory at the same eigenvalues, [seeds].
        stationary: what it makes of Eq. 6 at the eigenvalues, [seeds].
        error: standard errors of `measured` over the directions of each network, [seeds].
        above: directions above the theoretical λ_cross, [seeds].
    """

    expected: Scales
    measured: Scales
    window: Scales
    stationary: Scales
    error: Scales
    above: np.ndarray


def determine(
    eigenvalues: np.ndarray, correlation_times: np.ndarray, expected: float
) -> tuple[Scales, Scales]:
    """τ_SGD and λ_cross from the plot of correlation times against eigenvalues (App. I).

    τ_SGD is a mean over directions; λ_cross is where the straight line through the 20 largest
    eigenvalues in the log–log plot meets it. Applied to the correlation times of a theory it
    says what the procedure makes of that theory.

    Args:
        eigenvalues: λ > 0, [k].
        correlation_times: τ, update steps, [k].
        expected: the theoretical λ_cross (Eq. 109b), below which τ_SGD is taken.

    Returns:
        The scales and their standard errors for independent directions.

    Raises:
        ValueError: fewer than three directions.
    """
    limit, limit_error = _mean(correlation_times[eigenvalues < expected])
    limit_of_all, error_of_all = _mean(correlation_times)
    leading = np.argsort(eigenvalues)[::-1][:LEADING]
    line = statistics.fit_power_law(eigenvalues[leading], correlation_times[leading])
    crossover = crossover_error = np.nan
    # Leading directions whose times do not fall with λ lie below the crossover themselves.
    if line.exponent + 2 * line.exponent_error < 0:
        crossover = np.exp(np.log(limit / line.prefactor) / line.exponent)
        # The line's own error there, and that of the height at which it is cut.
        apart = np.sqrt(np.mean(np.log(eigenvalues[leading] / crossover) ** 2))
        height = np.hypot(line.exponent_error * apart, limit_error / limit)
        crossover_error = crossover * height / -line.exponent
    found = Scales(limit, limit_of_all, crossover)
    return found, Scales(limit_error, error_of_all, crossover_error)


def _mean(times: np.ndarray) -> tuple[float, float]:
    if times.size < 2:
        return (times[0], np.nan) if times.size else (np.nan, np.nan)
    return times.mean(), times.std(ddof=1) / np.sqrt(times.size)


def compare(analyses: Sequence[Any], limit: float, crossover: float) -> Comparison:
    """The scales of a setting's networks, measured and predicted, beside Eq. 109.

    Args:
        analyses: one `analysis.Analysis` a seed.
        limit: τ_SGD of Eq. 109a.
        crossover: λ_cross of Eq. 109b.
    """

    def of(name):
        pairs = [
            determine(one.eigenvalues, getattr(one, name).correlation_time, crossover)
            for one in analyses
        ]
        values, errors = np.moveaxis(np.array(pairs, np.float64), 0, -1)
        return Scales(*values), Scales(*errors)

    measured, error = of("measured")
    above = np.array([np.sum(one.eigenvalues >= crossover) for one in analyses])
    return Comparison(
        expected=Scales(limit, limit, crossover), measured=measured, error=error,
        window=of("window")[0],
        stationary=of("stationary")[0], above=above,
    )  # fmt: skip


# Name in the ids, words and unit of each.
QUANTITIES = {
    "limit": ("tau_sgd", "tau_SGD, mean below the crossover", "steps"),
    "limit_of_all": ("tau_sgd_all", "tau_SGD, mean over all directions", "steps"),
    "crossover": ("lambda_cross", "lambda_cross, from the 20 leading directions", "1"),
}


def setting_rows(label: str, words: str, one: Comparison) -> list[dict[str, Any]]:
    """Fig. 10 at one setting: each scale beside Eq. 109, and over the finite-window theory."""
    rows = []
    for field, (name, quantity, unit) in QUANTITIES.items():
        known = np.isfinite(getattr(one.measured, field))
        if not known.any():
            continue
        values = getattr(one.measured, field)[known]
        made = mean_row(
            f"{name}_{label}", "Fig. 10", f"{quantity}, {words} (paper: Eq. 109)", values,
            unit=unit, paper=getattr(one.expected, field), note=_note(one, field),
        )  # fmt: skip
        if values.size == 1:
            made["here_error"] = float(getattr(one.error, field)[known][0])
        rows.append(made)
        if np.isfinite(_over_window(one, field)).any():
            rows.append(_ratio_row(one, field, label, words))
    return rows


def _ratio_row(one: Comparison, field: str, label: str, words: str) -> dict[str, Any]:
    name, quantity, _ = QUANTITIES[field]
    ratios = _over_window(one, field)
    known = np.isfinite(ratios)
    ratio = mean_row(
        f"{name}_over_window_{label}", "Fig. 10",
        f"{quantity}, over that of the finite-window theory, {words}", ratios[known],
    )  # fmt: skip
    if known.sum() == 1:
        relative_error = getattr(one.error, field) / getattr(one.measured, field)
        ratio["here_error"] = float((relative_error * ratios)[known][0])
    return ratio


def _over_window(one: Comparison, field: str) -> np.ndarray:
    """What is measured over what the procedure makes of the finite-window theory, [seeds]."""
    return getattr(one.measured, field) / getattr(one.window, field)


def _note(one: Comparison, field: str) -> str:
    known = np.isfinite(getattr(one.measured, field))
    values, window = getattr(one.measured, field)[known], getattr(one.window, field)[known]
    expected = getattr(one.expected, field)
    stationary = getattr(one.stationary, field)[known].mean()
    spread = "error over directions"
    if values.size > 1:
        spread = f"spread over seeds {values.std(ddof=1) / values.mean():.1%}"
    return (
        f"paper: Eq. 109; off by {values.mean() / expected - 1:+.1%}, from the finite-window "
        f"theory's {window.mean():.4g} by {np.mean(values / window) - 1:+.1%}; {spread}; Eq. 6 "
        f"gives {stationary:.4g}; {np.mean(one.above):.4g} directions above the crossover"
        + ("" if known.all() else f"; {np.sum(~known)} networks give none")
    )


def grid_rows(varied: Mapping[str, Sequence[Comparison]]) -> list[dict[str, Any]]:
    """What holds over settings: the scaling with Eq. 109, deviations beside the seeds' spread.

    Args:
        varied: hyper-parameter → its settings; one setting may stand in several lists.
    """
    distinct = list({id(one): one for ones in varied.values() for one in ones}.values())
    rows = []
    for field in ("limit", "crossover"):
        for parameter, ones in varied.items():
            rows += _exponent_rows(field, parameter, ones)
        rows += _deviation_rows(field, distinct)
    return rows


def _exponent_rows(field: str, parameter: str, ones: Sequence[Comparison]) -> list[dict[str, Any]]:
    """The power of Eq. 109 that is found, and the one that the finite-window theory leaves."""
    name, quantity, _ = QUANTITIES[field]
    expected = np.array([getattr(one.expected, field) for one in ones])
    of_window = _law(expected, [getattr(one.window, field) for one in ones])
    theory = "; the finite-window theory at the same eigenvalues: "
    theory = f"{theory}{of_window.exponent:.3g}" if of_window else ""
    over_window = f"{quantity}, over that of the finite-window theory"
    measured = [getattr(one.measured, field) for one in ones]
    ratios = [_over_window(one, field) for one in ones]
    rows = []
    for identifier, words, values, known, more in (
        (name, quantity, measured, "Eq. 109: 1", theory),
        (f"{name}_over_window", over_window, ratios, "that theory: 0", ""),
    ):
        law = _law(expected, values)
        if not law:
            continue
        own = _error_of_points(expected, values, ones, field)
        note = (
            f"{known}; the larger of the points' scatter about a line, {law.exponent_error:.2g}, "
            f"and what their own errors make, {own:.2g}{more}"
        )
        identifier = f"{identifier}_exponent_{parameter.replace(' ', '_')}"
        words = f"exponent of {words}, against Eq. 109 as the {parameter} varies"
        error = np.nanmax([law.exponent_error, own])
        rows.append(
            row(identifier, "Fig. 10", words, law.exponent, error, n=law.num_points, note=note)
        )
    return rows


def _error_of_points(
    expected: np.ndarray, values: Sequence[np.ndarray], ones: Sequence[Comparison], field: str
) -> float:
    """Standard error of a fitted exponent that follows from those of its points; nan if unknown.

    b = Σ (x_i − x̄) y_i/Σ (x_i − x̄)² with x and y the logarithms, y_i of the relative error s_i.
    """
    relative = np.array(
        [_relative_error(*point, field) for point in zip(values, ones, strict=True)]
    )
    known = np.isfinite([_mean_of_known(one) for one in values])
    x = np.log(expected[known]) - np.log(expected[known]).mean()
    return float(np.sqrt(np.sum((x * relative[known]) ** 2)) / np.sum(x**2))


def _relative_error(values: np.ndarray, one: Comparison, field: str) -> float:
    """Of a setting's mean: over its seeds, or over the directions where there is one network."""
    known = np.isfinite(values)
    if known.sum() > 1:
        return values[known].std(ddof=1) / values[known].mean() / np.sqrt(known.sum())
    relative = getattr(one.error, field) / getattr(one.measured, field)
    return float(relative[known][0]) if known.any() else np.nan


def _law(expected: np.ndarray, values: Sequence[np.ndarray]) -> statistics.PowerLaw | None:
    """None where fewer than three settings give a value or Eq. 109 does not tell them apart."""
    means = np.array([_mean_of_known(one) for one in values])
    known = np.isfinite(means)
    if known.sum() < 3 or np.ptp(expected[known]) == 0:
        return None
    return statistics.fit_power_law(expected[known], means[known])


def _mean_of_known(values: np.ndarray) -> float:
    """Of the networks that give a value; nan if none does."""
    known = values[np.isfinite(values)]
    return known.mean() if known.size else np.nan


def _deviation_rows(field: str, ones: Sequence[Comparison]) -> list[dict[str, Any]]:
    """Root mean squares over settings: off Eq. 109, off the window's theory, over the seeds."""
    name, quantity, _ = QUANTITIES[field]
    off = {reference: [] for reference in _REFERENCES}
    for one in ones:
        values = getattr(one.measured, field)
        off["eq109"].append(_mean_of_known(values) / getattr(one.expected, field) - 1)
        off["window"].append(_mean_of_known(_over_window(one, field)) - 1)
        values = values[np.isfinite(values)]
        if values.size > 1:
            off["seeds"].append(values.std(ddof=1) / values.mean())
    rows = []
    for reference, words in _REFERENCES.items():
        numbers = np.array(off[reference])
        numbers = numbers[np.isfinite(numbers)]
        if numbers.size:
            quantity_off = f"{quantity}, root mean square over settings of its {words}"
            here = np.sqrt(np.mean(numbers**2))
            identifier = f"{name}_off_{reference}"
            rows.append(row(identifier, "Fig. 10", quantity_off, here, n=numbers.size))
    return rows


_REFERENCES = {
    "eq109": "relative deviation from Eq. 109",
    "window": "relative deviation from the finite-window theory",
    "seeds": "relative spread over seeds",
}
