"""Adam and RMSProp, as they are and at second moments that do not move, and what D was meanwhile.

A step is η D⁻¹ m with D = √ν̂ + ε (Adam) or √(ν + ε) (RMSProp). The frozen ones are written here
from that formula: `theory.frozen_from_optax`, which they are compared by, has no part in them.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

__all__ = ["NAMES", "Watched", "frozen", "make", "metric", "watched"]

# β of the gradients' mean (Adam) or of the updates (RMSProp), and ε.
MOMENTUM, EPSILON = 0.9, 1e-8
NAMES = ("adam", "rmsprop")


def make(name: str, learning_rate: Any, memory: Any) -> optax.GradientTransformation:
    """The optimiser of this name; memory is the share of ν that a step leaves, b2."""
    if name == "adam":
        return optax.adam(learning_rate, MOMENTUM, memory, EPSILON)
    return optax.rmsprop(learning_rate, memory, EPSILON, momentum=MOMENTUM)


def metric(name: str, state: Any, memory: Any) -> Any:
    """D of each weight in a state."""
    if name == "adam":
        corrected = 1 - memory ** state[0].count
        return jax.tree.map(lambda nu: jnp.sqrt(nu / corrected) + EPSILON, state[0].nu)
    return jax.tree.map(lambda nu: jnp.sqrt(nu + EPSILON), state[0].nu)


def frozen(name: str, learning_rate: Any, D: Any) -> optax.GradientTransformation:
    """The optimiser of this name with D for ever."""
    divide = optax.stateless(lambda updates, _: jax.tree.map(jnp.divide, updates, D))
    step = optax.scale(-1.0)
    if name == "adam":
        mean = optax.ema(MOMENTUM, debias=False)
        return optax.chain(mean, divide, _scaled(learning_rate), step)
    return optax.chain(divide, _scaled(learning_rate), step, optax.trace(MOMENTUM))


def _scaled(rate: Any) -> optax.GradientTransformation:
    return optax.stateless(lambda updates, _: jax.tree.map(lambda u: rate * u, updates))


class Watched(NamedTuple):
    """State of an optimiser and, over its steps, the sums of 1/D and of its square."""

    inner: Any
    inverse: Any
    squared: Any


def watched(name: str, learning_rate: Any, memory: Any) -> optax.GradientTransformation:
    """`make`, summing what its D is."""
    optimizer = make(name, learning_rate, memory)

    def init(params: Any) -> Watched:
        zero = jax.tree.map(jnp.zeros_like, params)
        return Watched(optimizer.init(params), zero, zero)

    def update(gradient: Any, state: Watched, params: Any = None) -> tuple[Any, Watched]:
        updates, inner = optimizer.update(gradient, state.inner, params)
        inverse = jax.tree.map(lambda D: 1 / D, metric(name, inner, memory))
        total = jax.tree.map(jnp.add, state.inverse, inverse)
        squared = jax.tree.map(lambda s, x: s + x**2, state.squared, inverse)
        return updates, Watched(inner, total, squared)

    return optax.GradientTransformation(init, update)
