"""Variances while the learning rate changes, and away from the stationary state (beyond the paper).

Second moments of (θ, v, the epoch's chain) propagated step by step with η_k of each step, exact
for every quadratic and every law of independent epochs.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from antisgd.theory.chain import EpochChain, epoch_chain
from antisgd.theory.noise import Noise
from antisgd.theory.precision import float64_on_host
from antisgd.theory.variances import Variances
from antisgd.theory.window_state import boundary_moments
from antisgd.theory.windows import WindowVariances

__all__ = ["Visited", "decay_variances", "relaxed_window_variances", "visited_weights"]

_GRID = 100


class Visited(NamedTuple):
    """Moments of θ_t − θ_0 over the noise and the times of a window from rest, [k] each.

    With the minimum at m along a direction their mean is m·reach and their variance
    σ_δg²·variance + m²·path_variance.

    Attributes:
        variance: of the fluctuation, per unit noise variance σ_δg².
        reach: mean share of the way to the minimum.
        path_variance: variance of that share over time.
    """

    variance: np.ndarray
    reach: np.ndarray
    path_variance: np.ndarray


def decay_variances(
    eigenvalues: np.ndarray, learning_rates: np.ndarray, momentum: float, noise: Noise
) -> Variances:
    """Variances after every step of a learning-rate schedule, from the stationary state under η_1.

    P_k = A_k P_{k−1} A_kᵀ + η_k² Q_k with v_k = βv_{k−1} − η_k g_k (Eq. 1): flat directions lag
    behind a decay and keep the variance of an earlier learning rate.

    Args:
        eigenvalues: λ > 0, [k].
        learning_rates: η_k of each step, [T]; the first step begins an epoch.
        momentum: β.
        noise: white, or of independent epochs.

    Returns:
        Per unit noise variance, [T + 1, k] each, the stationary state first.

    Raises:
        ValueError: 0 < ηλ < 2(1+β) broken at some step, or a law without independent epochs.
    """
    lam, rates = _checked(eigenvalues, learning_rates, momentum)
    law = epoch_chain(noise)
    with float64_on_host():
        first = rates[0] ** 2 * boundary_moments(jnp.asarray(rates[0] * lam), momentum, law)
        begin = jnp.zeros((4, 4, lam.size)).at[:2, :2].set(first)
        _, (weight, velocity) = _propagate(lam, rates, momentum, law, begin)
    weight = np.concatenate([np.asarray(first[0, 0])[None], weight])
    velocity = np.concatenate([np.asarray(first[1, 1])[None], velocity])
    return Variances(weight, velocity)


def relaxed_window_variances(
    eigenvalues: np.ndarray, learning_rates: np.ndarray, momentum: float, noise: Noise
) -> WindowVariances:
    """Expected sample variances in a window once its noise-free path has been subtracted.

    What is left of `relaxation.remove_relaxation` starts at rest, at zero: it holds the noise of
    the window only, so flat directions show less than in the stationary state. About the mean.

    Args:
        eigenvalues: λ, [k]; any sign, since a window from rest is finite.
        learning_rates: η_k, [T]; the first step begins an epoch.
        momentum: β.
        noise: white, or of independent epochs.

    Raises:
        ValueError: no step, or a law without independent epochs.
    """
    lam = np.asarray(eigenvalues, np.float64)
    rates = np.asarray(learning_rates, np.float64)
    if not rates.size:
        raise ValueError("a window needs one learning rate a step")
    T, begin = rates.size, np.zeros((4, 4, lam.size))
    with float64_on_host():
        final, (weight, velocity) = _propagate(lam, rates, momentum, epoch_chain(noise), begin)
    s = weight.sum(axis=0) / (T + 1) - final[3, 3] / (T + 1) ** 2
    s_v = velocity.mean(axis=0) - final[0, 0] / T**2
    return WindowVariances(s, s_v, 2 * s / s_v)


def visited_weights(
    eigenvalues: np.ndarray, learning_rate: float, momentum: float, noise: Noise, num_steps: int
) -> Visited:
    """Where a window of T steps goes from a given θ_0, such as θ_K, at rest.

    θ_0 was itself drawn from the fluctuation: stationary variances about it would count that
    draw twice, and flat directions do not reach them within the window.

    Args:
        eigenvalues: λ, [k]; any sign. More than 100 are interpolated from 100.
        learning_rate: η.
        momentum: β.
        noise: white, or of independent epochs; the window begins with an epoch.
        num_steps: T.

    Raises:
        ValueError: a law without independent epochs.
    """
    lam = np.asarray(eigenvalues, np.float64)
    # Curvatures far below it do nothing within the window.
    scale = (1 - momentum) / (learning_rate * num_steps)
    places = np.arcsinh(lam / scale)
    few = places if lam.size <= _GRID else np.linspace(places.min(), places.max(), _GRID)
    grid = scale * np.sinh(few)
    rates, begin = np.full(num_steps, learning_rate), np.zeros((4, 4, grid.size))
    with float64_on_host():
        _, (weight, _) = _propagate(grid, rates, momentum, epoch_chain(noise), begin)
    way = _noiseless(learning_rate * grid, momentum, num_steps)
    found = [weight.sum(axis=0) / (num_steps + 1), way.mean(axis=0), way.var(axis=0)]
    if few is not places:
        found = [np.interp(places, few, values) for values in found]
    return Visited(*found)


def _noiseless(a: np.ndarray, beta: float, num_steps: int) -> np.ndarray:
    """Share of the way to the minimum after every step from rest, [T + 1, k]."""
    share, v = np.zeros((num_steps + 1, a.size)), np.zeros(a.size)
    for k in range(num_steps):
        v = beta * v + a * (1 - share[k])
        share[k + 1] = share[k] + v
    return share


def _checked(eigenvalues: Any, learning_rates: Any, beta: float) -> tuple[np.ndarray, np.ndarray]:
    lam, rates = np.asarray(eigenvalues, np.float64), np.asarray(learning_rates, np.float64)
    if not rates.size or not 0 <= beta < 1:
        raise ValueError(f"one learning rate a step and 0 <= beta < 1 are needed, not beta={beta}")
    low, high = rates.min() * lam.min(), rates.max() * lam.max()
    if not (low > 0 and high < 2 * (1 + beta)):
        raise ValueError(
            f"0 < eta*lambda < 2(1 + beta) is needed at every step: it runs from {low:.3g} to "
            f"{high:.3g}"
        )
    return lam, rates


def _propagate(lam, rates, beta, law: EpochChain, begin):
    """Covariance of (θ, v, c, Σθ) [4, 4, k] after T steps, and var θ, var v [T, k] on the way."""
    phases = np.arange(rates.size) % len(law.pull)
    found = _scan(jnp.asarray(lam), jnp.asarray(rates), beta, law, phases, jnp.asarray(begin))
    return jax.tree.map(np.asarray, found)


@jax.jit
def _scan(lam, rates, beta, law, phases, begin):
    chain = jax.tree.map(lambda part: jnp.asarray(part)[phases], law)

    def step(covariance, now):
        eta, (pull, keep, weight, innovation) = now
        half = _advance(covariance, lam[None], eta, beta, pull, keep)
        covariance = half.swapaxes(0, 1)
        covariance = _advance(covariance, lam[None], eta, beta, pull, keep)
        b = jnp.stack([-eta, -eta, weight, -eta])
        covariance = covariance + innovation * jnp.outer(b, b)[..., None]
        return covariance, (covariance[0, 0], covariance[1, 1])

    return jax.lax.scan(step, begin, (rates, chain))


def _advance(rows, lam, eta, beta, pull, keep):
    """One step of (θ, v, c, Σθ), the noise being −pull·c."""
    theta, v, c, total = rows
    n = -pull * c
    v = beta * v - eta * (lam * theta + n)
    theta = theta + v
    return jnp.stack([theta, v, keep * c, total + theta])
