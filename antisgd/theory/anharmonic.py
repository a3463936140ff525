"""The variance along one direction whose loss is no parabola (beyond the paper).

`self_consistent` replaces the curvature by its Gaussian average, which a network allows. Where
the loss along the direction is known as a function, what a Gaussian leaves out can be had too:
the shape of the distribution, and the noise that reshuffling regains at zero frequency when an
asymmetric loss squares its fluctuations.
"""

from collections.abc import Callable
from math import factorial
from typing import NamedTuple

import numpy as np
from numpy.polynomial import hermite_e
from scipy.optimize import brentq

from antisgd.theory.noise import Noise
from antisgd.theory.stationary import stationary_variances
from antisgd.theory.variogram import variogram

__all__ = ["Anharmonic", "anharmonic_variance"]

Function = Callable[[np.ndarray], np.ndarray]

_NODES, _SHARES = hermite_e.hermegauss(24)
_SHARES = _SHARES / _SHARES.sum()
_ORDERS = range(2, 4)
_HERMITE = np.stack(
    [hermite_e.hermeval(_NODES, np.eye(4)[n]) / np.sqrt(factorial(n)) for n in _ORDERS], 1
)
_GRID = np.linspace(-30.0, 30.0, 1201)
_LONGEST = 50_000


class Anharmonic(NamedTuple):
    """What is found of one direction.

    Attributes:
        mean: E θ.
        variance: σ_θ².
        curvature: slope s = E[(θ − Eθ) ∂L]/σ_θ², the curvature of the equivalent parabola.
        boltzmann: share of the variance that is distributed by Boltzmann's law, in [0, 1].
        mixed: white noise regained by squaring, its variance over C.
    """

    mean: float
    variance: float
    curvature: float
    boltzmann: float
    mixed: float


def anharmonic_variance(
    loss: Function,
    gradient: Function,
    learning_rate: float,
    momentum: float,
    noise: Noise,
    noise_variance: float,
    *,
    curvature: float,
) -> Anharmonic:
    """Stationary variance of θ in a one-dimensional loss under any noise law of finite range.

    θ = y + ξ with ξ Gaussian of variance (1−f)σ² and y ∝ exp(−E_ξ L(y+ξ)/T) of variance fσ²:
    f = V(ηs)/V_white(ηs) is 1 for white noise, where Boltzmann's law is exact to order ηs, and
    goes to 0 where anti-correlations hold the weight. The slope s = [T + (1−f)σ² E L'']/σ² and
    σ² = η²C V(ηs) are solved together. To C is added what the loss makes of ξ, the noise
    Σ_{n=2,3} f_n² ρ(h)^n with ρ the autocorrelation of ξ and f_n = E L'(y+ξ)He_n/√n!: powers of
    anti-correlated noise are not anti-correlated, and their zero frequency moves flat weights.

    Against simulations at 3λ/λ_cross = 0.5, β = 0.9 (quartic, cosh, one-sided exponential; white
    and reshuffled) σ² is within 4.5 % up to s/λ = 34, where Gaussian averages miss by up to 58 %
    for even losses and by factors for one-sided ones: docs/theory.md.

    Args:
        loss: L, convex, elementwise on arrays.
        gradient: L'.
        learning_rate: η.
        momentum: β.
        noise: the law.
        noise_variance: C = σ_δg², independent of θ.
        curvature: a first guess of s > 0; the answer is sought within a factor of 1,000.

    Raises:
        ArithmeticError: no slope within that factor, or an unstable one.
        ValueError: a law that repeats for ever.
    """
    if noise.periodic:
        raise ValueError("noise that repeats for ever is not ergodic and has no density here")
    edge = 1.99 * (1 + momentum) / learning_rate

    def excess(log_slope: float) -> float:
        found = _equivalent(
            loss, gradient, float(np.exp(log_slope)), learning_rate, momentum, noise,
            noise_variance,
        )  # fmt: skip
        return float(np.log(found.curvature)) - log_slope

    slope = float(np.exp(_crossing(excess, np.log(curvature), np.log(edge))))
    return _equivalent(loss, gradient, slope, learning_rate, momentum, noise, noise_variance)


def _crossing(excess: Callable[[float], float], start: float, limit: float) -> float:
    """Where a function falls through zero, sought outwards from a start in steps of log 1.5."""
    step = float(np.log(1.5)) if excess(start) > 0 else -float(np.log(1.5))
    here = start
    while abs(here - start) < np.log(1000) and here + step < limit:
        if excess(here + step) * step <= 0:
            return float(brentq(excess, here, here + step, xtol=1e-8))
        here += step
    raise ArithmeticError(
        f"no stable slope between {np.exp(start):.3g} and {np.exp(here):.3g} reproduces itself: "
        "the loss does not confine this noise, or the guess of the curvature is far off"
    )


def _equivalent(loss, gradient, slope, eta, beta, noise, C) -> Anharmonic:
    """Moments at the variance that belongs to a slope, and the slope that they give back."""
    V = float(stationary_variances(slope, eta, beta, noise).weight)
    white = float(stationary_variances(slope, eta, beta, Noise(1.0, 0)).weight)
    f = min(V / white, 1.0)
    fast = C * V * (1 - f)
    powers = _moments(loss, gradient, C * V * f, fast).powers
    extra, mixed = _mixed(slope, eta, beta, noise, powers) if fast else (0.0, 0.0)
    # What is regained is slow, and belongs to y.
    variance, slow = C * V + extra, C * V * f + extra
    found = _moments(loss, gradient, slow, fast)
    given_back = (found.temperature + fast * found.curvature) / variance
    return Anharmonic(found.mean, variance, given_back, slow / variance, mixed / C)


class _Moments(NamedTuple):
    """E y, T, E L'', and the variance of the force's Hermite components n = 2, 3 in ξ."""

    mean: float
    temperature: float
    curvature: float
    powers: np.ndarray


def _moments(loss: Function, gradient: Function, slow: float, fast: float) -> _Moments:
    """For y of given variance, distributed by Boltzmann's law of the loss averaged over ξ."""
    width = np.sqrt(fast) * _NODES

    def force_at(x: float) -> float:
        return float(gradient(x + width) @ _SHARES)

    reach = 100 * np.sqrt(slow + fast)
    with np.errstate(over="ignore", invalid="ignore"):
        bottom = brentq(force_at, -reach, reach)
        y = bottom + np.sqrt(slow) * _GRID
        height, forces = loss(y[:, None] + width) @ _SHARES, gradient(y[:, None] + width)
        inside = np.isfinite(height) & np.all(np.isfinite(forces), axis=1)
    y, height, forces = y[inside], height[inside] - height[inside].min(), forces[inside]
    second = np.gradient(forces @ _SHARES, y)

    def density(log_T: float) -> np.ndarray:
        p = np.exp(-height / np.exp(log_T))
        return p / p.sum()

    def excess(log_T: float) -> float:
        p = density(log_T)
        return float(p @ (y - p @ y) ** 2 / slow) - 1

    guess = float(np.log(slow * np.interp(bottom, y, second)))
    # Walls may leave no such temperature for the variance of a slope that is far too small.
    hottest = guess + 200
    log_T = hottest if excess(hottest) < 0 else float(brentq(excess, guess - 12, hottest))
    p = density(log_T)
    powers = (p @ (forces @ (_SHARES[:, None] * _HERMITE))) ** 2
    return _Moments(float(p @ y), float(np.exp(log_T)), float(p @ second), powers)


def _mixed(slope, eta, beta, noise, powers) -> tuple[float, float]:
    """Variance of θ by the noise Σ_n f_n² ρ(h)^n, ρ the autocorrelation of ξ, and of that noise."""
    a = np.array([eta * slope])
    memory = np.clip(20 * (1 + beta) / a[0], 2 * max(noise.period, 50), _LONGEST)
    # Powers of two, so that few lengths are compiled.
    length = 2 ** int(np.ceil(np.log2(memory)))
    V = stationary_variances(a, 1.0, beta, noise).weight
    rho = 1 - variogram(a, beta, noise, length)[:, 0] / V
    R = sum(power * rho**n for n, power in zip(_ORDERS, powers, strict=True))
    if R[0] == 0:
        return 0.0, 0.0
    r = R[1:] / R[0]
    law = Noise(float(1 + 2 * r.sum()), 0, correlations=r)
    return float(R[0] * stationary_variances(slope, eta, beta, law).weight), float(R[0])
