"""Stationary variances (Eq. 6) at any curvature, to the last digits, without a loop over M.

With a = ηλ and Λ± the eigenvalues of D (Eq. 5), δ± = 1 − Λ±, every noise autocorrelation r gives

    V_θ = 1/(1−β) · [x R(x)/(1−x²)][Λ+, Λ−],   V_v = −1/(1−β) · [(1−x) R(x)/(1+x)][Λ+, Λ−],

in units of η²σ_δg², where R(x) = r(0) + 2 Σ r(h) x^h and g[x, y] is the divided difference. For
sampling without replacement q(x) = R(x)/(1−x) is a polynomial with positive coefficients, so that
nothing cancels in flat directions, where the printed Eq. 6 loses all digits (beyond the paper).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["Variances", "reshuffling_variances", "white_variances"]

_SERIES_TERMS = 32
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(10)


class Variances(NamedTuple):
    """Variances of weight and velocity along each direction, per unit noise variance σ_δg²."""

    weight: jax.Array | np.ndarray
    velocity: jax.Array | np.ndarray


def white_variances(a: jax.Array, beta: jax.Array) -> tuple[jax.Array, jax.Array]:
    """V_θ and V_v for uncorrelated noise (Eq. 8, exact in that case); a = ηλ > 0."""
    scale = (1 - beta) * (2 * (1 + beta) - a)
    return (1 + beta) / (a * scale), 2 / scale + 0 * a


def reshuffling_variances(
    a: jax.Array, beta: jax.Array, num_steps: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """V_θ and V_v for the noise of Eq. 2 with M = num_steps ≥ 2 (Eq. 6); a = ηλ ≥ 0.

    All arguments are floating arrays of one shape and type. Works under jit, vmap and grad.
    """
    s_squared = _squared_gap(a, beta)
    mean = (1 - beta + a) / 2
    width = 0.3 * (jnp.minimum(mean, 2 - mean) + 2 / num_steps)
    near = jnp.abs(s_squared) < width**2
    apart = _from_divided_differences(a, beta, num_steps, jnp.where(near, 1.0, s_squared), near)
    close = _from_quadrature(a, beta, num_steps, jnp.where(near, s_squared, 0.0), near)
    return jnp.where(near, close[0], apart[0]), jnp.where(near, close[1], apart[1])


def _squared_gap(a: jax.Array, beta: jax.Array) -> jax.Array:
    """(Λ+ − Λ−)², as a product that keeps its digits near both of its zeros."""
    root = jnp.sqrt(jnp.where(beta > 0.01, beta, 1.0))
    product = (((1 - beta) / (1 + root)) ** 2 - a) * ((1 + root) ** 2 - a)
    return jnp.where(beta > 0.01, product, (1 - beta + a) ** 2 - 4 * a)


def _complex_root(s_squared: jax.Array) -> jax.Array:
    positive = s_squared > 0
    real = jnp.sqrt(jnp.where(positive, s_squared, 1.0))
    imaginary = jnp.sqrt(jnp.where(s_squared < 0, -s_squared, 1.0))
    zero = jnp.zeros_like(real)
    return jax.lax.complex(
        jnp.where(positive, real, zero), jnp.where(s_squared < 0, imaginary, zero)
    )


def _from_divided_differences(a, beta, num_steps, s_squared, unused):
    a = jnp.where(unused, 1e-3, a)
    s_squared = jnp.where(unused, _squared_gap(a, beta), s_squared)
    s_squared = jnp.where(s_squared == 0, 1.0, s_squared)
    s = _complex_root(s_squared)
    mean = (1 - beta + a) / 2
    delta_minus = mean + s / 2
    delta_plus = jnp.where(s_squared > 0, a / delta_minus, mean - s / 2)
    edge = 2 * (1 + beta) - a
    one_plus_minus = edge / (2 - delta_plus)
    q_plus, _ = _q(delta_plus, num_steps)
    q_minus, _ = _q(delta_minus, num_steps)
    ratio_plus, ratio_minus = q_plus / (2 - delta_plus), q_minus / one_plus_minus
    weight = (1 - delta_plus) * ratio_plus - (1 - delta_minus) * ratio_minus
    velocity = delta_minus**2 * ratio_minus - delta_plus**2 * ratio_plus
    return jnp.real(weight / s) / (1 - beta), jnp.real(velocity / s) / (1 - beta)


def _from_quadrature(a, beta, num_steps, s_squared, used):
    """Where Λ+ ≈ Λ−: the divided difference of q as an integral of its derivative."""
    a = jnp.where(used, a, 1e-3)
    s_squared = jnp.where(used, s_squared, _squared_gap(a, beta))
    s = _complex_root(s_squared)
    mean = (1 - beta + a) / 2
    # Twelve points at once: ten nodes for the integral of q', and the two ends for the mean of q.
    points = np.concatenate([_NODES, [-1.0, 1.0]]).astype(a.dtype)
    points = points.reshape(-1, *[1] * a.ndim)
    q, slope = _q(mean[None] - points * s[None] / 2, num_steps[None])
    weights = (_WEIGHTS / 2).astype(a.dtype)
    delta_q = jnp.tensordot(weights, jnp.real(slope[:10]), 1, precision="highest")
    mean_q = jnp.real(q[10] + q[11]) / 2
    scale = (1 - beta) * (2 * (1 + beta) - a)
    weight = (0.5 * (1 + 3 * beta - a) * delta_q + mean_q) / scale
    quadratic = 2 * (1 - beta) ** 2 - a * (1 + 3 * beta) + a * a
    velocity = ((2 * (1 - beta) + a) * mean_q - 0.5 * quadratic * delta_q) / scale
    return weight, velocity


def _q(delta: jax.Array, num_steps: jax.Array) -> tuple[jax.Array, jax.Array]:
    """q and dq/dx at x = 1 − δ (complex): a hypergeometric series near δ = 0, else closed."""
    small = jnp.abs(num_steps * delta) <= 4
    series = _q_series(jnp.where(small, delta, 0.0), num_steps)
    closed = _q_closed(jnp.where(small, 0.5, delta), num_steps)
    return jnp.where(small, series[0], closed[0]), jnp.where(small, series[1], closed[1])


def _q_series(delta: jax.Array, num_steps: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(M+1)/3 · ₂F₁(1, 2−M; 4; δ), which ends by itself at the power M−2."""

    def add(carry, m):
        term, slope, total, total_slope = carry
        ratio = jnp.maximum(num_steps - 1 - m, 0) / (m + 3)
        term, slope = -ratio * delta * term, -ratio * (term + delta * slope)
        return (term, slope, total + term, total_slope + slope), None

    one, zero = jnp.ones_like(delta), jnp.zeros_like(delta)
    powers = jnp.arange(1, _SERIES_TERMS, dtype=num_steps.dtype)
    (_, _, total, total_slope), _ = jax.lax.scan(add, (one, zero, one, zero), powers)
    scale = (num_steps + 1) / 3
    return scale * total, -scale * total_slope


def _q_closed(delta: jax.Array, num_steps: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(1/δ)·[1 − 2x(x^M − 1 + Mδ)/(M(M−1)δ²)]."""
    x = 1 - delta
    power = _power(delta, num_steps)
    pairs = num_steps * (num_steps - 1)
    bracket = power - 1 + num_steps * delta
    q = (1 - 2 * x * bracket / (pairs * delta**2)) / delta
    rise = -bracket + num_steps * (x - power)
    return q, 1 / delta**2 + 2 * (rise * delta - 3 * x * bracket) / (pairs * delta**4)


def _power(delta: jax.Array, num_steps: jax.Array) -> jax.Array:
    """(1 − δ)^M with the modulus from δ, so that small δ keep their digits."""
    u, v = jnp.real(delta), jnp.imag(delta)
    shrink = -2 * u + u * u + v * v
    zero = shrink <= -1
    modulus = jnp.exp(num_steps * 0.5 * jnp.log1p(jnp.where(zero, -0.5, shrink)))
    angle = num_steps * jnp.arctan2(-v, jnp.where((u == 1) & (v == 0), 1.0, 1 - u))
    modulus = jnp.where(zero, 0.0, modulus)
    return jax.lax.complex(modulus * jnp.cos(angle), modulus * jnp.sin(angle))
