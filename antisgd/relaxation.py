"""A minimum that is not reached: the noise-free path to it, and what bends beyond (Sec. 5.3).

Beyond the paper, which takes a straight line off. float64 on the host.
"""

from typing import NamedTuple

import numpy as np

__all__ = ["Bend", "bend", "relaxation_path", "remove_relaxation"]


class Bend(NamedTuple):
    """The variance in a window, split by how it grows with the length of the window, [k] each.

    Attributes:
        fluctuation: the part that grows as the theory of fluctuations says.
        bend: the part that grows as T⁴, of a path ½bt²: b²T⁴/720.
        share: bend/(fluctuation + bend).
        error: one standard error of the share if there is no bend.
    """

    fluctuation: np.ndarray
    bend: np.ndarray
    share: np.ndarray
    error: np.ndarray


def relaxation_path(
    eigenvalues: np.ndarray,
    gradient: np.ndarray,
    velocity: np.ndarray,
    learning_rates: np.ndarray,
    momentum: float,
    noise: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Heavy ball in the quadratic at θ_K: v_k = βv_{k−1} − η_k(λx_{k−1} + ∂L(θ_K) + n_k).

    Without noise the way to the minimum; with the noise of a recording what it would have done to
    the weights of a parabola, whatever its law is.

    Args:
        eigenvalues: λ_i at θ_K, [k], any sign.
        gradient: P∇L(θ_K), [k].
        velocity: P v_K, [k].
        learning_rates: η_k of every step of the window, [T].
        momentum: β.
        noise: n_k of every step, [T, k]; None for none.

    Returns:
        Displacements x_k from θ_K, [T + 1, k], and velocities, [T, k].

    Raises:
        ValueError: arrays whose lengths differ.
    """
    lam, slope, v = (np.asarray(x, np.float64) for x in (eigenvalues, gradient, velocity))
    if not lam.shape == slope.shape == v.shape:
        raise ValueError(
            "eigenvalues, gradient and velocity must be of one length, not "
            f"{lam.shape}, {slope.shape} and {v.shape}"
        )
    size = len(learning_rates), lam.size
    if noise is not None and np.shape(noise) != size:
        raise ValueError(
            f"the noise of {size[0]} steps along {size[1]} directions is needed, not "
            f"of shape {np.shape(noise)}"
        )
    forces = np.zeros(size) if noise is None else np.asarray(noise, np.float64)
    x = np.zeros((size[0] + 1, lam.size))
    for k, eta in enumerate(learning_rates):
        v = momentum * v - eta * (lam * x[k] + slope + forces[k])
        x[k + 1] = x[k] + v
    return x, np.diff(x, axis=0)


def remove_relaxation(
    weights: np.ndarray,
    velocities: np.ndarray,
    eigenvalues: np.ndarray,
    gradient: np.ndarray,
    velocity: np.ndarray,
    learning_rates: np.ndarray,
    momentum: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Weights and velocities less the noise-free path from (θ_K, v_K): the drift 'relaxation'.

    Compare with `theory.relaxed_window_variances`, not with windows of a stationary state: what
    is left begins at rest.

    Args:
        weights: P(θ_k − θ_K), [T + 1, k].
        velocities: P v_k, [T, k].
        eigenvalues, gradient, velocity, learning_rates, momentum: as for `relaxation_path`.

    Raises:
        ValueError: arrays whose lengths differ.
    """
    if len(velocities) != len(learning_rates) or len(weights) != len(learning_rates) + 1:
        raise ValueError(
            f"{len(learning_rates)} learning rates need as many velocities and one weight more, "
            f"not {len(velocities)} and {len(weights)}"
        )
    x, v = relaxation_path(eigenvalues, gradient, velocity, learning_rates, momentum)
    return np.asarray(weights, np.float64) - x, np.asarray(velocities, np.float64) - v


def bend(weights: np.ndarray, num_parts: int, growth: np.ndarray) -> Bend:
    """T⁴ against M: the window as a whole against the mean over its parts, a line removed.

    A minimum that moves on ½bt² adds b²T⁴/720 to the variance, 1/n⁴ of it in each of n parts;
    the fluctuation grows by a factor known from theory. Two lengths give both amounts,

        whole = growth·F + B,   mean of parts = F + B/n⁴.

    The line is that of least squares: that through the end points would add a scatter of 20 %.

    Args:
        weights: P(θ_k − θ_K), [T + 1, k].
        num_parts: n ≥ 2 of equal length, several τ each; steps beyond a multiple are unused.
        growth: expected variance in the whole over that in a part, both from
            `theory.window_variances` with drift="line", [k].

    Returns:
        The error is that of Gaussian fluctuations: whole and parts hold the same data, and differ
        by the 2n − 2 offsets and slopes of the parts, of expectation (growth − 1)F in all.

    Raises:
        ValueError: fewer than two parts, or parts of fewer than two steps.
    """
    length = (len(weights) - 1) // num_parts if num_parts > 1 else 0
    if length < 2:
        raise ValueError(f"{len(weights)} weights cannot make num_parts={num_parts} windows")
    x = np.asarray(weights, np.float64)[: num_parts * length + 1]
    parts = np.array([_variance(x[i : i + length + 1]) for i in range(0, len(x) - 1, length)])
    whole, short = _variance(x), parts.mean(axis=0)
    scale = 1 - growth / num_parts**4
    B = (whole - growth * short) / scale
    F = (short - whole / num_parts**4) / scale
    error = np.abs(growth - 1) * short / np.sqrt(num_parts - 1) / scale
    return Bend(growth * F, B, B / whole, error / whole)


def _variance(x: np.ndarray) -> np.ndarray:
    time = np.linspace(-1, 1, len(x))
    return np.var(x - time[:, None] * (time @ x / (time @ time)), axis=0)
