"""What the public functions refuse: one line that names the cause, before anything is computed.

The flags of the experiments are in test_experiments, damaged data files in test_data.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from antisgd import (
    convolution,
    data,
    heavy_ball,
    hessian,
    lanczos,
    objective,
    results,
    sampling,
    statistics,
    theory,
    trajectory,
)

KEY = jax.random.key(0)
WITHOUT = theory.without_replacement(10)
SYSTEM = theory.heavy_ball_system(0.1, 0.9)


def identity(v):
    return v


def solve(matvec=identity, dimension=5, k=2, **options):
    return lanczos.leading_eigenpairs(matvec, dimension, k, key=KEY, **options)


def mean_square(params, examples, weights):
    return jnp.sum(weights * (examples @ params) ** 2) / jnp.sum(weights)


def product(examples=8, microbatch_size=4, **options):
    return hessian.hessian_vector_product(
        mean_square, jnp.ones(3), jnp.ones((examples, 3)), microbatch_size=microbatch_size,
        **options,
    )  # fmt: skip


def windows(a=0.1, **options):
    arguments = {"noise": WITHOUT, "num_steps": 40} | options
    return theory.window_variances(np.array([a]), 1.0, 0.9, **arguments)


CASES = {
    "momentum of one": (lambda: heavy_ball.heavy_ball(0.1, 1.0), "momentum must lie in"),
    "negative momentum": (lambda: heavy_ball.heavy_ball(0.1, -0.5), "momentum must lie in"),
    "no learning rate": (lambda: heavy_ball.heavy_ball(0.0, 0.9), "learning rate must be pos"),
    "batch of none": (lambda: sampling.without_replacement(KEY, 0, 9, 0), "batch_size.*9, not 0"),
    "batch beyond N": (lambda: sampling.flip_flop(KEY, 0, 9, 10), "batch_size.*9, not 10"),
    "negative penalty": (lambda: objective.make_loss(None, -1.0), "weight decay.*-1"),
    "unknown data": (lambda: data.load("mnist"), "mnist.*cifar10, digits or synthetic"),
    "more digits than there are": (lambda: data.load("digits", num_examples=1501), "1 to 1500"),
    "no synthetic pictures": (lambda: data.load("synthetic", num_examples=0), "num_examples"),
    "no such folder": (lambda: data.load("cifar10", directory="/nowhere"), "/nowhere"),
    "pictures below a pool": (
        lambda: convolution.convolve_and_pool(jnp.ones((1, 1, 4, 2)), jnp.ones((3, 3, 1, 1))),
        "at least 2x2 pixels, not 1x4",
    ),
    "no examples": (lambda: product(examples=0), "0 examples"),
    "no microbatch": (lambda: product(microbatch_size=0), "microbatch_size=0"),
    "no weights selected": (lambda: product(only=lambda name: False), "selects none"),
    "k beyond the dimension": (lambda: solve(k=6), "6 eigenpairs in 5"),
    "no pairs": (lambda: solve(k=0), "0 eigenpairs"),
    "unknown end": (lambda: solve(which="middle"), "largest.*got 'middle'"),
    "no tolerance": (lambda: solve(tolerance=0.0), "tolerance must be positive"),
    "threshold of two ends": (lambda: solve(which="both", threshold=1.0), "needs one end"),
    "matvec of another shape": (lambda: solve(lambda v: v[:3]), r"float32\[5\] to float32\[3\]"),
    "matvec with NaN": (lambda: solve(lambda v: v * jnp.nan), "not finite"),
    "matvec that is not symmetric": (
        lambda: solve(lambda v: jnp.roll(v, 1) * jnp.arange(1.0, 41), dimension=40),
        "not symmetric",
    ),
    "memory for no basis": (lambda: solve(dimension=400, k=50, memory=1000), "memory=1000"),
    "an epoch of one step": (lambda: theory.without_replacement(1), "at least 2"),
    "half a step": (lambda: theory.shuffle_once(2.5), "integer"),
    "law of a batch beyond N": (lambda: theory.partial_last(5, 6), "batch_size"),
    "indices beyond N": (lambda: theory.from_indices(np.array([[7]]), 5, 0), r"\[0, 5\)"),
    "few steps for the lags": (
        lambda: theory.from_indices(np.zeros((9, 2), int), 5, 8),
        "9 steps are too few for 8 lags",
    ),
    "beyond the stability bound": (
        lambda: theory.stationary_variances(4.0, 1.0, 0.9, WITHOUT),
        r"2\(1 \+ beta\)",
    ),
    "negative curvature": (
        lambda: theory.stationary_variances(-1.0, 0.1, 0.9, WITHOUT),
        "leave out negative curvatures",
    ),
    "unknown drift": (lambda: windows(drift="cubic"), "drift must be one of.*'cubic'"),
    "window of a flat direction": (lambda: windows(a=0.0), "0 < eta"),
    "unaligned switch": (lambda: windows(aligned=False, start=WITHOUT), "aligned=True"),
    "unstable optimiser": (
        lambda: theory.stationary_covariance(np.array([100.0]), SYSTEM, WITHOUT),
        "not stable",
    ),
    "lag beyond the series": (
        lambda: statistics.autocovariance(np.ones((5, 1)), 5),
        "max_lag=5 must lie below the 5",
    ),
    "a series of zeros": (lambda: statistics.autocorrelation(np.zeros((5, 1)), 2), "variation"),
    "one point too few": (
        lambda: statistics.remove_drift(np.ones((5, 1)), np.ones((5, 1)), "line"),
        "5 velocities need 6 weights, not 5",
    ),
    "a line through two points": (
        lambda: statistics.fit_power_law([1.0, 2.0], [1.0, 2.0]),
        "three or more",
    ),
    "a power law of zeros": (
        lambda: statistics.fit_power_law([1.0, 2.0, 3.0], [0.0, 1.0, 2.0]),
        "positive points",
    ),
    "one block": (
        lambda: statistics.block_errors(np.ones((6, 1)), np.ones((5, 1)), num_blocks=1),
        "num_blocks=1",
    ),
    "anchors that stop early": (
        lambda: trajectory.quadratic_full_gradient(
            np.ones(1), np.ones((5, 1)), np.array([0, 3]), np.ones((2, 1))
        ),
        "from step 0 to step 4",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_refused_in_one_line(name):
    call, message = CASES[name]
    with pytest.raises((ValueError, OSError, ArithmeticError, MemoryError), match=message) as found:
        call()
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    "content", [b"", b"no zip", b"PK\x03\x04 cut off"], ids=["empty", "text", "truncated"]
)
def test_a_damaged_array_file_is_named(tmp_path, content):
    (tmp_path / "arrays.npz").write_bytes(content)
    with pytest.raises(ValueError, match="arrays.npz is damaged"):
        results.read_arrays(tmp_path / "arrays.npz")


def test_no_pickle_is_loaded_from_a_run_folder(tmp_path):
    np.savez(tmp_path / "arrays.npz", evil=np.array([{"a": 1}], object))
    with pytest.raises(ValueError, match="damaged"):
        results.read_arrays(tmp_path / "arrays.npz")
