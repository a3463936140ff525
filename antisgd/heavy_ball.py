"""Heavy-ball SGD (Eq. 1) as an optax transformation, and the scan that runs any optax
transformation over a schedule of minibatches.

Nothing here knows how batches are drawn (`sampling`) or what is recorded (`trajectory`):
a schedule is data, and recording is a function handed in.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from antisgd import averaging, display, inputs, weights

__all__ = ["Stepwise", "TrainState", "heavy_ball", "init", "run_schedule"]

Params = Any
Examples = Any
Loss = Callable[[Params, Examples, jax.Array], jax.Array]
Record = Callable[[Params, Params, Params, jax.Array], Any]


@dataclass(frozen=True)
class Stepwise:
    """A loss with a state, a key of its own at each step, and auxiliary outputs.

    Attributes:
        function: (params, state, examples, weights, key) → (loss, state after the step, aux), aux
            any pytree. It need be no mean over examples: batch normalisation and dropout have
            their place here, and the Hessian of such a loss does not.
    """

    function: Callable[[Params, Any, Examples, jax.Array, jax.Array], tuple[jax.Array, Any, Any]]


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
        loss_state: what a `Stepwise` loss carries from step to step, such as batch statistics;
            None for other losses.
    """

    params: Params
    opt_state: Any
    step: jax.Array
    loss_state: Any = None

    def __repr__(self) -> str:
        return display.described(self)


def heavy_ball(
    learning_rate: float | jax.Array | Callable[[Any], Any], momentum: float | jax.Array
) -> optax.GradientTransformation:
    """Heavy-ball momentum with the learning rate inside the velocity (Eq. 1).

    v_k = −η g_k(θ_{k−1}) + β v_{k−1},  θ_k = θ_{k−1} + v_k.

    `optax.sgd` keeps η outside the velocity; the two differ as soon as η changes between
    steps. Both arguments may be traced, so one compiled program serves every η and β.

    Args:
        learning_rate: η, or a schedule, step → η, which is not looked at.
        momentum: β in [0, 1).

    Raises:
        ValueError: a concrete momentum outside [0, 1), or a concrete learning rate that is not
            positive and finite.
    """
    if not inputs.traced(momentum):
        if not 0 <= inputs.number("momentum", momentum) < 1:
            raise ValueError(f"momentum must lie in [0, 1), not {momentum}: pass for example 0.9")
        momentum = _plain(momentum)
    if not callable(learning_rate) and not inputs.traced(learning_rate):
        if not 0 < inputs.number("learning_rate", learning_rate):
            raise ValueError(f"the learning rate must be positive, not {learning_rate}")
        learning_rate = _plain(learning_rate)
    return optax.chain(optax.scale_by_learning_rate(learning_rate), optax.trace(decay=momentum))


def init(
    optimizer: optax.GradientTransformation, params: Params, loss_state: Any = None
) -> TrainState:
    """State before the first update: θ_0 = params, v_0 = 0, k = 0.

    The optimiser sees the weights alone, None in the place of leaves that are none.
    """
    with jax.numpy_dtype_promotion("standard"):
        start = optimizer.init(weights.trainable(params))
    return TrainState(params, start, jnp.zeros((), jnp.int32), loss_state)


def minibatch_loss(params: Params, gradient: Params, update: Params, value: jax.Array) -> jax.Array:
    """Records the loss of each minibatch, all that training needs to see a divergence."""
    del params, gradient, update
    return value


def run_schedule(
    loss: Loss | Stepwise,
    optimizer: optax.GradientTransformation,
    state: TrainState,
    schedule: MinibatchSchedule,
    examples: Examples,
    *,
    record: Record = minibatch_loss,
    example_weights: Any = None,
    key: jax.Array | None = None,
) -> tuple[TrainState, Any]:
    """Runs one update per row of the schedule as a `lax.scan` (Eq. 1 for `heavy_ball`).

    Pure, so `jit` and `vmap` apply; a whole epoch, a piece of one or several all work. Leaves of
    params that are no weights stay as they are; their place in gradients and updates is None.
    Under `jit` an index beyond the examples makes the loss of its step NaN.

    Args:
        loss: `loss(params, examples, weights)`, the weighted mean over the minibatch plus
            penalties; outside `jit` a few examples are tried to see that it is one. Or `Stepwise`,
            whatever it computes.
        optimizer: any optax transformation; `value`, `grad` and `value_fn` are there for those
            that ask for them.
        state: where to start.
        schedule: indices int32 [steps, batch] into the examples and weights float32
            [steps, batch], zero in the unused places of a partial batch.
        examples: pytree of arrays with a leading example axis [N, …].
        record: `record(θ_{k−1}, g_k, v_k, loss_k)` → pytree, evaluated at every step; by
            default the minibatch loss.
        example_weights: of the examples in each minibatch's mean, [N], such as a mask; a
            minibatch must hold one that is not zero. None for equal ones.
        key: of the run, for a `Stepwise` loss: the update that makes step k + 1 of k gets
            `jax.random.fold_in(key, k)`, so that pieces of a run are those of the whole.

    Returns:
        The state after the last step and what was recorded, with a leading axis [steps]; of a
        `Stepwise` loss (recorded, aux).

    Raises:
        ValueError: no examples, arrays of differing numbers of them, an index beyond them, a loss
            that is no weighted mean, a `Stepwise` one without a key, or an optimiser that needs
            arguments of its own.
    """
    indices, shares = _checked_schedule(schedule, examples)
    at_step = _at_step(loss, state, examples, key)
    examples = jax.tree.map(jnp.asarray, examples)
    if example_weights is not None:
        num_examples = inputs.number_of_examples(examples)
        given = inputs.example_weights(example_weights, num_examples)
        shares = shares * jnp.asarray(given, shares.dtype)[indices]
    params = state.params

    def step(carry, batch):
        indices, shares = batch
        minibatch = jax.tree.map(lambda array: array[indices], examples)

        def of(moving):
            return at_step(weights.merged(moving, params), carry, minibatch, shares)

        (value, (kept, aux)), gradient = jax.value_and_grad(of, has_aux=True)(carry.params)
        update, opt_state = _updated(optimizer, carry, gradient, value, lambda at: of(at)[0])
        with jax.numpy_dtype_promotion("standard"):
            moved = optax.apply_updates(carry.params, update)
        recorded = record(weights.merged(carry.params, params), gradient, update, value)
        return TrainState(moved, opt_state, carry.step + 1, kept), (recorded, aux)

    moving = jax.tree.map(jnp.asarray, weights.trainable(params))
    last, recorded = jax.lax.scan(step, state._replace(params=moving), (indices, shares))
    last = last._replace(params=weights.merged(last.params, params))
    return last, recorded if isinstance(loss, Stepwise) else recorded[0]


def _at_step(
    loss: Loss | Stepwise, state: TrainState, examples: Examples, key: jax.Array | None
) -> Callable[[Params, TrainState, Examples, jax.Array], tuple[jax.Array, tuple[Any, Any]]]:
    """(params, carry, minibatch, weights) → loss, (state of the loss after the step, aux)."""
    if not isinstance(loss, Stepwise):
        averaging.refuse_other_than_mean(loss, state.params, examples)
        return lambda params, carry, batch, shares: (
            loss(params, batch, shares), (carry.loss_state, None)
        )  # fmt: skip
    if key is None:
        raise ValueError("a Stepwise loss takes a key at each step: give key=jax.random.key(0)")
    function = loss.function

    def stepwise(params, carry, batch, shares):
        own = jax.random.fold_in(key, carry.step)
        value, kept, aux = function(params, carry.loss_state, batch, shares, own)
        return value, (kept, aux)

    return stepwise


def _checked_schedule(
    schedule: MinibatchSchedule, examples: Examples
) -> tuple[jax.Array, jax.Array]:
    """Indices and weights that fit each other and the examples."""
    num_examples = inputs.number_of_examples(examples)
    indices, shares = jnp.asarray(schedule.indices), jnp.asarray(schedule.weights)
    if indices.ndim != 2 or indices.shape != shares.shape or indices.dtype.kind not in "iu":
        raise ValueError(
            "a schedule needs integer indices [steps, batch] and weights of the same shape, not "
            f"{indices.dtype}{list(indices.shape)} and {shares.dtype}{list(shares.shape)}"
        )
    if not inputs.traced(schedule.indices):
        asked = np.asarray(schedule.indices)
        wrong = asked[(asked < 0) | (asked >= num_examples)]
        if len(wrong):
            raise ValueError(f"the schedule asks for example {wrong[0]}, there are {num_examples}")
        return indices, shares
    outside = (indices < 0) | (indices >= num_examples)
    # An index of a traced schedule cannot be refused: it must not pass for the nearest example.
    return indices, jnp.where(outside, jnp.asarray(np.nan, shares.dtype), shares)


def _updated(
    optimizer: optax.GradientTransformation,
    state: TrainState,
    gradient: Params,
    value: jax.Array,
    value_fn: Callable[[Params], jax.Array],
) -> tuple[Params, Any]:
    """One update, its state in the types it had before: hyper-parameters may be wider."""
    extended = optax.with_extra_args_support(optimizer)
    offered = {"value": value, "grad": gradient, "value_fn": value_fn}
    try:
        # optax counts on JAX's standard rules for types that meet.
        with jax.numpy_dtype_promotion("standard"):
            update, after = extended.update(gradient, state.opt_state, state.params, **offered)
    except TypeError as error:
        if "argument" not in str(error):
            raise
        raise ValueError(
            f"the optimiser needs more than value, grad and value_fn ({error}): wrap its update "
            "so that it gets them"
        ) from error
    old, before = jax.tree.flatten(state.opt_state)
    new, now = jax.tree.flatten(after)
    if str(before) != str(now):
        raise ValueError(
            "the optimiser's state has another structure than the one it is given: begin with "
            "heavy_ball.init(optimizer, params)"
        )
    return update, jax.tree.unflatten(now, map(_of_type, new, old))


def _of_type(new: Any, old: Any) -> Any:
    same = jnp.result_type(new) == jnp.result_type(old)
    return new if same else jnp.asarray(new, jnp.result_type(old))


def _plain(value: Any) -> Any:
    """A NumPy number as Python's, which takes on the type of the weights and not the reverse."""
    return float(value) if isinstance(value, (np.generic, np.ndarray)) else value
