"""The stationary variances for every noise law, and what is derived from them."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from antisgd import inputs
from antisgd.theory.noise import Noise, checked_law
from antisgd.theory.precision import float64_on_host
from antisgd.theory.variances import Variances, reshuffling_variances, white_variances

__all__ = ["correlation_time", "stationary_variances"]

# Elements that go through Eq. 6 together: what fits a processor's cache.
_CHUNK = 4096


def stationary_variances(
    eigenvalues: Any, learning_rate: Any, momentum: Any, noise: Noise
) -> Variances:
    """Stationary variances of weight and velocity per unit noise variance σ_δg² (Eq. 6).

    Averaged over the position within the epoch: weights recorded once an epoch do not follow
    it. Stable at any curvature; the limit λ → 0 is exact (finite without replacement, +inf with).
    Python and NumPy arguments are computed in float64 and give NumPy arrays; JAX arrays and
    traced values keep their type, under jit, vmap and grad.

    Args:
        eigenvalues: λ, any shape; broadcasts with the next two.
        learning_rate: η, inside the velocity (Eq. 1).
        momentum: β in [0, 1).
        noise: law of the sampling scheme, for example `without_replacement(steps_per_epoch)`.

    Returns:
        Weight and velocity variances. Under a trace +inf outside 0 ≤ ηλ < 2(1+β).

    Raises:
        ValueError: concrete arguments outside the stable region.
    """
    checked_law(noise)
    arguments = (eigenvalues, learning_rate, momentum)
    _check_shapes(*arguments)
    if any(isinstance(argument, jax.Array) for argument in arguments):
        with jax.numpy_dtype_promotion("standard"):
            dtype = jnp.result_type(*arguments, jnp.float32)
        if not any(isinstance(argument, jax.core.Tracer) for argument in arguments):
            _check(*(np.asarray(x, np.float64) for x in arguments))
        lam, eta, beta = (jnp.asarray(x, dtype) for x in arguments)
        with jax.numpy_dtype_promotion("standard"):
            return _variances(lam, eta, beta, noise)
    _check(*(np.asarray(x, np.float64) for x in arguments))
    with jax.ensure_compile_time_eval(), float64_on_host():
        lam, eta, beta = (jnp.asarray(x, jnp.float64) for x in arguments)
        found = Variances(*map(np.asarray, _variances(lam, eta, beta, noise)))
    if noise.white_error and not all((part > 0).all() for part in found):
        raise ValueError(
            "the estimated noise law gives a negative variance: its lags are too rough; give "
            f"from_indices more steps, or use {noise.closed_form or 'a tabulated law'}"
        )
    return found


def correlation_time(
    eigenvalues: Any, learning_rate: Any, momentum: Any, noise: Noise
) -> jax.Array | np.ndarray:
    """τ = 2σ_θ²/σ_v², update steps (Eq. 3); arguments and errors of `stationary_variances`.

    Under a trace +inf outside 0 ≤ ηλ < 2(1+β).
    """
    variances = stationary_variances(eigenvalues, learning_rate, momentum, noise)
    weight, velocity = variances
    if isinstance(weight, np.ndarray):
        return 2 * weight / velocity
    # Beyond the edge of stability both are infinite, and so is the time.
    stable = jnp.isfinite(velocity)
    return jnp.where(stable, 2 * weight / jnp.where(stable, velocity, 1), jnp.inf)


def _check_shapes(*arguments: Any) -> None:
    shapes = [np.shape(argument) for argument in arguments]
    try:
        np.broadcast_shapes(*shapes)
    except ValueError as error:
        raise ValueError(
            f"eigenvalues, learning rate and momentum of the shapes {shapes[0]}, {shapes[1]} and "
            f"{shapes[2]} do not fit each other"
        ) from error


def _check(eigenvalues: np.ndarray, learning_rate: np.ndarray, momentum: np.ndarray) -> None:
    inputs.finite("eigenvalues", eigenvalues)
    if not np.all((momentum >= 0) & (momentum < 1)):
        raise ValueError(f"momentum must lie in [0, 1), got {momentum}")
    if not np.all(learning_rate > 0):
        raise ValueError(f"the learning rate must be positive, got {learning_rate}")
    a = learning_rate * eigenvalues
    if not np.all((a >= 0) & (a < 2 * (1 + momentum))):
        raise ValueError(
            "the weights have no stationary variance unless 0 <= eta*lambda < 2(1 + beta): "
            f"eta*lambda runs from {np.min(a):.3g} to {np.max(a):.3g}; leave out negative "
            "curvatures or lower the learning rate"
        )


def _variances(
    eigenvalues: jax.Array, learning_rate: jax.Array, momentum: jax.Array, noise: Noise
) -> Variances:
    a, beta = jnp.broadcast_arrays(learning_rate * eigenvalues, momentum)
    stable = (a >= 0) & (a < 2 * (1 + beta))
    a = jnp.where(stable, a, 1.0)
    parts = []
    if noise.white:
        parts.append((noise.white, _white(a, beta)))
    if noise.periodic:
        parts.append((1.0, _shuffled_once(a, beta, noise.period)))
    elif noise.correlations is not None:
        parts.append((1.0, _from_correlations(a, beta, jnp.asarray(noise.correlations, a.dtype))))
    elif noise.period:
        period = jnp.full_like(a, noise.period)
        parts.append((1 - noise.white, _reshuffled(a, beta, period)))
    weight = sum(share * part[0] for share, part in parts)
    velocity = sum(share * part[1] for share, part in parts)
    scale = learning_rate**2
    return Variances(
        jnp.where(stable, scale * weight, jnp.inf), jnp.where(stable, scale * velocity, jnp.inf)
    )


@jax.jit
def _reshuffled(a: jax.Array, beta: jax.Array, steps: jax.Array) -> tuple[jax.Array, jax.Array]:
    if a.size <= _CHUNK:
        return reshuffling_variances(a, beta, steps)
    chunks = -(-a.size // _CHUNK)
    padding = (0, chunks * _CHUNK - a.size)
    rows = [
        jnp.pad(x.ravel(), padding, mode="edge").reshape(chunks, _CHUNK) for x in (a, beta, steps)
    ]
    found = jax.lax.map(lambda row: reshuffling_variances(*row), tuple(rows))
    return tuple(part.ravel()[: a.size].reshape(a.shape) for part in found)


@jax.jit
def _white(a: jax.Array, beta: jax.Array) -> tuple[jax.Array, jax.Array]:
    weight, velocity = white_variances(jnp.where(a > 0, a, 1.0), beta)
    flat = 1 / ((1 - beta) * (1 + beta))
    return jnp.where(a > 0, weight, jnp.inf), jnp.where(a > 0, velocity, flat)


@jax.jit
def _from_correlations(
    a: jax.Array, beta: jax.Array, correlations: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """−2 Σ_h r(h) γ(h) with the variogram γ of θ and of v under white noise.

    With the white share of the noise beside it this is V for any r of finite range, and nothing
    cancels in flat directions (beyond the paper): γ(h) = ½E(θ_{k+h} − θ_k)² stays finite there.
    """
    scale = (1 - beta) * (2 * (1 + beta) - a)
    level, first = (1 + beta) / scale, 1 / scale

    def add(carry, r):
        rise, height, weight, velocity = carry
        later = beta * rise - a * height + level
        weight = weight - 2 * r * height
        velocity = velocity - 2 * r * (2 * first - (later - rise))
        return (later, height + later, weight, velocity), None

    zero = jnp.zeros_like(a)
    (_, _, weight, velocity), _ = jax.lax.scan(add, (first, first, zero, zero), correlations)
    return weight, velocity


@partial(jax.jit, static_argnums=2)
def _shuffled_once(a: jax.Array, beta: jax.Array, period: int) -> tuple[jax.Array, jax.Array]:
    """Line spectrum of noise that repeats: (1/(M−1)) Σ_j |Ψ(2πj/M)|², j = 1 … M−1."""

    def add(carry, j):
        angle = 2 * jnp.pi * j / period
        gap = 2 * jnp.sin(angle / 2) ** 2 + 1j * jnp.sin(angle)
        response = gap * (1 - beta + beta * gap) + a * (1 - gap)
        power = 1 / jnp.abs(response) ** 2
        return (carry[0] + power, carry[1] + jnp.abs(gap) ** 2 * power), None

    zero = jnp.zeros_like(a)
    lines = jnp.arange(1, period, dtype=a.dtype)
    (weight, velocity), _ = jax.lax.scan(add, (zero, zero), lines)
    return weight / (period - 1), velocity / (period - 1)
