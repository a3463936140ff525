"""The density of all eigenvalues by stochastic Lanczos quadrature, a cheap look at a spectrum."""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from antisgd import display, inputs
from antisgd.lanczos import basis as storage
from antisgd.lanczos.iteration import advance, init
from antisgd.lanczos.products import Matvec, Product, blocks
from antisgd.lanczos.projection import State, multiplied, ritz

__all__ = ["SpectralDensity", "extend_together", "quadrature_rule", "spectral_density"]


class SpectralDensity(NamedTuple):
    """Σ_p Σ_i weights[p, i] δ(λ - nodes[p, i]) / P, an estimate of Σ_j δ(λ - λ_j) / d.

    nodes, weights float64 [probes, steps]: one quadrature rule a probe, weights adding up to 1.
    """

    nodes: np.ndarray
    weights: np.ndarray

    def __repr__(self) -> str:
        return display.described(self)

    def mean(self, function: Any) -> tuple[float, float]:
        """Mean of function(λ) over all d eigenvalues, and its standard error (nan of one probe)."""
        each = np.sum(self.weights * function(self.nodes), 1)
        if len(each) == 1:
            return float(each[0]), float("nan")
        return float(each.mean()), float(each.std(ddof=1) / len(each) ** 0.5)


def spectral_density(
    matvec: Matvec | None = None,
    dimension: int | None = None,
    *,
    key: Array,
    product: Any = None,
    num_probes: int = 8,
    num_steps: int = 64,
    dtype: Any = None,
    mesh: Mesh | None = None,
) -> SpectralDensity:
    """Gauss quadrature of each random vector's spectral measure (beyond the paper).

    For a random unit vector v the measure Σ_j (v'u_j)² δ(λ - λ_j) is Σ_j δ(λ - λ_j) / d in the
    mean; Lanczos from v gives its Gauss rule: exact for polynomials below degree 2 · num_steps.
    Takes num_probes · num_steps products, of all probes at a time, and holds as many vectors;
    `dimension · density.mean(lambda x: x > c)` estimates how many eigenvalues lie above c, which
    tells what k costs before it is paid for.

    Args:
        matvec, dimension, product: as for `leading_eigenpairs`.
        key: of the random vectors.
        num_probes: independent vectors; the error falls with its root.
        num_steps: nodes of each rule, at most d.
        dtype, mesh: as for `leading_eigenpairs`.

    Raises:
        ValueError, FloatingPointError: as for `leading_eigenpairs`.
    """
    multiply, dimension = blocks(matvec, product, dimension)
    num_probes = inputs.count("num_probes", num_probes)
    num_steps = min(inputs.count("num_steps", num_steps), dimension)
    key = inputs.random_key(key)
    states = [
        init(matvec, dimension, key=one, block_size=1, dtype=dtype, mesh=mesh)
        for one in jax.random.split(key, num_probes)
    ]
    for _ in range(num_steps):
        states = _advanced(multiply, states)
    nodes, weights = (np.stack(part) for part in zip(*map(quadrature_rule, states), strict=True))
    return SpectralDensity(nodes, weights)


def extend_together(
    matvec: Matvec | None, states: Sequence[State], *, product: Any = None
) -> list[State]:
    """`extend` for solves of the same operator that do not know of one another, in one product.

    Args:
        matvec, product: as for `extend`.
        states: of equal block sizes. Their basis buffers are used up.
    """
    return _advanced(blocks(matvec, product, int(states[0].dimension))[0], states)


def _advanced(product: Product, states: Sequence[State]) -> list[State]:
    waiting = [
        storage.read(storage.usable(one.basis), multiplied(one), multiplied(one) + one.block_size)
        for one in states
    ]
    images = jnp.split(product(jnp.concatenate(waiting)), len(states))
    return [advance(partial(_known, image), one) for one, image in zip(states, images, strict=True)]


def _known(image: Array, block: Array) -> Array:
    """What the block was multiplied to, together with those of the others."""
    del block
    return image


def quadrature_rule(state: State) -> tuple[np.ndarray, np.ndarray]:
    """Gauss rule of the spectral measure of a solve's first vector.

    For those who own the loop: `init` with block_size=1, as many times `extend` or
    `extend_together` as the rule shall have nodes, no restart.

    Returns:
        `(nodes, weights)`, float64 [n], largest node first; weights add up to 1.
    """
    pairs = ritz(state, "largest", multiplied(state))
    return pairs.values, pairs.coefficients[0] ** 2
