"""Curvature of a loss over all the data as matrix-vector products, the data in microbatches."""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.tree_util import Partial

from antisgd import averaging, compilation, devices, inputs
from antisgd import weights as division

__all__ = ["gauss_newton_product", "hessian_vector_product", "ravel_subset", "secant_curvature"]

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
    weights: Any = None,
    precision: str = "highest",
) -> Matvec:
    """The map v -> H v with the Hessian H = ∇²L(θ) of the loss over all examples (Sec. 2).

    H v = Σ_b (W_b / W) ∇²L_b(θ) v over microbatches b of total weight W_b, by differentiating the
    gradient along v, summed with compensation, so that rounding does not grow with their number.
    Symmetric up to rounding. A block of vectors is `jax.vmap(matvec)`: what does not depend on
    the vector is computed once for all of them. With several devices (on a CPU its cores, if
    `jax_num_cpu_devices` says so) the microbatches are dealt out to them, to those of all
    processes where there are several. Computed in float32, of bfloat16 and float16 params too, or
    in float64 where params are float64 and calls are made inside `jax.enable_x64(True)`. Leaves
    that are no weights (`antisgd.weights` says which) are left as they are and are no directions.

    Args:
        loss: `loss(params, examples, weights)`, a weighted mean plus penalties; a few examples
            are tried to see that it is one.
        params: θ, any pytree.
        examples: pytree with a leading example axis [n, …].
        microbatch_size: examples at a time, which bounds the memory; a ragged end is allowed.
        only: which leaves vary, by their name such as 'params/Conv_0/kernel'; the vectors are
            then those of `ravel_subset(params, only)`. All of them by default.
        weights: of the examples in the mean, [n], such as a mask; None for equal ones.
        precision: of the matrix products: 'highest', or what the device has that is faster, by
            its name in `jax.default_matmul_precision`, such as 'BF16_BF16_F32_X3' or
            'TF32_TF32_F32' (of `jax.lax.DotAlgorithmPreset`). What it costs in digits is the noise
            of a solve's certificate: its `noise_limited` says how many pairs that leaves short of
            their tolerance.

    Returns:
        `matvec`, [d] -> [d], flat as `ravel_subset(params, only)`: a `Partial` that holds θ and
        data.

    Raises:
        ValueError: no examples, a microbatch size below one, `only` selects nothing, a loss that
            is no weighted mean, or a precision that the device has not.
    """
    averaging.refuse_other_than_mean(loss, params, examples)
    loss = averaging.hashable(loss)
    return _product_over_data(
        (_hessian_product, loss), params, examples, microbatch_size, only, weights, precision
    )


def gauss_newton_product(
    predict: Callable[[Any, Any], Array],
    output_loss: Callable[[Array, Any, Array], Array],
    params: Any,
    examples: Any,
    *,
    microbatch_size: int,
    only: Only | None = None,
    weights: Any = None,
    precision: str = "highest",
) -> Matvec:
    """The map v -> Jᵀ (∇²_z L) J v, the Gauss–Newton part of the Hessian (beyond the paper).

    J is the Jacobian of the outputs z = predict(θ, x). The curvature of the network itself and of
    penalties on θ is left out; for cross-entropy on logits it equals the Fisher information.
    Positive semi-definite if output_loss is convex.

    Args:
        predict: `predict(params, examples) -> outputs`.
        output_loss: `output_loss(outputs, examples, weights)`, a weighted mean.
        params, examples, microbatch_size, only, weights, precision: as for
            `hessian_vector_product`.

    Returns:
        `matvec`, [d] -> [d].

    Raises:
        ValueError: as for `hessian_vector_product`.
    """
    predict, output_loss = averaging.hashable(predict), averaging.hashable(output_loss)
    averaging.refuse_other_than_mean(averaging.composed(predict, output_loss), params, examples)
    return _product_over_data(
        (_gauss_newton_product, predict, output_loss), params, examples, microbatch_size, only,
        weights, precision,
    )  # fmt: skip


def ravel_subset(params: Any, only: Only | None = None) -> tuple[Array, Callable[[Array], Any]]:
    """The selected weights as one vector, and the map from such a vector to the whole pytree.

    Args:
        params: any pytree; what is no weight stays as it is.
        only: `only(name) -> bool` over names such as 'params/Conv_0/kernel'; None for all.

    Returns:
        `(flat [d], insert)`, flat of float32 at least: `insert(flat)` is params with the selected
        leaves replaced.

    Raises:
        ValueError: nothing is selected (the message lists the names), or a complex leaf.
    """
    return division.ravel(params, only)


def secant_curvature(
    slope_at: Callable[[Array], Array | np.ndarray],
    centre: Array,
    directions: Array,
    reach: Any,
    middle: Any = 0.0,
) -> np.ndarray:
    """[p·∇L(θ + hp) − p·∇L(θ − hp)]/2h along each direction p: the curvature with its kinks, [k].

    The mean of pᵀHp over the stretch, jumps of the gradient counted. ReLU and max-pooling make
    jumps, thousands of them within a fluctuation of the weights, and no Hessian product sees one:
    it is the limit h → 0, where none is left on the stretch. With h = √3σ the stretch has the
    variance of a Gaussian of deviation σ, and for a smooth loss this is E pᵀHp over that to fourth
    order (E[x∂L]/σ² by three-point quadrature).

    Args:
        slope_at: θ [d] → P∇L(θ), [k].
        centre: flat [d].
        directions: P, orthonormal rows, [k, d].
        reach: h, [k] or one for all.
        middle: of each stretch, θ = centre + middle·p, [k] or one for all.

    Raises:
        ValueError: a reach that is not positive, or slopes that are not finite.
    """
    h, m = (np.broadcast_to(np.asarray(x, np.float64), len(directions)) for x in (reach, middle))
    if not np.all(h > 0):
        raise ValueError(f"secants need a reach above 0; the smallest is {h.min():.3g}")
    ends = []
    for i, ends_at in enumerate(zip(m - h, m + h, strict=True)):
        steps = (jnp.asarray(x, directions.dtype) * directions[i] for x in ends_at)
        ends.append([np.asarray(slope_at(centre + step), np.float64)[i] for step in steps])
    found = np.diff(ends, axis=1)[:, 0] / (2 * h)
    if not np.all(np.isfinite(found)):
        place = int(np.flatnonzero(~np.isfinite(found))[0])
        raise ValueError(f"the secant along direction {place} is not finite: it reaches too far")
    return found


def _product_over_data(
    static: tuple[Any, ...],
    params: Any,
    examples: Any,
    microbatch_size: int,
    only: Only | None,
    weights: Any,
    precision: str,
) -> Matvec:
    compilation.refuse_unknown(precision)
    chosen, rest, join = division.divide(params, only)
    point = division.widened(chosen), rest
    dtype = ravel_pytree(list(point[0]))[0].dtype
    batches = _split(examples, microbatch_size, dtype, weights)
    return Partial(_sum_over_microbatches(precision, *static, join), *_place(point, batches))


def _hessian_product(
    loss: Loss, join: division.Join, point: Any, examples: Any, weights: Array, vector: Array
) -> Array:
    flat, insert = _raveled(join, point)
    gradient = jax.grad(lambda at: loss(insert(at), examples, weights))
    return jax.jvp(gradient, (flat,), (vector,))[1]


def _gauss_newton_product(
    predict, output_loss, join: division.Join, point: Any, examples: Any, weights: Array,
    vector: Array,
) -> Array:  # fmt: skip
    flat, insert = _raveled(join, point)
    outputs, push = jax.linearize(lambda at: predict(insert(at), examples), flat)
    gradient = jax.grad(lambda z: output_loss(z, examples, weights))
    curved = jax.jvp(gradient, (outputs,), (push(vector),))[1]
    return jax.linear_transpose(push, flat)(curved)[0]


def _raveled(join: division.Join, point: Any) -> tuple[Array, Callable[[Array], Any]]:
    chosen, rest = point
    flat, unravel = ravel_pytree(list(chosen))
    return flat, lambda vector: join(unravel(vector), rest)


@lru_cache(maxsize=32)
def _sum_over_microbatches(
    precision: str, product: Callable[..., Any], *static: Any
) -> Callable[..., Any]:
    """One compiled program for all θ and data of the same shapes, whoever asks for it."""
    product = partial(product, *static)

    def summed(point: Any, batches: _Microbatches, vector: Array) -> Array:
        vector = _checked_vector(vector, point)

        # Kahan's sum: the error does not grow with the number of microbatches.
        def add(carry, batch):
            total, lost = carry
            term = batch.shares * product(point, batch.examples, batch.weights, vector) - lost
            raised = total + term
            return (raised, (raised - total) - term), None

        zero = jnp.zeros_like(vector)
        return jax.lax.scan(add, (zero, zero), batches)[0][0]

    def of_all(*local: Any) -> Array:
        return jax.lax.psum(summed(*local), devices.AXIS)

    mesh, whole = devices.mesh(), devices.WHOLE
    one_or_all = summed if mesh is None else of_all
    chosen = devices.local(mesh, one_or_all, (whole, devices.DEALT, whole), whole)
    return jax.jit(jax.default_matmul_precision(precision)(chosen))


def _checked_vector(vector: Array, point: Any) -> Array:
    dimension = sum(leaf.size for leaf in point[0])
    if jnp.shape(vector) != (dimension,) or not jnp.issubdtype(vector.dtype, jnp.floating):
        raise ValueError(
            f"the product takes real vectors [{dimension}], not {vector.dtype}"
            f"{list(jnp.shape(vector))}; a block of them goes through jax.vmap"
        )
    return jnp.asarray(vector, jnp.result_type(*point[0]))


def _split(examples: Any, microbatch_size: int, dtype: Any, given: Any) -> _Microbatches:
    """Equal microbatches, as many for each device; a place too many counts for nothing."""
    num_examples = inputs.number_of_examples(examples)
    microbatch_size = inputs.count("microbatch_size", microbatch_size)
    num_devices, mesh = devices.count(), devices.mesh()
    count = -(-num_examples // (microbatch_size * num_devices)) * num_devices
    size = -(-num_examples // count)
    rows = np.arange(count * size).reshape(size, count).T
    used = rows < num_examples
    rows = np.where(used, rows, 0)
    weights = used.astype(dtype)
    total: Any = num_examples
    if given is not None:
        given = np.asarray(inputs.example_weights(given, num_examples))
        weights, total = (used * given[rows]).astype(dtype), given.sum(dtype=np.float64)
    shares = weights.sum(1) / total
    # A microbatch without examples (more devices than examples) has a mean, but no share.
    weights[shares == 0] = 1
    # Cut on the host where they are dealt out: no device holds them all.
    held: Any = jnp.asarray if mesh is None else np.asarray
    return _Microbatches(
        jax.tree.map(lambda leaf: _cast(held(leaf)[rows], dtype), examples),
        held(weights),
        held(shares, dtype),
    )


def _place(point: Any, batches: _Microbatches) -> tuple[Any, _Microbatches]:
    """The microbatches dealt out to the devices, θ on all of them."""
    mesh = devices.mesh()
    return devices.whole(point, mesh), devices.dealt(batches, mesh)


def _cast(leaf: Any, dtype) -> Any:
    return leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf
