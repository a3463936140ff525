"""Adam and RMSProp, as they are and at second moments that do not move, and what D was meanwhile.

A step is η D⁻¹ m, m = βm + (1−β)g, with D = √ν̂ + ε (Adam) or √(ν + ε²) (RMSProp, whose learning
rate is given to optax as η(1−β)). The frozen one is written here from that formula:
`theory.frozen_from_optax`, which it is compared by, has no part in it.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

__all__ = ["NAMES", "Watched", "frozen", "make", "metric", "watched"]

# β and ε; with an ε of 1e-8 long trainings ran away along weights that hardly have gradients.
MOMENTUM, EPSILON = 0.9, 1e-4
NAMES = ("adam", "rmsprop")


def make(name: str, learning_rate: Any, memory: Any) -> optax.GradientTransformation:
    """The optimiser of this name; memory is the share of ν that a step leaves, b2."""
    if name == "adam":
        return optax.adam(learning_rate, MOMENTUM, memory, EPSILON)
    rate = learning_rate * (1 - MOMENTUM)
    return optax.rmsprop(rate, memory, EPSILON**2, momentum=MOMENTUM)


def metric(name: str, state: Any, memory: Any) -> Any:
    """D of each weight in a state."""
    if name == "adam":
        corrected = 1 - memory ** state[0].count
        return jax.tree.map(lambda nu: jnp.sqrt(nu / corrected) + EPSILON, state[0].nu)
    return jax.tree.map(lambda nu: jnp.sqrt(nu + EPSILON**2), state[0].nu)


def frozen(learning_rate: Any, D: Any) -> optax.GradientTransformation:
    """Either of them with D for ever."""

    def step(mean: Any, _: Any) -> Any:
        return jax.tree.map(lambda m, d: -learning_rate * m / d, mean, D)

    return optax.chain(optax.ema(MOMENTUM, debias=False), optax.stateless(step))


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
