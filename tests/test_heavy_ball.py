"""The scan equals Eq. 1 written as a loop, for heavy ball and for any optax transformation."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from antisgd import heavy_ball, sampling
from tests import oracles

N, S, D = 12, 3, 4
EPS = np.finfo(np.float32).eps


def least_squares(params, examples, weights):
    inputs, targets = examples
    losses = 0.5 * (inputs @ params - targets) ** 2
    return jnp.sum(weights * losses) / jnp.sum(weights)


@pytest.fixture
def problem():
    inputs = jax.random.normal(jax.random.key(0), (N, D))
    targets = jax.random.normal(jax.random.key(1), (N,))
    return jax.random.normal(jax.random.key(2), (D,)), (inputs, targets)


def schedule_of(epochs, num_examples=N):
    drawn = [
        sampling.without_replacement(jax.random.key(3), e, num_examples, S) for e in range(epochs)
    ]
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *drawn)


def record_params(params, gradient, update, value):
    return params, gradient, update, value


def test_the_scan_is_the_loop_of_equation_1(problem):
    params, (inputs, targets) = problem
    schedule = schedule_of(epochs=5)
    state = heavy_ball.init(heavy_ball.heavy_ball(0.05, 0.9), params)
    final, (before, _, updates, _) = heavy_ball.run_schedule(
        least_squares, heavy_ball.heavy_ball(0.05, 0.9), state, schedule, (inputs, targets),
        record=record_params,
    )  # fmt: skip
    x, y = np.asarray(inputs, np.float64), np.asarray(targets, np.float64)

    def gradient(theta, batch):
        return x[batch].T @ (x[batch] @ theta - y[batch]) / len(batch)

    path = oracles.heavy_ball_loop(gradient, params, np.asarray(schedule.indices), 0.05, 0.9)
    # Rounding of a stable linear recursion: at most eps·|θ| a step, remembered for 1/(1−β) steps.
    tolerance = 10 * len(path) * EPS * np.abs(path).max()
    np.testing.assert_allclose(before, path[:-1], atol=tolerance)
    np.testing.assert_allclose(final.params, path[-1], atol=tolerance)
    np.testing.assert_allclose(updates, np.diff(path, axis=0), atol=tolerance)
    assert int(final.step) == len(path) - 1


def test_one_run_equals_two_halves(problem):
    params, examples = problem
    optimizer = heavy_ball.heavy_ball(0.05, 0.9)
    schedule = schedule_of(epochs=2)
    state = heavy_ball.init(optimizer, params)
    run = jax.jit(lambda s, p: heavy_ball.run_schedule(least_squares, optimizer, s, p, examples))
    whole, losses = run(state, schedule)
    half, first = run(state, jax.tree.map(lambda a: a[:4], schedule))
    end, second = run(half, jax.tree.map(lambda a: a[4:], schedule))
    np.testing.assert_array_equal(whole.params, end.params)
    np.testing.assert_array_equal(losses, np.concatenate([first, second]))


def test_learning_rate_sits_inside_the_velocity(problem):
    """After η drops to a hundredth, v keeps its size: optax.sgd would shrink the step at once."""
    params, _ = problem
    start = heavy_ball.heavy_ball(1.0, 0.9)
    _, state = start.update(jnp.ones(D), start.init(params), params)
    later = heavy_ball.heavy_ball(0.01, 0.9)
    update, _ = later.update(jnp.zeros(D), state, params)
    np.testing.assert_allclose(update, -0.9 * np.ones(D), rtol=2 * EPS)


def test_unused_places_of_a_partial_batch_do_not_count(problem):
    """N = 11, S = 3: the last batch is the mean over two examples, whatever fills the third."""
    params, (inputs, targets) = problem
    examples = (inputs[:11], targets[:11])
    schedule = sampling.without_replacement(jax.random.key(3), 0, 11, S)
    used = np.asarray(schedule.weights[-1]) > 0
    assert used.sum() == 2
    optimizer = heavy_ball.heavy_ball(0.1, 0.0)
    state = heavy_ball.init(optimizer, params)
    last = jax.tree.map(lambda a: a[-1:], schedule)
    end, _ = heavy_ball.run_schedule(least_squares, optimizer, state, last, examples)
    rows = np.asarray(schedule.indices[-1])[used]
    x, y = np.asarray(inputs, np.float64)[rows], np.asarray(targets, np.float64)[rows]
    expected = params - 0.1 * x.T @ (x @ np.asarray(params, np.float64) - y) / 2
    np.testing.assert_allclose(end.params, expected, rtol=20 * EPS, atol=20 * EPS)


@pytest.mark.parametrize("optimizer", [optax.adam(1e-2), optax.sgd(1e-2, 0.9, nesterov=True)])
def test_any_optax_transformation_runs(problem, optimizer):
    params, examples = problem
    schedule = schedule_of(epochs=2)
    final, _ = heavy_ball.run_schedule(
        least_squares, optimizer, heavy_ball.init(optimizer, params), schedule, examples
    )
    theta, state = params, optimizer.init(params)
    for indices, weights in zip(*schedule, strict=True):
        batch = jax.tree.map(lambda a, rows=indices: a[rows], examples)
        update, state = optimizer.update(jax.grad(least_squares)(theta, batch, weights), state)
        theta = theta + update
    np.testing.assert_allclose(final.params, theta, rtol=100 * EPS, atol=100 * EPS)


@pytest.mark.parametrize(("rate", "momentum"), [(0.1, 1.0), (0.1, -0.1), (0.0, 0.9), (-1.0, 0.5)])
def test_impossible_settings_are_refused(rate, momentum):
    with pytest.raises(ValueError, match="momentum|learning rate"):
        heavy_ball.heavy_ball(rate, momentum)
