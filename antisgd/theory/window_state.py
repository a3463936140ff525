"""Second moments of θ, v and what is removed from a window, step by step (beyond the paper)."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from antisgd.theory.chain import EpochChain

__all__ = ["boundary_moments", "first_state", "propagate", "repeated", "stepped"]

# Components of the propagated state: displacement from θ_0, velocity, the epoch's chain c,
# θ_0, and the running sums of displacement and of step times displacement.
X, V, C, THETA0, SUM, MOMENT = range(6)


def boundary_moments(a: jax.Array, beta: float, chain: EpochChain) -> jax.Array:
    """Covariance of (θ, v) at the end of an epoch in the stationary regime, [2, 2, k], per η²σ².

    a = ηλ > 0, [k], float64.
    """
    steps = len(chain.pull)
    one_epoch, _ = propagate(a, beta, chain, steps, jnp.zeros((a.shape[0], 6, 6)))
    return repeated(a, beta, one_epoch[:, :2, :2], steps)


def repeated(a: jax.Array, beta: float, pair: jax.Array, steps: int) -> jax.Array:
    """Covariance of (θ, v) where every stretch of so many steps adds `pair`, [k, 2, 2]."""
    # θ = displacement here, since θ_0 = 0: the pair (θ, v) obeys P = B P Bᵀ + Q over an epoch.
    step = jnp.stack([jnp.stack([1 - a, beta + 0 * a], -1), jnp.stack([-a, beta + 0 * a], -1)], -2)
    B = jnp.linalg.matrix_power(step, steps)
    kron = jnp.einsum("kij,klm->kiljm", B, B).reshape(-1, 4, 4)
    P = jnp.linalg.solve(jnp.eye(4)[None] - kron, pair.reshape(-1, 4, 1)).reshape(-1, 2, 2)
    return jnp.moveaxis(P, 0, -1)


def first_state(P: jax.Array) -> jax.Array:
    """The state that an aligned window starts from, [k, 6, 6], of moments [2, 2, k]."""
    state = jnp.zeros((P.shape[-1], 6, 6)).at[:, THETA0, THETA0].set(P[0, 0])
    state = state.at[:, V, V].set(P[1, 1])
    return state.at[:, THETA0, V].set(P[0, 1]).at[:, V, THETA0].set(P[0, 1])


@partial(jax.jit, static_argnums=3)
def propagate(
    a: jax.Array,
    beta: float | jax.Array,
    chain: EpochChain,
    num_steps: int,
    first: jax.Array,
    begin: int | jax.Array = 0,
) -> tuple[jax.Array, jax.Array]:
    """`stepped` for heavy ball, covariances [k, 6, 6].

    The window has had `begin` steps before, which end with an epoch.
    """

    def later(pull, keep, weight, k):
        return _transition(a, beta, pull, keep, k + begin), _response(weight, k + begin)

    return stepped(later, chain, num_steps, first)


def stepped(
    later: Callable[..., tuple[jax.Array, jax.Array]],
    chain: EpochChain,
    num_steps: int,
    first: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Covariance after T steps, and Σ_k of E x_k², E v_k², E θ_k² (k = 1 … T).

    Args:
        later: (pull, keep, weight, k) of step k → transition [k, m, m] and response to the
            innovation [m]; the components above come first.
        chain: of the noise.
        num_steps: T.
        first: covariance before the first step, which begins an epoch, [k, m, m].
    """

    def step(carry, k):
        covariance, squares = carry
        m = (k - 1) % len(chain.pull)
        pull, keep, weight, innovation = (part[m] for part in map(jnp.asarray, chain))
        F, b = later(pull, keep, weight, k)
        covariance = F @ covariance @ jnp.swapaxes(F, 1, 2) + innovation * jnp.outer(b, b)[None]
        theta = _square_of_weight(covariance)
        terms = jnp.stack([covariance[:, X, X], covariance[:, V, V], theta])
        return (covariance, squares + terms), None

    carry = (first, jnp.zeros((3, first.shape[0])))
    return jax.lax.scan(step, carry, jnp.arange(1, num_steps + 1))[0]


def _square_of_weight(covariance: jax.Array) -> jax.Array:
    return covariance[:, X, X] + 2 * covariance[:, X, THETA0] + covariance[:, THETA0, THETA0]


def _transition(
    a: jax.Array, beta: float | jax.Array, pull: jax.Array, keep: jax.Array, k: jax.Array
) -> jax.Array:
    """One step of the state, the noise being −pull·c plus an innovation."""
    zero, one = jnp.zeros_like(a), jnp.ones_like(a)
    v = jnp.stack([-a, beta * one, pull * one, -a, zero, zero], -1)
    x = v.at[:, X].add(1)
    c = jnp.stack([zero, zero, keep * one, zero, zero, zero], -1)
    same = jnp.eye(6)[None]
    rows = [x, v, c, same[:, THETA0] + zero[:, None]]
    rows += [x + same[:, SUM], k * x + same[:, MOMENT]]
    return jnp.stack(rows, -2)


def _response(weight: jax.Array, k: jax.Array) -> jax.Array:
    one = jnp.ones(())
    return jnp.stack([-one, -one, weight, 0 * one, -one, -k * one])
