"""Where few examples carry the noise: how few, and the band of τ that knows it."""

import numpy as np

from antisgd.study.findings.rows import Rows, median_row, row
from antisgd.study.stages.analysis import Analysis
from antisgd.study.stages.tails import Tails

__all__ = ["period_rows", "rows"]

# Bands differ where an end is off by this share of the Gaussian band's width; so many are named.
_APART, _NAMED = 0.2, 3
# Directions outside the band that are named.
_FARTHEST = 6


def rows(found: Tails, eigenvalues: np.ndarray, num_examples: int) -> Rows:
    """How few examples carry the noise of a direction at θ_K."""
    known = np.isfinite(found.carriers.number)
    if not known.any():
        return []
    number, share = found.carriers.number[known], found.carriers.share[known]
    lam = eigenvalues[known]
    fewest = int(np.argmin(number))
    made = median_row(
        "noise_carriers", "Assumption 2",
        "equal examples that would carry the noise of a direction, median", number,
    )  # fmt: skip
    made["note"] = (
        f"of {num_examples}, Gaussian ones count a third; fewest {number[fewest]:.3g} at lambda "
        f"{lam[fewest]:.3g}"
    )
    words = "share of the three largest examples in the noise of a direction, median"
    largest = median_row("noise_leading_share", "Assumption 2", words, share)
    largest["note"] = f"largest {share.max():.3g} at lambda {lam[np.argmax(share)]:.3g}"
    return [made, largest]


def period_rows(found: Tails, one: Analysis, eigenvalues: np.ndarray, scheme: str) -> Rows:
    """τ in both bands along the same directions, and those where the bands differ by name."""
    band = found.bands.get(scheme)
    if band is None or not np.isfinite(one.spread.correlation_time).any():
        return []
    figure = "Fig. 2" if scheme == "without_replacement" else "Fig. 7"
    inside = (np.cumsum(eigenvalues > 0) - 1)[found.places]
    expected = one.window.correlation_time[inside]
    measured = one.measured.correlation_time[inside] / expected
    band = band / expected[:, None]
    gaussian = one.spread.correlation_time[inside][:, [0, -1]]
    note = f"theory 0.95; {len(inside)} directions, half of them those the fewest examples carry"
    made = [
        _share_row(f"tau_within_{name}_band_{scheme}", figure, words, measured, ends, note)
        for name, words, ends in (
            ("gaussian", "the 95 % band for Gaussian noise", gaussian),
            ("resampled", "the 95 % band of resampled pictures", band),
        )
    ]
    width, other = np.ptp(band, axis=1), np.ptp(gaussian, axis=1)
    ratio = median_row(
        f"band_width_ratio_{scheme}", figure,
        "width of the band of resampled pictures over the Gaussian one, median", width / other,
    )  # fmt: skip
    off = np.abs(band - gaussian).max(axis=1) / other
    ratio["note"] = _names(found, eigenvalues, band, gaussian, off)
    return [*made, ratio, _outside(found, one, eigenvalues, scheme)]


def _outside(found: Tails, one: Analysis, eigenvalues: np.ndarray, scheme: str):
    """How many directions leave the band of Gaussian noise, and the farthest by name."""
    positive = np.flatnonzero(eigenvalues > 0)
    ratio = one.measured.correlation_time / one.window.correlation_time
    low, high = one.spread.correlation_time[:, [0, -1]].T
    beyond = np.maximum(np.log(ratio / high), np.log(low / ratio))
    outside = np.flatnonzero(beyond > 0)
    known, drift, carriers = np.isfinite(beyond), one.drift_share, found.carriers
    words = f"by the theory {0.05 * known.sum():.3g}"
    if outside.size:
        number = carriers.number[positive]
        words += (
            f"; drift makes {np.median(drift[outside]):.2g} of their raw variance (of all "
            f"{np.median(drift[known]):.2g}), {np.nanmedian(number[outside]):.3g} examples carry "
            f"their noise (of all {np.nanmedian(number):.3g}), medians"
        )
    for i in outside[np.argsort(-beyond[outside])][:_FARTHEST]:
        place = positive[i]
        words += (
            f"; lambda {one.eigenvalues[i]:.3g}: {ratio[i]:.2g} for {low[i]:.2g} to {high[i]:.2g}, "
            f"drift {drift[i]:.2g}, examples {', '.join(map(str, carriers.leading[place]))} hold "
            f"{carriers.share[place]:.2g}"
        )
    figure = "Fig. 2" if scheme == "without_replacement" else "Fig. 7"
    quantity = "directions whose correlation time leaves the 95 % band for Gaussian noise"
    return row(f"outside_band_{scheme}", figure, quantity, outside.size, n=known.sum(), note=words)


def _share_row(identifier, figure, words, measured, ends, note):
    within, count = np.mean((measured > ends[:, 0]) & (measured < ends[:, 1])), len(measured)
    error = np.sqrt((within * (1 - within) + 1 / count) / count)
    quantity = f"share of correlation times within {words}"
    return row(identifier, figure, quantity, within, error, n=count, note=note)


def _names(found: Tails, eigenvalues, band, gaussian, off: np.ndarray) -> str:
    """The directions whose bands differ most."""
    differ = np.flatnonzero(off > _APART)
    words = f"an end differs by a fifth of the width in {len(differ)} of {len(off)}"
    for i in differ[np.argsort(-off[differ])][:_NAMED]:
        place = found.places[i]
        share = found.carriers.share[place]
        words += (
            f"; lambda {eigenvalues[place]:.3g} (three examples hold {share:.2g}): "
            f"{band[i, 0]:.2g} to {band[i, 1]:.2g} for {gaussian[i, 0]:.2g} to {gaussian[i, 1]:.2g}"
        )
    return words
