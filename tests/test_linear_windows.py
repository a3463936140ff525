"""Windows of any linear optimiser: heavy ball's own formulas, and update loops on real batches."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from antisgd import sampling, statistics, theory

RATE, BETA, M = 0.02, 0.9, 20
LAM = np.geomspace(1e-3, 40, 7)
LAWS = {
    "reshuffled": theory.without_replacement(M),
    "white": theory.with_replacement(),
    "dropped": theory.drop_last(45, 2),
}


@pytest.mark.parametrize("drift", ["none", "mean_velocity", "line"])
@pytest.mark.parametrize("law", LAWS)
def test_heavy_ball_is_a_special_case(law, drift):
    """Two ways to the same moments; flat directions lose digits to the kron system alike."""
    system = theory.heavy_ball_system(RATE, BETA)
    for start in (None, LAWS["reshuffled"]):
        found = theory.linear_window_variances(
            LAM, system, LAWS[law], 3 * M, drift=drift, start=start
        )
        expected = theory.window_variances(
            LAM, RATE, BETA, LAWS[law], 3 * M, drift=drift, start=start
        )
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-8)


OPTIMISERS = {
    "nesterov": optax.sgd(RATE, BETA, nesterov=True),
    "decayed": optax.chain(optax.add_decayed_weights(0.5), optax.sgd(RATE, BETA)),
    "plain": optax.sgd(10 * RATE),
}


@pytest.mark.parametrize("name", OPTIMISERS)
def test_windows_of_an_update_loop_on_real_batches(name):
    """σ_θ² and σ_v² of 400 windows after 30 epochs, within 4 standard errors of the prediction."""
    optimizer, N, S, replicas, epochs = OPTIMISERS[name], 40, 2, 400, 3
    lam = np.array([0.05, 1.0, 8.0])
    generator = np.random.default_rng(0)
    pulls = generator.standard_normal(N)
    pulls -= pulls.mean()

    def window(key):
        def epoch(carry, number):
            indices = sampling.without_replacement(key, number, N, S).indices

            def step(carry, batch):
                theta, state = carry
                gradient = lam * theta + jnp.mean(jnp.asarray(pulls)[batch])
                update, state = optimizer.update(gradient, state, theta)
                return (theta + update, state), (theta + update, update)

            return jax.lax.scan(step, carry, indices)

        theta = jnp.zeros(3)
        start, _ = jax.lax.scan(epoch, (theta, optimizer.init(theta)), jnp.arange(30))
        _, (weights, updates) = jax.lax.scan(epoch, start, 30 + jnp.arange(epochs))
        weights = jnp.concatenate([start[0][None], weights.reshape(-1, 3)])
        return weights, updates.reshape(-1, 3)

    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(1), replicas)
        paths = [np.asarray(part) for part in jax.jit(jax.vmap(window))(keys)]
    measured = [
        statistics.variances(*statistics.remove_drift(weights, updates, "mean_velocity"))
        for weights, updates in zip(*paths, strict=True)
    ]
    law = theory.without_replacement(M, S)
    expected = theory.linear_window_variances(
        lam, theory.from_optax(optimizer), law, epochs * M, drift="mean_velocity"
    )
    noise = law.variance * np.var(pulls, ddof=1)
    for one in ("weight", "velocity"):
        values = np.array([getattr(each, one) for each in measured])
        error = values.std(axis=0, ddof=1) / np.sqrt(replicas)
        z = (values.mean(axis=0) - noise * getattr(expected, one)) / error
        assert np.abs(z).max() < 4, (one, z)


def test_what_has_no_windows_is_refused():
    system = theory.heavy_ball_system(RATE, BETA)
    with pytest.raises(ValueError, match="not stable"):
        theory.linear_window_variances([1e3], system, LAWS["white"], 10)
    with pytest.raises(ValueError, match="epochs"):
        theory.linear_window_variances([1.0], system, theory.flip_flop(M), 10)
    with pytest.raises(ValueError, match="drift must be one of"):
        theory.linear_window_variances([1.0], system, LAWS["white"], 10, drift="spline")
