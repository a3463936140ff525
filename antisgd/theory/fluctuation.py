"""What the mean work of the gradient on the weights must be in a stationary state."""

from typing import NamedTuple

import numpy as np

from antisgd.theory.noise import Noise
from antisgd.theory.stationary import stationary_variances
from antisgd.theory.variogram import variogram

__all__ = ["FluctuationSplit", "fluctuation_split", "velocity_autocovariance"]


class FluctuationSplit(NamedTuple):
    """η E[θ_{k−1} g_k] of a quadratic and its two parts per unit noise variance, [k] each.

    Attributes:
        total: ½(1+β)σ_v², which holds for any loss and any noise.
        curvature: η E[θ ∂L] = ηλσ_θ².
        noise: η E[θ_{k−1} n_k], zero for white noise.
    """

    total: np.ndarray
    curvature: np.ndarray
    noise: np.ndarray


def fluctuation_split(
    eigenvalues: np.ndarray, learning_rate: float, momentum: float, noise: Noise
) -> FluctuationSplit:
    """η E[θ_{k−1} g_k] = ½(1+β)σ_v² and how a quadratic splits it (beyond the paper).

    From E θ_k² = E θ_{k−1}² and Eq. 1 alone: E[θ_{k−1}v_k] = −½σ_v². With g = λθ + n the noise
    part is −η Σ_{h≥1} ψ_{h−1} r(h), ψ the response of −θ to a unit gradient: positive where the
    noise is anti-correlated, and all of the total in flat directions.

    Args:
        eigenvalues: λ > 0, any shape.
        learning_rate: η.
        momentum: β.
        noise: any law.

    Returns:
        Averages over the position within the epoch.

    Raises:
        ValueError: ηλ outside (0, 2(1+β)).
    """
    lam = np.asarray(eigenvalues, np.float64)
    if np.any(lam <= 0):
        raise ValueError("the split needs positive curvatures")
    weight, velocity = stationary_variances(lam, learning_rate, momentum, noise)
    total = (1 + momentum) / 2 * velocity
    curvature = learning_rate * lam * weight
    return FluctuationSplit(total, curvature, total - curvature)


def velocity_autocovariance(
    eigenvalues: np.ndarray, learning_rate: float, momentum: float, noise: Noise, max_lag: int
) -> np.ndarray:
    """cov(v_k, v_{k+h}) = γ(h+1) − 2γ(h) + γ(h−1) from the variogram γ of θ (beyond the paper).

    Its sums are those of Eq. 3: Σ_{h≥1} cov = −σ_v²/2 and Σ_{h≥1} h·cov = −σ_θ², so that
    τ = Σ h cov/Σ cov = 2σ_θ²/σ_v². Cut off at lag L they are γ(L+1) − γ(L) − σ_v²/2 and
    L γ(L+1) − (L+1) γ(L). For noise that repeats for ever the sums do not converge.

    Args:
        eigenvalues: λ > 0, [k].
        learning_rate: η.
        momentum: β.
        noise: any law.
        max_lag: L, update steps.

    Returns:
        Per unit noise variance, averaged over the position within the epoch, [L + 1, k].

    Raises:
        ValueError: ηλ outside (0, 2(1+β)).
    """
    a = learning_rate * np.asarray(eigenvalues, np.float64)
    gamma = variogram(a, momentum, noise, max_lag + 1)
    gamma = np.concatenate([gamma[1:2], gamma])
    return learning_rate**2 * (gamma[2:] - 2 * gamma[1:-1] + gamma[:-2])
