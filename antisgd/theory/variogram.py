"""The variogram of a weight: how far it moves in h steps (beyond the paper)."""

import jax
import jax.numpy as jnp
import numpy as np

from antisgd.theory.noise import Noise, autocorrelation
from antisgd.theory.precision import float64_on_host
from antisgd.theory.stationary import stationary_variances

__all__ = ["variogram"]


def variogram(a: np.ndarray, beta: float, noise: Noise, num_steps: int) -> np.ndarray:
    """γ(h) = ½E(θ_{k+h} − θ_k)² per η²σ_δg², averaged over the position within the epoch.

    d_{h+1} = βd_h − aγ_h + aV_θ − f_h, γ_{h+1} = γ_h + d_{h+1}, γ_1 = d_1 = V_v/2, where
    f_h = Σ_j ψ_j r(h+1+j) with the impulse response ψ of θ. Finite in flat directions too.

    Args:
        a: ηλ > 0, [k].
        beta: β.
        noise: any law; for one that repeats after M steps γ(h) = Σ_j |Ψ_j|²(1 − cos(2πjh/M))/(M−1)
            over its spectral lines, averaged over its order.
        num_steps: T.

    Returns:
        float64 [T + 1, k].
    """
    if noise.periodic:
        return _from_lines(np.asarray(a, np.float64), beta, noise.period, num_steps)
    exact = stationary_variances(a, 1.0, beta, noise)
    listed = 0 if noise.correlations is None else len(noise.correlations)
    reach = max(num_steps + 1, noise.period, listed)
    r = autocorrelation(noise, np.arange(1, reach + 1))
    with float64_on_host():
        return np.asarray(_variogram(*map(jnp.asarray, (a, beta, r, *exact)))[: num_steps + 1])


@jax.jit
def _variogram(a, beta, r, weight, velocity):
    def back(state, r):
        theta, v = state
        v = beta * v - a * theta
        theta = theta + v
        # The noise of this lag pushes both, as n_k pushes θ_k and v_k but for the sign.
        return (theta + r, v + r), theta + r

    zero = jnp.zeros_like(a)
    _, f = jax.lax.scan(back, (zero, zero), r, reverse=True)

    def forward(state, f):
        gamma, d = state
        d = beta * d - a * gamma + a * weight - f
        return (gamma + d, d), gamma

    first = (velocity / 2, velocity / 2)
    _, gamma = jax.lax.scan(forward, first, f[1:])
    return jnp.concatenate([zero[None], gamma])


def _from_lines(a: np.ndarray, beta: float, period: int, num_steps: int) -> np.ndarray:
    angle = 2 * np.pi * np.arange(1, period)[:, None] / period
    gap = 2 * np.sin(angle / 2) ** 2 + 1j * np.sin(angle)
    power = 1 / np.abs(gap * (1 - beta + beta * gap) + a * (1 - gap)) ** 2
    # Within a period as sums of squares of sines: nothing cancels at short lags.
    lags = np.arange(min(period, num_steps + 1))
    gamma = np.array([2 * np.sin(angle[:, 0] * h / 2) ** 2 @ power for h in lags])
    return gamma[np.arange(num_steps + 1) % period] / (period - 1)
