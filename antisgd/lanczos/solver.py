"""The loop that most people want: extend until the wanted pairs converge, probe, certify."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from antisgd import display, inputs
from antisgd.lanczos import basis as storage
from antisgd.lanczos import certificate as certify
from antisgd.lanczos import glance, looks
from antisgd.lanczos.arguments import check_limits
from antisgd.lanczos.certificate import Certificate
from antisgd.lanczos.goal import (
    Goal,
    Verdict,
    allowed,
    beyond_last,
    check_due,
    make_goal,
    unwanted,
)
from antisgd.lanczos.iteration import advance, init, inject, restart
from antisgd.lanczos.memory import capacity_of, default_block_size
from antisgd.lanczos.products import Matvec, Product, blocks
from antisgd.lanczos.progress import Callback, Progress, estimate, watched
from antisgd.lanczos.projection import Ritz, State, multiplied, ritz

__all__ = ["Eigenpairs", "Progress", "leading_eigenpairs"]

_SAMPLES = 16


class Eigenpairs(NamedTuple):
    """Eigenpairs, the most wanted first, and what vouches for them.

    values float64 [k]; vectors [k, d], orthonormal rows on the device (over a mesh its columns on
    each, zeros filling up the last ones: `vectors[:, :d]`); residuals float64 [k], in the 2-norm;
    converged bool [k]; state: for more pairs later.
    """

    values: np.ndarray
    vectors: Array
    residuals: np.ndarray
    converged: np.ndarray
    certificate: Certificate
    state: State

    def __repr__(self) -> str:
        return display.described(self)


def leading_eigenpairs(
    matvec: Matvec | None = None,
    dimension: int | None = None,
    k: int = 0,
    *,
    key: Array,
    product: Any = None,
    which: str = "largest",
    threshold: float | None = None,
    tolerance: float = 1e-3,
    block_size: int | None = None,
    max_products: int | None = None,
    memory: int | None = None,
    probe_products: int = 32,
    start: Array | None = None,
    dtype: Any = None,
    state: State | None = None,
    callback: Callback | None = None,
    mesh: Mesh | None = None,
) -> Eigenpairs:
    """The k leading eigenpairs of a symmetric operator, with a certificate.

    Block Lanczos with full reorthogonalisation. A pair is converged when its residual is at most
    max(tolerance · |λ|, noise), the noise being measured. When all are, a short run from random
    vectors on the operator without them looks for missed ones, which then join the solve.
    Pairs that are not converged are marked and warned of.

    Args:
        matvec: symmetric, [d] -> [d], JAX-traceable; `jax.tree_util.Partial`s compile once. None
            with a product.
        dimension: d; a LinearOperator knows its own.
        k: number of pairs, at most d; with a threshold, at most so many.
        key: of all random vectors.
        product: in the place of matvec, an eager map of a block of rows, [b, d] -> [b, d], such as
            PyTorch's: it is handed a NumPy array (where JAX lies on an accelerator JAX's array
            there) and returns anything of the same shape that has DLPack or is like an array;
            more digits than the basis has are rounded away. Or a
            `scipy.sparse.linalg.LinearOperator`.
        which: 'largest' or 'smallest' algebraic, 'magnitude', or 'both' ends.
        threshold: stop at the eigenvalues beyond this: below it for 'largest', above it for
            'smallest', nearer to zero for 'magnitude'.
        tolerance: residual relative to the eigenvalue.
        block_size: vectors multiplied at a time; by default 1, 2, 4 or 8, about a twentieth of k,
            on accelerators up to 32. Larger blocks need more products (4 % of k a tenth more) and
            save time for each.
        max_products: stop here, converged or not (probe and certificate not counted).
        memory: bytes that the basis may take on the device; it is restarted when full.
        probe_products: products of the search for missed pairs, 0 for none.
        start: rows [r, d] to start from, which need not be orthonormal; random vectors fill them up
            to a block. For weights that have moved since an earlier solve: the sum of its
            eigenvectors, or one sum for each vector of a block. All of them one by one make blocks
            of r vectors, which need two to three times the products.
        dtype: of basis and products, JAX's default float; float64 inside `jax.enable_x64(True)`.
        state: of an earlier solve of the same matvec, finished or not, to go on from. Its basis
            buffers are used up. Stopped and resumed, a solve gives the same bits.
        callback: `callback(state, progress)` after each block, for progress and checkpoints; the
            state's buffers are valid until it returns. Probe and certificate leave it as it is.
        mesh: devices that the basis is dealt out to, each its columns of every vector, such as
            `antisgd.devices.mesh()`; None keeps it on one. A state keeps to its own.

    Raises:
        ValueError: k or options out of range, both or neither of matvec and product, one that
            returns another shape or fewer digits, or that is not symmetric.
        FloatingPointError: a product is not finite.
        MemoryError: `memory` cannot hold the vectors that k pairs need.
    """
    multiply, dimension = blocks(matvec, product, dimension)
    goal = make_goal(dimension, k, which, tolerance, threshold)
    if state is None:
        size = default_block_size(goal.k) if block_size is None else block_size
        given: dict[str, Any] = {"start": start, "dtype": dtype, "mesh": mesh}
        state = init(matvec, dimension, key=key, block_size=size, **given)
    check_limits(state, dimension, max_products, probe_products)
    capacity = capacity_of(state, goal.k, memory)
    while True:
        state, pairs, verdict = _converge(multiply, state, goal, capacity, max_products, callback)
        vectors = storage.combine(state.basis, pairs.coefficients[:, : verdict.wanted])
        probing = probe_products > 0 and verdict.complete
        found = _probe(multiply, state, goal, pairs, vectors, probe_products * probing, callback)
        grow = len(found) > 0 and not _spent(state, max_products)
        grown = inject(state, found) if grow else state
        if grown.size == state.size and not (grow and _waits(state, found)):
            missed = len(found) if probing else None
            return _certify(multiply, state, goal, pairs, vectors, missed, callback)
        state = _probed(state, grown, probe_products)


def _probed(state: State, grown: State, probe_products: int) -> State:
    """No check, and so no end, before the directions that the probe found have been multiplied."""
    products = state.products + probe_products
    history = looks.record(state, products + _waiting(grown), -1)
    return grown._replace(products=products, history=history)


def _converge(
    product: Product,
    state: State,
    goal: Goal,
    capacity: int | None,
    max_products: int | None,
    callback: Callback | None,
) -> tuple[State, Ritz, Verdict]:
    """Extend until all wanted pairs are converged, nothing is left, or the products are spent."""
    while True:
        stop = _spent(state, max_products) or not _waiting(state)
        glances = glance.is_band(state, goal.which)
        due = check_due(state, goal.k, glances=glances)
        if due and glances and not stop:
            state, due = looks.promising(product, state, goal)
        if stop or due:
            state, pairs, verdict = looks.judged(product, state, goal)
            if stop or verdict.complete:
                return state, pairs, verdict
        if capacity and state.size + state.block_size > capacity:
            state = restart(state, goal.which, _kept_vectors(state, goal.k, capacity))
        state = advance(product, state)
        if callback is not None:
            callback(state, estimate(state, goal.k))


def _kept_vectors(state: State, k: int, capacity: int) -> int:
    """Half of the room beyond k: keeping more restarts too often, keeping less forgets too much."""
    return min(k + max(0, capacity - k - _waiting(state)) // 2, multiplied(state))


def _probe(
    product: Product,
    state: State,
    goal: Goal,
    pairs: Ritz,
    vectors: Array,
    products: int,
    callback: Callback | None,
) -> Array:
    """Directions, rows [r, d], of pairs that a random start finds beyond the last one."""
    if not products or len(vectors) == state.dimension:
        return vectors[:0]
    values = pairs.values[: len(vectors)]
    found = certify.probe(
        watched(product, state, goal.k, "probe", products, callback),
        vectors,
        unwanted(values, goal, state),
        int(state.dimension),
        key=_key(state, 2**31 + int(state.size)),
        block_size=state.block_size,
        products=products,
    )
    met = ritz(found, goal.which, multiplied(found))
    missed = beyond_last(met.values, values, goal, state)
    return storage.combine(found.basis, met.coefficients[:, missed])


def _waits(state: State, found: Array) -> bool:
    """Whether a direction found lies largely in basis vectors that are yet to be multiplied."""
    if not _waiting(state):
        return False
    waiting = storage.read(state.basis, multiplied(state), int(state.size))
    inside = jnp.matmul(found, waiting.T, precision="highest")
    return bool((jnp.linalg.norm(inside, axis=1) > 0.5).any())


def _certify(
    product: Product,
    state: State,
    goal: Goal,
    pairs: Ritz,
    vectors: Array,
    missed: int | None,
    callback: Callback | None,
) -> Eigenpairs:
    wanted = len(vectors)
    total = wanted if wanted <= _SAMPLES else _SAMPLES + certify.COMBINATIONS
    values, bounds = pairs.values[:wanted], pairs.bounds[:wanted]
    indices, errors, rms = certify.residuals(
        watched(product, state, goal.k, "certificate", total, callback),
        values,
        vectors,
        key=_key(state, 2**31 - 1),
        block_size=state.block_size,
        samples=_SAMPLES,
    )
    residuals, measured = np.hypot(bounds, state.noise), np.zeros(wanted, bool)
    residuals[indices], measured[indices] = errors, True
    # A measured residual carries the noise of its own product beside that of the pair.
    converged = bounds <= allowed(values, goal, state)
    converged[indices] = errors <= np.hypot(allowed(values, goal, state), state.noise)[indices]
    certificate = Certificate(
        measured=measured,
        rms_residual=rms,
        orthogonality=float(certify.orthogonality(vectors)),
        noise=float(state.noise),
        asymmetry=float(state.asymmetry),
        converged=int(converged.sum()),
        missed=missed,
        identifiable=certify.first_unidentifiable(values, state.noise),
        products=int(state.products),
        noise_limited=int((goal.tolerance * np.abs(values) < 2 * state.noise).sum()),
    )
    certify.warn(certificate, wanted, wanted if goal.threshold is not None else goal.k)
    return Eigenpairs(values, vectors, residuals, converged, certificate, state)


def _spent(state: State, max_products: int | None) -> bool:
    return max_products is not None and state.products >= max_products


def _waiting(state: State) -> int:
    return int(state.size) - multiplied(state)


def _key(state: State, number: int) -> Array:
    return jax.random.fold_in(inputs.random_key(jnp.asarray(state.key)), number)
