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

from antisgd import display, inputs
from antisgd.theory.noise import EpochChain, Noise, checked_law, epoch_chain
from antisgd.theory.precision import float64_on_host
from antisgd.theory.stationary import stationary_variances
from antisgd.theory.variogram import variogram

__all__ = [
    "DRIFTS", "WindowVariances", "boundary_moments", "removed", "window_arguments",
    "window_variances",
]  # fmt: skip

DRIFTS = ("none", "mean", "mean_velocity", "line")
_GRID = 200
# Components of the propagated state: displacement from θ_0, velocity, the epoch's chain c,
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

    def __repr__(self) -> str:
        return display.described(self)


def window_variances(
    eigenvalues: np.ndarray,
    learning_rate: float,
    momentum: float,
    noise: Noise,
    num_steps: int,
    *,
    drift: str = "mean_velocity",
    aligned: bool = True,
    start: Noise | None = None,
) -> WindowVariances:
    """Expected variances along eigenvectors in a window of T updates (beyond the paper).

    Aligned windows: exact second moments of θ, v and the epoch's noise, propagated step by step
    from the stationary state at the end of an epoch. Others: averaged over the position of their
    start in the epoch, by the variogram. More than 200 curvatures are interpolated from 200.

    Args:
        eigenvalues: λ > 0, [k].
        learning_rate: η.
        momentum: β.
        noise: law of the window; in an aligned one white, of independent epochs, or one order for
            all (averaged over the order, its noise has no position within the epoch).
        num_steps: T.
        drift: what is removed: "none" (the true mean only), "mean", "mean_velocity" (Sec. 5.3),
            or "line" (least squares).
        aligned: whether the window starts at an epoch boundary, as the paper's do.
        start: law under which the stationary state before an aligned window was reached, as in
            App. G where training without replacement precedes; None: the window's own.

    Raises:
        ValueError: an unknown drift, flip-flop or spanning batches in an aligned window, or a
            curvature out of range.
    """
    if drift not in DRIFTS:
        raise ValueError(f"drift must be one of {', '.join(DRIFTS)}, got {drift!r}")
    a, num_steps = window_arguments(eigenvalues, learning_rate, momentum, num_steps)
    for law in (noise, start or noise):
        checked_law(law)
    grid = _grid(a)
    if aligned and not (noise.periodic and start is None):
        weight, velocity = _aligned(grid, momentum, noise, num_steps, drift, start or noise)
    elif start is None:
        weight, velocity = _unaligned(grid, momentum, noise, num_steps, drift)
    else:
        raise ValueError("a change of the law at the window's start needs aligned=True")
    if grid is not a:
        weight = np.exp(_interpolate(np.log(a), np.log(grid), np.log(weight)))
        velocity = np.exp(_interpolate(np.log(a), np.log(grid), np.log(velocity)))
    scale = learning_rate**2
    return WindowVariances(scale * weight, scale * velocity, 2 * weight / velocity)


def window_arguments(
    eigenvalues: np.ndarray, learning_rate: float, momentum: float, num_steps: int
) -> tuple[np.ndarray, int]:
    """ηλ [k] in float64 inside the stable region, and T.

    Raises:
        ValueError: an argument out of range.
    """
    num_steps = inputs.count("num_steps", num_steps, 2)
    eta = inputs.number("learning_rate", learning_rate, above=0)
    if not 0 <= inputs.number("momentum", momentum) < 1:
        raise ValueError(f"momentum must lie in [0, 1), not {momentum}")
    a = eta * np.asarray(inputs.finite("eigenvalues", eigenvalues, 1), np.float64)
    if not a.size or np.any(a <= 0) or np.any(a >= 2 * (1 + momentum)):
        raise ValueError(
            "the variances in a window need curvatures with 0 < eta*lambda < 2(1 + beta): leave "
            "out the others"
        )
    return a, num_steps


def _grid(a: np.ndarray) -> np.ndarray:
    """Where the exact variances are computed: everywhere, or where a spline needs them."""
    if a.size <= _GRID:
        return a
    apart = np.unique(a)
    # Equal curvatures, or as good as: no room for a spline, and no need of one.
    if len(apart) <= _GRID:
        return apart
    narrow = apart[-1] / apart[0] < 1 + 1e-6
    return apart[[0, -1]] if narrow else np.geomspace(a.min(), a.max(), _GRID)


def _interpolate(x: np.ndarray, grid: np.ndarray, values: np.ndarray) -> np.ndarray:
    from scipy.interpolate import CubicSpline

    if len(grid) <= _GRID and np.isin(x, grid).all():
        return values[np.searchsorted(grid, x)]
    return CubicSpline(grid, values)(x)


def _unaligned(
    a: np.ndarray, beta: float, noise: Noise, num_steps: int, drift: str
) -> tuple[np.ndarray, np.ndarray]:
    """From the variogram, in units of η²σ_δg² (beyond the paper).

    E s² = 2/P² Σ_h (P−h) γ(h) with the mean removed; less 4/(TP) Σ_k (k − T/2) γ(k), plus
    (T+2)/(6T) γ(T), with the mean velocity; E s_v² = V_v − 2γ(T)/T².
    """
    T, P, h = num_steps, num_steps + 1, np.arange(num_steps + 1.0)
    exact = stationary_variances(a, 1.0, beta, noise)
    s_v = np.asarray(exact.velocity)
    if drift == "none":
        return exact.weight, s_v
    gamma = variogram(a, beta, noise, num_steps)
    s = 2 / P**2 * (P - h) @ gamma
    if drift == "mean":
        return s, s_v
    s_v = s_v - 2 * gamma[-1] / T**2
    if drift == "line":
        n = P - h
        weights = n * (n**2 - 1) / 12 - n * h**2 / 4
        return s + 24 / (P**2 * (P**2 - 1)) * weights @ gamma, s_v
    return s - 4 / (T * P) * (h - T / 2) @ gamma + (T + 2) / (6 * T) * gamma[-1], s_v


def _aligned(
    a: np.ndarray, beta: float, noise: Noise, num_steps: int, drift: str, start: Noise
) -> tuple[np.ndarray, np.ndarray]:
    with float64_on_host():
        rates = jnp.asarray(a)
        first = _boundary_state(rates, beta, epoch_chain(start))
        final, squares = _propagate(rates, beta, epoch_chain(noise), num_steps, first)
        return removed(np.asarray(final), np.asarray(squares), num_steps, drift)


def boundary_moments(a: jax.Array, beta: float, chain: EpochChain) -> jax.Array:
    """Covariance of (θ, v) at the end of an epoch in the stationary regime, [2, 2, k], per η²σ².

    a = ηλ > 0, [k], float64.
    """
    steps = len(chain.pull)
    zero = jnp.zeros((a.shape[0], 6, 6))
    one_epoch, _ = _propagate(a, beta, chain, steps, zero)
    pair = one_epoch[:, :2, :2]
    # θ = displacement here, since θ_0 = 0: the pair (θ, v) obeys P = B P Bᵀ + Q over an epoch.
    step = jnp.stack([jnp.stack([1 - a, beta + 0 * a], -1), jnp.stack([-a, beta + 0 * a], -1)], -2)
    B = jnp.linalg.matrix_power(step, steps)
    kron = jnp.einsum("kij,klm->kiljm", B, B).reshape(-1, 4, 4)
    P = jnp.linalg.solve(jnp.eye(4)[None] - kron, pair.reshape(-1, 4, 1)).reshape(-1, 2, 2)
    return jnp.moveaxis(P, 0, -1)


def _boundary_state(a: jax.Array, beta: float, chain: EpochChain) -> jax.Array:
    """The state that an aligned window starts from, [k, 6, 6]."""
    P = boundary_moments(a, beta, chain)
    state = jnp.zeros((a.shape[0], 6, 6)).at[:, _THETA0, _THETA0].set(P[0, 0])
    state = state.at[:, _V, _V].set(P[1, 1])
    return state.at[:, _THETA0, _V].set(P[0, 1]).at[:, _V, _THETA0].set(P[0, 1])


@partial(jax.jit, static_argnums=3)
def _propagate(a, beta, chain, num_steps, first):
    """Covariance [k, 6, 6] after T steps, and Σ_k of E x_k², E v_k², E θ_k² (k = 1 … T)."""

    def step(carry, k):
        covariance, squares = carry
        covariance = _later(a, beta, chain, covariance, k)
        theta = _square_of_weight(covariance)
        terms = jnp.stack([covariance[:, _X, _X], covariance[:, _V, _V], theta])
        return (covariance, squares + terms), None

    carry = (first, jnp.zeros((3, a.shape[0])))
    return jax.lax.scan(step, carry, jnp.arange(1, num_steps + 1))[0]


def _later(a, beta, chain, covariance, k):
    """The covariance of the state one step later, k = 1, 2, … counted from an epoch's start."""
    m = (k - 1) % len(chain.pull)
    pull, weight, innovation = (part[m] for part in map(jnp.asarray, chain))
    # What an epoch leaves in c is forgotten where the next one begins.
    pull, keep = jnp.where(m == 0, 0.0, pull), jnp.where(m == 0, 0.0, 1 - weight * pull)
    F, b = _transition(a, beta, pull, keep, k), _response(weight, k)
    return F @ covariance @ jnp.swapaxes(F, 1, 2) + innovation * jnp.outer(b, b)[None]


def _square_of_weight(covariance: jax.Array) -> jax.Array:
    return covariance[:, _X, _X] + 2 * covariance[:, _X, _THETA0] + covariance[:, _THETA0, _THETA0]


def _transition(
    a: jax.Array, beta: float, pull: jax.Array, keep: jax.Array, k: jax.Array
) -> jax.Array:
    """One step of the state, the noise being −pull·c plus an innovation."""
    zero, one = jnp.zeros_like(a), jnp.ones_like(a)
    v = jnp.stack([-a, beta * one, pull * one, -a, zero, zero], -1)
    x = v.at[:, _X].add(1)
    c = jnp.stack([zero, zero, keep * one, zero, zero, zero], -1)
    same = jnp.eye(6)[None]
    rows = [x, v, c, same[:, _THETA0] + zero[:, None]]
    rows += [x + same[:, _SUM], k * x + same[:, _MOMENT]]
    return jnp.stack(rows, -2)


def _response(weight: jax.Array, k: jax.Array) -> jax.Array:
    one = jnp.ones(())
    return jnp.stack([-one, -one, weight, 0 * one, -one, -k * one])


def removed(final: np.ndarray, squares: np.ndarray, num_steps: int, drift: str):
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
