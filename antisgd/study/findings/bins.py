"""Measured over predicted in bins of λ/λ_cross: one median over all directions hides both ends."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from antisgd import plotting
from antisgd.study.conditions import Conditions
from antisgd.study.findings.rows import Panels, Rows, row
from antisgd.study.stages.analysis import Analysis

__all__ = ["Bins", "binned", "mean_rows", "panels", "places", "rows"]

# Bins a decade of λ/λ_cross, and the fewest directions that make one.
PER_DECADE, FEWEST = 2, 3
_WORDS = {
    "weight": "weight variance", "velocity": "velocity variance",
    "correlation_time": "correlation time",
}  # fmt: skip


class Bins(NamedTuple):
    """Measured over predicted in the bins that hold directions enough, [bins] each.

    Attributes:
        edges: of each bin in λ/λ_cross, [bins, 2].
        centre: geometric mean of λ/λ_cross of its directions.
        ratio: mean of measured over the finite-window theory at the curvature of θ_K. For the two
            variances exact theory makes 1 of it; a window's time is skew, see `expected`.
        error: standard error of the mean over directions.
        expected: what exact theory and one window's scatter make of the mean; nan without it.
        number: directions.
    """

    edges: np.ndarray
    centre: np.ndarray
    ratio: np.ndarray
    error: np.ndarray
    expected: np.ndarray
    number: np.ndarray


def binned(conditions: Conditions, one: Analysis) -> dict[str, Bins]:
    """The bins of weight and velocity variance and of correlation time."""
    position = one.eigenvalues / conditions.crossover
    edges, inside = places(position)
    return {
        name: _bins(position, _ratio(one, name), _scattered(one, name), inside, edges)
        for name in _WORDS
    }


def places(position: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Edges of the bins [bins, 2] of λ/λ_cross [k], and which directions lie in each, bool [k]."""
    place = np.floor(PER_DECADE * np.log10(position)).astype(int)
    numbers, counts = np.unique(place, return_counts=True)
    numbers = numbers[counts >= FEWEST]
    edges = 10.0 ** (np.stack([numbers, numbers + 1], axis=-1) / PER_DECADE)
    return edges, [place == number for number in numbers]


def mean_rows(name: str, words: str, position: np.ndarray, ratio: np.ndarray, scheme: str) -> Rows:
    """The mean of a ratio [k] in each bin of λ/λ_cross [k], a row a bin.

    Args:
        name: what the rows' ids begin with.
        words: what the ratio is.
        position: λ/λ_cross of each direction.
        ratio: of each direction.
        scheme: of the period.
    """
    figure, made = "Fig. 2" if scheme == "without_replacement" else "Fig. 7", []
    for (low, high), where in zip(*places(position), strict=True):
        span = f"{low:.2g} to {high:.2g}"
        made.append(
            row(
                f"{name}_{span.replace(' ', '_')}_{scheme}", figure,
                f"{words}, lambda/lambda_cross {span}", ratio[where].mean(),
                ratio[where].std(ddof=1) / np.sqrt(where.sum()), n=int(where.sum()),
                note="mean over directions, and their error",
            )
        )  # fmt: skip
    return made


def _ratio(one: Analysis, name: str) -> np.ndarray:
    noise = 1 if name == "correlation_time" else one.noise
    return getattr(one.measured, name) / (noise * getattr(one.window, name))


def _scattered(one: Analysis, name: str) -> np.ndarray:
    """The mean that exact theory expects of each direction, [k]."""
    if name != "correlation_time":
        return np.ones(one.eigenvalues.size)
    return one.spread.correlation_time[:, 1:-1].mean(axis=1)


def _bins(position, ratio, scattered, inside, edges) -> Bins:
    sizes = np.array([where.sum() for where in inside])
    errors = [ratio[where].std(ddof=1) / np.sqrt(where.sum()) for where in inside]
    return Bins(
        edges,
        np.array([np.exp(np.log(position[where]).mean()) for where in inside]),
        np.array([ratio[where].mean() for where in inside]),
        np.array(errors),
        np.array([scattered[where].mean() for where in inside]),
        sizes,
    )


def rows(bins: Mapping[str, Bins], scheme: str) -> Rows:
    """One row for each bin and quantity of a scheme."""
    figure = "Fig. 2" if scheme == "without_replacement" else "Fig. 7"
    made = []
    for name, one in bins.items():
        for i, (low, high) in enumerate(one.edges):
            made.append(
                row(
                    f"{name}_over_theory_{low:.2g}_to_{high:.2g}_{scheme}",
                    figure,
                    f"{_WORDS[name]} over finite-window theory, lambda/lambda_cross "
                    f"{low:.2g} to {high:.2g}",
                    one.ratio[i],
                    one.error[i],
                    n=int(one.number[i]),
                    note=f"theory {one.expected[i]:.3g}; mean over directions, and their error",
                )
            )
    return made


def panels(bins: Mapping[str, Mapping[str, Bins]]) -> Panels:
    """Measured over theory against λ/λ_cross, a column a scheme.

    Args:
        bins: title of the scheme → its bins.
    """
    shown = {
        title: {
            name: plotting.Bins(one.centre, one.ratio, one.error, one.number)
            for name, one in each.items()
        }
        for title, each in bins.items()
    }
    return {"agreement": plotting.binned_agreement(shown)} if _any(bins) else {}


def _any(bins: Mapping[str, Mapping[str, Bins]]) -> bool:
    return any(one.number.size for each in bins.values() for one in each.values())
