"""Adam and RMSProp beside their frozen limit: the optimisers by written-out loops, the main."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from antisgd import theory
from experiments.adam import __main__ as experiment
from experiments.adam import network, optimisers, period
from tests import tiny

RATE, D = 0.1, np.array([0.5, 2.0])
GRADIENTS = np.array([[1.0, -2.0], [0.5, 1.0], [-1.0, 3.0]])


def test_frozen_steps_are_those_of_the_formula():
    """η D⁻¹ m, m the mean of the gradients; float32 rounds."""
    optimizer = optimisers.frozen(RATE, jnp.asarray(D))
    state, m = optimizer.init(jnp.zeros(2)), np.zeros(2)
    for gradient in GRADIENTS:
        update, state = optimizer.update(jnp.asarray(gradient), state)
        m = 0.9 * m + 0.1 * gradient
        np.testing.assert_allclose(update, -RATE * m / D, rtol=1e-6)


@pytest.mark.parametrize("name", optimisers.NAMES)
def test_the_metric_is_what_divides_the_first_step(name):
    """From rest m = (1−β)g, which Adam corrects, and D is √ν̂ + ε or √(ν + ε²) after the step."""
    optimizer = optimisers.watched(name, RATE, 0.75)
    gradient, share = jnp.asarray(GRADIENTS[0]), 1.0 if name == "adam" else 0.1
    update, state = optimizer.update(gradient, optimizer.init(jnp.zeros(2)), jnp.zeros(2))
    np.testing.assert_allclose(update * optimisers.metric(name, state.inner, 0.75),
                               -RATE * share * gradient, rtol=1e-5)  # fmt: skip
    np.testing.assert_allclose(state.inverse**2, state.squared, rtol=1e-6)


@pytest.mark.parametrize("name", optimisers.NAMES)
def test_the_theory_takes_the_frozen_optimiser_for_what_it_is(name):
    """x ← Ax + b·g/D, the corrections of Adam's first steps long over; float32 rounds."""
    optimizer, theta = optimisers.make(name, RATE, 0.75), jnp.array([0.3, -0.2])
    _, state = optimizer.update(jnp.asarray(GRADIENTS[0]), optimizer.init(theta), theta)
    state = jax.tree.map(lambda x: x if x.dtype == jnp.float32 else jnp.asarray(10_000), state)
    held = theory.frozen_from_optax(optimizer, state, theta)
    frozen = optimisers.frozen(RATE, optimisers.metric(name, state, 0.75))
    moving, x = frozen.init(theta), np.zeros((2, len(held.optimizer.response)))
    x[:, 0] = theta
    for gradient in GRADIENTS:
        update, moving = frozen.update(jnp.asarray(gradient), moving)
        theta = theta + update
        x = x @ held.optimizer.free.T + np.outer(gradient / held.metric, held.optimizer.response)
        np.testing.assert_allclose(x[:, 0], theta, rtol=1e-5)


@pytest.mark.slow
def test_the_basis_is_dual_and_diagonalises_the_curvature():
    """θ = Σ y_iD^{-½}e_i, y_i = e_iᵀD^½θ; of RMSProp, whose D has no step count; float32 rounds."""
    options = experiment.Options(num_examples=20, batch_size=5, epochs=1, eigenpairs=3)
    tokens = network.sequences(jax.random.key(0), options.num_examples)
    with tiny.small():
        state = period.train("rmsprop", tokens, jax.random.key(1), options)
        basis = period.basis_of(state, tokens, "rmsprop", options)
    np.testing.assert_allclose(basis.covectors @ basis.vectors.T, np.eye(3), atol=1e-4)
    weights, unravel = ravel_pytree(state.params)
    D = np.asarray(ravel_pytree(optimisers.metric("rmsprop", state.opt_state, options.memory))[0])
    ratio = np.asarray(basis.covectors) / np.asarray(basis.vectors) / D
    np.testing.assert_allclose(ratio, np.full_like(ratio, ratio[0, 0]), rtol=1e-3)
    gradient = jax.grad(lambda w: network.loss(unravel(w), tokens, jnp.ones(len(tokens))))
    with jax.numpy_rank_promotion("allow"):
        curved = [jax.jvp(gradient, (weights,), (dual,))[1] for dual in basis.vectors]
    for value, row, found in zip(basis.values, basis.covectors, curved, strict=True):
        np.testing.assert_allclose(
            found, value * row, rtol=0, atol=1e-3 * value * np.abs(row).max()
        )


@pytest.mark.slow
def test_the_main_at_toy_size_goes_on_where_it_was(tmp_path, monkeypatch):
    options = experiment.Options(
        num_examples=20, batch_size=5, epochs=2, windows=1, window_epochs=2, eigenpairs=3, seeds=1,
        output_dir=str(tmp_path / "run"),
    )  # fmt: skip
    with tiny.small():
        experiment.main(options)
        before = tiny.arrays_of(tmp_path / "run")
        (tmp_path / "run" / "summary.json").unlink()
        monkeypatch.setattr(period, "train", None)
        experiment.main(options)
    tiny.same_arrays(before, tmp_path / "run")
    rows = {row["id"] for row in json.loads((tmp_path / "run" / "summary.json").read_text())}
    wanted = {"adam_frozen_weight_begin_without_replacement"}
    wanted |= {
        "rmsprop_slow_velocity_averaged_with_replacement",
        "adam_fast_fluctuation_with_replacement",
    }
    assert wanted <= rows
    assert (tmp_path / "run" / "figures" / "adam_with_replacement.png").exists()
