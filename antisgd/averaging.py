"""Whether a loss averages as everything here assumes: Σ w l / Σ w plus penalties, per example.

Sums over microbatches are right for such a loss alone. A few of the examples tell, at the start
and for the price of some forward passes, at the weights themselves and beside them (a network that
begins with zeros gives every example the same loss).
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from antisgd import inputs, weights

__all__ = ["composed", "hashable", "refuse_other_than_mean"]

Loss = Callable[[Any, Any, jax.Array], jax.Array]

# Examples that a loss is tried on, spread over all of them.
_TRIED = 32
_TOLERANCE = 1e-3
# Steps away from the weights, in units of their own size.
_SHIFTS = (0.0, 0.1)

_REMEDY = (
    "return jnp.sum(weights * losses) / jnp.sum(weights) plus penalties, give a mask of your own "
    "as per-example weights=, and freeze batch statistics and dropout"
)


def refuse_other_than_mean(loss: Loss, params: Any, examples: Any) -> None:
    """Compares a loss over some examples with its values over their halves.

    Nothing is compared where the arguments are traced or the loss is not finite.

    Raises:
        ValueError: it sums, ignores its weights, or depends on which examples come together.
    """
    if inputs.traced(params, examples):
        return
    half = max(1, min(inputs.number_of_examples(examples), _TRIED) // 2)
    rows = np.linspace(0, inputs.number_of_examples(examples) - 1, 2 * half).astype(int)
    chosen, rest, join = weights.divide(params)
    # Also while something else is traced that these arguments do not depend on.
    with jax.ensure_compile_time_eval():
        sample = jax.tree.map(lambda leaf: jnp.asarray(leaf[rows]), examples)
        values = _tried(hashable(loss), join)(weights.widened(chosen), rest, sample)
        _judge(np.asarray(values, np.float64), float(jnp.finfo(values.dtype).eps))


def hashable(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function, or one that calls it: a callable of arrays has no hash to be found by."""
    try:
        hash(function)
    except TypeError:
        return lambda *arguments: function(*arguments)
    return function


@lru_cache(maxsize=32)
def composed(predict: Callable[..., Any], output_loss: Callable[..., Any]) -> Loss:
    """The loss of a network's outputs as a loss of its weights; the same one each time."""
    return lambda params, examples, weights: output_loss(
        predict(params, examples), examples, weights
    )


@lru_cache(maxsize=32)
def _tried(loss: Loss, join: weights.Join) -> Callable[..., Any]:
    """Losses [shifts, 4]: of all, of either half twice, of all weighted for the first half."""

    def tried(chosen: Any, rest: Any, sample: Any) -> jax.Array:
        half = jax.tree.leaves(sample)[0].shape[0] // 2
        first, last = np.arange(half), np.arange(half, 2 * half)
        rows = [[first, last], [first, first], [last, last], [first, last]]
        shares = np.ones((4, 2 * half), np.float32)
        shares[3, half:] = 0
        picks = jnp.asarray(np.array(rows).reshape(4, 2 * half)), jnp.asarray(shares)

        def at(shift: jax.Array) -> jax.Array:
            point = join(_shifted(chosen, shift), rest)

            def one(pick: Any) -> jax.Array:
                batch = jax.tree.map(lambda leaf: leaf[pick[0]], sample)
                return _scalar(loss(point, batch, pick[1]))

            return jax.lax.map(one, picks)

        return jax.lax.map(at, jnp.asarray(_SHIFTS, jnp.float32))

    return jax.jit(tried)


def _shifted(chosen: Any, shift: jax.Array) -> list[jax.Array]:
    """Weights moved by `shift` times their own root mean square (of one where they are zero)."""
    moved = []
    for number, leaf in enumerate(map(jnp.asarray, chosen)):
        noise = jax.random.normal(jax.random.key(number), leaf.shape, leaf.dtype)
        size = jnp.sqrt(jnp.mean(jnp.square(leaf)))
        size = jnp.where(size > 0, size, jnp.ones_like(size))
        moved.append(leaf + shift.astype(leaf.dtype) * size * noise)
    return moved


def _scalar(value: Any) -> jax.Array:
    if np.shape(value) != () or not jnp.issubdtype(jnp.result_type(value), jnp.floating):
        raise ValueError(
            f"the loss must return one real number, not {jnp.result_type(value)} of the shape "
            f"{np.shape(value)}: {_REMEDY}"
        )
    return jnp.asarray(value)


def _judge(values: np.ndarray, eps: float) -> None:
    for whole, first, last, masked in values:
        if not np.isfinite([whole, masked, first, last]).all():
            if np.isfinite(whole):
                _refuse("not finite over a part of the examples", whole, first, last)
            continue
        allowed = max(_TOLERANCE, 4 * eps) * max(abs(whole), abs(first), abs(last))
        if abs(masked - first) > allowed:
            ignored = abs(masked - whole) <= allowed
            cause = "without regard to its weights" if ignored else "without dividing by their sum"
            _refuse(f"taken {cause}", whole, first, last)
        if abs(whole - (first + last) / 2) > allowed:
            _refuse("not the mean of those over two halves", whole, first, last)


def _refuse(cause: str, whole: float, first: float, last: float) -> None:
    raise ValueError(
        f"the loss is no weighted mean over its examples: over some of them ({whole:.4g}; "
        f"{first:.4g} and {last:.4g} over their halves) it is {cause}: {_REMEDY}"
    )
