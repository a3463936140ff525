"""What a solve is worth: true residuals, orthogonality, rounding noise, and missed pairs."""

import warnings
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from antisgd import devices, display
from antisgd.lanczos import basis as storage
from antisgd.lanczos.iteration import advance, init
from antisgd.lanczos.products import Product
from antisgd.lanczos.projection import State

__all__ = [
    "Certificate",
    "first_unidentifiable",
    "measure_noise",
    "orthogonality",
    "COMBINATIONS",
    "probe",
    "residuals",
    "warn",
]

# Random combinations of all vectors whose products estimate the residuals of all pairs.
COMBINATIONS = 8

_matmul = partial(jnp.matmul, precision="highest")


class Certificate(NamedTuple):
    """Measured properties of returned eigenpairs.

    measured bool [k]: residuals[i] is ‖A xᵢ - λᵢ xᵢ‖ itself, else Lanczos' bound with the noise.
    rms_residual: over all pairs, estimated by products with random combinations of the vectors.
    orthogonality: largest element of |X Xᵀ - 1|. noise: rounding of a product, norm of A's scale.
    asymmetry: largest u'Av - v'Au seen, relative to the norm of A.
    missed: pairs beyond the last that the last probe met and the solve had no products left to
    find; None without a probe, as when some pairs are not converged.
    identifiable: from this index on a gap is below the noise: subspaces and variances per
    curvature stay meaningful, individual eigenvectors do not.
    products: of the solve, its noise measurement included, this certificate's own not.
    noise_limited: pairs whose tolerance lies below the noise, so that they are converged to the
    noise alone.
    """

    measured: np.ndarray
    rms_residual: float
    orthogonality: float
    noise: float
    asymmetry: float
    converged: int
    missed: int | None
    identifiable: int
    products: int
    noise_limited: int = 0

    def __repr__(self) -> str:
        return display.described(self)


def measure_noise(product: Product, vectors: Array, block_size: int) -> float:
    """Rounding noise of a product: how A(x/3)·3 differs from A x, per product, rows x [r, d].

    The two products round differently throughout, so their difference is √2 times the noise of
    one, on a deterministic machine and at any precision of the matrix products.
    """
    count = vectors.shape[0]
    both = _images(product, jnp.concatenate([vectors, vectors / 3]), block_size)
    peak = float(jnp.max(jnp.abs(both), initial=0))
    factor = storage.power_of_two(peak)
    both = both * factor
    return float(storage.norms(both[:count] - 3 * both[count:]).max()) / factor / 2**0.5


def residuals(
    product: Product,
    values: np.ndarray,
    vectors: Array,
    *,
    key: Array,
    block_size: int,
    samples: int,
) -> tuple[np.ndarray, np.ndarray, float]:
    """True residuals of some pairs and the root mean square over all.

    With c normal of variance 1/k, E ‖A Xᵀc - Xᵀ Λ c‖² is the mean square residual of k pairs.

    Args:
        product: of a block of vectors with the matrix, [b, d] -> [b, d].
        values, vectors: pairs, [k] and rows [k, d].
        key: of the random combinations.
        block_size: vectors multiplied at a time.
        samples: pairs measured, spread evenly, first and last among them; all of k ≤ samples.

    Returns:
        `(indices, residuals at those indices, root mean square)`.
    """
    k = len(values)
    indices = np.unique(np.linspace(0, k - 1, min(k, samples)).round().astype(int))
    unit = np.zeros((len(indices), k), vectors.dtype)
    unit[np.arange(len(indices)), indices] = 1
    measured = _error_norms(product, jnp.asarray(unit), values, vectors, block_size)
    if len(indices) == k:
        return indices, measured, float(np.sqrt(np.mean(measured**2))) if k else 0.0
    mixing = jax.random.normal(key, (COMBINATIONS, k), vectors.dtype) / k**0.5
    errors = _error_norms(product, mixing, values, vectors, block_size)
    return indices, measured, float(np.sqrt(np.mean(errors**2)))


@jax.jit
def orthogonality(vectors: Array) -> Array:
    """Largest element of |X Xᵀ - 1|."""
    gram = _matmul(vectors, vectors.T)
    return jnp.max(jnp.abs(gram - jnp.eye(vectors.shape[0], dtype=gram.dtype)), initial=0.0)


def probe(
    product: Product,
    vectors: Array,
    elsewhere: float,
    dimension: int,
    *,
    key: Array,
    block_size: int,
    products: int,
) -> State:
    """A short Lanczos run from random vectors on the operator without the pairs found.

    Args:
        product: of a block of vectors with the matrix, [b, d] -> [b, d].
        vectors: rows [k, d] to deflate: their eigenvalues become `elsewhere`.
        elsewhere: a value that nobody wants.
        dimension: d.
        key: of the start.
        block_size, products: of the run.

    Returns:
        The state after so many products, or as many as the rest of the space has dimensions.
    """
    k = len(vectors)

    def deflated(block: Array) -> Array:
        inside, rest = _split(vectors, block)
        return _join(vectors, elsewhere, inside, product(rest))

    state = init(
        None, dimension, key=key, block_size=block_size, dtype=vectors.dtype,
        mesh=storage.mesh_of(vectors),
    )  # fmt: skip
    while state.products < min(products, dimension - k):
        state = advance(deflated, state)
    return state


def first_unidentifiable(values: np.ndarray, noise: float) -> int:
    """Index of the first pair nearer than the noise to another, the number of pairs if none."""
    order = np.argsort(values)
    gaps = np.diff(values[order], prepend=-np.inf, append=np.inf)
    nearest = np.empty(len(values))
    nearest[order] = np.minimum(gaps[:-1], gaps[1:])
    close = np.flatnonzero(nearest < noise)
    return int(close[0]) if len(close) else len(values)


def warn(certificate: Certificate, found: int, wanted: int) -> None:
    """Warns of what the caller of a solve should know of the pairs that it found."""
    if certificate.converged < wanted:
        warnings.warn(
            f"{certificate.converged} of {wanted} eigenpairs are converged, the others are marked: "
            "allow more products or memory",
            stacklevel=4,
        )
    if certificate.missed:
        warnings.warn(
            f"{certificate.missed} eigenpairs are missing before the last: allow more products",
            stacklevel=4,
        )
    if certificate.identifiable < found:
        warnings.warn(
            f"from index {certificate.identifiable} on eigenvalues lie nearer than the noise "
            f"{certificate.noise:.1e}: subspaces and variances per curvature are meaningful there, "
            "single eigenvectors are not",
            stacklevel=4,
        )


@jax.jit
def _split(vectors: Array, block: Array) -> tuple[Array, Array]:
    """Coefficients [k, b] in the vectors, and what lies outside them."""
    inside = _matmul(vectors, block.T)
    return inside, block - _matmul(inside.T, vectors)


@jax.jit
def _join(vectors: Array, elsewhere: float, inside: Array, image: Array) -> Array:
    """(1 - P) image + elsewhere · P block for the projector P onto the vectors."""
    return image + _matmul((elsewhere * inside - _matmul(vectors, image.T)).T, vectors)


def _images(product: Product, rows: Array, block_size: int) -> Array:
    """Products of rows [r, d], a block at a time, always of the one compiled size."""
    count = rows.shape[0]
    rows = jnp.pad(rows, ((0, -count % block_size), (0, 0)))
    blocks = rows.reshape(-1, block_size, rows.shape[1])
    return jnp.concatenate([product(blocks[i]) for i in range(len(blocks))])[:count]


def _error_norms(
    product: Product, mixing: Array, values: np.ndarray, vectors: Array, block_size: int
) -> np.ndarray:
    """Norms of A x - y for x the combinations mixing [r, k] of the vectors, y of λ times them."""
    count = mixing.shape[0]
    mixing = jnp.pad(mixing, ((0, -count % block_size), (0, 0)))
    norms, factor = [], storage.power_of_two(float(np.abs(values).max(initial=0)))
    for rows in mixing.reshape(-(-count // block_size), block_size, mixing.shape[1]):
        # Near one, where neither the difference nor its square leaves the range of float32.
        scaled_values = jnp.asarray(values * factor, vectors.dtype)
        combined, scaled = _combinations(rows, scaled_values, vectors)
        distances = _distances(product(combined) * factor, scaled)
        norms.append(np.asarray(devices.fetched(distances), np.float64) / factor)
    return np.concatenate([np.zeros(0), *norms])[:count]


@jax.jit
def _combinations(mixing: Array, values: Array, vectors: Array) -> tuple[Array, Array]:
    return _matmul(mixing, vectors), _matmul(mixing * values[None], vectors)


@jax.jit
def _distances(first: Array, second: Array) -> Array:
    return jnp.linalg.norm(first - second, axis=1)
