"""Curvature and noise of a network averaged over the weights that its fluctuations visit.

A few draws of θ around the minimum, at each the loss's gradient some way further to both
sides along each direction and the gradients of the examples along all: what
`theory.self_consistent` asks of a network. The curvature is that of secants. A Hessian product has
no part of the kinks of ReLU and max-pooling, at which the gradient jumps: between two weights that
fluctuation visits lie thousands of them, and they bend the loss as much as what is smooth does.
Pure functions of a key; antithetic pairs ±x, so that odd terms cancel exactly where the mean is
zero. Beyond the paper.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from antisgd import hessian

__all__ = [
    "Estimate",
    "LocalAverages",
    "average_over",
    "changing_gradients",
    "gaussian_offsets",
    "make_averages",
    "noise_draws",
    "noise_trace_gradient",
]

Gradients = Callable[[jax.Array], jax.Array | np.ndarray]


class LocalAverages(NamedTuple):
    """Along each direction, [k] each: what `theory.self_consistent` reads, in its order.

    Attributes:
        gradient: p_i·∇L.
        curvature: of the loss with its kinks; of a smooth one p_iᵀHp_i.
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
    outside: jax.Array | None = None,
) -> jax.Array:
    """Draws x = Σ_j σ_j ξ_j p_j + (1 − PᵀP) y, half of them; the others are −x.

    The weights spread in directions outside the k found, too, and renormalise those within. They
    spread there as their noise does: y are `noise_draws` times the deviation that theory gives a
    unit of noise. Spread evenly over all dimensions the same length would meet no example.

    Args:
        key: of ξ; the same key gives the same ξ for other deviations.
        directions: P, orthonormal rows, [k, d].
        deviations: σ_j, [k].
        num_pairs: antithetic pairs.
        outside: y, [num_pairs, d]; None for none.

    Returns:
        [num_pairs, d].
    """
    matmul = partial(jnp.matmul, precision=jax.lax.Precision.HIGHEST)
    xi = jax.random.normal(key, (num_pairs, directions.shape[0]), directions.dtype)
    along = xi * deviations[None]
    if outside is None:
        return matmul(along, directions)
    return outside + matmul(along - matmul(outside, directions.T), directions)


def noise_draws(
    key: jax.Array,
    gradient_of: Callable[[np.ndarray], jax.Array],
    num_examples: int,
    num_draws: int,
) -> jax.Array:
    """Draws of the noise of one example: g with E g = 0 and E ggᵀ = C₀, nearly Gaussian.

    g = Σ_n (ζ_n − ζ̄)∇l_n/√(N−1) with signs ζ_n, the difference of two full gradients of which one
    weights its examples by 1 + (ζ_n − ζ̄)/2 > 0.

    Args:
        key: of the signs.
        gradient_of: weights of the examples [N] → ∇L(θ), flat [d], such as
            `objective.full_gradient(…, weights=…)`.
        num_examples: N, two or more.
        num_draws: n.

    Returns:
        [n, d].
    """
    signs = np.asarray(jax.random.rademacher(key, (num_draws, num_examples), jnp.float32))
    tilts = (signs - signs.mean(axis=1, keepdims=True)) / 2
    equal = gradient_of(np.ones(num_examples, np.float32))
    size = 2 * num_examples / np.sqrt(num_examples - 1)
    return jnp.stack([size * (gradient_of(1 + tilt) - equal) for tilt in tilts])


def average_over(
    slope_at: Gradients,
    gradients_at: Gradients,
    centre: jax.Array,
    directions: jax.Array,
    offsets: jax.Array,
    *,
    deviations: jax.Array,
    noise_scale: float,
) -> Estimate:
    """Averages of p_i·∇L, curvature and p_iᵀCp_i over θ = centre ± x for each offset x.

    Offsets may be Gaussian draws or recorded displacements θ_t − θ*. At each of the 2n points two
    gradients a direction (`hessian.secant_curvature` over ±√3σ_i, about where x has no part along
    it) and one pass over the examples' gradients.

    Args:
        slope_at: θ [d] → P∇L(θ), [k].
        gradients_at: θ [d] → P∇l_n(θ), [N, k], for example `trajectory.example_gradients`.
        centre: θ*, flat [d].
        directions: P, [k, d].
        offsets: x, [n, d].
        deviations: σ_i of the weights along p_i, [k].
        noise_scale: R(0) in units of C₀, `noise.variance` of the scheme's law.

    Raises:
        ValueError: no offset, or a value that is not finite.
    """
    if not len(offsets):
        raise ValueError("an average needs one offset or more")
    pairs = []
    for n, x in enumerate(offsets):
        both = [
            _at(slope_at, gradients_at, centre, sign * x, directions, deviations, noise_scale)
            for sign in (1, -1)
        ]
        if not np.all(np.isfinite(both)):
            raise ValueError(f"the gradients at draw {n} are not finite: it lies too far")
        pairs.append(np.mean(both, axis=0))
    values = np.array(pairs)
    count = len(values)
    scatter = values.std(axis=0, ddof=1) if count > 1 else np.full(values.shape[1:], np.nan)
    return Estimate(LocalAverages(*values.mean(axis=0)), LocalAverages(*scatter / np.sqrt(count)))


def _at(slope_at, gradients_at, centre, x, directions, deviations, noise_scale) -> np.ndarray:
    gradients = np.asarray(gradients_at(centre + x), np.float64)
    along = jnp.matmul(directions, x, precision=jax.lax.Precision.HIGHEST)
    curvature = hessian.secant_curvature(
        slope_at, centre + x, directions, np.sqrt(3) * np.asarray(deviations), -along
    )
    noise = noise_scale * gradients.var(axis=0, ddof=1)
    return np.array([gradients.mean(axis=0), curvature, noise])


def changing_gradients(
    gradients_at: Gradients, centre: jax.Array, offsets: jax.Array
) -> tuple[np.ndarray, np.ndarray]:
    """How much of the examples' gradient variance changes over θ = centre + x, and all of it.

    Noise of reshuffled epochs cancels as far as gradients stay: with d_n(θ) the gradient of example
    n less the mean over examples, Σ_n d_n = 0 at any one θ, while examples taken at weights drawn
    as they are within an epoch leave, per step, the mean over n of var_θ d_n. Every two offsets
    make one estimate without bias, ½⟨(d_n(θ) − d_n(θ'))²⟩_n of ½⟨d_n(θ)² + d_n(θ')²⟩_n.

    Args:
        gradients_at: θ [d] → P∇l_n(θ), [N, k], as for `average_over`.
        centre: flat [d].
        offsets: x, drawn independently of one another, [2n, d].

    Returns:
        The part that changes and the whole, [n, k] each; for `theory.uncancelled` the ratio of
        their means over n.

    Raises:
        ValueError: no offsets or an odd number of them.
    """
    if not len(offsets) or len(offsets) % 2:
        raise ValueError(f"two offsets make one estimate: give an even number, not {len(offsets)}")
    changed, whole = [], []
    for pair in zip(offsets[::2], offsets[1::2], strict=True):
        first, second = (np.asarray(gradients_at(centre + x), np.float64) for x in pair)
        d = np.array([first - first.mean(axis=0), second - second.mean(axis=0)])
        changed.append(np.mean((d[0] - d[1]) ** 2, axis=0) / 2)
        whole.append(np.mean(d**2, axis=(0, 1)))
    return np.array(changed), np.array(whole)


def make_averages(
    key: jax.Array,
    slope_at: Gradients,
    gradients_at: Gradients,
    centre: jax.Array,
    directions: jax.Array,
    *,
    eigenvalues: np.ndarray,
    noise_scale: float,
    num_pairs: int,
    outside: jax.Array | None = None,
    move_mean: bool = True,
) -> Callable[[np.ndarray, np.ndarray], LocalAverages]:
    """The callback of `theory.self_consistent` for a network: (mean [k], variance [k]) → averages.

    The draws keep their ξ from call to call, so the iteration has a fixed point; that of another
    key differs by the error of the average, which `average_over` gives at the solution.

    Args:
        key: of the draws.
        slope_at, gradients_at, centre, directions, noise_scale: as for `average_over`.
        eigenvalues: λ at the centre, [k]: the curvature of no fluctuation at all.
        num_pairs, outside: as for `gaussian_offsets`.
        move_mean: whether the mean may move to where the averaged gradient vanishes. False keeps
            it at the centre: in a window too short to reach it.
    """

    def averages(mean: np.ndarray, variance: np.ndarray) -> LocalAverages:
        dtype = directions.dtype
        moved = centre + jnp.asarray(mean, dtype) @ directions
        if not np.any(variance):
            gradients = np.asarray(gradients_at(moved), np.float64)
            noise = noise_scale * gradients.var(axis=0, ddof=1)
            found = LocalAverages(gradients.mean(axis=0), np.asarray(eigenvalues), noise)
        else:
            deviations = jnp.asarray(np.sqrt(variance), dtype)
            offsets = gaussian_offsets(key, directions, deviations, num_pairs, outside=outside)
            found = average_over(
                slope_at, gradients_at, moved, directions, offsets,
                deviations=deviations, noise_scale=noise_scale,
            ).mean  # fmt: skip
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
