"""An ensemble is the same networks side by side: grouping and devices change rounding at most."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from antisgd import ensemble, heavy_ball, sampling

N, S, D, SEEDS = 24, 4, 5, 3
pytestmark = pytest.mark.usefixtures("quick_to_compile")

EPS = np.finfo(np.float32).eps
SCHEMES = (sampling.without_replacement, sampling.with_replacement)


def loss(params, examples, weights):
    inputs, targets = examples
    residuals = jnp.tanh(inputs @ params) - targets
    return jnp.sum(weights * residuals**2) / jnp.sum(weights)


def optimizer_at(epoch):
    return heavy_ball.heavy_ball(jnp.float32(0.1) * 0.9**epoch, 0.9)


def examples():
    inputs = jax.random.normal(jax.random.key(0), (N, D))
    return inputs, jax.random.normal(jax.random.key(1), (N,))


def trained(seeds=SEEDS, group_size=None, epochs=3):
    init_keys, keys = (jnp.tile(k, 2) for k in ensemble.network_keys(0, seeds))
    states = ensemble.init(lambda key: jax.random.normal(key, (D,)), optimizer_at(0), init_keys)
    epoch = ensemble.make_epoch(loss, optimizer_at, SCHEMES, S, group_size=group_size)
    for e in range(epochs):
        states, losses = epoch(states, keys, e, examples())
    return np.asarray(states.params), np.asarray(losses), epoch


def test_each_network_is_the_one_trained_alone():
    params, losses, _ = trained()
    init_keys, keys = ensemble.network_keys(0, SEEDS)
    for regime, scheme in enumerate(SCHEMES):
        for seed in range(SEEDS):
            state = heavy_ball.init(optimizer_at(0), jax.random.normal(init_keys[seed], (D,)))
            for e in range(3):
                schedule = scheme(keys[seed], e, N, S)
                state, alone = heavy_ball.run_schedule(
                    loss, optimizer_at(e), state, schedule, examples()
                )
            steps = 3 * N // S
            network = regime * SEEDS + seed
            np.testing.assert_allclose(params[network], state.params, atol=100 * steps * EPS)
            np.testing.assert_allclose(losses[network], alone, atol=100 * steps * EPS)


def test_a_swept_learning_rate_and_momentum_are_each_networks_own():
    rates, betas = jnp.array([0.1, 0.05, 0.1]), jnp.array([0.9, 0.9, 0.5])
    init_keys, keys = ensemble.network_keys(0, SEEDS)

    def swept_at(epoch, rate, beta):
        return heavy_ball.heavy_ball(rate * 0.9**epoch, beta)

    start = (lambda key: jax.random.normal(key, (D,)), swept_at(0, 0.1, 0.9), init_keys)
    run_epoch = ensemble.make_epoch(loss, swept_at, SCHEMES[:1], S)
    states, _ = run_epoch(ensemble.init(*start), keys, 1, examples(), rates, betas)
    for i, init_key in enumerate(init_keys):
        optimizer = swept_at(1, rates[i], betas[i])
        state = heavy_ball.init(optimizer, jax.random.normal(init_key, (D,)))
        schedule = SCHEMES[0](keys[i], 1, N, S)
        alone, _ = heavy_ball.run_schedule(loss, optimizer, state, schedule, examples())
        np.testing.assert_allclose(states.params[i], alone.params, atol=100 * N // S * EPS)


def test_regimes_start_from_the_same_weights_and_differ_later():
    params, _, _ = trained(epochs=3)
    assert np.abs(params[:SEEDS] - params[SEEDS:]).max() > 1e-3
    init_keys, _ = ensemble.network_keys(0, SEEDS)
    assert len(np.unique(jax.random.key_data(init_keys), axis=0)) == SEEDS


def test_a_seed_does_not_depend_on_how_many_there_are():
    few, _, _ = trained(seeds=2)
    many, _, _ = trained(seeds=4)
    np.testing.assert_allclose(few[:2], many[:2], atol=1000 * EPS)


@pytest.mark.parametrize("group_size", [1, 4, 6])
def test_grouping_changes_rounding_at_most(group_size):
    together, _, _ = trained()
    grouped, _, _ = trained(group_size=group_size)
    np.testing.assert_allclose(grouped, together, atol=1000 * EPS)
    again, _, _ = trained(group_size=group_size)
    np.testing.assert_array_equal(again, grouped)


def test_one_compilation_for_a_whole_run():
    _, _, epoch = trained(epochs=4)
    assert epoch.__wrapped__._cache_size() == 1


TWO_DEVICES = """
import jax, numpy as np
from tests import test_ensemble as t
from antisgd import ensemble
assert jax.device_count() == 2
original, examples = ensemble.init, t.examples()
ensemble.init = lambda *a: ensemble.over_devices(original(*a))
t.examples = lambda: ensemble.on_all_devices(examples)
assert len(t.examples()[0].sharding.device_set) == 2
params, _, epoch = t.trained(seeds=2)
grouped, _, _ = t.trained(seeds=2, group_size=1)
assert np.abs(grouped - params).max() < 1000 * t.EPS
assert epoch.__wrapped__._cache_size() == 1
np.save(__import__("sys").argv[1], params)
"""


def test_two_host_devices_give_the_result_of_one(tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
    path = str(tmp_path / "params.npy")
    subprocess.run([sys.executable, "-c", TWO_DEVICES, path], check=True)
    one, _, _ = trained(seeds=2)
    np.testing.assert_allclose(np.load(path), one, atol=1000 * EPS)
