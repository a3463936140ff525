"""Noise added to the gradients, as optax transformations to be chained before the optimiser.

The noise of a step is a function of the key and of the number of steps made, so that a run that
goes on from a checkpoint sees the noise of one that was never stopped. Beyond the paper: full-batch
descent with such noise is the PGD and Anti-PGD of Orvieto et al. (2022).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from antisgd import inputs

__all__ = ["InjectionState", "anti_correlated_noise", "white_noise"]


class InjectionState(NamedTuple):
    """int32 scalar: steps made so far (k)."""

    step: jax.Array


def white_noise(key: jax.Array, deviation: Any) -> optax.GradientTransformation:
    """g_k + σ ξ_k with independent standard normal ξ_k for every weight: r(h) = δ_h0.

    Args:
        key: of all the noise of a run.
        deviation: σ, the standard deviation of the noise of one weight; may be traced.

    Raises:
        ValueError: no JAX key, or a deviation that is negative or not finite.
    """
    key = inputs.random_key(key)
    return _injected(deviation, lambda step, like: _normal(key, step, like))


def anti_correlated_noise(key: jax.Array, deviation: Any) -> optax.GradientTransformation:
    """g_k + σ (ξ_{k+1} − ξ_k)/√2 with ξ of `white_noise`: r(±1) = −1/2, Eq. 2 with M = 2.

    Its law is `theory.anti_pgd()`; the variance σ² of one step is that of `white_noise`.

    Args:
        key: of all the noise of a run.
        deviation: σ, the standard deviation of the noise of one weight; may be traced.

    Raises:
        ValueError: no JAX key, or a deviation that is negative or not finite.
    """
    key = inputs.random_key(key)

    def increment(step, like):
        before, after = _normal(key, step, like), _normal(key, step + 1, like)
        return jax.tree.map(lambda old, new: (new - old) / jnp.sqrt(2.0), before, after)

    return _injected(deviation, increment)


def _normal(key: jax.Array, step: jax.Array, like: Any) -> Any:
    return optax.tree_utils.tree_random_like(jax.random.fold_in(key, step), like)


def _added(gradient: jax.Array, deviation: Any, drawn: jax.Array) -> jax.Array:
    # In the gradient's type: σ may come as a NumPy number or a wider array.
    return gradient + jnp.asarray(deviation, gradient.dtype) * drawn


def _injected(
    deviation: Any, noise: Callable[[jax.Array, Any], Any]
) -> optax.GradientTransformation:
    if not inputs.traced(deviation):
        inputs.number("deviation", deviation, least=0)

    def init(params):
        del params
        return InjectionState(jnp.zeros((), jnp.int32))

    def update(gradient, state, params=None):
        del params
        drawn = noise(state.step, gradient)
        noisy = jax.tree.map(lambda g, n: _added(g, deviation, n), gradient, drawn)
        return noisy, InjectionState(state.step + 1)

    return optax.GradientTransformation(init, update)
