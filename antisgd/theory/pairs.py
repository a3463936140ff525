"""Aligned windows of flip-flop: a permutation, then the same reversed (beyond the paper).

Pairs of epochs are independent of one another; within a pair the noise is a map of M independent
batches, n_i = √(M/(M−1)) (ε_σ(i) − mean ε) with σ(i) = i and then backwards. What each of them does
is followed through one pair; what it leaves goes on as a covariance.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from antisgd.theory.chain import EpochChain
from antisgd.theory.noise import Noise
from antisgd.theory.window_state import MOMENT, SUM, V, X, propagate, repeated

__all__ = ["is_paired", "pair_boundary", "propagate_pairs"]

_SILENT = EpochChain(np.zeros(1), np.zeros(1), np.zeros(1), np.zeros(1))


def is_paired(noise: Noise) -> bool:
    """Whether the law is that of flip-flop."""
    return bool(noise.period) and noise.correlations is not None and not noise.periodic


def pair_boundary(a: jax.Array, beta: float, period: int) -> jax.Array:
    """Covariance of (θ, v) at the end of a pair in the stationary regime, [2, 2, k], per η²σ²."""
    moments, _ = _one_pair(a, beta, period, 2 * period)
    return repeated(a, beta, moments[:, :2, :2], 2 * period)


def propagate_pairs(
    a: jax.Array, beta: float, period: int, num_steps: int, first: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """As `window_state.propagate`: final covariance [k, 6, 6] and sums of squares [3, k]."""
    covariance, squares = first, jnp.zeros((3, a.shape[0]))
    for begin in range(0, num_steps, 2 * period):
        length = min(2 * period, num_steps - begin)
        covariance, old = propagate(a, beta, _SILENT, length, covariance, begin)
        moments, new = _one_pair(a, beta, period, length)
        covariance = covariance + _shifted(moments, begin)
        squares = squares + old + jnp.stack([new[0], new[1], new[0]])
    return covariance, squares


def _shifted(moments: jax.Array, begin: int) -> jax.Array:
    """Steps counted from the window's start: Σ kx becomes Σ kx + begin·Σ x."""
    shift = jnp.eye(6).at[MOMENT, SUM].set(begin)
    return shift @ moments @ shift.T


@partial(jax.jit, static_argnums=(2, 3))
def _one_pair(a, beta, period, length):
    """From rest, what the first steps of a pair make: [k, 6, 6], and Σ of E x² and E v², [2, k]."""
    order = jnp.concatenate([jnp.arange(period), jnp.arange(period)[::-1]])[:length]
    scale = jnp.sqrt(period / (period - 1))

    def step(carry, now):
        (x, v, total, moment), squares = carry
        k, batch = now
        push = scale * ((jnp.arange(period) == batch) - 1 / period)
        v = beta * v - a[None] * x - push[:, None]
        x = x + v
        squares = squares + jnp.stack([(x**2).sum(0), (v**2).sum(0)])
        return ((x, v, total + x, moment + k * x), squares), None

    zero = jnp.zeros((period, a.shape[0]))
    carry = ((zero,) * 4, jnp.zeros((2, a.shape[0])))
    steps = jnp.arange(1, length + 1)
    (state, squares), _ = jax.lax.scan(step, carry, (steps, order))
    places = jnp.array([X, V, SUM, MOMENT])
    products = jnp.einsum("imk,jmk->kij", jnp.stack(state), jnp.stack(state))
    moments = jnp.zeros((a.shape[0], 6, 6))
    return moments.at[:, places[:, None], places[None]].set(products), squares
