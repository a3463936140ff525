"""A million steps or microbatches keep six digits; chunks and devices change rounding alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

from antisgd import heavy_ball, objective, statistics, trajectory
from antisgd.data import Examples
from antisgd.study.preflight import plan
from antisgd.study.stages import record, train
from tests import tiny

SIX_DIGITS = 1e-6
MILLION = 1_000_000


@pytest.fixture(scope="module")
def velocities():
    """float32, as recorded: two fluctuating directions, one of which drifts 10^5 times as far."""
    rng = np.random.default_rng(0)
    kicks = 1e-3 * rng.normal(size=(MILLION + 1, 2))
    weights = signal.lfilter([1], [1, -0.99], kicks, axis=0)
    return (np.diff(weights, axis=0) + [0, 1e-3]).astype(np.float32)


def test_variances_of_a_million_steps(velocities):
    """Against sums in extended precision over the same numbers."""
    weights = trajectory.displacements(velocities)
    found = statistics.variances(*statistics.remove_drift(weights, velocities, "mean_velocity"))
    exact = np.cumsum(velocities, axis=0, dtype=np.longdouble)
    exact = np.concatenate([np.zeros((1, 2), np.longdouble), exact])
    steps = np.arange(MILLION + 1, dtype=np.longdouble)[:, None]
    mean = exact[-1] / MILLION
    assert mean[1] * MILLION > 1e4 * np.std(exact[:, 0].astype(float))
    np.testing.assert_allclose(found.weight, np.var(exact - steps * mean, axis=0), rtol=SIX_DIGITS)
    np.testing.assert_allclose(
        found.velocity, np.var(velocities.astype(np.longdouble), axis=0), rtol=SIX_DIGITS
    )


def test_autocovariance_of_a_million_steps(velocities):
    found = statistics.autocovariance(velocities[:, :1], 1000)[[0, 1, 30, 1000], 0]
    x = velocities[:, 0].astype(np.longdouble)
    direct = [np.mean(x[: MILLION - lag] * x[lag:]) for lag in (0, 1, 30, 1000)]
    np.testing.assert_allclose(found, np.array(direct, float), atol=SIX_DIGITS * found[0])


def softmax_regression(params, examples, weights):
    losses = -jax.nn.log_softmax(examples.images @ params)[jnp.arange(4), examples.labels]
    return jnp.sum(weights * losses) / jnp.sum(weights)


@pytest.fixture(scope="module")
def million():
    """Pictures of two pixels, all bright, and one class: gradients that add up, none cancels."""
    images = np.random.default_rng(1).uniform(0.5, 1.5, (MILLION, 2)).astype(np.float32)
    return Examples(jnp.asarray(images), jnp.zeros(MILLION, jnp.int32)), images.astype(np.float64)


def test_gradients_over_many_microbatches(million):
    """250,000 terms; a plain sum in float32 would lose two of the digits."""
    examples, images = million
    found = jax.jit(objective.full_gradient, static_argnums=(0, 3))(
        softmax_regression, jnp.zeros((2, 2)), examples, 4
    )
    exact = images.mean(axis=0) / 2
    np.testing.assert_allclose(found, np.stack([-exact, exact], axis=1), rtol=SIX_DIGITS)


def test_losses_over_many_microbatches(million):
    examples, images = million
    kernel = np.array([[1.0, 0.0], [0.5, 0.0]], np.float32)
    found = jax.jit(
        lambda examples: objective.evaluate(
            lambda params, x: x @ params, kernel, examples, microbatch_size=4
        )
    )(examples)
    exact = np.mean(np.log1p(np.exp(-images @ [1.0, 0.5])))
    np.testing.assert_allclose(found.loss, exact, rtol=SIX_DIGITS)
    assert found.accuracy == 1


def recorded(folder, chunk, microbatch_size, patch):
    patch.setattr(record, "EXACT_CHUNK_STEPS", chunk)
    problem, settings = tiny.problem(), tiny.settings(microbatch_size=microbatch_size)
    optimizer = train.optimizer_at(settings, 0, *train.hyperparameters(settings))
    state = heavy_ball.init(optimizer, problem.init(jax.random.key(0)))
    directions = np.linalg.qr(np.random.default_rng(2).normal(size=(650, 3)))[0].T
    found = record.record(
        problem, settings, state, directions.astype(np.float32), np.ones(3),
        scheme="without_replacement", folder=folder,
    )  # fmt: skip
    work = plan.Work(0, 3, periods=1, train=0, solves=0, records=1, products=0)
    recording, none = (
        plan.disk(problem, settings, work._replace(periods=periods)) for periods in (1, 0)
    )
    return found, recording - none


def test_chunks_and_microbatches_change_a_recording_by_rounding_alone(tmp_path, monkeypatch):
    with tiny.small():
        first, planned = recorded(tmp_path / "first", 10, 60, monkeypatch)
        other, _ = recorded(tmp_path / "other", 3, 7, monkeypatch)
    # Each of 30 steps rounds the weights, of norm 2.5.
    norm = np.linalg.norm(jax.flatten_util.ravel_pytree(first.final)[0])
    rounding = 30 * np.finfo(np.float32).eps * norm
    for name, values in first.trajectory._asdict().items():
        scale = np.abs(values).max()
        assert scale > 100 * rounding
        np.testing.assert_allclose(values, getattr(other.trajectory, name), atol=rounding)
    # Each file has a header of 128 bytes; the weights have one row more than there are steps.
    files = [path.stat().st_size - 128 for path in (tmp_path / "first").glob("*.npy")]
    assert sum(files) == planned + 8 * 3


@pytest.mark.slow
def test_one_and_two_devices_agree(tmp_path):
    """Four networks dealt out to two devices, and the microbatches of every product."""
    flags = ("--seeds=2", "--analysis_seeds=2")
    folders = []
    for devices in (1, 2):
        folders.append(tmp_path / str(devices) / "run")
        folders[-1].parent.mkdir()
        code, words = tiny.live(folders[-1], *flags, devices=devices)
        assert code == 0, words
    one, two = (np.load(folder / "training.npz") for folder in folders)
    np.testing.assert_allclose(one["params"], two["params"], atol=1e-5)
    for place in ("", "seed_1"):
        pairs = [np.load(folder / place / "eigenpairs.npz") for folder in folders]
        np.testing.assert_allclose(pairs[0]["values"], pairs[1]["values"], rtol=1e-4)
        noise = [np.load(f / place / "trajectory_with_replacement/noise.npy") for f in folders]
        np.testing.assert_allclose(*(one.var(axis=0).sum() for one in noise), rtol=1e-2)
