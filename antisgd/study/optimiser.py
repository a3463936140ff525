"""What is to be known of an optimiser that a problem brings: its name, and its matrices if any."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from antisgd import theory
from antisgd.theory.linear import state_names

__all__ = ["described", "linear_system"]

# One weight and the gradients of its steps: from the updates hyper-parameters can be told.
_WEIGHT, _GRADIENTS = 1.0, (1.0, -0.5, 2.0, 0.25)


def described(make: Callable[[Any], optax.GradientTransformation], learning_rate: float) -> str:
    """The parts of its state that have names, and four updates of one weight of 1.

    Args:
        make: learning rate → transformation.
        learning_rate: of the first epoch.
    """
    optimizer, theta = make(jnp.float32(learning_rate)), jnp.float32(_WEIGHT)
    state, updates = optimizer.init(theta), []
    names = ", ".join(state_names(state)) or "no state"
    for gradient in _GRADIENTS:
        update, state = optimizer.update(jnp.float32(gradient), state, theta)
        theta = theta + update
        updates.append(f"{float(update):.4g}")
    return f"{names}; updates {', '.join(updates)}"


def linear_system(
    make: Callable[[Any], optax.GradientTransformation], learning_rate: float
) -> theory.LinearOptimizer | None:
    """`theory.from_optax` at a learning rate; None where the optimiser is not linear."""
    try:
        return theory.from_optax(make(float(np.float32(learning_rate))))
    except ValueError:
        return None
