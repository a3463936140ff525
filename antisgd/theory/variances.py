"""Stationary variances (Eq. 6) at any curvature, to the last digits, without a loop over M.

With a = ηλ, Λ± the eigenvalues of D (Eq. 5) and δ± = 1 − Λ±, every noise autocorrelation r gives

    V_θ = 1/(1−β) · [x R(x)/(1−x²)][Λ+, Λ−],   V_v = −1/(1−β) · [(1−x) R(x)/(1+x)][Λ+, Λ−]

in units of η²σ_δg², where R(x) = r(0) + 2 Σ r(h) x^h and g[x, y] is the divided difference. For
sampling without replacement q(x) = R(x)/(1−x) is a polynomial with positive coefficients, so that
nothing cancels in flat directions, where the printed Eq. 6 loses all digits (beyond the paper).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from antisgd import display

__all__ = ["Variances", "edge_distance", "reshuffling_variances", "white_variances"]

# Terms of the series of q where M|δ| ≤ 4, and points on the upper half of the circle on which
# Cauchy's formula is summed: both reach the last digit of float64.
_SERIES_TERMS = 32
_CIRCLE_POINTS = 12
# Λ+ and Λ− count as close below the first share of the distance over which q varies; the circle
# around them has the second as its radius.
_CLOSE = 0.1
_RADIUS = 0.22


class Variances(NamedTuple):
    """Variances of weight and velocity along each direction, per unit noise variance σ_δg².

    JAX or NumPy arrays, or numbers, as the function that gives them says.
    """

    weight: Any
    velocity: Any

    def __repr__(self) -> str:
        return display.described(self)


def edge_distance(a: Any, beta: Any) -> Any:
    """B = 2(1+β) − ηλ, positive where SGD is stable; exact in floating point near zero."""
    return 2 * beta + (2 - a)


def white_variances(a: jax.Array, beta: jax.Array) -> tuple[jax.Array, jax.Array]:
    """V_θ and V_v for uncorrelated noise (Eq. 8, exact in that case); a = ηλ ≥ 0, +inf at 0."""
    scale = (1 - beta) * edge_distance(a, beta)
    curved = a > 0
    weight = (1 + beta) / (jnp.where(curved, a, 1.0) * scale)
    return jnp.where(curved, weight, jnp.inf), 2 / scale


def reshuffling_variances(
    a: jax.Array, beta: jax.Array, num_steps: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """V_θ and V_v for the noise of Eq. 2 with M = num_steps ≥ 2 (Eq. 6); a = ηλ ≥ 0.

    All arguments are floating arrays of one shape and type. Works under jit, vmap and grad.
    """
    s_squared = _squared_gap(a, beta)
    mean = (1 - beta + a) / 2
    scale = jnp.minimum(mean, 2 - mean) + 2 / num_steps
    close = jnp.abs(s_squared) < (_CLOSE * scale) ** 2
    on_circle = _by_cauchy(a, beta, num_steps, jnp.where(close, s_squared, 0.0), _RADIUS * scale)
    difference = _by_difference(a, beta, num_steps, jnp.where(close, 1.0, s_squared))
    weight, velocity = (jnp.where(close, *both) for both in zip(on_circle, difference, strict=True))
    return weight, velocity


def _squared_gap(a: jax.Array, beta: jax.Array) -> jax.Array:
    """s² = (Λ+ − Λ−)², as a product that keeps its digits near both of its zeros."""
    root = jnp.sqrt(jnp.where(beta > 0.01, beta, 1.0))
    product = (((1 - beta) / (1 + root)) ** 2 - a) * ((1 + root) ** 2 - a)
    return jnp.where(beta > 0.01, product, (1 - beta + a) ** 2 - 4 * a)


def _by_difference(a, beta, num_steps, s_squared):
    """The divided differences as they stand; over Im Λ where Λ± are a conjugate pair."""
    real = s_squared > 0
    s = jnp.sqrt(jnp.abs(s_squared))
    mean = (1 - beta + a) / 2
    # δ+ = a/δ− and 1 + Λ− = B/(1 + Λ+) keep the digits that 1 − Λ+ and 1 + Λ− would lose.
    small = a / (mean + s / 2)
    offset = jnp.where(real, 0.0, s / 2)
    delta_minus = jax.lax.complex(mean + s / 2 * real, offset)
    delta_plus = jax.lax.complex(jnp.where(real, small, mean), -offset)
    above_minus = jnp.where(real, edge_distance(a, beta) / (2 - small), 2 - mean)
    above_minus = jax.lax.complex(above_minus, -offset)
    minus = _q(delta_minus, above_minus, num_steps) / above_minus
    plus = _q(delta_plus, 2 - delta_plus, num_steps) / (2 - delta_plus)
    weight = (1 - delta_plus) * plus - (1 - delta_minus) * minus
    velocity = delta_minus**2 * minus - delta_plus**2 * plus

    def over_gap(difference):
        return jnp.where(real, difference.real, difference.imag) / (s * (1 - beta))

    return over_gap(weight), over_gap(velocity)


def _by_cauchy(a, beta, num_steps, s_squared, radius):
    """Where Λ+ ≈ Λ−: q[Λ+, Λ−] and the mean of q by Cauchy's formula, smooth in s²."""
    mean = (1 - beta + a) / 2
    angles = (np.arange(_CIRCLE_POINTS) + 0.5) * np.pi / _CIRCLE_POINTS
    circle = np.exp(1j * angles).reshape(-1, *[1] * a.ndim)
    w = radius[None] * jnp.asarray(circle, jnp.result_type(a.dtype, jnp.complex64))
    kernel = _q(mean[None] - w, (2 - mean)[None] + w, num_steps[None])
    kernel = kernel * w / (w * w - s_squared[None] / 4)
    difference, average = kernel.real.mean(0), (kernel * w).real.mean(0)
    scale = (1 - beta) * edge_distance(a, beta)
    weight = (0.5 * (1 + 3 * beta - a) * difference + average) / scale
    quadratic = 2 * (1 - beta) ** 2 - a * (1 + 3 * beta) + a * a
    velocity = ((2 * (1 - beta) + a) * average - 0.5 * quadratic * difference) / scale
    return weight, velocity


def _q(delta: jax.Array, above: jax.Array, num_steps: jax.Array) -> jax.Array:
    """q(x) at complex δ = 1 − x, with 1 + x beside it: a series near δ = 0, else closed."""
    near = jnp.abs(num_steps * delta) <= 4
    series = _q_series(jnp.where(near, delta, 0.0), num_steps)
    closed = _q_closed(jnp.where(near, 0.5, delta), jnp.where(near, 1.5, above), num_steps)
    return jnp.where(near, series, closed)


def _q_series(delta: jax.Array, num_steps: jax.Array) -> jax.Array:
    """(M+1)/3 · ₂F₁(1, 2−M; 4; δ), which ends by itself at the power M−2."""
    total = jnp.ones_like(delta)
    for m in range(_SERIES_TERMS - 1, 0, -1):
        total = 1 - jnp.maximum(num_steps - 1 - m, 0) / (m + 3) * (delta * total)
    return (num_steps + 1) / 3 * total


def _q_closed(delta: jax.Array, above: jax.Array, num_steps: jax.Array) -> jax.Array:
    """(1/δ)·[1 − 2x(x^M − 1 + Mδ)/(M(M−1)δ²)]."""
    bracket = _power(delta, above, num_steps) - 1 + num_steps * delta
    pairs = num_steps * (num_steps - 1)
    return (1 - 2 * (1 - delta) * bracket / (pairs * delta**2)) / delta


def _power(delta: jax.Array, above: jax.Array, num_steps: jax.Array) -> jax.Array:
    """x^M by |x|² − 1 = (Im x)² − Re(1−x)·Re(1+x), which keeps its digits at x = ±1."""
    u, v = delta.real, delta.imag
    growth = v * v - u * above.real
    zero = growth <= -1
    modulus = jnp.exp(0.5 * num_steps * jnp.log1p(jnp.where(zero, -0.5, growth)))
    modulus = jnp.where(zero, 0.0, modulus)
    angle = num_steps * jnp.arctan2(-v, jnp.where((u == 1) & (v == 0), 1.0, 1 - u))
    return jax.lax.complex(modulus * jnp.cos(angle), modulus * jnp.sin(angle))
