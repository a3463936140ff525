"""What a change of the noise's correlations does: the way to a designed data order."""

import numpy as np

from antisgd.theory.noise import Noise
from antisgd.theory.stationary import stationary_variances
from antisgd.theory.variogram import variogram

__all__ = ["correlation_response", "loss_fluctuation_slope"]


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
    a, white = learning_rate * np.asarray(eigenvalues, np.float64), Noise(1.0, 0)
    V = stationary_variances(a, 1.0, momentum, white).weight
    gamma = variogram(a, momentum, white, max_lag)[1:]
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
