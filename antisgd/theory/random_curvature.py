"""Noise that depends on the weights: examples that are quadratics of their own (beyond the paper).

l_n = ½(θ−a_n)ᵀH_n(θ−a_n): the noise n_k = r_k + ΔH_k u_{k−1} carries the curvature of its batch,
u = θ − θ*. White noise closes exactly at second moments; correlated noise moves the mean, which
is the implicit regulariser of reshuffling (Smith et al. 2021).
"""

import math
from typing import NamedTuple

import numpy as np

from antisgd.theory.noise import Noise, autocorrelation

__all__ = [
    "RandomCurvature",
    "epoch_drift",
    "implicit_regulariser",
    "random_curvature_moments",
]


class RandomCurvature(NamedTuple):
    """Stationary moments.

    Attributes:
        minimum: θ*, where the mean gradient vanishes, [d].
        mean: E θ, [d]; differs from θ* where noise is correlated.
        covariance: of (θ, v), [2d, 2d].
        noise: covariance of a batch's noise, averaged over θ, [d, d].
    """

    minimum: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray
    noise: np.ndarray


def random_curvature_moments(
    hessians: np.ndarray, centres: np.ndarray, learning_rate: float, momentum: float, noise: Noise
) -> RandomCurvature:
    """Mean and covariance of (θ, v) for quadratic examples under any law of finite range.

    P = APAᵀ + bCbᵀ + GCbᵀ + bCGᵀ with G = Σ_{h≥1} r(h) A^h b and the noise that P makes itself,
    C = R(0)·cov_n(r_n + ΔH_n m) + R(0) Σ_n ΔH_n P_θθ ΔH_n/(N−1); the mean m = Eθ − θ* balances
    H̄m = −Σ_h r(h) R(0) Σ_n ΔH_n (A^{h−1}b)_θ r_n/(N−1). Exact for white noise, where m = 0 and the
    map is linear. For correlated noise mean shift and covariance are exact to their leading order
    in η; the relative error is of the order of ηM times the spread of the curvatures.

    Args:
        hessians: H_n, symmetric, [N, d, d].
        centres: a_n, [N, d].
        learning_rate: η.
        momentum: β.
        noise: a law with its variance R(0) given, that is made with N and S.

    Raises:
        ValueError: a law without variance or that repeats for ever.
        ArithmeticError: SGD is unstable, in the mean or in its second moments.
    """
    H, a = np.asarray(hessians, np.float64), np.asarray(centres, np.float64)
    if noise.periodic or math.isnan(noise.variance):
        raise ValueError("a law of finite range that knows N and S is needed: pass a batch size")
    N, d = a.shape
    mean_H = H.mean(axis=0)
    minimum = np.linalg.solve(mean_H, np.einsum("nij,nj->i", H, a) / N)
    deviation, rest = H - mean_H, np.einsum("nij,nj->ni", H, minimum - a)
    A, b = _step(mean_H, learning_rate, momentum)
    if np.abs(np.linalg.eigvals(A)).max() >= 1:
        raise ArithmeticError("SGD is not stable: 0 < eta*lambda < 2(1 + beta) is broken")
    share = noise.variance / (N - 1)
    G, pulled = _summed(A, b, noise)
    m = -np.linalg.solve(mean_H, share * np.einsum("nij,jk,nk->i", deviation, pulled, rest))
    rest = rest + deviation @ m
    C_0 = share * np.einsum("ni,nj->ij", rest, rest)
    maps = A, b, G, share, deviation
    linear = np.stack([_own(S, *maps) for S in _units(d)], -1).reshape(d * d, d * d)
    if np.abs(np.linalg.eigvals(linear)).max() >= 1:
        raise ArithmeticError("the noise of the curvatures makes the second moments diverge")
    S = np.linalg.solve(np.eye(d * d) - linear, _driven(C_0, A, b, G)[:d, :d].ravel())
    C = C_0 + share * _made_noise(deviation, S.reshape(d, d))
    return RandomCurvature(minimum, minimum + m, _driven(C, A, b, G), C)


def _made_noise(deviation: np.ndarray, S: np.ndarray) -> np.ndarray:
    """Σ_n ΔH_n S ΔH_n: the noise that a covariance of the weights makes."""
    return np.einsum("nij,jk,nkl->il", deviation, S, deviation)


def _step(H: np.ndarray, eta: float, beta: float) -> tuple[np.ndarray, np.ndarray]:
    one = np.eye(len(H))
    A = np.block([[one - eta * H, beta * one], [-eta * H, beta * one]])
    return A, np.vstack([-eta * one, -eta * one])


def _summed(A: np.ndarray, b: np.ndarray, noise: Noise) -> tuple[np.ndarray, np.ndarray]:
    """G = Σ r(h) A^h b and Σ r(h) (A^{h−1}b)_θ."""
    reach = len(noise.correlations) if noise.correlations is not None else noise.period
    g, power = np.zeros_like(b), b
    for r in autocorrelation(noise, np.arange(1, reach + 1)):
        g, power = g + r * power, A @ power
    return A @ g, g[: b.shape[1]]


def _driven(C: np.ndarray, A: np.ndarray, b: np.ndarray, G: np.ndarray) -> np.ndarray:
    """Covariance of (θ, v) under noise of covariance C."""
    from scipy.linalg import solve_discrete_lyapunov

    return solve_discrete_lyapunov(A, b @ C @ b.T + G @ C @ b.T + b @ C @ G.T)


def _own(S, A, b, G, share, deviation) -> np.ndarray:
    """P_θθ that the noise by a covariance S of the weights makes."""
    d = len(S)
    return _driven(share * _made_noise(deviation, S), A, b, G)[:d, :d]


def _units(d: int) -> np.ndarray:
    return np.eye(d * d).reshape(d * d, d, d)


def implicit_regulariser(learning_rate: float, momentum: float, noise: Noise) -> float:
    """κ of the loss L + κ tr C that the mean weights descend, to first order in η.

    κ = −(η/2) Σ_{h≥1} φ_{h−1} r(h), φ_j = (1−β^{j+1})/(1−β), from E[ΔH_k δθ_{k−1}] with C the
    covariance of a batch's noise. For reshuffling and β = 0 this is η/4 (Smith et al. 2021), for
    M(1−β) ≫ 1 it is η/(4(1−β)); white noise has none. Against full-batch steps of the same η and β,
    for curvatures that do not act within the range of r: Mηλ ≪ 1−β.

    Raises:
        ValueError: a law that repeats for ever.
    """
    if noise.periodic:
        raise ValueError("the drift of noise that repeats for ever depends on its order")
    reach = len(noise.correlations) if noise.correlations is not None else noise.period
    h = np.arange(1, reach + 1)
    phi = (1 - momentum**h) / (1 - momentum)
    return float(-learning_rate / 2 * phi @ autocorrelation(noise, h))


def epoch_drift(learning_rate: float, momentum: float, steps_per_epoch: int) -> float:
    """c of E θ_M = θ_M(full batch) − c ∇tr C after one reshuffled epoch from given θ and v.

    c = η²/(2(M−1)) Σ_{k≤M} φ_{M−k} Σ_{j<k} φ_{k−1−j}, to second order in η; η²M/4 for β = 0. C is
    the covariance of a batch's noise at the start, and the full batch takes M steps of the same
    η and β.

    Raises:
        ValueError: fewer than two steps.
    """
    M = steps_per_epoch
    if M < 2:
        raise ValueError("an epoch needs two steps or more")
    phi = (1 - momentum ** np.arange(1, M + 1)) / (1 - momentum)
    earlier = np.concatenate([[0.0], np.cumsum(phi)[: M - 1]])
    return float(learning_rate**2 / (2 * (M - 1)) * phi[::-1] @ earlier)
