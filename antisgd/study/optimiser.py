"""What is to be known of an optimiser that a problem brings: its name, and its matrices if any."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax

from antisgd import theory
from antisgd.theory.linear import state_names

__all__ = ["described", "heavy_ball_of", "linear_system"]

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


def heavy_ball_of(system: theory.LinearOptimizer) -> tuple[float, float] | None:
    """η and β if the system is Eq. 1 in any convention and any state; None if it is not.

    Told by what it does: a gradient is answered by the updates −η, −ηβ, −ηβ², … and by no others.
    Of n states the updates obey a recursion of n + 1 terms at most, and those of Eq. 1 one of one:
    where so many agree, all do.
    """
    state, n = system.response, len(system.response)
    answers = [state[0]]
    for _ in range(n + 2):
        before, state = state, system.free @ state
        answers.append(state[0] - before[0])
    rate, beta = -answers[0], answers[1] / answers[0] if answers[0] else np.nan
    expected = -rate * beta ** np.arange(len(answers))
    known = rate > 0 and 0 <= beta < 1
    if not known or not np.allclose(answers, expected, rtol=0, atol=1e-9 * rate):
        return None
    return float(rate), float(beta)
