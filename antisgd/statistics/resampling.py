"""The scatter of a window's statistics from resampled noise: no assumption on its distribution."""

from typing import Any

import numpy as np

from antisgd import inputs

__all__ = ["resampled_windows"]


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
        schedules: one for each window, index arrays int [steps, batch] of T steps or more; what is
            beyond the last T comes before the window.
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


def _window(g, a, rate: float, beta: float, indices: Any, num_steps: int) -> np.ndarray:
    indices = np.asarray(indices)
    before = len(indices) - num_steps
    if num_steps < 2 or before < 0:
        raise ValueError(f"a schedule of {len(indices)} steps holds no window of {num_steps}")
    theta, v = np.zeros_like(a), np.zeros_like(a)
    path = np.zeros((num_steps + 1, a.size))
    for k, batch in enumerate(indices):
        if k == before:
            path[0] = theta
        v = beta * v - a * theta - rate * g[batch].mean(axis=0)
        theta = theta + v
        if k >= before:
            path[k - before + 1] = theta
    slope = (path[-1] - path[0]) / num_steps
    weight = np.var(path - slope * np.arange(num_steps + 1)[:, None], axis=0)
    velocity = np.var(np.diff(path, axis=0), axis=0)
    return np.array([weight, velocity, 2 * weight / velocity])
