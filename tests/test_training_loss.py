"""A training loss of its own: state, a key at each step, auxiliary outputs; then frozen."""

import dataclasses
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree

from antisgd import ensemble, heavy_ball, objective, results, sampling, study
from antisgd.study.stages import train
from tests import tiny

SCHEMES = study.settings.SCHEMES
N, S, ETA, BETA, EPOCHS = 24, 6, 0.05, 0.5, 3
SETTINGS = study.Settings(
    batch_size=S, learning_rate=ETA, learning_rate_decay=1.0, momentum=BETA, epochs=EPOCHS,
    analysis_epochs=3, eigenpairs=4, microbatch_size=12, sampling=("without_replacement",),
    stages=("train", "eigenpairs", "analysis"),
)  # fmt: skip


class Network(nn.Module):
    @nn.compact
    def __call__(self, x, training=False):
        x = nn.BatchNorm(use_running_average=not training, momentum=0.8)(nn.Dense(5)(x))
        return nn.Dense(3)(nn.Dropout(0.3, deterministic=not training)(nn.tanh(x)))


def mean(logits, labels, weights):
    return jnp.sum(weights * objective.cross_entropy(logits, labels)) / jnp.sum(weights)


def loss(params, state, examples, weights):
    x, y = examples
    return mean(Network().apply({"params": params, **state}, x), y, weights)


def training_loss(params, state, examples, weights, key):
    x, y = examples
    logits, state = Network().apply(
        {"params": params, **state}, x, training=True, rngs={"dropout": key},
        mutable=["batch_stats"],
    )  # fmt: skip
    return mean(logits, y, weights), state, {"largest": jnp.max(logits)}


def started(key):
    return Network().init(key, jnp.zeros((1, 4)))


def problem():
    x = jax.random.normal(jax.random.key(0), (N, 4))
    return study.Problem(
        lambda key: started(key)["params"], loss, (x, jnp.argmax(x[:, :3], axis=1)),
        training_loss=training_loss,
        init_state=lambda key: {"batch_stats": started(key)["batch_stats"]},
    )  # fmt: skip


@pytest.fixture(autouse=True)
def small():
    with tiny.small():
        yield


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    with tiny.small():
        study.run(problem(), SETTINGS, folder)
    return folder


@jax.jit
def update(params, velocity, state, batch, key):
    """One step of Eq. 1 and what the loss gives beside its gradient."""

    def at(params):
        value, after, aux = training_loss(params, state, batch, jnp.ones(S), key)
        return value, (after, aux)

    (value, (state, aux)), gradient = jax.value_and_grad(at, has_aux=True)(params)
    velocity = jax.tree.map(lambda v, g: BETA * v - ETA * g, velocity, gradient)
    return jax.tree.map(jnp.add, params, velocity), velocity, state, (value, aux["largest"])


def trained_in_a_loop(given, seed):
    """One update after another: the keys of steps as the docstrings say them."""
    init_keys, stream_keys = ensemble.network_keys(SETTINGS.seed, seed + 1)
    run_key = jax.random.fold_in(stream_keys[seed], np.uint32(2**32 - 1))
    params, state = jax.jit(lambda key: (given.init(key), given.init_state(key)))(init_keys[seed])
    velocity, told = jax.tree.map(jnp.zeros_like, params), []
    for epoch in range(EPOCHS):
        schedule = sampling.without_replacement(stream_keys[seed], epoch, N, S)
        for rows in np.asarray(schedule.indices):
            batch = jax.tree.map(lambda leaf, rows=rows: leaf[rows], given.train)
            own = jax.random.fold_in(run_key, len(told))
            params, velocity, state, values = update(params, velocity, state, batch, own)
            told.append(values)
    return params, state, np.array(told, np.float64).reshape(EPOCHS, N // S, 2)


def test_training_is_a_loop_with_the_same_keys(studied):
    params, state, told = trained_in_a_loop(problem(), 0)
    arrays = results.read_arrays(studied / "training.npz")
    expected = ravel_pytree(params)[0]
    # float32 rounds each of the steps, which the network makes larger by less than tenfold.
    bound = 10 * len(told) * N / S * np.finfo(np.float32).eps
    np.testing.assert_allclose(arrays["params"][0], expected, atol=bound)
    assert np.linalg.norm(expected - ravel_pytree(problem().init(jax.random.key(0)))[0]) > 0.1
    for name, leaf in state["batch_stats"]["BatchNorm_0"].items():
        kept = arrays[f"state_batch_stats/BatchNorm_0/{name}"][0]
        np.testing.assert_allclose(kept, leaf, atol=bound)
    np.testing.assert_allclose(arrays["step_loss"][0], told[..., 0].mean(axis=1), atol=bound)
    np.testing.assert_allclose(
        arrays["step_largest"][0], told[..., 1].mean(axis=1), atol=10 * bound
    )
    # The curves are of the loss that is measured, at the running averages.
    frozen = jax.jit(loss)(params, state, problem().train, jnp.ones(N))
    assert arrays["train_loss"][0, -1] == pytest.approx(float(frozen), rel=1e-4)
    assert abs(arrays["train_loss"][0, -1] - arrays["step_loss"][0, -1]) > 1e-2


def test_the_period_is_that_of_the_loss_at_the_frozen_state(studied):
    """Gradients of batches, and their mean over an epoch's start: no key, no batch statistics."""
    given, arrays = problem(), results.read_arrays(studied / "training.npz")
    back = ravel_pytree(given.init(jax.random.key(0)))[1]
    theta = jnp.asarray(arrays["params"][0])
    name = "state_batch_stats/BatchNorm_0/"
    kept = {one.removeprefix(name): v[0] for one, v in arrays.items() if one.startswith(name)}
    state = {"batch_stats": {"BatchNorm_0": kept}}
    vectors = np.load(studied / "eigenvectors.npy")
    inside = studied / "trajectory_without_replacement"
    schedule = sampling.without_replacement(train.stream_key(SETTINGS, 0), EPOCHS, N, S)
    batch = jax.tree.map(lambda leaf: leaf[schedule.indices[0]], given.train)

    def measured(theta, examples):
        return loss(back(theta), state, examples, jnp.ones(len(examples[1])))

    at = jax.jit(jax.grad(measured))(theta, batch)
    bound = 100 * np.finfo(np.float32).eps
    np.testing.assert_allclose(np.load(inside / "gradients.npy")[0], vectors @ at, atol=bound)
    dense = jax.jit(jax.hessian(measured))(theta, given.train)
    values = np.linalg.eigvalsh(np.asarray(dense, np.float64))[::-1][:4]
    found = results.read_arrays(studied / "eigenpairs.npz")["values"]
    np.testing.assert_allclose(found, values, atol=1e-4 * values[0])


@pytest.mark.slow
def test_it_comes_to_its_report(tmp_path):
    """Through every stage that needs no test set."""
    settings = dataclasses.replace(SETTINGS, stages=study.settings.STAGES, sampling=SCHEMES)
    study.run(problem(), settings, tmp_path)
    rows = {row["id"]: row["here"] for row in json.loads((tmp_path / "summary.json").read_text())}
    arrays = results.read_arrays(tmp_path / "training.npz")
    assert rows["train_loss"] == pytest.approx(arrays["train_loss"][0, -1], rel=1e-5)
    assert rows["step_loss"] == arrays["step_loss"][0, -1]
    assert "step_largest" in rows
    assert {f"stationarity_{scheme}" for scheme in SCHEMES} <= set(rows)
    assert "covariance" in (tmp_path / "report.html").read_text()


def test_stopped_and_gone_on_with_a_run_of_several_seeds_has_the_same_bits(tmp_path, monkeypatch):
    settings = dataclasses.replace(SETTINGS, seeds=2, sampling=SCHEMES, stages=("train",))
    study.run(problem(), settings, tmp_path / "whole")
    real, stops = train.check_finite, [2]

    def stopping(losses, epoch, *rest, **more):
        if epoch in stops:
            stops.clear()
            raise KeyboardInterrupt
        real(losses, epoch, *rest, **more)

    monkeypatch.setattr(train, "check_finite", stopping)
    with pytest.raises(KeyboardInterrupt):
        study.run(problem(), settings, tmp_path / "stopped")
    held = results.read_arrays(tmp_path / "stopped" / "checkpoints" / "training.npz")
    whole = results.read_arrays(tmp_path / "whole" / "training.npz")
    shapes = [leaf.shape for leaf in held.values()]
    assert shapes.count(whole["state_batch_stats/BatchNorm_0/var"].shape) >= 2
    study.run(problem(), settings, tmp_path / "stopped")
    tiny.same_arrays(tmp_path / "whole", tmp_path / "stopped")
    # One seed has one key in both regimes, and each seed its own.
    for seed in range(2):
        params, _, _ = trained_in_a_loop(problem(), seed)
        np.testing.assert_allclose(
            whole["params"][seed], ravel_pytree(params)[0], atol=30 * np.finfo(np.float32).eps
        )
    assert not np.array_equal(whole["params"][0], whole["params"][2])


def test_measured_from_weights_and_state_trained_elsewhere(tmp_path):
    """As after one's own training; weights alone are refused, because the state is missing."""
    given, few = problem(), dataclasses.replace(SETTINGS, stages=("eigenpairs",))
    variables = started(jax.random.key(1))
    with pytest.raises(ValueError, match="at a state: give a heavy_ball.TrainState"):
        study.measure(given, variables["params"], few, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    state = heavy_ball.init(
        heavy_ball.heavy_ball(ETA, BETA), variables["params"],
        {"batch_stats": variables["batch_stats"]},
    )  # fmt: skip
    study.measure(given, state, few, tmp_path / "run")
    assert len(results.read_arrays(tmp_path / "run" / "eigenpairs.npz")["values"]) == 4


def changed(**of_outputs):
    """The training loss with some of its outputs made into others."""

    def training(*arguments):
        names = ("loss", "state", "aux")
        made = zip(names, training_loss(*arguments), strict=True)
        return tuple(of_outputs.get(name, lambda x: x)(one) for name, one in made)

    return training


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training_loss": lambda *a: training_loss(*a)[:2]}, "must give .loss, state, aux."),
        ({"training_loss": changed(state=lambda _: None)}, "the state as None, init_state as"),
        ({"training_loss": changed(aux=lambda _: {"a": jnp.ones(2)})}, "aux a mapping of names"),
        ({"training_loss": changed(loss=lambda x: x[None])}, "with a scalar loss"),
        ({"training_loss": None}, "init_state without a training_loss"),
        ({"loss": lambda *a: training_loss(*a, jax.random.key(0))[0]}, "no weighted mean"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_or_measured_is_refused(changes, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        study.run(dataclasses.replace(problem(), **changes), SETTINGS, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_dropout_without_a_state_and_pieces_of_a_schedule():
    """Keys follow the number of the step; a stepwise loss without a key is refused."""

    def noisy(params, state, examples, weights, key):
        kept = jax.random.bernoulli(key, 0.5, params.shape)
        value = jnp.sum(weights * (examples @ (kept * params)) ** 2) / jnp.sum(weights)
        return value, state + 1, {"kept": jnp.sum(kept)}

    x, optimizer = jax.random.normal(jax.random.key(0), (N, 3)), optax.sgd(0.1, 0.9)
    start, key = heavy_ball.init(optimizer, jnp.ones(3), jnp.zeros(())), jax.random.key(7)
    schedule = sampling.without_replacement(jax.random.key(1), 0, N, S)
    run = jax.jit(
        lambda state, schedule: heavy_ball.run_schedule(
            heavy_ball.Stepwise(noisy), optimizer, state, schedule, x, key=key
        )
    )
    whole, (losses, aux) = run(start, schedule)
    assert losses.shape == (N // S,)
    assert float(whole.loss_state) == N // S
    masks = [jax.random.bernoulli(jax.random.fold_in(key, k), 0.5, (3,)) for k in range(N // S)]
    np.testing.assert_array_equal(aux["kept"], np.sum(masks, axis=1))
    assert len(set(np.sum(masks, axis=1).tolist())) > 1
    state = start
    for rows in (slice(0, 1), slice(1, 4)):
        state, _ = run(state, jax.tree.map(lambda leaf, rows=rows: leaf[rows], schedule))
    np.testing.assert_array_equal(state.params, whole.params)
    alone = dataclasses.replace(problem(), init_state=None, training_loss=noisy)
    assert alone.frozen(None).loss is alone.loss
    with pytest.raises(ValueError, match="takes a key at each step"):
        heavy_ball.run_schedule(heavy_ball.Stepwise(noisy), optimizer, start, schedule, x)
