"""One function per sampling scheme: `scheme(key, epoch, num_examples, batch_size) -> Schedule`.

A stream of minibatches is a pure function of its key; any epoch is reached without drawing the
ones before it, and `epoch` may be traced. Sampling is data: schedules of the same shape run the
same compiled program. The law of each scheme's noise is the function of the same name in
`antisgd.theory` (N examples, batch size S, M = N/S steps an epoch).

| scheme | one epoch is |
|---|---|
| `without_replacement` | a new random order, every example once; the last batch may be partial |
| `with_replacement` | independent uniform draws, in the shape and weights of the former |
| `independent_batches` | batches of S distinct examples, independent of one another |
| `shuffle_once` | the same random order in every epoch |
| `flip_flop` | a new order, then the same order backwards, then a new one |
| `drop_last` | as `without_replacement`, the partial last batch left out |
| `spanning_batches` | ceil(N/S) full batches cut from the orders of all epochs laid end to end |

`designed` and `repeated` make schemes of this kind: of where the batches of an order stand in
each epoch, and of an order of your own.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from antisgd import display, inputs

__all__ = [
    "Schedule",
    "designed",
    "drop_last",
    "flip_flop",
    "independent_batches",
    "repeated",
    "shuffle_once",
    "spanning_batches",
    "with_replacement",
    "without_replacement",
]

Epoch = Any
Scheme = Callable[[jax.Array, Any, int, int], "Schedule"]


class Schedule(NamedTuple):
    """Which examples each update uses.

    Attributes:
        indices: int32 [steps, batch], into the examples.
        weights: float32 [steps, batch], 1 in used places and 0 in the unused ones of a partial
            last batch (whose index is a valid example that counts for nothing).
    """

    indices: jax.Array
    weights: jax.Array

    def __repr__(self) -> str:
        return display.described(self)


def without_replacement(
    key: jax.Array, epoch: Epoch, num_examples: int, batch_size: int
) -> Schedule:
    """Random reshuffling (Alg. 1 of the paper): every example once an epoch, in a new order.

    Where S does not divide N the last batch is partial. Shape [ceil(N/S), S].

    Raises:
        ValueError: a batch size outside [1, N], or no key.
    """
    num_examples, batch_size = _checked(key, epoch, num_examples, batch_size)
    return _cut(_order(key, epoch, num_examples), batch_size)


def with_replacement(key: jax.Array, epoch: Epoch, num_examples: int, batch_size: int) -> Schedule:
    """Independent uniform draws: a batch may hold an example twice (App. G).

    Shape [ceil(N/S), S] and weights are those of `without_replacement`, so that a partial last
    batch has as few examples as there and both run one compiled program.

    Raises:
        ValueError: a batch size outside [1, N], or no key.
    """
    num_examples, batch_size = _checked(key, epoch, num_examples, batch_size)
    draws = jax.random.randint(_epoch_key(key, epoch), (num_examples,), 0, num_examples)
    return _cut(draws, batch_size)


def independent_batches(
    key: jax.Array, epoch: Epoch, num_examples: int, batch_size: int
) -> Schedule:
    """Every batch a uniform set of S distinct examples, drawn afresh (beyond the paper).

    Shape [ceil(N/S), S], all places used. Floyd's algorithm: S draws a batch, no sorting of N.

    Raises:
        ValueError: a batch size outside [1, N], or no key.
    """
    num_examples, batch_size = _checked(key, epoch, num_examples, batch_size)
    steps = -(-num_examples // batch_size)
    tops = jnp.arange(num_examples - batch_size, num_examples)
    ceilings = jnp.broadcast_to(tops + 1, (steps, batch_size))
    draws = jax.random.randint(_epoch_key(key, epoch), ceilings.shape, 0, ceilings)

    def place(chosen, slot):
        candidate = draws[:, slot]
        taken = (chosen == candidate[:, None]).any(axis=1)
        return chosen.at[:, slot].set(jnp.where(taken, tops[slot], candidate)), None

    nothing = jnp.full((steps, batch_size), -1, jnp.int32)
    indices, _ = jax.lax.scan(place, nothing, jnp.arange(batch_size))
    return _full(indices)


def shuffle_once(key: jax.Array, epoch: Epoch, num_examples: int, batch_size: int) -> Schedule:
    """One random order, the same in every epoch: `epoch` is ignored (beyond the paper).

    Shape [ceil(N/S), S], the last batch partial where S does not divide N.

    Raises:
        ValueError: a batch size outside [1, N], or no key.
    """
    del epoch
    return without_replacement(key, 0, num_examples, batch_size)


def flip_flop(key: jax.Array, epoch: Epoch, num_examples: int, batch_size: int) -> Schedule:
    """Odd epochs run the order of the epoch before them backwards (beyond the paper).

    Shape [ceil(N/S), S], the last batch partial where S does not divide N.

    Raises:
        ValueError: a batch size outside [1, N], or no key.
    """
    num_examples, batch_size = _checked(key, epoch, num_examples, batch_size)
    epoch = jnp.asarray(epoch)
    order = _order(key, epoch // 2, num_examples)
    return _cut(jnp.where(epoch % 2 == 1, order[::-1], order), batch_size)


def drop_last(key: jax.Array, epoch: Epoch, num_examples: int, batch_size: int) -> Schedule:
    """Random reshuffling without the partial last batch (beyond the paper).

    Which N mod S examples are left out changes from epoch to epoch. Shape [floor(N/S), S].

    Raises:
        ValueError: a batch size outside [1, N], or no key.
    """
    num_examples, batch_size = _checked(key, epoch, num_examples, batch_size)
    whole = num_examples // batch_size * batch_size
    return _cut(_order(key, epoch, num_examples)[:whole], batch_size)


def spanning_batches(key: jax.Array, epoch: Epoch, num_examples: int, batch_size: int) -> Schedule:
    """Full batches cut from an endless stream of reshuffled epochs (beyond the paper).

    A batch may begin in one pass over the examples and end in the next. Schedule `epoch` holds
    the batches number epoch·ceil(N/S) onwards of that stream; shape [ceil(N/S), S].

    Raises:
        ValueError: a batch size outside [1, N], or no key.
    """
    num_examples, batch_size = _checked(key, epoch, num_examples, batch_size)
    steps = -(-num_examples // batch_size)
    ahead = jnp.asarray(epoch) * (steps * batch_size - num_examples)
    first = epoch + ahead // num_examples
    orders = [_order(key, first + passed, num_examples) for passed in range(3)]
    stream = jnp.concatenate(orders)
    taken = jax.lax.dynamic_slice(stream, (ahead % num_examples,), (steps * batch_size,))
    return _full(taken.reshape(steps, batch_size))


def designed(positions: Any) -> Scheme:
    """The scheme that draws an order, runs it for E epochs as designed, and draws a new one.

    The law of its noise is `theory.order_law(positions)`; `[[0, …, M−1], [M−1, …, 0]]` is
    flip-flop by whole batches (beyond the paper).

    Args:
        positions: where batch number m of the order stands in each epoch, int [E, M], every row
            a permutation of 0 … M−1.

    Returns:
        A scheme like those of this module; it raises ValueError unless N = M·S.

    Raises:
        ValueError: rows that are no permutations.
    """
    standing = inputs.permutations("positions", positions)
    epochs, steps = standing.shape
    # batches[e, t] is the batch that stands at t.
    batches = jnp.asarray(np.argsort(standing, axis=1))

    def scheme(key: jax.Array, epoch: Epoch, num_examples: int, batch_size: int) -> Schedule:
        num_examples, batch_size = _checked(key, epoch, num_examples, batch_size)
        _check_divides(steps, num_examples, batch_size)
        epoch = jnp.asarray(epoch)
        order = _order(key, epoch // epochs, num_examples).reshape(steps, batch_size)
        return _full(order[batches[epoch % epochs]])

    return scheme


def repeated(order: Any) -> Scheme:
    """The scheme that runs an order of your own in every epoch, such as `theory.balanced_order`.

    Args:
        order: the examples of each step, int [M, S], every example once.

    Returns:
        A scheme that ignores key and epoch; it raises ValueError unless N = M·S with that S.

    Raises:
        ValueError: an order that does not hold every example once.
    """
    found = np.asarray(order)
    if found.ndim != 2:
        raise ValueError(f"an order is int [steps, batch], not of shape {found.shape}")
    (flat,) = inputs.permutations("the order", found.reshape(1, -1))
    rows = flat.reshape(found.shape)

    def scheme(key: jax.Array, epoch: Epoch, num_examples: int, batch_size: int) -> Schedule:
        num_examples, batch_size = _checked(key, epoch, num_examples, batch_size)
        if (num_examples, batch_size) != (rows.size, rows.shape[1]):
            raise ValueError(
                f"an order of {rows.shape[0]} batches of {rows.shape[1]} is none of {num_examples} "
                f"examples in batches of {batch_size}"
            )
        return _full(jnp.asarray(rows))

    return scheme


def _check_divides(steps: int, num_examples: int, batch_size: int) -> None:
    if steps * batch_size != num_examples:
        raise ValueError(
            f"a design of {steps} batches needs {steps} times the batch size in examples, not "
            f"{num_examples} in batches of {batch_size}: leave some examples out"
        )


def _checked(key: Any, epoch: Epoch, num_examples: int, batch_size: int) -> tuple[int, int]:
    inputs.random_key(key)
    if not isinstance(epoch, jax.Array):
        inputs.count("epoch", epoch, 0)
    num_examples = inputs.count("num_examples", num_examples)
    batch_size = inputs.count("batch_size", batch_size, 0)
    if not 1 <= batch_size <= num_examples:
        raise ValueError(
            f"batch_size must lie between 1 and the number of examples, {num_examples}, "
            f"not {batch_size}"
        )
    return num_examples, batch_size


def _epoch_key(key: jax.Array, epoch: Epoch) -> jax.Array:
    return jax.random.fold_in(key, epoch)


def _order(key: jax.Array, epoch: Epoch, num_examples: int) -> jax.Array:
    return jax.random.permutation(_epoch_key(key, epoch), num_examples)


def _cut(order: jax.Array, batch_size: int) -> Schedule:
    steps = -(-order.size // batch_size)
    unused = steps * batch_size - order.size
    indices = jnp.pad(order.astype(jnp.int32), (0, unused)).reshape(steps, batch_size)
    used = jnp.arange(steps * batch_size) < order.size
    return Schedule(indices, used.astype(jnp.float32).reshape(steps, batch_size))


def _full(indices: jax.Array) -> Schedule:
    return Schedule(indices.astype(jnp.int32), jnp.ones(indices.shape, jnp.float32))
