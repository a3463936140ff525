"""Injected noise has its law, shakes a quadratic as theory says, and the experiment runs."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from antisgd import (
    data,
    ensemble,
    heavy_ball,
    injection,
    objective,
    results,
    sampling,
    statistics,
    theory,
)
from experiments.anti_pgd import __main__ as anti_pgd
from experiments.anti_pgd import descents as ways
from tests import mains, tiny

KEY = jax.random.key(0)
NOISES = {
    "white": (injection.white_noise, theory.with_replacement()),
    "anti_correlated": (injection.anti_correlated_noise, theory.anti_pgd()),
}
N, S, SEEDS, EPOCHS = 40, 8, 2, 2
TOY = (
    "--dataset=synthetic", f"--num_examples={N}", f"--batch_size={S}", "--learning_rate=0.01",
    f"--epochs={EPOCHS}", "--settle_epochs=2", "--analysis_epochs=4", "--eigenpairs=3",
    f"--seeds={SEEDS}", "--strong_factor=7",
)  # fmt: skip


def injected(transformation, steps, gradient):
    """What the transformation adds to a gradient, [steps, …], from its state and key alone."""

    def step(state, _):
        noisy, state = transformation.update(gradient, state)
        return state, noisy - gradient

    return np.asarray(jax.lax.scan(step, transformation.init(gradient), None, steps)[1], np.float64)


@pytest.mark.parametrize("name", NOISES)
def test_injected_noise_has_the_autocovariance_of_its_law(name):
    """Over 4,000 steps of 250 weights; z for p = 1e-3 over all lags, Bartlett's errors.

    var c(h) = Σ_j [c(j)² + c(j+h)c(j−h)]/(Tk): at most 3 σ⁴/(Tk) for either law (h = 0, where
    white noise has 2 and r = (1, −1/2) has 2 (1 + 2/4) = 3).
    """
    make, law = NOISES[name]
    steps, weights, sigma = 4_000, 250, 0.3
    noise = injected(make(KEY, sigma), steps, jnp.zeros(weights))
    lags = np.arange(4)
    found = statistics.autocovariance(noise, lags[-1]).mean(axis=1)
    error = sigma**2 * np.sqrt(3 / steps / weights)
    expected = sigma**2 * theory.autocorrelation(law, lags)
    np.testing.assert_array_less(np.abs(found - expected), 3.7 * error)


def test_increments_of_white_noise_telescope():
    """σ(ξ_{k+1} − ξ_k)/√2 exactly: sums over any steps are two white-noise draws of the same key.

    Rounding: every term is exact to a few eps of draws below 6, and 50 are added.
    """
    white = injected(injection.white_noise(KEY, 1.0), 51, jnp.zeros(7))
    anti = injected(injection.anti_correlated_noise(KEY, 1.0), 50, jnp.zeros(7))
    bound = 50 * 4 * 6 * np.finfo(np.float32).eps
    np.testing.assert_allclose(np.diff(white, axis=0) / np.sqrt(2), anti, atol=bound)
    np.testing.assert_allclose(anti.sum(axis=0), (white[-1] - white[0]) / np.sqrt(2), atol=bound)


def test_noise_of_a_step_does_not_depend_on_where_the_run_was_cut():
    transformation = injection.anti_correlated_noise(KEY, 0.5)
    whole = injected(transformation, 6, jnp.zeros(3))
    later = jax.jit(transformation.update)(jnp.zeros(3), injection.InjectionState(jnp.int32(4)))
    # Fused differently, the last digit of draws below 6 may differ.
    np.testing.assert_allclose(later[0], whole[4], atol=12 * np.finfo(np.float32).eps)
    assert int(later[1].step) == 5


@pytest.mark.parametrize("name", NOISES)
def test_a_quadratic_under_injected_noise_has_the_variances_of_theory(name):
    """Equal directions are independent replicas, whose scatter gives the errors; z for p = 1e-4."""
    make, law = NOISES[name]
    curvatures, replicas, rate, momentum, sigma = np.array([0.5, 4.0]), 200, 0.1, 0.9, 0.2
    diagonal = jnp.asarray(np.repeat(curvatures, replicas), jnp.float32)

    def loss(theta, examples, weights):
        return 0.5 * jnp.sum(diagonal * theta**2)

    optimizer = optax.chain(make(KEY, sigma), heavy_ball.heavy_ball(rate, momentum))
    steps = 1500
    schedule = sampling.Schedule(jnp.zeros((steps, 1), jnp.int32), jnp.ones((steps, 1)))
    state = heavy_ball.init(optimizer, jnp.zeros(diagonal.shape))
    _, weights = heavy_ball.run_schedule(
        loss, optimizer, state, schedule, jnp.zeros(1), record=lambda theta, *_: theta
    )
    # The slower direction forgets its start within (1−β)/(ηλ) = 2 to 1/(1−β) = 10 steps.
    weights = np.asarray(weights[300:], np.float64).reshape(-1, len(curvatures), replicas)
    expected = theory.stationary_variances(curvatures, rate, momentum, law)
    squares = np.mean(weights**2, axis=0), np.mean(np.diff(weights, axis=0) ** 2, axis=0)
    for square, one in zip(squares, expected, strict=True):
        error = square.std(axis=1, ddof=1) / np.sqrt(replicas)
        np.testing.assert_array_less(np.abs(square.mean(axis=1) - sigma**2 * one), 3.9 * error)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return mains.run(anti_pgd, tmp_path_factory.mktemp("anti_pgd") / "run", *TOY)


@pytest.mark.slow
def test_all_ways_are_compared_with_errors_over_seeds(finished):
    rows = {row["id"]: row for row in json.loads((finished / "summary.json").read_text())}
    for key in ("test_accuracy", "train_loss", "trace", "largest_eigenvalue"):
        for name in ways.METHODS:
            assert rows[f"{key}_{name}"]["n"] == SEEDS
            assert rows[f"{key}_{name}"]["here_error"] is not None
    first, second = (results.read_arrays(finished / f"minima_{name}.npz")["trace"]
                     for name in ways.MINIBATCHES)  # fmt: skip
    difference = rows["trace_without_replacement_minus_with_replacement"]
    np.testing.assert_allclose(difference["here"], np.mean(first - second))
    error = np.std(first - second, ddof=1) / np.sqrt(SEEDS)
    np.testing.assert_allclose(difference["here_error"], error)
    for name in ways.INJECTED:
        assert rows[f"weight_over_theory_{name}"]["here"] > 0
    assert {path.stem for path in (finished / "figures").glob("*.png")} == {
        "anti_pgd_minima", "anti_pgd_variances",
    }  # fmt: skip
    assert "<html" in (finished / "report.html").read_text()


def deviations(finished, name):
    kept = results.read_arrays(finished / "checkpoints" / f"train_{name}.npz")
    return next(array for array in kept.values() if array.shape == (SEEDS, EPOCHS))


@pytest.mark.slow
def test_injected_noise_is_matched_to_the_minibatches_of_the_same_seed(finished):
    """σ² of the first epoch by its definition, (1/S − 1/N) tr C₀/d at the initial weights."""
    dataset, model = data.load("synthetic", num_examples=N, seed=0), tiny.network()
    loss = objective.make_loss(model.apply, 1e-4)
    keys = ensemble.network_keys(0, SEEDS)[0]
    start = jax.vmap(lambda key: model.init(key, dataset.train.images[:1]))(keys)

    @jax.jit
    @jax.vmap
    def examples_of(params):
        one = jax.grad(lambda p, i: loss(p, jax.tree.map(lambda a: a[i][None], dataset.train),
                                         jnp.ones(1)))  # fmt: skip
        return jax.vmap(lambda i: jax.flatten_util.ravel_pytree(one(params, i))[0])(jnp.arange(N))

    with jax.numpy_rank_promotion("allow"):
        gradients = np.asarray(examples_of(start), np.float64)
    variance = np.var(gradients, axis=1, ddof=1).mean(axis=-1) * (1 / S - 1 / N)
    for name, factor in (("anti_correlated_noise", 1), ("strong_noise", 7)):
        found = deviations(finished, name)
        np.testing.assert_allclose(found[:, 0] ** 2, factor**2 * variance, rtol=1e-4)
        np.testing.assert_allclose(
            found, factor * deviations(finished, "without_replacement"), rtol=1e-6
        )
