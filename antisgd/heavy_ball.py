"""Heavy-ball SGD (Eq. 1) as an optax transformation, and the scan that runs any optax
transformation over a schedule of minibatches.

Nothing here knows how batches are drawn (`sampling`) or what is recorded (`trajectory`):
a schedule is data, and recording is a function handed in.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

__all__ = ["TrainState", "heavy_ball", "init", "run_schedule"]

Params = Any
Examples = Any
Loss = Callable[[Params, Examples, jax.Array], jax.Array]
Record = Callable[[Params, Params, Params, jax.Array], Any]


class MinibatchSchedule(Protocol):
    """What a schedule must offer: `sampling.Schedule` does."""

    indices: jax.Array
    weights: jax.Array


class TrainState(NamedTuple):
    """What the next update needs.

    Attributes:
        params: weights θ_k, a pytree.
        opt_state: state of the optax transformation; for `heavy_ball` it holds v_k.
        step: int32 scalar, updates made so far (k).
    """

    params: Params
    opt_state: Any
    step: jax.Array


def heavy_ball(
    learning_rate: float | jax.Array, momentum: float | jax.Array
) -> optax.GradientTransformation:
    """Heavy-ball momentum with the learning rate inside the velocity (Eq. 1).

    v_k = −η g_k(θ_{k−1}) + β v_{k−1},  θ_k = θ_{k−1} + v_k.

    `optax.sgd` keeps η outside the velocity; the two differ as soon as η changes between
    steps. Both arguments may be traced, so one compiled program serves every η and β.

    Args:
        learning_rate: η.
        momentum: β in [0, 1).

    Raises:
        ValueError: a concrete momentum outside [0, 1) or a concrete learning rate ≤ 0.
    """
    if not isinstance(momentum, jax.core.Tracer) and not 0 <= float(momentum) < 1:
        raise ValueError(f"momentum must lie in [0, 1), not {momentum}: pass for example 0.9")
    if not isinstance(learning_rate, jax.core.Tracer) and not float(learning_rate) > 0:
        raise ValueError(f"the learning rate must be positive, not {learning_rate}")
    return optax.chain(optax.scale_by_learning_rate(learning_rate), optax.trace(decay=momentum))


def init(optimizer: optax.GradientTransformation, params: Params) -> TrainState:
    """State before the first update: θ_0 = params, v_0 = 0, k = 0."""
    return TrainState(params, optimizer.init(params), jnp.zeros((), jnp.int32))


def minibatch_loss(params: Params, gradient: Params, update: Params, value: jax.Array) -> jax.Array:
    """Records the loss of each minibatch, all that training needs to see a divergence."""
    del params, gradient, update
    return value


def run_schedule(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    schedule: MinibatchSchedule,
    examples: Examples,
    *,
    record: Record = minibatch_loss,
) -> tuple[TrainState, Any]:
    """Runs one update per row of the schedule as a `lax.scan` (Eq. 1 for `heavy_ball`).

    Pure, so `jit` and `vmap` apply; a whole epoch, a piece of one or several all work.

    Args:
        loss: `loss(params, examples, weights)`, the weighted mean over the minibatch plus
            penalties.
        optimizer: any optax transformation.
        state: where to start.
        schedule: indices int32 [steps, batch] into the examples and weights float32
            [steps, batch], zero in the unused places of a partial batch.
        examples: pytree of arrays with a leading example axis [N, …].
        record: `record(θ_{k−1}, g_k, v_k, loss_k)` → pytree, evaluated at every step; by
            default the minibatch loss.

    Returns:
        The state after the last step and what was recorded, with a leading axis [steps].
    """

    def step(state, batch):
        indices, weights = batch
        minibatch = jax.tree.map(lambda array: array[indices], examples)
        value, gradient = jax.value_and_grad(loss)(state.params, minibatch, weights)
        update, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, update)
        recorded = record(state.params, gradient, update, value)
        return TrainState(params, opt_state, state.step + 1), recorded

    return jax.lax.scan(step, state, (schedule.indices, schedule.weights))
