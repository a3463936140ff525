"""Curvature and noise of a network averaged over the weights that its fluctuations visit.

A few draws of θ around the minimum, at each one block product with the Hessian and the gradients
of the examples along the directions: all that `theory.self_consistent` asks of a network. Pure
functions of a key; antithetic pairs ±x, so that odd terms cancel exactly where the mean is zero.
Beyond the paper.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

__all__ = [
    "Estimate",
    "LocalAverages",
    "average_over",
    "gaussian_offsets",
    "make_averages",
    "noise_trace_gradient",
]

Products = Callable[[jax.Array], Callable[[jax.Array], jax.Array]]
Gradients = Callable[[jax.Array], jax.Array]


class LocalAverages(NamedTuple):
    """Along each direction, [k] each: what `theory.self_consistent` reads, in its order.

    Attributes:
        gradient: p_i·∇L.
        curvature: p_iᵀHp_i.
        noise: noise_scale·p_iᵀC₀p_i, the variance σ_δg² of the noise of a batch.
    """

    gradient: np.ndarray
    curvature: np.ndarray
    noise: np.ndarray


class Estimate(NamedTuple):
    """Averages over draws and one standard error of each, from the scatter between pairs."""

    mean: LocalAverages
    error: LocalAverages


def gaussian_offsets(
    key: jax.Array,
    directions: jax.Array,
    deviations: jax.Array,
    num_pairs: int,
    *,
    outside: float = 0.0,
) -> jax.Array:
    """Draws x = Σ_j σ_j ξ_j p_j + σ_⊥ (1 − PᵀP) ζ, half of them; the others are −x.

    The weights spread in directions outside the k found, too, and renormalise those within: σ_⊥²
    is the mean variance of one such dimension, by the theory with the spectral density or from
    the squared length of recorded displacements.

    Args:
        key: of ξ and ζ; the same key gives the same ξ for other deviations.
        directions: P, orthonormal rows, [k, d].
        deviations: σ_j, [k].
        num_pairs: antithetic pairs.
        outside: σ_⊥.

    Returns:
        [num_pairs, d].
    """
    inner, outer = jax.random.split(key)
    xi = jax.random.normal(inner, (num_pairs, directions.shape[0]), directions.dtype)
    zeta = outside * jax.random.normal(outer, (num_pairs, directions.shape[1]), directions.dtype)
    shared = jnp.matmul(zeta, directions.T, precision=jax.lax.Precision.HIGHEST)
    along = xi * deviations[None] - shared
    return zeta + jnp.matmul(along, directions, precision=jax.lax.Precision.HIGHEST)


def average_over(
    product_at: Products,
    gradients_at: Gradients,
    centre: jax.Array,
    directions: jax.Array,
    offsets: jax.Array,
    *,
    noise_scale: float,
) -> Estimate:
    """Averages of p_i·∇L, p_iᵀHp_i and p_iᵀCp_i over θ = centre ± x for each offset x.

    Offsets may be Gaussian draws or recorded displacements θ_t − θ*. At each of the 2n points one
    block product with all k directions and one pass over the examples' gradients.

    Args:
        product_at: θ [d] → the map V [k, d] → H(θ)V, for example
            `jax.vmap(hessian_vector_product(loss, unravel(θ), …))`.
        gradients_at: θ [d] → P∇l_n(θ), [N, k], for example `trajectory.example_gradients`.
        centre: θ*, flat [d].
        directions: P, [k, d].
        offsets: x, [n, d].
        noise_scale: R(0) in units of C₀, `noise.variance` of the scheme's law.

    Raises:
        ValueError: no offset, or a value that is not finite, naming the draw.
    """
    if not len(offsets):
        raise ValueError("an average needs one offset or more")
    pairs = []
    for n, x in enumerate(offsets):
        both = [
            _at(product_at, gradients_at, centre + sign * x, directions, noise_scale)
            for sign in (1, -1)
        ]
        if not np.all(np.isfinite(both)):
            raise ValueError(f"curvature or gradients at draw {n} are not finite: it lies too far")
        pairs.append(np.mean(both, axis=0))
    values = np.array(pairs)
    count = len(values)
    scatter = values.std(axis=0, ddof=1) if count > 1 else np.full(values.shape[1:], np.nan)
    return Estimate(LocalAverages(*values.mean(axis=0)), LocalAverages(*scatter / np.sqrt(count)))


def _at(product_at, gradients_at, theta, directions, noise_scale) -> np.ndarray:
    images = np.asarray(product_at(theta)(directions), np.float64)
    curvature = np.sum(np.asarray(directions, np.float64) * images, axis=1)
    gradients = np.asarray(gradients_at(theta), np.float64)
    noise = noise_scale * gradients.var(axis=0, ddof=1)
    return np.array([gradients.mean(axis=0), curvature, noise])


def make_averages(
    key: jax.Array,
    product_at: Products,
    gradients_at: Gradients,
    centre: jax.Array,
    directions: jax.Array,
    *,
    noise_scale: float,
    num_pairs: int,
    outside: float = 0.0,
    move_mean: bool = True,
) -> Callable[[np.ndarray, np.ndarray], LocalAverages]:
    """The callback of `theory.self_consistent` for a network: (mean [k], variance [k]) → averages.

    The draws keep their ξ from call to call, so the iteration has a fixed point; that of another
    key differs by the error of the average, which `average_over` gives at the solution.

    Args:
        key: of the draws.
        product_at, gradients_at, centre, directions, noise_scale: as for `average_over`.
        num_pairs, outside: as for `gaussian_offsets`.
        move_mean: whether the mean may move to where the averaged gradient vanishes. False keeps
            it at the centre: in a window too short to reach it.
    """

    def averages(mean: np.ndarray, variance: np.ndarray) -> LocalAverages:
        dtype = directions.dtype
        deviations = jnp.asarray(np.sqrt(variance), dtype)
        moved = centre + jnp.asarray(mean, dtype) @ directions
        quiet = not np.any(variance)
        offsets = gaussian_offsets(
            key, directions, deviations, 1 if quiet else num_pairs,
            outside=0.0 if quiet else outside,
        )  # fmt: skip
        found = average_over(
            product_at, gradients_at, moved, directions, offsets, noise_scale=noise_scale
        ).mean
        return found if move_mean else found._replace(gradient=np.zeros_like(found.gradient))

    return averages


def noise_trace_gradient(
    loss: Callable[[Any, Any, jax.Array], jax.Array],
    params: Any,
    examples: Any,
    *,
    microbatch_size: int,
) -> jax.Array:
    """∇tr C₀(θ) = 2/(N−1) [Σ_n H_n g_n − N H̄ḡ], flat [d]: where reshuffling drifts to.

    Times R(0) of the law it is ∇tr C of `theory.implicit_regulariser` and `theory.epoch_drift`.

    Args:
        loss: `loss(params, examples, weights)`, evaluated for one example at a time.
        params: θ.
        examples: pytree with a leading example axis [N, …].
        microbatch_size: must divide N; examples whose gradients are held at once.

    Raises:
        ValueError: a microbatch size that does not divide N.
    """
    flat, unravel = ravel_pytree(params)
    num_examples = jax.tree.leaves(examples)[0].shape[0]
    if microbatch_size < 1 or num_examples % microbatch_size:
        raise ValueError(f"microbatch_size={microbatch_size} must divide {num_examples} examples")
    batches = jax.tree.map(lambda a: a.reshape(-1, microbatch_size, *a.shape[1:]), examples)

    def gradient(theta: jax.Array, example: Any) -> jax.Array:
        alone = jax.tree.map(lambda leaf: leaf[None], example)
        return jax.grad(lambda x: loss(unravel(x), alone, jnp.ones(1, flat.dtype)))(theta)

    def sums(batch: Any) -> tuple[jax.Array, jax.Array]:
        along = jax.vmap(lambda example: _own_product(gradient, flat, example))(batch)
        return along[0].sum(0), along[1].sum(0)

    with jax.default_matmul_precision("highest"):
        own, total = jax.tree.map(lambda x: x.sum(0), jax.lax.map(sums, batches))

        def mean_product(batch: Any) -> jax.Array:
            of_each = jax.vmap(gradient, (None, 0))
            return jax.jvp(lambda x: of_each(x, batch).sum(0), (flat,), (total,))[1]

        shared = jax.lax.map(mean_product, batches).sum(0)
    return 2 / (num_examples - 1) * (own - shared / num_examples)


def _own_product(gradient, theta, example) -> tuple[jax.Array, jax.Array]:
    """H_n g_n and g_n of one example."""
    g = gradient(theta, example)
    return jax.jvp(lambda x: gradient(x, example), (theta,), (g,))[1], g
