"""Curvature of a loss over all the data as matrix-vector products, the data in microbatches."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.tree_util import Partial

__all__ = ["gauss_newton_product", "hessian_vector_product", "ravel_subset"]

Loss = Callable[[Any, Any, Array], Array]
Matvec = Callable[[Array], Array]
Only = Callable[[str], bool]


class _Microbatches(NamedTuple):
    """Examples [count, size, …], their weights [count, size], each one's share of all [count]."""

    examples: Any
    weights: Array
    shares: Array


def hessian_vector_product(
    loss: Loss,
    params: Any,
    examples: Any,
    *,
    microbatch_size: int,
    only: Only | None = None,
) -> Matvec:
    """The map v -> H v with the Hessian H = ∇²L(θ) of the loss over all examples (Sec. 2).

    H v = Σ_b (W_b / W) ∇²L_b(θ) v over microbatches b of total weight W_b, by differentiating the
    gradient along v, summed with compensation, so that rounding does not grow with their number.
    Symmetric up to rounding. A block of vectors is `jax.vmap(matvec)`: what does not depend on
    the vector is computed once for all of them. With several devices in the process (on a CPU its
    cores, if `jax_num_cpu_devices` says so) the microbatches are dealt out to them. Computed in the
    precision of params: float64 params and calls inside `jax.enable_x64(True)` give float64
    products.

    Args:
        loss: `loss(params, examples, weights)`, a weighted mean plus penalties.
        params: θ, any pytree.
        examples: pytree with a leading example axis [n, …].
        microbatch_size: examples at a time, which bounds the memory; a ragged end is allowed.
        only: which leaves vary, by their name such as 'params/Conv_0/kernel'; the vectors are
            then those of `ravel_subset(params, only)`. All of them by default.

    Returns:
        `matvec`, [d] -> [d], flat as `ravel_pytree(params)`: a `Partial` that holds θ and data.

    Raises:
        ValueError: no examples, a microbatch size below one, or `only` selects nothing.
    """
    dtype = ravel_subset(params, only)[0].dtype
    summed = _sum_over_microbatches(_hessian_product, loss, only)
    return Partial(summed, *_place(params, _split(examples, microbatch_size, dtype)))


def gauss_newton_product(
    predict: Callable[[Any, Any], Array],
    output_loss: Callable[[Array, Any, Array], Array],
    params: Any,
    examples: Any,
    *,
    microbatch_size: int,
    only: Only | None = None,
) -> Matvec:
    """The map v -> Jᵀ (∇²_z L) J v, the Gauss–Newton part of the Hessian (beyond the paper).

    J is the Jacobian of the outputs z = predict(θ, x). The curvature of the network itself and of
    penalties on θ is left out; for cross-entropy on logits it equals the Fisher information.
    Positive semi-definite if output_loss is convex.

    Args:
        predict: `predict(params, examples) -> outputs`.
        output_loss: `output_loss(outputs, examples, weights)`, a weighted mean.
        params, examples, microbatch_size, only: as for `hessian_vector_product`.

    Returns:
        `matvec`, [d] -> [d].

    Raises:
        ValueError: as for `hessian_vector_product`.
    """
    dtype = ravel_subset(params, only)[0].dtype
    summed = _sum_over_microbatches(_gauss_newton_product, predict, output_loss, only)
    return Partial(summed, *_place(params, _split(examples, microbatch_size, dtype)))


def ravel_subset(params: Any, only: Only | None = None) -> tuple[Array, Callable[[Array], Any]]:
    """The selected leaves as one vector, and the map from such a vector to the whole pytree.

    Args:
        params: any pytree.
        only: `only(name) -> bool` over names such as 'params/Conv_0/kernel'; None for all.

    Returns:
        `(flat [d], insert)`: `insert(flat)` is params with the selected leaves replaced.

    Raises:
        ValueError: nothing is selected; the message lists the names.
    """
    leaves, treedef = jax.tree_util.tree_flatten_with_path(params)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves]
    chosen = [only is None or only(name) for name in names]
    if not any(chosen):
        raise ValueError(f"`only` selects none of the weights: {', '.join(names)}")
    flat, unravel = ravel_pytree(
        [leaf for (_, leaf), take in zip(leaves, chosen, strict=True) if take]
    )

    def insert(vector: Array) -> Any:
        replaced = iter(unravel(vector))
        parts = [
            next(replaced) if take else leaf for (_, leaf), take in zip(leaves, chosen, strict=True)
        ]
        return jax.tree.unflatten(treedef, parts)

    return flat, insert


def _hessian_product(
    loss: Loss, only: Only | None, params: Any, examples: Any, weights: Array, vector: Array
) -> Array:
    flat, insert = ravel_subset(params, only)
    gradient = jax.grad(lambda point: loss(insert(point), examples, weights))
    return jax.jvp(gradient, (flat,), (vector,))[1]


def _gauss_newton_product(
    predict, output_loss, only, params: Any, examples: Any, weights: Array, vector: Array
) -> Array:
    flat, insert = ravel_subset(params, only)
    outputs, push = jax.linearize(lambda point: predict(insert(point), examples), flat)
    gradient = jax.grad(lambda z: output_loss(z, examples, weights))
    curved = jax.jvp(gradient, (outputs,), (push(vector),))[1]
    return jax.linear_transpose(push, flat)(curved)[0]


@lru_cache(maxsize=32)
def _sum_over_microbatches(product: Callable, *static) -> Callable:
    """One compiled program for all θ and data of the same shapes, whoever asks for it."""
    product = partial(product, *static)

    def summed(params: Any, batches: _Microbatches, vector: Array) -> Array:
        # Kahan's sum: the error does not grow with the number of microbatches.
        def add(carry, batch):
            total, lost = carry
            term = batch.shares * product(params, batch.examples, batch.weights, vector) - lost
            raised = total + term
            return (raised, (raised - total) - term), None

        zero = jnp.zeros_like(vector)
        return jax.lax.scan(add, (zero, zero), batches)[0][0]

    def over_devices(*arguments: Any) -> Array:
        split, whole = PartitionSpec("examples"), PartitionSpec()
        return jax.shard_map(
            lambda *local: jax.lax.psum(summed(*local), "examples"),
            mesh=_mesh(), in_specs=(whole, split, whole), out_specs=whole, check_vma=False,
        )(*arguments)  # fmt: skip

    chosen = summed if jax.local_device_count() == 1 else over_devices
    return jax.jit(jax.default_matmul_precision("highest")(chosen))


def _mesh() -> Mesh:
    return Mesh(np.array(jax.local_devices()), ("examples",))


def _split(examples: Any, microbatch_size: int, dtype) -> _Microbatches:
    """Equal microbatches, as many for each device; a place too many counts for nothing."""
    counts = {leaf.shape[0] for leaf in jax.tree.leaves(examples)}
    if len(counts) > 1:
        raise ValueError(f"the arrays of the examples differ in their number: {sorted(counts)}")
    num_examples = max(counts, default=0)
    if num_examples < 1 or microbatch_size < 1:
        raise ValueError(
            f"a product needs examples and microbatches of at least one, got {num_examples} "
            f"examples and microbatch_size={microbatch_size}"
        )
    num_devices = jax.local_device_count()
    count = -(-num_examples // (microbatch_size * num_devices)) * num_devices
    size = -(-num_examples // count)
    rows = np.arange(count * size).reshape(size, count).T
    weights = (rows < num_examples).astype(dtype)
    shares = weights.sum(1) / num_examples
    # A microbatch without examples (more devices than examples) has a mean, but no share.
    weights[shares == 0] = 1
    rows = np.where(rows < num_examples, rows, 0)
    return _Microbatches(
        jax.tree.map(lambda leaf: _cast(jnp.asarray(leaf)[rows], dtype), examples),
        jnp.asarray(weights),
        jnp.asarray(shares, dtype),
    )


def _place(params: Any, batches: _Microbatches) -> tuple[Any, _Microbatches]:
    """The microbatches dealt out to the devices of the process, θ on all of them."""
    if jax.local_device_count() == 1:
        return params, batches
    split = NamedSharding(_mesh(), PartitionSpec("examples"))
    whole = NamedSharding(_mesh(), PartitionSpec())
    return jax.device_put(params, whole), jax.device_put(batches, split)


def _cast(leaf: Array, dtype) -> Array:
    return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
