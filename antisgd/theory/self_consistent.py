"""Curvature and noise renormalised by the fluctuations that they cause (beyond the paper).

The harmonic theory with λ_i and C_i replaced by their averages over its own weights, as for
phonons in an anharmonic crystal: a prediction of the variances without a trajectory.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from antisgd.theory.noise import Noise
from antisgd.theory.stationary import stationary_variances

__all__ = ["Averages", "SelfConsistent", "polynomial_averages", "self_consistent"]


class Averages(NamedTuple):
    """Averages over θ = mean + Σ_j σ_j ξ_j p_j with ξ Gaussian, [k] each.

    Attributes:
        gradient: E p_i·∇L.
        curvature: E p_iᵀHp_i.
        noise: E p_iᵀCp_i, the variance σ_δg² of the noise along p_i.
    """

    gradient: np.ndarray
    curvature: np.ndarray
    noise: np.ndarray


Average = Callable[[np.ndarray, np.ndarray], Averages]


class SelfConsistent(NamedTuple):
    """The fixed point, [k] each but the last two.

    Attributes:
        mean: E θ_i, where the averaged gradient vanishes.
        weight: σ_θ,i².
        velocity: σ_v,i².
        correlation_time: τ_i = 2σ_θ²/σ_v², update steps.
        curvature: λ_i^eff.
        noise: C_i^eff.
        harmonic: σ_θ,i² with curvature and noise of the minimum.
        change: largest change in the last iteration, relative or in units of σ.
        iterations: made.
    """

    mean: np.ndarray
    weight: np.ndarray
    velocity: np.ndarray
    correlation_time: np.ndarray
    curvature: np.ndarray
    noise: np.ndarray
    harmonic: np.ndarray
    change: float
    iterations: int


def self_consistent(
    averages: Average,
    num_directions: int,
    learning_rate: float,
    momentum: float,
    noise: Noise,
    *,
    tolerance: float = 1e-8,
    max_iterations: int = 500,
) -> SelfConsistent:
    """Solves σ_i² = η² C_i^eff V(ηλ_i^eff) with λ^eff, C^eff and the mean averaged at σ itself.

    Damped iteration in log σ², the share of a step halved whenever the change grows. Gaussian
    averages are exact to first order in the anharmonicity; for one direction with white noise
    they miss a pure quartic by 17 % in σ² and steep walls or long tails by more, which
    `anharmonic_variance` includes where the loss is known as a function.

    Args:
        averages: (mean [k], variance [k]) → `Averages`, for example `polynomial_averages` or, for
            a network, `renormalisation.make_averages`; where it draws it must use one key.
        num_directions: k.
        learning_rate: η.
        momentum: β.
        noise: law of the sampling scheme.
        tolerance: of `change`.
        max_iterations: after which it is given up.

    Raises:
        ArithmeticError: no convergence, an averaged curvature that is not positive (the Gaussian
            lies across a saddle or the weights are not confined), or one beyond 2(1+β)/η.
    """
    mean = np.zeros(num_directions)
    start = averages(mean, np.zeros(num_directions))
    harmonic = _variance(start, learning_rate, momentum, noise)
    variance, share, change, found = harmonic, 0.5, np.inf, start
    for iteration in range(1, max_iterations + 1):
        found = averages(mean, variance)
        target = _variance(_tamed(found, learning_rate, momentum), learning_rate, momentum, noise)
        rise = np.log(target / variance)
        shift = -np.asarray(found.gradient) / found.curvature
        previous = change
        change = float(max(np.abs(rise).max(), np.abs(shift / np.sqrt(variance)).max()))
        if change < tolerance:
            return _solution(
                found, mean, harmonic, learning_rate, momentum, noise, change, iteration
            )
        share = share / 2 if change > previous else min(1.1 * share, 0.6)
        variance, mean = variance * np.exp(share * rise), mean + share * shift
    raise ArithmeticError(
        f"no self-consistent variances after {max_iterations} iterations (last change {change:.2g},"
        f" share of a step {share:.2g}): too anharmonic for Gaussian averages, or draws that vary"
    )


def _tamed(found: Averages, eta: float, beta: float) -> Averages:
    """Too wide a Gaussian may see unstable curvature on the way: half of the edge shrinks it."""
    edge = 2 * (1 + beta) / eta
    curvature = np.asarray(found.curvature, np.float64)
    return Averages(
        found.gradient, np.where(curvature < edge, curvature, edge / 2), np.asarray(found.noise)
    )


def _variance(found: Averages, eta: float, beta: float, noise: Noise) -> np.ndarray:
    """η² C V(ηλ) at the averages, if the weights have a stationary state there."""
    curvature = np.asarray(found.curvature, np.float64)
    if not np.all((curvature > 0) & (eta * curvature < 2 * (1 + beta))):
        raise ArithmeticError(
            "no stationary state at the averaged curvature: eta*lambda runs from "
            f"{eta * curvature.min():.3g} to {eta * curvature.max():.3g} and must lie in "
            f"(0, {2 * (1 + beta):.3g}); leave out these directions or lower the learning rate"
        )
    if not np.all(np.asarray(found.noise) > 0):
        raise ArithmeticError("a direction without noise has no variance: leave it out")
    return found.noise * stationary_variances(curvature, eta, beta, noise).weight


def _solution(found, mean, harmonic, eta, beta, noise, change, iterations) -> SelfConsistent:
    _variance(found, eta, beta, noise)
    V = stationary_variances(np.asarray(found.curvature, np.float64), eta, beta, noise)
    weight, velocity = found.noise * V.weight, found.noise * V.velocity
    return SelfConsistent(
        mean, weight, velocity, 2 * weight / velocity, np.asarray(found.curvature),
        np.asarray(found.noise), harmonic, change, iterations,
    )  # fmt: skip


def polynomial_averages(
    hessian: np.ndarray, noise: np.ndarray, cubic: np.ndarray, quartic: np.ndarray
) -> Average:
    """Exact Gaussian averages of L = ½H:θ² + ⅙T:θ³ + (1/24)Q:θ⁴ with noise that is constant.

    With s_j the variances: E H_ii = H_ii + T_iij m_j + ½Q_iijk(m_j m_k + s_j δ_jk) and
    E ∂_iL = H_ij m_j + ½T_ijk(m_j m_k + s_j δ_jk) + ⅙Q_ijkl(m_j m_k m_l + 3 m_j s_k δ_kl).

    Args:
        hessian: H, [k, k], at θ = 0.
        noise: C_i, [k].
        cubic: T, symmetric [k, k, k]; zeros for an even loss.
        quartic: Q, symmetric [k, k, k, k].
    """
    H, T, Q = (np.asarray(x, np.float64) for x in (hessian, cubic, quartic))

    def averages(m: np.ndarray, s: np.ndarray) -> Averages:
        second = np.outer(m, m) + np.diag(s)
        third = np.einsum("ijkl,j,kl->i", Q, m, np.outer(m, m) + 3 * np.diag(s)) / 6
        gradient = H @ m + np.einsum("ijk,jk->i", T, second) / 2 + third
        curved = H + T @ m + np.einsum("ijkl,kl->ij", Q, second) / 2
        return Averages(gradient, np.diag(curved), np.asarray(noise, np.float64))

    return averages
