"""Adam, RMSProp and their like in the limit of frozen second moments (beyond the paper).

A step of η D⁻¹ with a diagonal D that does not change is linear: in the coordinates D^½θ it is
the optimiser without D, with D^{-½}HD^{-½} and D^{-½}CD^{-½} in place of H and C. It is a limit:
real second moments follow the squares of the gradients, at a rate 1 − b2 that must be slow.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from antisgd.theory.linear import LinearOptimizer
from antisgd.theory.precision import float64_on_host

__all__ = ["Frozen", "Preconditioned", "frozen_from_optax", "precondition"]


class Preconditioned(NamedTuple):
    """Curvatures and noise in a metric: what every function of `theory` takes.

    Attributes:
        eigenvalues: of D^{-½}HD^{-½}, descending, [d].
        noise_variances: e_iᵀD^{-½}CD^{-½}e_i along its eigenvectors e_i, [d].
        directions: rows D^½e_i, which project weights on the coordinates y whose variances these
            are, [d, d]; gradients are projected by rows D^{-½}e_i, θ = Σ y_i D^{-½}e_i.
    """

    eigenvalues: np.ndarray
    noise_variances: np.ndarray
    directions: np.ndarray


class Frozen(NamedTuple):
    """An adaptive optimiser at frozen second moments.

    Attributes:
        optimizer: A and b of a weight with D = 1, for `stationary_covariance`.
        metric: D, relative to that weight, flat as `ravel_pytree(params)`, [d].
    """

    optimizer: LinearOptimizer
    metric: np.ndarray


def precondition(hessian: np.ndarray, covariance: np.ndarray, metric: np.ndarray) -> Preconditioned:
    """H and C as an optimiser with steps ηD⁻¹ sees them.

    Large networks: `lanczos` on v → D^{-½}H(D^{-½}v), and noise variances from gradients divided
    by √D.

    Args:
        hessian: H, [d, d].
        covariance: C of the noise of a batch, [d, d].
        metric: D > 0, [d]; √ν̂ + ε of Adam, from `frozen_from_optax`.

    Raises:
        ValueError: a metric that is not positive.
    """
    D = np.asarray(metric, np.float64)
    if not np.all(D > 0):
        raise ValueError("the metric must be positive in every weight")
    root = np.sqrt(D)
    values, vectors = np.linalg.eigh(np.asarray(hessian, np.float64) / np.outer(root, root))
    values, rows = values[::-1], vectors.T[::-1]
    noise = np.asarray(covariance, np.float64) / np.outer(root, root)
    return Preconditioned(values, np.einsum("ij,jk,ik->i", rows, noise, rows), rows * root)


def frozen_from_optax(optimizer: optax.GradientTransformation, state: Any, params: Any) -> Frozen:
    """Reads A, b and D off an adaptive optax transformation in a given state.

    Second moments (fields `nu` of its states), step counts and with them bias corrections and ε
    are held as they are in the state; the update is differentiated at zero gradient, where the
    second moments do not respond.

    Args:
        optimizer: adam, adamw, rmsprop or a chain of such and linear transformations, acting on
            each weight by itself.
        state: its state, of real training.
        params: the weights it belongs to, any pytree.

    Raises:
        ValueError: no second moments in the state, or a weight that gradients do not move.
    """
    with float64_on_host():
        params, state = jax.tree.map(_widened, (params, state))
        flat, unravel = ravel_pytree(params)
        held = _held(optimizer, state, params)

        def moved(gradient: jax.Array) -> jax.Array:
            return ravel_pytree(optimizer.update(unravel(gradient), held, params)[0])[0]

        zero = jnp.zeros_like(flat)
        response = np.asarray(jax.jvp(moved, (zero,), (jnp.ones_like(flat),))[1])
        if not np.all(response < 0):
            raise ValueError("some weights are not moved against their gradient: no metric")
        middle = int(np.argsort(response)[len(response) // 2])
        scalar = jax.tree.map(
            lambda leaf: leaf[middle] if leaf.ndim else leaf, _raveled(held, params)
        )
        return Frozen(_linear(optimizer, scalar), response[middle] / response)


def _widened(leaf: Any) -> jax.Array:
    leaf = jnp.asarray(leaf)
    return leaf.astype(jnp.float64) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf


def _has_moments(node: Any) -> bool:
    return hasattr(node, "_fields") and "nu" in node._fields


def _held(optimizer: optax.GradientTransformation, state: Any, params: Any) -> Any:
    """The state from which a step without gradient leads to the second moments of `state`."""
    nodes = jax.tree.leaves(state, is_leaf=_has_moments)
    if not any(map(_has_moments, nodes)):
        raise ValueError("the optimiser's state holds no second moments `nu`: use from_optax")
    after = optimizer.update(jax.tree.map(jnp.zeros_like, params), state, params)[1]

    def hold(before: Any, later: Any) -> Any:
        if not _has_moments(before):
            return before
        kept = jax.tree.map(lambda b, a: b * b / jnp.where(a > 0, a, 1.0), before.nu, later.nu)
        return before._replace(nu=kept)

    return jax.tree.map(hold, state, after, is_leaf=_has_moments)


def _raveled(state: Any, params: Any) -> Any:
    """The state with each of its copies of the weights as one vector."""
    shape = jax.tree.map(jnp.shape, params)

    def is_copy(node: Any) -> bool:
        return bool(jax.tree.map(jnp.shape, node) == shape)

    return jax.tree.map(
        lambda node: ravel_pytree(node)[0] if is_copy(node) else node, state, is_leaf=is_copy
    )


def _moving(state: Any) -> list[bool]:
    """Which leaves are floating and no second moments, in their order."""

    def mark(node: Any) -> Any:
        marks = jax.tree.map(lambda leaf: jnp.issubdtype(leaf.dtype, jnp.floating), node)
        if _has_moments(node):
            marks = marks._replace(nu=jax.tree.map(lambda _: False, node.nu))
        return marks

    return jax.tree.leaves(jax.tree.map(mark, state, is_leaf=_has_moments))


def _linear(optimizer: optax.GradientTransformation, state: Any) -> LinearOptimizer:
    """A and b of one weight by differentiating its update at fixed second moments and counts."""
    leaves, structure = jax.tree.flatten(state)
    moving = _moving(state)

    def step(x: jax.Array, gradient: jax.Array) -> jax.Array:
        inside = iter(x[1:])
        now = [next(inside) if m else leaf for leaf, m in zip(leaves, moving, strict=True)]
        update, after = optimizer.update(gradient, jax.tree.unflatten(structure, now), x[0])
        kept = [a for a, m in zip(jax.tree.leaves(after), moving, strict=True) if m]
        return jnp.stack([x[0] + update, *kept])

    origin, nothing = jnp.zeros(1 + sum(moving)), jnp.zeros(())
    A, b = map(np.asarray, jax.jacfwd(step, argnums=(0, 1))(origin, nothing))
    return LinearOptimizer(A, np.outer(b, np.eye(len(b))[0]), b)
