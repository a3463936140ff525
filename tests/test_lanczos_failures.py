"""Where eigensolvers are known to fail: each case that bit a peer, with its assertion."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from antisgd import lanczos

EPS = np.finfo(np.float32).eps
D = 200
KEY = jax.random.key(5)

pytestmark = pytest.mark.filterwarnings("ignore:from index")


@jax.jit
def _multiply(matrix, vector):
    return jnp.matmul(matrix, vector, precision="highest")


def _operator(values):
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(D, D)))
    matrix = (rotation * values) @ rotation.T
    return Partial(_multiply, jnp.asarray((matrix + matrix.T) / 2, jnp.float32))


def _solve(values, k, **options):
    values = np.asarray(values, np.float64)
    return lanczos.leading_eigenpairs(_operator(values), D, k, **{"key": KEY} | options)


def _assert_leading(pairs, values):
    """The leading eigenvalues with their multiplicity: no ghosts, none missed, orthonormal."""
    expected = np.sort(values)[::-1][: len(pairs.values)]
    # Kato and Temple: |θ - λ| ≤ residual² / distance to the next cluster; then rounding.
    rounding = 30 * EPS * np.abs(values).max()
    distances = np.abs(expected[:, None] - values)
    gaps = np.min(distances, axis=1, where=distances > rounding, initial=np.inf)
    allowed = pairs.residuals**2 / gaps + rounding
    assert (np.abs(pairs.values - expected) <= allowed).all()
    assert (allowed < gaps / 2).all()
    assert pairs.converged.all() and pairs.certificate.missed == 0
    assert pairs.certificate.orthogonality < 100 * EPS


POWER_LAW = np.arange(1, D + 1) ** -1.2


@pytest.mark.parametrize("k", [100, 160])
def test_large_k(k):
    _assert_leading(_solve(POWER_LAW, k), POWER_LAW)


@pytest.mark.parametrize("k", [D - 3, D - 1, D])
def test_k_near_or_at_the_dimension(k):
    values = np.linspace(1, -1, D)
    _assert_leading(_solve(values, k), values)


@pytest.mark.parametrize(("k", "block_size"), [(5, 1), (5, 4), (12, 4)])
def test_low_rank_with_fewer_and_with_more_pairs_than_the_rank(k, block_size):
    values = np.concatenate([np.linspace(2, 1, 7), np.zeros(D - 7)])
    _assert_leading(_solve(values, k, block_size=block_size), values)


@pytest.mark.parametrize("scale", [1.0, 0.0, -3.0])
def test_identity_like_operators(scale):
    pairs = lanczos.leading_eigenpairs(Partial(jnp.multiply, scale), D, 11, key=KEY)
    np.testing.assert_allclose(pairs.values, scale, atol=4 * EPS * abs(scale))
    assert pairs.converged.all() and pairs.certificate.orthogonality < 20 * EPS


def test_an_exact_cluster_at_the_top_far_larger_than_the_block():
    values = np.concatenate([np.full(30, 2.0), np.linspace(1, 0, D - 30)])
    _assert_leading(_solve(values, 36), values)


@pytest.mark.parametrize("seed", [4, 5])
def test_a_cluster_inside_the_wanted_part_as_of_a_weight_penalty(seed):
    """Dead units: many weights whose only curvature is the penalty's, above smaller ones.

    The last copies that the probe meets are basis vectors already that nothing has multiplied.
    """
    values = np.concatenate([np.linspace(2, 1, 10), np.full(60, 0.2), np.linspace(0.1, 0, D - 70)])
    _assert_leading(_solve(values, 75, key=jax.random.key(seed)), values)


def test_asking_into_a_huge_cluster_ends():
    values = np.concatenate([np.linspace(2, 1, 10), np.full(D - 10, 2e-4)])
    _assert_leading(_solve(values, 25), values)


def test_close_pairs_of_eigenvalues():
    values = np.concatenate([np.repeat(np.linspace(2, 1, 10), 2), np.linspace(0.5, 0, D - 20)])
    values[1:20:2] -= 1e-6
    _assert_leading(_solve(values, 20, block_size=1), values)


def test_restarts_make_no_duplicates():
    pairs = _solve(POWER_LAW, 20, memory=40 * D * 4, block_size=2, tolerance=1e-5)
    _assert_leading(pairs, POWER_LAW)
    assert pairs.certificate.products > 40


def _hidden():
    """Starting from eigenvectors 1 to 4, the solve converges before it can meet eigenvector 0."""
    values = np.concatenate([[3.0], np.linspace(2, 0, D - 1)]).astype(np.float32)
    return values, Partial(jnp.multiply, jnp.asarray(values)), np.eye(D)[1:5]


def test_a_pair_hidden_from_the_start_is_found_by_the_probe():
    values, matvec, start = _hidden()
    without = lanczos.leading_eigenpairs(matvec, D, 3, key=KEY, start=start, probe_products=0)
    assert without.converged.all() and without.values[0] < 2.001, "nothing was hidden"
    _assert_leading(lanczos.leading_eigenpairs(matvec, D, 3, key=KEY, start=start), values)


def test_a_hidden_pair_is_reported_when_the_products_are_spent():
    _, matvec, start = _hidden()
    with pytest.warns(UserWarning, match="1 eigenpairs are missing"):
        pairs = lanczos.leading_eigenpairs(matvec, D, 3, key=KEY, start=start, max_products=8)
    assert pairs.certificate.missed == 1


def test_dependent_and_zero_start_vectors():
    values = np.linspace(1, 0, D)
    start = np.random.default_rng(0).normal(size=D)
    start = np.stack([start, 2 * start, np.zeros(D)])
    _assert_leading(_solve(values, 5, start=start, block_size=4), values)


def test_nan_from_the_matvec_names_the_product():
    count = []

    def product(vector):
        def observe(vector):
            count.append(None)
            return np.full_like(vector, np.nan) if len(count) == 7 else 2 * vector

        return jax.pure_callback(observe, vector, vector, vmap_method="sequential")

    with pytest.raises(FloatingPointError, match="product 7 of the matvec is not finite"):
        state = lanczos.init(product, D, key=KEY, block_size=2)
        for _ in range(9):
            state = lanczos.extend(product, state)


@pytest.mark.parametrize("share", [1.0, 0.05])
def test_a_matvec_that_is_not_symmetric_is_refused(share):
    rng = np.random.default_rng(0)
    symmetric, other = rng.normal(size=(2, D, D)) / D**0.5
    matrix = symmetric + symmetric.T + share * other
    matvec = Partial(_multiply, jnp.asarray(matrix, jnp.float32))
    with pytest.raises(ValueError, match="not symmetric"):
        lanczos.leading_eigenpairs(matvec, D, 10, key=KEY)


def test_a_random_matvec_such_as_with_dropout_is_refused():
    rng = np.random.default_rng(0)

    def product(vector):
        return jax.pure_callback(
            lambda v: (v * np.linspace(1, 0, D) * rng.binomial(1, 0.5, D) * 2).astype(v.dtype),
            vector,
            vector,
            vmap_method="sequential",
        )

    with pytest.raises(ValueError, match="not symmetric"):
        lanczos.leading_eigenpairs(product, D, 10, key=KEY)
