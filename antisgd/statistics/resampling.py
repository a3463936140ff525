"""The scatter of a window's statistics from resampled noise: no assumption on its distribution."""

from typing import Any, NamedTuple

import numpy as np
from scipy import signal

from antisgd import inputs

__all__ = ["Carriers", "carriers", "resampled_windows"]

# Directions whose paths are held at a time, and examples gathered at a time along them.
_DIRECTIONS, _GATHERED = 500, 2000


def resampled_windows(
    gradients: np.ndarray,
    eigenvalues: np.ndarray,
    learning_rate: float,
    momentum: float,
    schedules: Any,
    num_steps: int,
) -> np.ndarray:
    """σ_θ², σ_v² and τ of windows whose noise is made of the examples' own gradients.

    A band of the theory takes the noise for Gaussian. Here every window draws batches anew, and
    the noise is the mean over the batch of p_i·(g_n − ḡ): heavy tails, such as a few misfitted
    examples, scatter as they do. Quadratic along each direction, mean velocity removed as in
    Sec. 5.3; quantiles over the first axis are the band.

    Args:
        gradients: P∇l_n(θ_K), [N, k], such as of `trajectory.example_gradients`.
        eigenvalues: λ > 0, [k].
        learning_rate: η.
        momentum: β.
        schedules: one for each window, index arrays int [steps, batch] of T steps or more, or
            pairs of them and weights as a `sampling.Schedule` is; what is beyond the last T comes
            before the window.
        num_steps: T.

    Returns:
        [3, windows, k].

    Raises:
        ValueError: arrays that do not belong together, or a schedule of fewer steps.
    """
    g = np.asarray(inputs.finite("gradients", gradients, 2), np.float64)
    a = learning_rate * np.asarray(inputs.finite("eigenvalues", eigenvalues, 1), np.float64)
    if a.shape != g.shape[1:]:
        raise ValueError(f"gradients along {g.shape[1]} directions have {a.size} eigenvalues")
    g = g - g.mean(axis=0)
    return np.stack([_window(g, a, learning_rate, momentum, s, num_steps) for s in schedules], 1)


def _window(g, a, rate: float, beta: float, schedule: Any, num_steps: int) -> np.ndarray:
    indices, weights = schedule if isinstance(schedule, tuple) else (schedule, None)
    indices = np.asarray(indices)
    weights = np.ones(indices.shape) if weights is None else np.asarray(weights, np.float64)
    shares = weights / weights.sum(axis=1, keepdims=True)
    before = len(indices) - num_steps
    if num_steps < 2 or before < 0:
        raise ValueError(f"a schedule of {len(indices)} steps holds no window of {num_steps}")
    found = np.empty((3, a.size))
    for first in range(0, a.size, _DIRECTIONS):
        some = slice(first, first + _DIRECTIONS)
        noise = _batch_means(g[:, some], indices, shares)
        path = np.zeros((num_steps + 1, a[some].size))
        for i, one in enumerate(a[some]):
            # θ_k = (1 + β − ηλ)θ_{k−1} − βθ_{k−2} − ηn_k from rest.
            theta = signal.lfilter([-rate], [1.0, one - 1 - beta, beta], noise[:, i])
            path[:, i] = np.concatenate([[0.0], theta])[before:]
        slope = (path[-1] - path[0]) / num_steps
        found[0, some] = np.var(path - slope * np.arange(num_steps + 1)[:, None], axis=0)
        found[1, some] = np.var(np.diff(path, axis=0), axis=0)
    found[2] = 2 * found[0] / found[1]
    return found


def _batch_means(g: np.ndarray, indices: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Σ_n share·g_n of each batch, so many examples at a time as fit a processor's cache."""
    parts = [np.array_split(one, -(-one.size // _GATHERED)) for one in (indices, shares)]
    means = [np.matmul(share[:, None], g[rows])[:, 0] for rows, share in zip(*parts, strict=True)]
    return np.concatenate(means)


class Carriers(NamedTuple):
    """Examples that carry the noise of k directions, see `carriers`."""

    number: np.ndarray
    share: np.ndarray
    leading: np.ndarray


def carriers(gradients: np.ndarray, leading: int = 3) -> Carriers:
    """How few examples carry the noise of each direction, and which most of it.

    P = (Σ_n d_n²)²/Σ_n d_n⁴ with the deviations d_n of the gradients from their mean: N/3 for
    Gaussian ones, m where m equal ones hold all of it; and the share of Σ d_n² in the `leading`
    largest.

    Args:
        gradients: P∇l_n, [N, k].
        leading: how many examples.

    Returns:
        number: P, [k]; share: [k]; both nan where a direction has no noise. leading: places of the
        largest examples, the largest first, [k, leading], or [k, N] of fewer.

    Raises:
        ValueError: gradients that are not finite or no matrix.
    """
    g, leading = inputs.finite("gradients", gradients, 2), inputs.count("leading", leading)
    found = [
        _carried(np.asarray(g[:, first : first + _DIRECTIONS], np.float64), leading)
        for first in range(0, g.shape[1], _DIRECTIONS)
    ]
    return Carriers(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def _carried(d: np.ndarray, leading: int) -> Carriers:
    squares = (d - d.mean(axis=0)) ** 2
    places = np.argsort(-squares, axis=0, kind="stable")[:leading].T
    largest = np.take_along_axis(squares.T, places, axis=1)
    whole = squares.sum(axis=0)
    # A rounded mean leaves something where all gradients are equal.
    whole = np.where(whole > 1e-24 * np.sum(d**2, axis=0), whole, np.nan)
    number = whole**2 / np.sum(squares**2, axis=0)
    return Carriers(number, largest.sum(axis=1) / whole, places)
