"""What a change of the noise's correlations does: the way to a designed data order."""

import numpy as np

from antisgd import inputs
from antisgd.theory.noise import Noise, autocorrelation, checked_law
from antisgd.theory.stationary import stationary_variances
from antisgd.theory.variogram import variogram

__all__ = [
    "average_response", "averaged_variances", "correlation_response", "loss_fluctuation_slope",
]  # fmt: skip

_WHITE = Noise(1.0, 0)


def correlation_response(
    eigenvalues: np.ndarray, learning_rate: float, momentum: float, max_lag: int
) -> np.ndarray:
    """∂V_θ/∂r(h) = 2 cov_white(θ_k, θ_{k+h}), h = 1 … L, at fixed variance of the noise.

    V_θ is linear in the correlations, V_θ = V_white + Σ_{h≥1} r(h) ∂V_θ/∂r(h), for any law: what
    minimises it over a convex set of laws is a linear programme. Beyond the paper.

    Args:
        eigenvalues: λ > 0, [k].
        learning_rate: η.
        momentum: β.
        max_lag: L, update steps.

    Returns:
        Per unit noise variance, [L, k].

    Raises:
        ValueError: ηλ outside (0, 2(1+β)).
    """
    a = learning_rate * np.asarray(eigenvalues, np.float64)
    V = stationary_variances(a, 1.0, momentum, _WHITE).weight
    gamma = variogram(a, momentum, _WHITE, max_lag)[1:]
    return 2 * learning_rate**2 * (V - gamma)


def loss_fluctuation_slope(
    eigenvalues: np.ndarray,
    noise_variances: np.ndarray,
    learning_rate: float,
    momentum: float,
    max_lag: int,
) -> np.ndarray:
    """∂ℓ/∂r(h) of the loss fluctuation ℓ = ½Σλ_iC_iV_θ(λ_i), [L]; positive at every short lag.

    Args:
        eigenvalues: λ_i > 0, [k].
        noise_variances: C_i, [k].
        learning_rate, momentum, max_lag: as for `correlation_response`.

    Raises:
        ValueError: ηλ outside (0, 2(1+β)).
    """
    response = correlation_response(eigenvalues, learning_rate, momentum, max_lag)
    return response @ (np.asarray(eigenvalues) * np.asarray(noise_variances)) / 2


def average_response(
    eigenvalues: np.ndarray, learning_rate: float, momentum: float, num_averaged: int, max_lag: int
) -> np.ndarray:
    """∂Var(θ̄)/∂r(h) of the mean θ̄ of T consecutive weights, h = 1 … L (beyond the paper).

    2 cov_white(θ̄_k, θ̄_{k+h}) = (2/T²) Σ_{|d|<T} (T − |d|) cov_white(θ_k, θ_{k+h+d}).

    Args:
        eigenvalues, learning_rate, momentum, max_lag: as for `correlation_response`.
        num_averaged: T.

    Returns:
        Per unit noise variance, [L, k].

    Raises:
        ValueError: ηλ outside (0, 2(1+β)), or no weight to average.
    """
    a = learning_rate * np.asarray(eigenvalues, np.float64)
    V = stationary_variances(a, 1.0, momentum, _WHITE).weight
    return 2 * learning_rate**2 * (V - _smoothed(a, momentum, num_averaged, max_lag)[1:])


def averaged_variances(
    eigenvalues: np.ndarray, learning_rate: float, momentum: float, noise: Noise, num_averaged: int
) -> np.ndarray:
    """Variance of the mean of T consecutive weights, over every phase of the epoch.

    V_white(θ̄)·(1 + 2Σr) less 2 Σ_h r(h)[Γ(h) − Γ(0)], Γ the variogram of θ smoothed over T: in
    flat directions nothing cancels. Noise that repeats after M steps leaves none where M divides
    T: all of it is in the harmonics that the mean takes out (beyond the paper).

    Args:
        eigenvalues: λ > 0, [k].
        learning_rate: η.
        momentum: β.
        noise: any law.
        num_averaged: T.

    Returns:
        Per unit noise variance, [k].

    Raises:
        ValueError: ηλ outside (0, 2(1+β)), no law, or no weight to average.
    """
    checked_law(noise)
    a = learning_rate * np.asarray(eigenvalues, np.float64)
    T = inputs.count("num_averaged", num_averaged)
    if noise.periodic:
        angle = 2 * np.pi * np.arange(1, noise.period) / noise.period
        kept = (np.sin(T * angle / 2) / (T * np.sin(angle / 2))) ** 2
        return learning_rate**2 * kept @ line_powers(a, momentum, angle) / (noise.period - 1)
    last = noise.period if noise.correlations is None else len(noise.correlations)
    r = autocorrelation(noise, np.arange(1, last + 1))
    white = stationary_variances(a, 1.0, momentum, _WHITE).weight
    smooth = _smoothed(a, momentum, T, last)
    at_zero = (1 + 2 * r.sum()) * (white - smooth[0]) if noise.white else 0.0
    return learning_rate**2 * (at_zero - 2 * r @ (smooth[1:] - smooth[0]))


def line_powers(a: np.ndarray, beta: float, angles: np.ndarray) -> np.ndarray:
    """|Ψ(ω)|² of θ per η², at angular frequencies ω of noise, [lines, k]."""
    angle = np.asarray(angles)[:, None]
    gap = 2 * np.sin(angle / 2) ** 2 + 1j * np.sin(angle)
    return 1 / np.abs(gap * (1 - beta + beta * gap) + a * (1 - gap)) ** 2


def _smoothed(a: np.ndarray, beta: float, num_averaged: int, max_lag: int) -> np.ndarray:
    """Γ(h) = T^{−2} Σ_{|d|<T} (T − |d|) γ_white(|h + d|), h = 0 … L, [L + 1, k]."""
    T = inputs.count("num_averaged", num_averaged)
    gamma = variogram(a, beta, _WHITE, max_lag + T)
    both = np.concatenate([gamma[T - 1 : 0 : -1], gamma])[: max_lag + 2 * T - 1]
    triangle = T - np.abs(np.arange(1 - T, T))
    windows = np.lib.stride_tricks.sliding_window_view(both, 2 * T - 1, axis=0)
    return windows @ triangle / T**2
