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
        noise: law of finite range (not shuffle-once).
        num_steps: T.

    Returns:
        float64 [T + 1, k].

    Raises:
        ValueError: noise of infinite range.
    """
    if noise.periodic:
        raise ValueError("noise that repeats for ever has no finite range: see `shuffle_once`")
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
