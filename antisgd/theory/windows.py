"""What a finite window shows of the stationary variances (beyond the paper).

A window holds T updates, P = T + 1 weights θ_0 … θ_T, and is what an experiment records. Removing
a drift from it changes the expected variances: the mean velocity v̄ = (θ_T − θ_0)/T of Sec. 5.3
adds 1/6 to every steep direction, and T itself cuts the correlation time of flat ones, which is
the plateau of Fig. 7.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from antisgd.theory.noise import Noise

__all__ = ["WindowVariances", "boundary_state", "epoch_step", "window_variances"]

DRIFTS = ("none", "mean", "mean_velocity", "line")
_GRID = 200
# Components of the propagated state: displacement from θ_0, velocity, noise so far in the epoch,
# θ_0, and the running sums of displacement and of step times displacement.
_X, _V, _C, _THETA0, _SUM, _MOMENT = range(6)


class WindowVariances(NamedTuple):
    """Expected sample variances in a window per unit noise variance σ_δg², and their ratio τ.

    Attributes:
        weight: [k].
        velocity: [k].
        correlation_time: 2·weight/velocity, a ratio of expectations, update steps, [k].
    """

    weight: np.ndarray
    velocity: np.ndarray
    correlation_time: np.ndarray


def window_variances(
    eigenvalues: np.ndarray,
    learning_rate: float,
    momentum: float,
    noise: Noise,
    num_steps: int,
    *,
    drift: str = "mean_velocity",
    start: Noise | None = None,
) -> WindowVariances:
    """Expected variances along eigenvectors in a window that starts at an epoch boundary.

    Exact second moments of θ, v and the epoch's noise, propagated step by step from the
    stationary state at the end of an epoch (beyond the paper). For more than 200 curvatures the
    ratio to a smooth scale is interpolated on 200 of them.

    Args:
        eigenvalues: λ > 0, [k].
        learning_rate: η.
        momentum: β.
        noise: law of the window, a mixture of white and reshuffled noise.
        num_steps: T.
        drift: what is removed: "none" (the true mean only), "mean", "mean_velocity" (Sec. 5.3),
            or "line" (least squares).
        start: law under which the stationary state before the window was reached, as in App. G
            where training without replacement precedes; None: the window's own.

    Raises:
        ValueError: an unknown drift, a law that is no mixture, or a curvature out of range.
    """
    if drift not in DRIFTS:
        raise ValueError(f"drift must be one of {', '.join(DRIFTS)}, got {drift!r}")
    a = learning_rate * np.asarray(eigenvalues, np.float64)
    if np.any(a <= 0) or np.any(a >= 2 * (1 + momentum)):
        raise ValueError("window_variances needs 0 < eta*lambda < 2(1 + beta)")
    grid = a if a.size <= _GRID else np.geomspace(a.min(), a.max(), _GRID)
    start = noise if start is None else start
    parts = [
        share * _window(grid, momentum, period, num_steps, drift, start)
        for share, period in ((noise.white, 0), (1 - noise.white, _mixture_period(noise)))
        if share
    ]
    weight, velocity = sum(parts)
    if grid is not a:
        weight = np.exp(_interpolate(np.log(a), np.log(grid), np.log(weight)))
        velocity = np.exp(_interpolate(np.log(a), np.log(grid), np.log(velocity)))
    scale = learning_rate**2
    return WindowVariances(scale * weight, scale * velocity, 2 * weight / velocity)


def _interpolate(x: np.ndarray, grid: np.ndarray, values: np.ndarray) -> np.ndarray:
    from scipy.interpolate import CubicSpline

    return CubicSpline(grid, values)(x)


def _mixture_period(noise: Noise) -> int:
    if noise.correlations is not None or noise.periodic:
        raise ValueError(
            "finite windows are known for white and reshuffled noise and their mixtures only"
        )
    return noise.period


def _window(
    a: np.ndarray, beta: float, period: int, num_steps: int, drift: str, start: Noise
) -> np.ndarray:
    with jax.enable_x64(True):
        first = sum(
            share * boundary_state(jnp.asarray(a), beta, start_period)
            for share, start_period in ((start.white, 0), (1 - start.white, start.period))
            if share
        )
        final, squares = _propagate(jnp.asarray(a), beta, period, num_steps, first)
        return np.stack(_removed(np.asarray(final), np.asarray(squares), num_steps, drift))


def boundary_state(a: jax.Array, beta: float, period: int) -> jax.Array:
    """Covariance of the state at the end of an epoch in the stationary regime, [k, 6, 6]."""
    steps = period if period else 1
    zero = jnp.zeros((a.shape[0], 6, 6))
    one_epoch, _ = _propagate(a, beta, period, steps, zero)
    # θ = displacement here, since θ_0 = 0: the pair (θ, v) obeys P = B P Bᵀ + Q over an epoch.
    pair = one_epoch[:, :2, :2]
    step = jnp.stack([jnp.stack([1 - a, beta + 0 * a], -1), jnp.stack([-a, beta + 0 * a], -1)], -2)
    B = jnp.linalg.matrix_power(step, steps)
    kron = jnp.einsum("kij,klm->kiljm", B, B).reshape(-1, 4, 4)
    P = jnp.linalg.solve(jnp.eye(4)[None] - kron, pair.reshape(-1, 4, 1)).reshape(-1, 2, 2)
    state = zero.at[:, _THETA0, _THETA0].set(P[:, 0, 0])
    state = state.at[:, _V, _V].set(P[:, 1, 1])
    return state.at[:, _THETA0, _V].set(P[:, 0, 1]).at[:, _V, _THETA0].set(P[:, 0, 1])


@partial(jax.jit, static_argnums=(2, 3))
def _propagate(a, beta, period, num_steps, first):
    """Covariance [k, 6, 6] after T steps, and Σ_k of E x_k², E v_k², E θ_k² (k = 1 … T)."""

    def step(carry, k):
        covariance, squares = carry
        covariance = epoch_step(a, beta, period, covariance, k)
        theta = _square_of_weight(covariance)
        terms = jnp.stack([covariance[:, _X, _X], covariance[:, _V, _V], theta])
        return (covariance, squares + terms), None

    carry = (first, jnp.zeros((3, a.shape[0])))
    return jax.lax.scan(step, carry, jnp.arange(1, num_steps + 1))[0]


def epoch_step(
    a: jax.Array, beta: float, period: int, covariance: jax.Array, k: jax.Array
) -> jax.Array:
    """The covariance of the state one step later, k = 1, 2, … counted from an epoch's start.

    Noise without replacement as a Markov chain, exact in second moments: with c the noise so far
    in the epoch, δg_m = −c/(M−m+1) + ε, var ε = M/(M−1)·(M−m)/(M−m+1). White for period 0.
    """
    m = (k - 1) % period + 1 if period else 1
    pull = 1 / (period - m + 1) if period else 0.0
    innovation = period / (period - 1) * (period - m) * pull if period else 1.0
    F, b = _transition(a, beta, pull, k), _response(k)
    return F @ covariance @ jnp.swapaxes(F, 1, 2) + innovation * jnp.outer(b, b)[None]


def _square_of_weight(covariance: jax.Array) -> jax.Array:
    return covariance[:, _X, _X] + 2 * covariance[:, _X, _THETA0] + covariance[:, _THETA0, _THETA0]


def _transition(a: jax.Array, beta: float, pull: jax.Array, k: jax.Array) -> jax.Array:
    """One step of the state, the noise being −pull·(noise so far) plus an innovation."""
    zero, one = jnp.zeros_like(a), jnp.ones_like(a)
    v = jnp.stack([-a, beta * one, pull * one, -a, zero, zero], -1)
    x = v.at[:, _X].add(1)
    c = jnp.stack([zero, zero, (1 - pull) * one, zero, zero, zero], -1)
    keep = jnp.eye(6)[None]
    rows = [x, v, c, keep[:, _THETA0] + zero[:, None]]
    rows += [x + keep[:, _SUM], k * x + keep[:, _MOMENT]]
    return jnp.stack(rows, -2)


def _response(k: jax.Array) -> jax.Array:
    one = jnp.ones(())
    return jnp.stack([-one, -one, one, 0 * one, -one, -k * one])


def _removed(final: np.ndarray, squares: np.ndarray, num_steps: int, drift: str):
    """Expected sample variances of weight and velocity from the moments of a window."""
    T, P = num_steps, num_steps + 1
    xx, xs, xt = final[:, _X, _X], final[:, _X, _SUM], final[:, _X, _MOMENT]
    ss, st, tt = final[:, _SUM, _SUM], final[:, _SUM, _MOMENT], final[:, _MOMENT, _MOMENT]
    s_v = squares[1] / T
    if drift == "none":
        return (squares[2] + final[:, _THETA0, _THETA0]) / P, s_v
    s_0 = squares[0] / P - ss / P**2
    if drift == "mean":
        return s_0, s_v
    # Both ways to remove a drift take the mean velocity, not the fitted slope, off the velocities.
    s_v = s_v - xx / T**2
    if drift == "line":
        spread = P * (P**2 - 1) / 12
        return s_0 - (tt - T * st + T**2 / 4 * ss) / (spread * P), s_v
    sum_of_squares = squares[0] - 2 * xt / T + xx * P * (2 * T + 1) / (6 * T)
    square_of_sum = ss - xs * P + xx * P**2 / 4
    return sum_of_squares / P - square_of_sum / P**2, s_v
