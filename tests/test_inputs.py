"""The kinds of input that gave wrong numbers or riddles, row by row and at large.

The rows, which are also the documentation, are in inputs_table.
"""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.tree_util import Partial

from antisgd import heavy_ball, hessian, lanczos, sampling, theory, trajectory, weights
from tests import inputs_table as table

ROOT = Path(__file__).parent.parent
few = settings(max_examples=8, deadline=None, derandomize=True)
EPS = {jnp.bfloat16: 2.0**-8, jnp.float16: 2.0**-11, jnp.float32: 2.0**-24}


@pytest.mark.parametrize("row", table.ROWS, ids=lambda row: f"{row.kind}: {row.given}")
def test_accepted_with_the_right_answer_or_refused_in_one_line(row):
    if row.message is None:
        row.call()
        return
    with pytest.raises(ValueError, match=row.message) as found:
        row.call()
    assert "\n" not in str(found.value)
    # The library's own line, not one that JAX or NumPy found on the way.
    assert "antisgd" in str(found.traceback[-1].path)


def test_the_page_says_what_the_table_says():
    assert (ROOT / "docs" / "inputs.md").read_text() == table.rendered()


def quartic(params, examples, weights):
    return jnp.sum(weights * (examples @ params) ** 4) / jnp.sum(weights)


@few
@given(
    st.sampled_from([1, 7, 40]),
    st.sampled_from([1, 3, 64]),
    st.sampled_from([jnp.bfloat16, jnp.float16, jnp.float32]),
    st.integers(0, 9),
)
def test_products_in_any_precision_agree_for_any_microbatch(num_examples, size, dtype, seed):
    """Against the same function of float32 weights rounded to that precision."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(num_examples, 2)).astype(np.float32)
    theta = rng.normal(size=2).astype(np.float32)

    found = hessian.hessian_vector_product(
        quartic, jnp.asarray(theta, dtype), x, microbatch_size=size
    )(jnp.asarray([1.0, -1.0]))
    x, theta = x.astype(np.float64), theta.astype(np.float64)
    scales = 12 * (np.abs(x) @ np.abs(theta)) ** 2 * np.abs(x).sum(1) * np.abs(x).max(1)
    exact = 12 * ((x @ theta) ** 2 * (x @ [1.0, -1.0])) @ x / num_examples
    # The product is of second degree in the weights: twice their relative rounding.
    assert np.abs(found - exact).max() <= (2.2 * EPS[dtype] + 1e-5) * scales.mean()


LEAVES = st.sampled_from(
    [1, True, "text", None, 2.5, np.float32(1.5), np.arange(3), jnp.ones(2), jax.random.key(3),
     np.arange(2.0), max, jnp.zeros((), jnp.bfloat16), np.array(["a"])]
)  # fmt: skip
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(TREES)
def test_any_pytree_is_cut_into_weights_and_the_rest_and_put_together_again(tree):
    tree = {"theta": jnp.ones(2), "more": tree}
    chosen, rest, join = weights.divide(tree)
    again = join(chosen, rest)
    assert jax.tree.structure(again) == jax.tree.structure(tree)
    assert all(map(lambda a, b: a is b, jax.tree.leaves(again), jax.tree.leaves(tree)))
    assert hash(join) == hash(weights.divide(tree)[2])
    assert join == weights.divide(tree)[2]
    moved = weights.merged(weights.trainable(tree), tree)
    assert all(map(lambda a, b: a is b, jax.tree.leaves(moved), jax.tree.leaves(tree)))
    floating = [leaf for leaf in jax.tree.leaves(tree) if _floating(leaf)]
    assert len(chosen) == len(floating)
    assert weights.ravel(tree)[0].size == sum(np.size(leaf) for leaf in floating)


def _floating(leaf):
    kind = jnp.issubdtype(leaf.dtype, jnp.floating) if hasattr(leaf, "dtype") else None
    return isinstance(leaf, float) if kind is None else kind


@few
@given(st.lists(st.floats(0, 4, width=32), min_size=12, max_size=12), st.integers(1, 13))
def test_weighted_products_are_weighted_means(shares, size):
    shares = np.array(shares) + np.eye(12)[3]
    matvec = table.product(microbatch_size=size, weights=shares)
    table.close(table.matrix(matvec), table.dense(shares), rtol=1e-4)


@few
@given(st.floats(-30, 30))
def test_the_solver_does_not_know_the_scale(exponent):
    """The same values, residuals and certificate, but for the last bits of the products."""
    scale = np.float32(10.0**exponent)

    def solved(scale):
        matvec = Partial(table.scaled, table.A, scale)
        return lanczos.leading_eigenpairs(matvec, 40, 4, key=table.KEY, probe_products=8)

    pairs, one = solved(scale), solved(np.float32(1))
    np.testing.assert_allclose(pairs.values / scale, one.values, rtol=1e-5)
    np.testing.assert_allclose(pairs.residuals / scale, one.residuals, atol=3e-7)
    assert 0 < pairs.certificate.noise / scale < 1e-6
    assert pairs.certificate.converged == 4


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(2, 30), st.integers(1, 6), st.sampled_from(["new", "same", "drawn"]))
def test_a_stream_of_indices_has_a_law_that_theory_takes(num_examples, size, kind):
    """Whatever drew it, or a refusal in one line: never a negative variance."""
    size, rng = min(size, num_examples - 1), np.random.default_rng(num_examples)
    same = rng.permutation(num_examples)
    draw = {
        "new": lambda: rng.permutation(num_examples),
        "same": lambda: same,
        "drawn": lambda: rng.integers(num_examples, size=num_examples),
    }[kind]
    cuts = np.arange(size, num_examples, size)
    stream = [batch for _ in range(24) for batch in np.split(draw(), cuts)]
    try:
        law = theory.from_indices(stream, num_examples, min(20, 2 * len(cuts) + 4))
        found = theory.stationary_covariance(np.geomspace(1e-3, 1, 5), table.HEAVY_BALL, law)[0]
    except ValueError as error:
        assert "\n" not in str(error)
        return
    assert np.linalg.eigvalsh(found).min() > -1e-12


@pytest.mark.parametrize("size", [10, 200_000])
def test_results_print_within_a_screen(size):
    d = max(size, 40)
    state = heavy_ball.TrainState({"w": jnp.ones(d)}, (jnp.ones(d),), jnp.zeros((), jnp.int32))
    series = np.ones((11, size))
    results = [state, trajectory.Trajectory(series, series, series), theory.shuffle_once(5),
               theory.partial_last(10**6, 7), sampling.Schedule(series, series)]  # fmt: skip
    if size == 10:
        results.append(table.solve(Partial(table.scaled, table.A, np.float32(1)), 40, 30))
    for result in results:
        assert len(repr(result)) < 1500, repr(result)
        assert repr(result).startswith(type(result).__name__)
    assert f"float64[11, {size}]" in repr(results[1])


SCRIPT = """
import warnings; warnings.simplefilter("ignore")
import jax, jax.numpy as jnp, numpy as np, optax
from antisgd import heavy_ball, hessian, injection, lanczos, objective, plotting, sampling
from antisgd import statistics, theory, trajectory
from tests import inputs_table as table
key, x = jax.random.key(0), table.X
theta = jnp.asarray(table.THETA, jnp.float32)
noise = injection.anti_correlated_noise(key, np.float64(0.1))
for optimizer in (heavy_ball.heavy_ball(np.float64(0.1), 0.9), optax.adam(np.float32(0.1)),
                  optax.chain(noise, heavy_ball.heavy_ball(0.1, 0.9))):
    state = heavy_ball.init(optimizer, theta)
    rows = sampling.spanning_batches(key, 1, 12, 5)
    state, _ = heavy_ball.run_schedule(table.mean_square, optimizer, state, rows, x)
    assert state.params.dtype == jnp.float32
matvec = table.product(params=theta)
pairs = lanczos.leading_eigenpairs(matvec, 3, 2, key=key, dtype=jnp.float32)
values = np.linalg.eigvalsh(table.dense())[::-1][:2]
np.testing.assert_allclose(pairs.values, values, rtol=1e-5)
gradient = table.gradient(params=theta)
projected = trajectory.example_gradients(
    table.mean_square, theta, x, pairs.vectors, microbatch_size=5)
np.testing.assert_allclose(np.mean(projected, 0), pairs.vectors @ gradient, rtol=1e-4, atol=1e-5)
path = trajectory.assemble(*[np.asarray(projected)] * 3)
statistics.variances(*statistics.remove_drift(path.weights, path.velocities, "line"))
law = theory.without_replacement(np.int64(5))
time = theory.correlation_time(jnp.asarray([0.1, 1.0], jnp.float32), 0.1, 0.9, law)
np.testing.assert_allclose(
    time, theory.correlation_time(np.array([0.1, 1.0]), 0.1, 0.9, law), rtol=1e-4)
theory.stationary_covariance(np.ones(2), theory.from_optax(optax.sgd(0.1, 0.9)), law)
objective.cross_entropy(jnp.ones((2, 3), jnp.float32), jnp.zeros(2, jnp.int32))
plotting.eigenvalue_density(np.geomspace(1, 0.1, 5), 2.0)
"""

OPTIONS = {
    "JAX_ENABLE_X64": "1", "JAX_NUMPY_DTYPE_PROMOTION": "strict",
    "JAX_NUMPY_RANK_PROMOTION": "raise", "JAX_DEFAULT_PRNG_IMPL": "rbg", "JAX_DEBUG_NANS": "1",
    "MPLBACKEND": "module://no.such",
}  # fmt: skip


def test_the_library_computes_whatever_the_global_options_are():
    """Without a home directory, too."""
    environment = {k: v for k, v in os.environ.items() if k not in {"HOME", "XDG_CACHE_HOME"}}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment | OPTIONS, cwd=ROOT,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
