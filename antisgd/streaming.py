"""Sums and steps over examples that are read piece by piece (`sources`).

Sums are those of `hessian`, `objective` and `trajectory` over examples that lie on the device, to
rounding; steps are the same steps.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from antisgd import (
    averaging,
    devices,
    ensemble,
    heavy_ball,
    hessian,
    objective,
    sampling,
    sources,
    trajectory,
)
from antisgd import weights as division

__all__ = [
    "example_gradients", "full_gradient", "hessian_product", "make_epoch", "mean", "products",
]  # fmt: skip


def hessian_product(
    loss: Any, params: Any, examples: Any, *, microbatch_size: int, precision: str = "highest"
) -> Callable[[Any], jax.Array]:
    """The map of a block of rows V [b, d] → V H, H the Hessian of the loss over all examples.

    One pass over the examples a block, summed with compensation; for `product=` of
    `lanczos.leading_eigenpairs`. Not traceable by JAX.

    Args:
        loss: `loss(params, examples, weights)`, as for `hessian.hessian_vector_product`.
        params: θ.
        examples: a `sources.Source`, or a pytree of arrays [N, …], memory-mapped or not.
        microbatch_size: examples at a time.
        precision: of the matrix products, as for `hessian.hessian_vector_product`.

    Raises:
        ValueError: a loss that is no weighted mean, no examples, several devices, or a precision
            that the device has not.
    """
    added = _prepared(loss, params, examples, partial(_product, precision))

    def product(block: Any) -> jax.Array:
        return added(microbatch_size, jnp.asarray(block))

    return product


def products(
    loss: Any, params: Any, examples: Any, microbatch_size: int, precision: str = "highest"
) -> dict[str, Any]:
    """The Hessian as `lanczos` takes it: a matvec, or the product of examples that are read."""
    read = sources.streamed(examples)
    make = hessian_product if read else hessian.hessian_vector_product
    found = make(loss, params, examples, microbatch_size=microbatch_size, precision=precision)
    return {"product" if read else "matvec": found}


def full_gradient(
    loss: Any, params: Any, examples: Any, microbatch_size: int, weights: Any = None
) -> Any:
    """`objective.full_gradient` of examples that are read: ∇L(θ), a pytree like params.

    Errors as for `hessian_product`.
    """
    return _prepared(loss, params, examples, _gradient)(microbatch_size, None, weights)


def example_gradients(
    loss: Any,
    params: Any,
    examples: Any,
    directions: Any,
    *,
    microbatch_size: int,
    mesh: Any = None,
    own_step: float | None = None,
) -> np.ndarray | jax.Array:
    """`trajectory.example_gradients`, [N, k], of examples wherever they lie."""
    project = partial(
        trajectory.example_gradients, microbatch_size=microbatch_size, mesh=mesh, own_step=own_step
    )
    if not sources.streamed(examples):
        return project(loss, params, examples, directions)
    parts = sources.microbatches(examples, microbatch_size)
    return np.concatenate([np.asarray(project(loss, params, one, directions)) for one in parts])


def mean(
    measure: Callable[[Any, Any], dict[str, jax.Array]], params: Any, examples: Any, size: int
) -> dict[str, float]:
    """Means by name over all examples, of means over so many at a time.

    Args:
        measure: (params, examples) → means over them by name.
        params: weights.
        examples: wherever they lie; those on the device are measured at once.
        size: examples at a time.
    """
    measured = jax.jit(measure)
    if not sources.streamed(examples):
        return {name: float(value) for name, value in measured(params, examples).items()}
    total: dict[str, float] = {}
    for batch in sources.microbatches(examples, size):
        share = sources.count(batch) / sources.count(examples)
        for name, value in measured(params, batch).items():
            total[name] = total.get(name, 0.0) + share * float(value)
    return total


def make_epoch(
    loss: heavy_ball.Loss | heavy_ball.Stepwise,
    optimizer_at: Callable[..., Any],
    schemes: Sequence[ensemble.Scheme],
    batch_size: int,
) -> Callable[..., tuple[heavy_ball.TrainState, Any]]:
    """`ensemble.make_epoch` for examples that are read: the same steps, piece after piece.

    The schedules are drawn as there, so that each minibatch is the one that it would be there.
    """

    @partial(jax.jit, static_argnums=2)
    def draw(keys: jax.Array, epoch: Any, num_examples: int) -> sampling.Schedule:
        return ensemble.schedules(schemes, keys, epoch, num_examples, batch_size)

    @jax.jit
    def run(states, keys, epoch, examples, schedules, *swept):
        def train(network):
            state, key, own, schedule, swept = network
            optimizer = optimizer_at(epoch, *swept)
            return heavy_ball.run_schedule(loss, optimizer, state, schedule, own, key=key)

        return jax.vmap(train)((states, keys, examples, schedules, swept))

    def run_epoch(states, keys, epoch, examples, *swept):
        if epoch == 0 and not isinstance(loss, heavy_ball.Stepwise):
            first = jax.tree.map(lambda leaf: leaf[0], states.params)
            averaging.refuse_other_than_mean(loss, first, sources.sample(examples))
        drawn = jax.device_get(draw(keys, epoch, sources.count(examples)))
        own = ensemble.step_keys(keys) if isinstance(loss, heavy_ball.Stepwise) else None
        networks, M, places = drawn.indices.shape
        size, told = sources.steps_at_once(examples, networks * places, M), []
        pieces = [jax.tree.map(lambda a, i=i: a[:, i : i + size], drawn) for i in range(0, M, size)]
        for part, schedule in sources.fed(examples, pieces):
            states, of_part = run(states, own, epoch, part, schedule, *swept)
            told.append(jax.device_get(of_part))
        return states, jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *told)

    return run_epoch


def _prepared(
    loss: Any, params: Any, examples: Any, term: Callable[..., Any]
) -> Callable[..., Any]:
    """(examples at a time, block, weights) → the compensated sum of the term over all examples.

    Weights of the examples [N], or None for equal ones, are handed on in the place of the block.
    """
    if devices.mesh() is not None:
        raise ValueError(
            f"examples that are read run on one device, not {devices.count()}: give arrays that "
            "fit, or start with one device"
        )
    averaging.refuse_other_than_mean(loss, params, sources.sample(examples))
    loss, (chosen, rest, join) = averaging.hashable(loss), division.divide(params)

    def over_all(size: int, block: Any, weights: Any = None) -> Any:
        carry, start = None, 0
        total = None if weights is None else weights.sum()
        for batch in sources.microbatches(examples, size):
            n = sources.count(batch)
            own = None if weights is None else weights[start : start + n]
            share = np.float32(n / sources.count(examples) if own is None else own.sum() / total)
            found = term(loss, join, (chosen, rest), batch, block if own is None else own)
            start += n
            carry = jax.block_until_ready(_added(carry, found, share))
        return carry[0]  # type: ignore[index]

    return over_all


@partial(jax.jit, static_argnums=(0, 1, 2))
def _product(
    precision: str, loss: Any, join: division.Join, point: Any, batch: Any, block: jax.Array
) -> Any:
    size = sources.count(batch)
    matvec = hessian.hessian_vector_product(
        loss, join(*point), batch, microbatch_size=size, precision=precision
    )
    return jax.vmap(matvec)(block)


@partial(jax.jit, static_argnums=(0, 1))
def _gradient(loss: Any, join: division.Join, point: Any, batch: Any, weights: Any) -> Any:
    return objective.full_gradient(loss, join(*point), batch, sources.count(batch), weights)


@jax.jit
def _added(carry: Any, found: Any, share: jax.Array) -> Any:
    """Kahan's sum: the error does not grow with the number of microbatches."""
    if carry is None:
        zero = jax.tree.map(jnp.zeros_like, found)
        carry = zero, zero
    total, lost = carry
    terms = jax.tree.map(lambda x, less: share.astype(x.dtype) * x - less, found, lost)
    raised = jax.tree.map(jnp.add, total, terms)
    return raised, jax.tree.map(lambda r, t, term: (r - t) - term, raised, total, terms)
