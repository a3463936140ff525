"""Chunks equal projecting at every step; the quadratic gradient is exact on quadratics."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from antisgd import heavy_ball, sampling, trajectory

N, S, D, K, EPOCHS = 20, 4, 6, 3, 4
EPS = np.finfo(np.float32).eps
RATE, MOMENTUM = 0.05, 0.9


def quadratic(params, examples, weights):
    """½ θᵀAθ + g_nᵀθ, A diagonal: noise independent of θ, a quadratic full loss."""
    linear = jnp.sum(weights * (examples @ params)) / jnp.sum(weights)
    return 0.5 * jnp.sum(jnp.arange(1.0, D + 1) * params**2) + linear


def full_gradient(examples, params):
    return jax.grad(quadratic)(params, examples, jnp.ones(N))


@pytest.fixture
def run():
    examples = jax.random.normal(jax.random.key(0), (N, D))
    params = jax.random.normal(jax.random.key(1), (D,))
    directions = jnp.linalg.qr(jax.random.normal(jax.random.key(2), (D, D)))[0][:K]
    drawn = [sampling.without_replacement(jax.random.key(3), e, N, S) for e in range(EPOCHS)]
    schedule = jax.tree.map(lambda *parts: jnp.concatenate(parts), *drawn)
    return examples, params, directions, schedule


def recorded(run, chunk):
    examples, params, directions, schedule = run
    optimizer = heavy_ball.heavy_ball(RATE, MOMENTUM)

    def advance(state, schedule, examples):
        record = trajectory.flat_record(partial(full_gradient, examples))
        return heavy_ball.run_schedule(
            quadratic, optimizer, state, schedule, examples, record=record
        )

    record = trajectory.make_recorder(advance)
    state, parts = heavy_ball.init(optimizer, params), []
    for start in range(0, schedule.indices.shape[0], chunk):
        piece = jax.tree.map(lambda a, s=start: a[s : s + chunk], schedule)
        state, projections = record(state, piece, examples, directions)
        parts.append(jax.tree.map(np.asarray, projections))
    return state, trajectory.Projections(*map(np.concatenate, zip(*parts, strict=True)))


@pytest.mark.parametrize("chunk", [1, 7, 20])
def test_chunks_equal_projecting_at_every_step(run, chunk):
    examples, params, directions, schedule = run
    optimizer = heavy_ball.heavy_ball(RATE, MOMENTUM)
    P = np.asarray(directions, np.float64)
    state, theta = heavy_ball.init(optimizer, params), [np.asarray(params, np.float64)]
    noise = []
    for indices, weights in zip(*schedule, strict=True):
        gradient = jax.grad(quadratic)(state.params, examples[indices], weights)
        noise.append(np.asarray(gradient - full_gradient(examples, state.params), np.float64))
        one = sampling.Schedule(indices[None], weights[None])
        state, _ = heavy_ball.run_schedule(quadratic, optimizer, state, one, examples)
        theta.append(np.asarray(state.params, np.float64))
    end, projections = recorded(run, chunk)
    path = trajectory.assemble(
        projections.gradients, projections.updates, projections.full_gradients
    )
    scale = np.abs(theta).max()
    displacement = (np.array(theta) - theta[0]) @ P.T
    # θ in float32 loses eps·|θ| a step; the running sum of the updates does not.
    np.testing.assert_allclose(path.weights, displacement, atol=len(theta) * EPS * scale * D)
    np.testing.assert_allclose(path.noise, np.array(noise) @ P.T, atol=100 * EPS * scale * D)
    np.testing.assert_array_equal(end.step, len(noise))


def test_heavy_balls_updates_follow_from_the_gradients(run):
    """From the tenth step on, so that the velocity carried in counts."""
    _, _, directions, _ = run
    state, projections = recorded(run, 20)
    gradients, updates = projections.gradients, projections.updates
    found = trajectory.heavy_ball_velocities(gradients[10:], RATE, MOMENTUM, updates[9])
    # Each of the steps rounds twice; the memory of β sums 1/(1 − β) of them.
    bound = 10 * 2 * D * EPS * np.abs(updates).max()
    np.testing.assert_allclose(found, updates[10:], rtol=0, atol=bound)


def test_updates_left_out_change_nothing_else(run):
    examples, params, directions, schedule = run
    optimizer = heavy_ball.heavy_ball(RATE, MOMENTUM)
    found = []
    for with_updates in (True, False):
        record = trajectory.flat_record(with_updates=with_updates)
        advance = partial(heavy_ball.run_schedule, quadratic, optimizer, record=record)
        state = heavy_ball.init(optimizer, params)
        found.append(trajectory.make_recorder(advance)(state, schedule, examples, directions)[1])
    assert found[0].updates.shape == (len(schedule.indices), K)
    assert found[1].updates.shape == (len(schedule.indices), 0)
    bound = 10 * D * EPS * np.abs(found[0].gradients).max()
    np.testing.assert_allclose(found[1].gradients, found[0].gradients, rtol=0, atol=bound)


def test_weights_are_the_sum_of_velocities_in_float64():
    updates = np.full((1_000_000, 1), np.float32(1e-3) / 3, np.float32)
    total = trajectory.displacements(updates)[-1, 0]
    np.testing.assert_allclose(total, 1e6 * np.float64(updates[0, 0]), rtol=1e-9)


def test_noise_over_an_epoch_sums_to_zero_where_it_does_not_depend_on_the_weights(run):
    _, projections = recorded(run, chunk=N // S)
    noise = projections.gradients - projections.full_gradients
    sums = noise.reshape(EPOCHS, N // S, K).sum(1)
    scale = np.abs(projections.gradients).max()
    np.testing.assert_allclose(sums, 0, atol=N // S * 20 * EPS * scale)


def test_quadratic_full_gradient_is_exact_on_a_quadratic(run):
    examples, params, _, schedule = run
    eigenvectors = jnp.eye(D)[::-1][:K]
    _, projections = recorded((examples, params, eigenvectors, schedule), chunk=5)
    weights = trajectory.displacements(projections.updates)
    steps = np.arange(EPOCHS + 1) * (N // S)
    ends = np.append(projections.full_gradients, np.full((1, K), np.nan), 0)
    values = np.arange(D, D - K, -1.0)
    ends[-1] = values * weights[-1] + ends[0]
    model = trajectory.quadratic_full_gradient(values, weights, steps, ends[steps])
    tolerance = 100 * EPS * np.abs(ends).max() * D
    np.testing.assert_allclose(model.gradients, projections.full_gradients, atol=tolerance)
    assert np.all(model.raw_error < tolerance)
    assert np.all(model.remaining_error < tolerance)


def test_quadratic_full_gradient_follows_a_slow_error_between_anchors():
    """A gradient off by a straight line in time: the corrected model is exact, the raw one not."""
    num_steps, steps = 40, np.array([0, 10, 20, 30, 40])
    weights = np.random.default_rng(0).normal(size=(num_steps + 1, 2))
    slope = np.array([0.1, -0.2])
    exact = np.array([1.0, 2.0]) * weights + slope * np.arange(num_steps + 1)[:, None]
    exact -= weights[0] * np.array([1.0, 2.0])
    weights = weights - weights[0]
    model = trajectory.quadratic_full_gradient(np.array([1.0, 2.0]), weights, steps, exact[steps])
    np.testing.assert_allclose(model.gradients, exact[:-1], atol=1e-12)
    np.testing.assert_allclose(model.remaining_error, 0, atol=1e-12)
    assert np.all(model.raw_error > 1)


def test_anchors_must_span_the_period():
    with pytest.raises(ValueError, match="anchors must run"):
        trajectory.quadratic_full_gradient(
            np.ones(1), np.zeros((11, 1)), np.array([0, 5]), np.zeros((2, 1))
        )


@pytest.mark.parametrize("microbatch_size", [3, 20, 64])
def test_example_gradients_are_those_of_one_example_at_a_time(run, microbatch_size):
    """And their covariance along the directions is P C₀ Pᵀ."""
    examples, params, directions, _ = run
    found = trajectory.example_gradients(
        quadratic, params, examples, directions, microbatch_size=microbatch_size
    )
    each = [jax.grad(quadratic)(params, examples[n : n + 1], jnp.ones(1)) for n in range(N)]
    np.testing.assert_allclose(found, np.array(each) @ directions.T, atol=50 * D * EPS)
    expected = directions @ np.cov(np.asarray(examples).T) @ directions.T
    np.testing.assert_allclose(np.cov(np.asarray(found).T), expected, atol=200 * D * EPS)


def test_recorded_steps_are_multiplied_at_full_precision(run):
    """A user's own loss says nothing of precision; an accelerator would take 8 or 10 bits."""
    examples, params, directions, schedule = run
    optimizer = heavy_ball.heavy_ball(RATE, MOMENTUM)

    def advance(state, schedule, examples):
        record = trajectory.flat_record(partial(full_gradient, examples))
        return heavy_ball.run_schedule(
            quadratic, optimizer, state, schedule, examples, record=record
        )

    arguments = (heavy_ball.init(optimizer, params), schedule, examples, directions)
    text = trajectory.make_recorder(advance).lower(*arguments).as_text()
    products = [line for line in text.splitlines() if "dot_general" in line]
    assert len(products) >= 5
    assert all("precision = [HIGHEST, HIGHEST]" in line for line in products)
