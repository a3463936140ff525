"""Relaxing minima and learning-rate schedules against dense responses and explicit loops."""

import numpy as np
import pytest

from antisgd import relaxation, theory

BETA, M, T = 0.7, 6, 40
LAMBDA = np.array([0.01, 0.4, 4.0])
RATES = np.concatenate([np.full(13, 0.2), np.geomspace(0.2, 0.02, T - 13)])
EPS = np.finfo(np.float64).eps
LAWS = {"white": (theory.with_replacement(), 1), "reshuffled": (theory.without_replacement(M), M)}


def responses(lam, rates):
    """θ_k of a unit pulse of noise at step j, [T + 1, T], by the loop of Eq. 1."""
    found = np.zeros((len(rates) + 1, len(rates)))
    for j in range(len(rates)):
        theta, v = 0.0, 0.0
        for k, eta in enumerate(rates):
            v = BETA * v - eta * (lam * theta + (k == j))
            theta += v
            found[k + 1, j] = theta
    return found


def noise_covariance(period, steps):
    epoch = np.arange(steps) // period
    same = (epoch[:, None] == epoch) & (period > 1)
    return np.where(np.eye(steps) > 0, 1.0, np.where(same, -1 / max(period - 1, 1), 0.0))


def settled(lam, eta, period):
    """Covariance of (θ, v) after 600 epochs of constant η, by powers of the step matrix."""
    steps = 3000 // period * period
    A = np.array([[1 - eta * lam, BETA], [-eta * lam, BETA]])
    columns = [np.array([-eta, -eta])]
    for _ in range(steps - 1):
        columns.append(A @ columns[-1])
    S = np.array(columns[::-1]).T
    return S @ noise_covariance(period, steps) @ S.T


@pytest.mark.parametrize("name", sorted(LAWS))
def test_a_decay_against_dense_responses(name):
    law, period = LAWS[name]
    lam = LAMBDA[1:]
    found = theory.decay_variances(lam, RATES, BETA, law)
    for i, x in enumerate(lam):
        P = settled(x, RATES[0], period)
        response = responses(x, RATES)
        weight = np.diag(response @ noise_covariance(period, T) @ response.T).copy()
        step = np.eye(2)
        for k, eta in enumerate(RATES):
            step = np.array([[1 - eta * x, BETA], [-eta * x, BETA]]) @ step
            weight[k + 1] += (step @ P @ step.T)[0, 0]
        weight[0] = P[0, 0]
        np.testing.assert_allclose(found.weight[:, i], weight, rtol=3000 * EPS)
        np.testing.assert_allclose(found.velocity[0, i], P[1, 1], rtol=3000 * EPS)


def test_a_constant_rate_stays_stationary():
    a = 0.2 * LAMBDA
    found = theory.decay_variances(LAMBDA, np.full(3 * M, 0.2), BETA, LAWS["reshuffled"][0])
    exact = theory.phase_variances(LAMBDA, 0.2, BETA, LAWS["reshuffled"][0])
    np.testing.assert_allclose(found.weight[1 : M + 1], exact.weight, rtol=1e-9 / a.min())
    np.testing.assert_allclose(found.weight[2 * M + 1 :], exact.weight, rtol=1e-9 / a.min())
    np.testing.assert_allclose(found.velocity[1 : M + 1], exact.velocity, rtol=1e-9 / a.min())


def test_flat_directions_lag_behind_a_decay():
    """White noise: the steep direction follows η, the flat one keeps the variance it had."""
    rates = np.append(np.full(10, 0.2), np.full(60, 0.02))
    law = theory.with_replacement()
    found = theory.decay_variances(np.array([1e-5, 4.0]), rates, BETA, law)
    before = theory.stationary_variances(np.array([1e-5]), 0.2, BETA, law).weight[0]
    after = theory.stationary_variances(np.array([4.0]), 0.02, BETA, law).weight[0]
    assert abs(found.weight[-1, 0] / before - 1) < 1e-3
    assert abs(found.weight[-1, 1] / after - 1) < 1e-3


@pytest.mark.parametrize("name", sorted(LAWS))
def test_windows_from_rest_against_dense_forms(name):
    """A saddle direction included: from rest its variance is finite."""
    law, period = LAWS[name]
    lam = np.append(LAMBDA, -0.3)
    found = theory.relaxed_window_variances(lam, RATES, BETA, law)
    C = noise_covariance(period, T)
    for i, x in enumerate(lam):
        response = responses(x, RATES)
        centred = response - response.mean(axis=0)
        velocity = np.diff(response, axis=0)
        velocity = velocity - velocity.mean(axis=0)
        weight = np.trace(centred @ C @ centred.T) / (T + 1)
        np.testing.assert_allclose(found.weight[i], weight, rtol=1000 * EPS)
        exact = np.trace(velocity @ C @ velocity.T) / T
        np.testing.assert_allclose(found.velocity[i], exact, rtol=1000 * EPS)


def test_ragged_epochs_from_rest_against_dense_forms():
    """Each epoch leaves out two of 14 examples: it does not sum to zero, and is forgotten."""
    block = np.diag(np.full(3, 1 / 4)) - 1 / 14
    C = np.kron(np.eye(T // 3 + 1), block / block[0, 0])[:T, :T]
    found = theory.relaxed_window_variances(LAMBDA, RATES, BETA, theory.drop_last(14, 4))
    for i, x in enumerate(LAMBDA):
        response = responses(x, RATES)
        centred = response - response.mean(axis=0)
        weight = np.trace(centred @ C @ centred.T) / (T + 1)
        np.testing.assert_allclose(found.weight[i], weight, rtol=1000 * EPS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rates": np.zeros(0)}, "one learning rate"),
        ({"momentum": 1.0}, "beta"),
        ({"eigenvalues": np.array([-1.0])}, "every step"),
        ({"learning_rates": np.array([0.1, 9.0])}, "every step"),
        ({"noise": theory.flip_flop(3)}, "independent"),
    ],
)
def test_schedules_out_of_range_are_refused(change, message):
    arguments = {
        "eigenvalues": LAMBDA, "learning_rates": RATES, "momentum": BETA,
        "noise": theory.with_replacement(),
    } | change  # fmt: skip
    with pytest.raises(ValueError, match=message):
        theory.decay_variances(**arguments)


# --- the path -------------------------------------------------------------------------------

START, PUSH = np.array([0.3, -0.2, 0.1]), np.array([0.5, 1.0, -2.0])


def test_the_path_without_noise_is_eq_1():
    """For constant η by powers of the matrix of (x − x*, v), x* = −∂L/λ."""
    x, v = relaxation.relaxation_path(LAMBDA, PUSH, START, np.full(T, 0.2), BETA)
    for i, lam in enumerate(LAMBDA):
        A = np.array([[1 - 0.2 * lam, BETA], [-0.2 * lam, BETA]])
        state = np.linalg.matrix_power(A, T) @ np.array([PUSH[i] / lam, START[i]])
        np.testing.assert_allclose(x[-1, i], state[0] - PUSH[i] / lam, rtol=1e-11)
        np.testing.assert_allclose(v[-1, i], state[1], rtol=1e-9, atol=1e-13)


def noisy_windows(rng, replicas, curvature=0.0):
    """Windows of Eq. 1 from (θ_K, v_K) on the quadratic plus a slope that grows with time."""
    noise = rng.standard_normal((T // M + 1, M, replicas, 3))
    noise = (noise - noise.mean(axis=1, keepdims=True)) * np.sqrt(M / (M - 1))
    x, v = np.zeros((replicas, 3)), np.tile(START, (replicas, 1))
    weights, velocities = [x], []
    for k, eta in enumerate(RATES):
        v = BETA * v - eta * (LAMBDA * x + PUSH + noise.reshape(-1, replicas, 3)[k])
        x = x + v
        weights.append(x), velocities.append(v)
    return np.array(weights), np.array(velocities)


def test_what_is_left_has_the_variance_of_windows_from_rest():
    """1,000 replicas relaxing from far away, under a decaying η; z = 3.29."""
    weights, velocities = noisy_windows(np.random.default_rng(0), 1000)
    expected = theory.relaxed_window_variances(LAMBDA, RATES, BETA, LAWS["reshuffled"][0])
    for i in range(3):
        one = [np.full(1000, x[i]) for x in (LAMBDA, PUSH, START)]
        left, moving = relaxation.remove_relaxation(
            weights[..., i], velocities[..., i], *one, RATES, BETA
        )
        for series, value in ((left, expected.weight[i]), (moving, expected.velocity[i])):
            found = series.var(axis=0)
            assert abs(found.mean() - value) < 3.29 * found.std() / np.sqrt(1000)
        assert weights[..., i].var(axis=0).mean() > 1.1 * expected.weight[i]


def test_lengths_that_differ_are_refused():
    with pytest.raises(ValueError, match="one length"):
        relaxation.relaxation_path(LAMBDA, PUSH[:2], START, RATES, BETA)
    with pytest.raises(ValueError, match="learning rates need"):
        relaxation.remove_relaxation(
            np.zeros((T, 3)), np.zeros((T, 3)), LAMBDA, PUSH, START, RATES, BETA
        )
    with pytest.raises(ValueError, match="cannot make"):
        relaxation.bend(np.zeros((9, 1)), 1, np.ones(1))


# --- T⁴ against M ---------------------------------------------------------------------------


def test_a_parabola_in_time_is_all_bend():
    """b²T⁴/720 up to the discreteness of time, 1/T²."""
    time = np.arange(401.0)[:, None]
    found = relaxation.bend(0.5 * 1e-3 * time**2, 4, np.ones(1))
    np.testing.assert_allclose(found.bend, 1e-6 * 400**4 / 720, rtol=10 / 400)
    np.testing.assert_allclose(found.share, 1, atol=10 / 100)


@pytest.mark.parametrize("size", [0.0, 4.0])
def test_a_bend_is_told_from_fluctuations(size):
    """AR(1) noise in 400 directions, τ = 20 in windows of 2,000: unbiased, z within its error."""
    rng, k, steps, phi = np.random.default_rng(1), 400, 2000, 0.9
    x = np.zeros((steps + 1, k))
    for i in range(steps):
        x[i + 1] = phi * x[i] + rng.standard_normal(k) * np.sqrt(1 - phi**2)
    time = np.linspace(0, 1, steps + 1)[:, None]
    b = np.sqrt(720 * size)
    moved = x + b * time**2 / 2
    # AR(1) is gradient descent with white noise at ηλ = 1 − φ.
    lengths = [
        theory.window_variances(
            np.array([1 - phi]), 1.0, 0.0, theory.with_replacement(), n, drift="line", aligned=False
        ).weight[0]
        for n in (steps, steps // 4)
    ]
    growth = np.full(k, lengths[0] / lengths[1])
    found, raw = relaxation.bend(moved, 4, growth), relaxation.bend(x, 4, growth)
    # A bend of size B adds twice its product with the fluctuation to the scatter.
    error = found.bend.std() / np.sqrt(k)
    assert abs(found.bend.mean() - size) < 3.29 * error + size / steps * 10
    # Six modes that share the difference unequally.
    stated = np.sqrt(np.mean((raw.error * (raw.fluctuation + raw.bend)) ** 2))
    assert 0.8 < raw.bend.std() / stated < 1.4
