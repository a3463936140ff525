"""Eager products and SciPy's operators, in and out: as good as a traceable matvec of the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from scipy.sparse.linalg import LinearOperator, aslinearoperator, eigsh, lobpcg

from antisgd import hessian, lanczos

EPS = np.finfo(np.float32).eps
D = 300
KEY = jax.random.key(3)


def _matrix():
    """float64, exactly symmetric, a power law with a weak negative tail."""
    values = np.arange(1, D + 1) ** -1.2
    values[::20] *= -0.1
    rotation, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(D, D)))
    matrix = ((rotation * values) @ rotation.T).astype(np.float32).astype(np.float64)
    return (matrix + matrix.T) / 2


A = _matrix()
SINGLE = A.astype(np.float32)
EXACT = np.linalg.eigvalsh(A)[::-1]


def by_numpy(block):
    return block @ SINGLE


def solve(product, k=30, **options):
    return lanczos.leading_eigenpairs(product=product, dimension=D, k=k, key=KEY, **options)


def check(pairs):
    """Ritz values are off by residual² / gap, which 1e-3 λ makes less than rounding here."""
    k = len(pairs.values)
    assert np.abs(pairs.values - EXACT[:k]).max() < 30 * EPS
    vectors = np.asarray(pairs.vectors, np.float64)
    true = np.linalg.norm(vectors @ A - pairs.values[:, None] * vectors, axis=1)
    assert (true <= 1.1e-3 * pairs.values + 2 * pairs.certificate.noise).all()
    measured = pairs.certificate.measured
    assert np.abs(true - pairs.residuals)[measured].max() < 30 * EPS
    assert pairs.converged.all() and pairs.certificate.missed == 0
    assert 0 < pairs.certificate.noise < 30 * EPS
    assert pairs.certificate.orthogonality < 100 * EPS


class Exported:
    """Nothing but what DLPack asks for."""

    def __init__(self, array):
        self.__dlpack__, self.__dlpack_device__ = array.__dlpack__, array.__dlpack_device__


def aligned(shape):
    """Zeros where JAX would use a NumPy array's own memory."""
    raw = np.zeros(4 * np.prod(shape) + 64, np.uint8)
    return raw[-raw.ctypes.data % 64 :][: 4 * np.prod(shape)].view(np.float32).reshape(shape)


OUT = aligned((2, D))


def into_one_buffer(block):
    """Writes over what it was given and over what it returned before."""
    rows = OUT[: len(block)]
    np.matmul(block, SINGLE, out=rows)
    block[:] = np.nan
    return rows


@pytest.mark.parametrize(
    "product",
    [by_numpy, into_one_buffer, lambda block: Exported(block @ SINGLE), lambda block: block @ A,
     lambda block: jnp.matmul(block, SINGLE, precision="highest"),
     lambda block: (block @ SINGLE).tolist()],
    ids=["numpy", "one buffer", "DLPack", "more digits", "JAX", "lists"],
)  # fmt: skip
def test_an_eager_product_gives_certified_pairs(product):
    check(solve(product))


def test_positional_arguments_and_the_traceable_product_are_as_ever():
    """And the probe and the certificate take as many products, the values agree to rounding."""
    matvec = Partial(lambda matrix, v: jnp.matmul(matrix, v, precision="highest"), SINGLE)
    traced = lanczos.leading_eigenpairs(matvec, D, 30, key=KEY)
    eager = lanczos.leading_eigenpairs(None, D, 30, key=KEY, product=by_numpy)
    check(traced)
    np.testing.assert_allclose(eager.values, traced.values, atol=30 * EPS)
    assert eager.certificate.products == traced.certificate.products


def saved(state):
    """Copies: the buffers are used up by the next product."""
    basis = tuple(jnp.array(segment) for segment in state.basis)
    return state._replace(basis=basis)


@pytest.mark.parametrize("memory", [None, 60 * D * 4])
def test_stopped_and_resumed_an_eager_solve_gives_the_same_bits(memory):
    kept = []

    def keep(state, progress):
        if progress.stage == "solve" and progress.products in (12, 40) or progress.products == 6:
            kept.append(saved(state))

    whole = solve(by_numpy, memory=memory, callback=keep)
    assert len(kept) >= 3
    for state in [*kept, saved(whole.state)]:
        again = solve(by_numpy, memory=memory, state=state)
        for name in ("values", "vectors", "residuals"):
            np.testing.assert_array_equal(getattr(again, name), getattr(whole, name))
        assert again.certificate.products == whole.certificate.products


def test_every_product_is_told_of():
    """Those of the noise measurement are the two blocks that no callback hears of."""
    rows, seen = [], []
    pairs = solve(
        lambda block: rows.append(len(block)) or block @ SINGLE, block_size=2,
        callback=lambda state, progress: seen.append(progress),
    )  # fmt: skip
    stages = {progress.stage: progress.products for progress in seen}
    assert stages == {"solve": pairs.certificate.products, "probe": 32, "certificate": 24}
    assert sum(rows) == pairs.certificate.products + 32 + 24
    assert set(rows) == {2}


def test_a_pair_hidden_from_the_start_is_found_by_the_probe():
    values = np.concatenate([[3.0], np.linspace(2, 0, D - 1)]).astype(np.float32)
    start = np.eye(D)[1:5]
    options = {"k": 3, "start": start, "product": lambda block: block * values, "dimension": D}
    without = lanczos.leading_eigenpairs(key=KEY, probe_products=0, **options)
    assert without.values[0] < 2.001, "nothing was hidden"
    pairs = lanczos.leading_eigenpairs(key=KEY, **options)
    np.testing.assert_allclose(pairs.values, [3, 2, values[2]], rtol=1e-5)


def nan_in_product(number):
    count = [0]

    def product(block):
        image = block @ SINGLE
        for row in image:
            count[0] += 1
            row[:] = np.nan if count[0] == number else row
        return image

    return product


TURNED = np.roll(np.eye(D, dtype=np.float32), 1, 1)
MISTAKES = {
    "asymmetric": (lambda b: b @ TURNED, ValueError, "is not symmetric"),
    "not finite": (nan_in_product(7), FloatingPointError, "product 7 of the matvec is not finite"),
    "overflow": (lambda b: 1e300 * (b @ A), FloatingPointError, "product 1 of the matvec is not"),
    "columns": (lambda b: (b @ SINGLE).T, ValueError, r"to float32\[300, 2\]: rows are vectors"),
    "one vector": (lambda b: b[0], ValueError, r"float32\[2, 300\] to float32\[300\]: the shape"),
    "nothing": (lambda b: None, ValueError, r"to object\[\]"),
    "fewer digits": (lambda b: b.astype(np.float16), ValueError, "to float16.*as precise"),
    "bfloat16": (lambda b: jnp.asarray(b, jnp.bfloat16), ValueError, "to bfloat16"),
    "integers": (lambda b: b.astype(int), ValueError, "to int64"),
    "complex": (lambda b: b + 0j, ValueError, "to complex64"),
    "no memory": (lambda b: Exported(b.astype("M8[s]")), ValueError, "read through DLPack"),
    "a matrix": (SINGLE, ValueError, "not a ndarray; scipy.sparse.linalg.aslinearoperator"),
    "a wide operator": (aslinearoperator(A[:7]), ValueError, r"is \[7, 300\]: it must be square"),
    "another size": (aslinearoperator(A[:7, :7]), ValueError, r"\[300, 300\] for dimension=300"),
    "neither": (None, ValueError, "give one of matvec"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_product_that_is_none_is_refused_in_one_line(mistake):
    product, error, message = MISTAKES[mistake]
    with pytest.raises(error, match=message) as found:
        solve(product, block_size=2)
    assert "\n" not in str(found.value)


def test_both_products_and_no_dimension_are_refused():
    with pytest.raises(ValueError, match="give one of matvec"):
        lanczos.leading_eigenpairs(lambda v: v, D, 3, key=KEY, product=by_numpy)
    with pytest.raises(ValueError, match="dimension=None must be an integer"):
        lanczos.leading_eigenpairs(product=by_numpy, k=3, key=KEY)


def test_an_error_of_the_users_own_stays_what_it_is():
    def product(block):
        raise KeyError("layer")

    with pytest.raises(KeyError, match="layer"):
        solve(product)


def test_scipys_operator_is_a_product_that_knows_its_dimension():
    check(lanczos.leading_eigenpairs(product=aslinearoperator(A), k=30, key=KEY))
    with jax.enable_x64(True):
        pairs = lanczos.leading_eigenpairs(
            product=aslinearoperator(A), k=10, key=KEY, tolerance=1e-9
        )
    assert np.abs(pairs.values - EXACT[:10]).max() < 1e-13
    assert pairs.certificate.noise < 1e-14


def test_the_density_and_the_parts_take_products():
    """Twenty steps know the largest eigenvalue to rounding, every probe's."""
    state = lanczos.init(None, D, key=KEY, block_size=2)
    while state.products < 60:
        state = lanczos.extend(None, state, product=by_numpy)
    found = lanczos.ritz(state, "largest", 4).values
    assert np.abs(found - EXACT[:4]).max() < 30 * EPS
    density = lanczos.spectral_density(product=aslinearoperator(A), key=KEY, num_steps=20)
    assert np.abs(density.nodes[:, 0] - EXACT[0]).max() < 30 * EPS
    mean, error = density.mean(lambda x: x**2)
    assert abs(mean - (EXACT**2).mean()) < 4.8 * error  # t with 7 degrees, p = 2e-3
    traced = lanczos.spectral_density(lambda v: SINGLE @ v, D, key=KEY, num_steps=20)
    np.testing.assert_allclose(density.nodes[:, 0], traced.nodes[:, 0], rtol=1e-4)


def quartic(params, examples, weights):
    inside = jnp.sum(weights * jnp.tanh(examples @ params["w"]) ** 2) / jnp.sum(weights)
    return inside + 0.1 * jnp.sum(params["w"] ** 4)


X = np.random.default_rng(1).normal(size=(40, 12))
THETA = np.random.default_rng(2).normal(size=12)


@pytest.mark.parametrize(("dtype", "error"), [("float32", 50 * EPS), ("float64", 1e-13)])
def test_a_hessian_is_scipys_operator(dtype, error):
    """Used outside of float64 JAX, by a solver of vectors and one of blocks; its own adjoint."""
    with jax.enable_x64(True):
        dense = jax.hessian(lambda w: quartic({"w": w}, X, jnp.ones(40)))(jnp.asarray(THETA))
    exact, scale = np.linalg.eigvalsh(dense), np.linalg.norm(dense, 2)
    with jax.enable_x64(dtype == "float64"):
        params = {"w": jnp.asarray(THETA, dtype)}
        matvec = hessian.hessian_vector_product(quartic, params, X, microbatch_size=9)
        operator = lanczos.linear_operator(matvec, 12, dtype=dtype)
    assert isinstance(operator, LinearOperator) and operator.dtype == dtype
    for found in (operator @ np.eye(12), operator.H @ np.eye(12)):
        assert found.dtype == dtype and np.abs(found - dense).max() < error * scale
    assert np.abs(eigsh(operator, 4, which="LA")[0] - exact[-4:]).max() < error * scale
    start = np.random.default_rng(0).normal(size=(12, 2)).astype(dtype)
    blocks = lobpcg(operator, start, maxiter=60, tol=error * scale)[0]
    assert np.abs(np.sort(blocks) - exact[-2:]).max() < error * scale
    assert operator.matmat(np.zeros((12, 0))).shape == (12, 0)
    with pytest.raises(ValueError, match="the vectors must be real numbers, not complex128"):
        operator @ (1j * np.ones(12))


def test_an_operator_out_and_in_again_is_the_same_product():
    matvec = Partial(lambda matrix, v: jnp.matmul(matrix, v, precision="highest"), SINGLE)
    operator = lanczos.linear_operator(matvec, D)
    check(lanczos.leading_eigenpairs(product=operator, k=30, key=KEY))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float64"}, "needs float64 in JAX"),
        ({"dimension": 0}, "dimension=0"),
        ({"matvec": SINGLE}, "matvec must be a function"),
        ({"matvec": lambda v: v[:3]}, r"to float32\[3\]"),
    ],
)
def test_an_operator_of_what_is_no_matvec_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        lanczos.linear_operator(**{"matvec": lambda v: v, "dimension": D} | options)
