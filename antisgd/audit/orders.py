"""Are the epochs independent uniform orders? Rank tests of positions, exact moments."""

import numpy as np
from scipy import stats

__all__ = ["order_p_values", "two_sided"]


def two_sided(lower: float, upper: float) -> float:
    """A two-sided p-value from both tails."""
    return float(min(1.0, 2 * min(lower, upper)))


def order_p_values(places: np.ndarray) -> dict[str, float]:
    """Three tests that the orders of E epochs are independent and uniform.

    "fixed order": do examples keep their place over all epochs? Σ_n (Σ_e s_{e,n})² of the
    standardised places s, of mean N − 1 and variance 2(N−1)(E−1)/E per E·N/(N−1), as a Gamma law:
    the sum of all rank correlations of two epochs (Friedman's statistic). A windowed shuffle of
    one list does. "last order": rank correlations of epochs that follow each other, √(N−1)ρ of
    variance 1: a shuffle that starts from the last order. "company": pairs of examples that share
    a batch in two epochs that follow each other, as the χ² of the table batch × batch: shuffled
    blocks.

    Args:
        places: the batch number of each example in each epoch, [E, N]; E ≥ 2. Examples that were
            left out have the number of batches as theirs.

    Returns:
        Name → p-value, two-sided.
    """
    E, N = places.shape
    s = places - places.mean(axis=1, keepdims=True)
    s = s / s.std(axis=1, keepdims=True)
    friedman = (N - 1) / N * np.sum(s.sum(axis=0) ** 2) / E
    shape = (N - 1) * E / (2 * (E - 1))
    law = stats.gamma(shape, scale=(N - 1) / shape)
    following = np.sum(s[1:] * s[:-1]) / N * np.sqrt((N - 1) / (E - 1))
    found = {
        "fixed order": two_sided(law.cdf(friedman), law.sf(friedman)),
        "last order": float(2 * stats.norm.sf(abs(following))),
    }
    sizes = np.bincount(places[0])
    if sizes.max() > 1 and len(sizes) > 1:
        found["company"] = _company(places)
    return found


def _company(places: np.ndarray) -> float:
    """χ² of how the batches of an epoch are spread over those of the next, summed over epochs."""
    E, N = places.shape
    M = int(places.max()) + 1
    total = 0.0
    for before, after in zip(places[:-1], places[1:], strict=True):
        cells, together = np.unique(before * M + after, return_counts=True)
        rows, columns = np.bincount(before, minlength=M), np.bincount(after, minlength=M)
        expected = rows[cells // M] * columns[cells % M] / N
        total += np.sum(together**2 / expected) - N
    degrees = (M - 1) ** 2 * (E - 1)
    # Exactly the mean of a table with fixed margins; its variance is χ²'s up to 1/M and 1/N.
    scaled = total * (N - 1) / N
    return two_sided(stats.chi2.cdf(scaled, degrees), stats.chi2.sf(scaled, degrees))
