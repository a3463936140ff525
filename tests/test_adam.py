"""Adam and RMSProp beside their frozen limit: the optimisers by written-out loops, the main."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.adam import __main__ as experiment
from experiments.adam import optimisers
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


@pytest.mark.slow
def test_the_main_at_toy_size_goes_on_where_it_was(tmp_path):
    options = experiment.Options(
        num_examples=20, batch_size=5, epochs=2, windows=1, window_epochs=2, eigenpairs=3, seeds=1,
        output_dir=str(tmp_path / "run"),
    )  # fmt: skip
    with tiny.small():
        experiment.main(options)
        before = tiny.arrays_of(tmp_path / "run")
        (tmp_path / "run" / "summary.json").unlink()
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
    assert jax.config.jax_disable_most_optimizations is False
