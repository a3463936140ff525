"""Variances by position within the epoch: dense covariances, Eq. 6 as their mean, simulation."""

import numpy as np
import pytest

from antisgd import theory
from antisgd.theory.phase import phase_variances


def dense_by_phase(a, beta, M, epochs):
    """Weight and velocity variance after each step of the last of many epochs, by matrices."""
    n = M * epochs
    epoch = np.arange(n) // M
    same = epoch[:, None] == epoch
    covariance = np.where(np.eye(n) > 0, 1.0, np.where(same, -1 / (M - 1), 0.0))
    impulse, theta, v = np.zeros((2, n)), 0.0, 0.0
    for k in range(n):
        v = beta * v - a * theta - (k == 0)
        theta += v
        impulse[:, k] = theta, v
    found = np.zeros((2, M))
    for which, m in np.ndindex(2, M):
        end = n - M + m + 1
        row = np.concatenate([impulse[which, :end][::-1], np.zeros(n - end)])
        found[which, m] = row @ covariance @ row
    return found


@pytest.mark.parametrize(("a", "beta"), [(0.1, 0.0), (0.05, 0.7), (0.5, 0.6), (2.9, 0.6)])
@pytest.mark.parametrize("M", [2, 5, 8])
def test_every_position_against_dense_covariances(a, beta, M):
    found = phase_variances(a, 1.0, beta, theory.without_replacement(M))
    weight, velocity = dense_by_phase(a, beta, M, 1200 // M)
    # Sums of n² products round at n·eps, and what came before 1200 steps has decayed below that.
    np.testing.assert_allclose(found.weight, weight, rtol=1200 * 2.3e-16 * 10)
    np.testing.assert_allclose(found.velocity, velocity, rtol=1200 * 2.3e-16 * 10)


@pytest.mark.parametrize("beta", [0.0, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("M", [2, 10, 300])
def test_the_mean_over_positions_is_equation_6(beta, M):
    """From the flat limit (z = 1e-9 and below) to the stability edge."""
    flat = np.array([1e-12, 1e-9, 1e-6, 1e-4, 1e-2, 0.5])
    a = np.append(flat, 2 * (1 + beta) - np.array([0.5, 0.1]))
    law = theory.without_replacement(M)
    by_position = phase_variances(a, 1.0, beta, law)
    mean = theory.stationary_variances(a, 1.0, beta, law)
    # The equation over one epoch is conditioned like (1 + 4/B)/(1−β).
    bound = 50 * 2.3e-16 * (1 + 4 / (2 * (1 + beta) - a)) / (1 - beta) + M * 2.3e-16
    for positions, average in zip(by_position, mean, strict=True):
        assert np.all(np.abs(positions.mean(0) / average - 1) < bound)


def test_once_an_epoch_flat_directions_look_still_and_in_its_middle_loud():
    """V(end)/V(mean) = z/4 and max V/V(mean) = 3/2 for z → 0 and β = 0, to order z and 1/M."""
    M, a = 1000, 1e-6
    weight = phase_variances(a, 1.0, 0.0, theory.without_replacement(M)).weight
    np.testing.assert_allclose(weight[-1] / weight.mean(), M * a / 4, rtol=2 * M * a + 2 / M)
    np.testing.assert_allclose(weight.max() / weight.mean(), 1.5, rtol=2 * M * a + 2 / M)


def test_the_end_of_an_epoch_follows_the_uniform_form():
    """V_end/V_white ≈ 1 − tanh(z/2)/(z/2), to order 1/(M(1−β)) where that is small."""
    M, beta = 10_000, 0.5
    z = np.array([1.0, 3.0, 30.0])
    a = z * (1 - beta) / M
    end = phase_variances(a, 1.0, beta, theory.without_replacement(M)).weight[-1]
    white = theory.stationary_variances(a, 1.0, beta, theory.with_replacement()).weight
    np.testing.assert_allclose(end / white, 1 - np.tanh(z / 2) / (z / 2), rtol=5 / (M * (1 - beta)))


def test_white_noise_has_no_phase():
    a = np.array([[1e-6, 0.1], [1.0, 3.0]])
    found = phase_variances(a, 0.5, 0.9, theory.with_replacement())
    exact = theory.stationary_variances(a, 0.5, 0.9, theory.with_replacement())
    assert found.weight.shape == (1, 2, 2)
    np.testing.assert_allclose(found.weight[0], exact.weight, rtol=1e-12)
    np.testing.assert_allclose(found.velocity[0], exact.velocity, rtol=1e-12)


def test_sampled_batches_by_position():
    """SGD on a quadratic with really reshuffled batches, 4 standard errors over 4,000 replicas."""
    rng = np.random.default_rng(0)
    N, S, a, beta, replicas, epochs = 12, 2, 0.05, 0.5, 4000, 40
    M = N // S
    gradients = rng.normal(size=N)
    gradients = (gradients - gradients.mean()) / gradients.std(ddof=1)
    theta, v = np.zeros(replicas), np.zeros(replicas)
    for _ in range(epochs):
        order = rng.permuted(np.tile(np.arange(N), (replicas, 1)), axis=1)
        noise = gradients[order].reshape(replicas, M, S).mean(2)
        squares = []
        for m in range(M):
            v = beta * v - a * theta - noise[:, m]
            theta = theta + v
            squares.append(theta**2)
    squares = np.array(squares)
    variance = (1 - 1 / M) / S
    exact = variance * phase_variances(a, 1.0, beta, theory.without_replacement(M)).weight
    error = squares.std(axis=1, ddof=1) / np.sqrt(replicas)
    assert np.all(np.abs(squares.mean(1) - exact) < 4 * error)


@pytest.mark.parametrize("law", [theory.flip_flop(5), theory.shuffle_once(5)])
def test_laws_whose_epochs_are_not_independent_are_refused(law):
    with pytest.raises(ValueError, match="position within the epoch"):
        phase_variances(0.1, 1.0, 0.5, law)


@pytest.mark.parametrize("a", [0.0, -0.1, 3.0])
def test_unstable_directions_are_refused(a):
    with pytest.raises(ValueError, match="eta"):
        phase_variances(a, 1.0, 0.5, theory.without_replacement(5))
