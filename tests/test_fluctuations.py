"""The fluctuation relation: exact in every window, split by matrices, blind to curvature."""

import numpy as np
import pytest

from antisgd import fluctuations, theory

ETA, BETA, M = 0.1, 0.8, 10
EPS = np.finfo(np.float64).eps


def loop(force, noise, drift=0.0):
    """Weights [T + 1], velocities and gradients [T] of Eq. 1, written out; [.., k] each."""
    theta, v = np.zeros(noise.shape[1]), np.zeros(noise.shape[1])
    weights, velocities, gradients = [theta], [], []
    for k, n in enumerate(noise):
        g = force(theta - drift * k) + n
        v = BETA * v - ETA * g
        theta = theta + v
        weights.append(theta), velocities.append(v), gradients.append(g)
    return np.array(weights), np.array(velocities), np.array(gradients)


def reshuffled(rng, steps, k):
    noise = rng.standard_normal((steps // M, M, k))
    noise = noise - noise.mean(axis=1, keepdims=True)
    return (noise * np.sqrt(M / (M - 1))).reshape(steps, k)


FORCES = {"quadratic": lambda x: 0.5 * x, "pure quartic": lambda x: 2 * x * x * x}


def window(name, seed=0, steps=6000, k=60, white=False, drift=0.0):
    """The last 4,000 steps of a run."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((steps, k)) if white else reshuffled(rng, steps, k)
    weights, velocities, gradients = loop(FORCES[name], noise, drift)
    return weights[-4001:], velocities[-4000:], gradients[-4000:]


@pytest.mark.parametrize("blocks", [1, 7])
def test_the_ends_of_a_window_are_all_that_is_left(blocks):
    """Eq. 1 makes the relation an identity: closure at rounding, whatever the loss."""
    weights, velocities, gradients = loop(
        FORCES["pure quartic"], np.random.default_rng(0).standard_normal((301, 5)) + 0.3
    )
    found = fluctuations.fluctuation_balance(
        weights, velocities, gradients, ETA, BETA, num_blocks=blocks
    )
    assert found.work.shape == (blocks, 5)
    assert np.all(found.closure < 300 * EPS * np.abs(weights).max() ** 2 / found.motion)
    assert np.all(np.abs(found.residual) > 1e-6)


def test_closure_shows_a_wrong_learning_rate():
    weights, velocities, gradients = window("quadratic")
    found = fluctuations.fluctuation_balance(weights, velocities, gradients, 1.01 * ETA, BETA)
    np.testing.assert_allclose(found.closure, 0.01, rtol=0.2)


@pytest.mark.parametrize("white", [True, False], ids=["white", "reshuffled"])
@pytest.mark.parametrize("name", sorted(FORCES))
def test_stationary_windows_pass_whatever_their_curvature(name, white):
    """Residuals have mean 0 and at most their stated error, 60 directions."""
    found = fluctuations.fluctuation_balance(
        *window(name, white=white), ETA, BETA, num_blocks=2, steps_per_epoch=M
    )
    scores = found.residual / found.error
    assert np.all(np.abs(scores.mean(axis=1)) < 3.29 / np.sqrt(60))
    # The relative error of a standard deviation of 60 values of kurtosis 6, that of a Laplacian.
    assert np.all(np.abs(scores.std(axis=1) - 1) < 3.29 * np.sqrt(5 / 60 / 4))


def test_ends_at_different_positions_of_the_epoch_do_not_balance():
    """Half an epoch apart F differs in expectation: 400 directions see it at z > 3.29."""
    T = 205 * M + M // 2 + 1
    weights, velocities, gradients = window("quadratic", k=400)
    scores = []
    for steps_per_epoch in (1, M):
        found = fluctuations.fluctuation_balance(
            weights[: T + 1], velocities[:T], gradients[:T], ETA, BETA,
            steps_per_epoch=steps_per_epoch,
        )  # fmt: skip
        scores.append(found.residual.mean() / found.residual.std() * np.sqrt(400))
    assert abs(scores[0]) > 3.29 > abs(scores[1])


def test_a_moving_minimum_fails_in_its_halves_and_not_in_the_whole():
    """Along a straight line θ² about the middle falls and rises: blocks see what ends hide."""
    recorded = window("quadratic", drift=2e-3)
    halves = fluctuations.fluctuation_balance(*recorded, ETA, BETA, num_blocks=2)
    whole = fluctuations.fluctuation_balance(*recorded, ETA, BETA)
    scores = (halves.residual / halves.error).mean(axis=1)
    assert scores[0] > 1 and scores[1] < -1
    assert abs((whole.residual / whole.error).mean()) < 0.3


@pytest.mark.parametrize(
    ("shapes", "blocks"), [(((5, 1), (5, 1), (5, 1)), 1), (((6, 1), (5, 1), (5, 1)), 3)]
)
def test_windows_without_shape_or_length_are_refused(shapes, blocks):
    with pytest.raises(ValueError, match="needed|too few"):
        fluctuations.fluctuation_balance(*map(np.ones, shapes), ETA, BETA, num_blocks=blocks)


# --- theory ---------------------------------------------------------------------------------

LAWS = {
    "white": theory.with_replacement(),
    "reshuffled": theory.without_replacement(M),
    "flip-flop": theory.flip_flop(M),
    "spanning": theory.spanning_batches(23, 4),
    "anti-PGD": theory.anti_pgd(),
}


@pytest.mark.parametrize("name", sorted(LAWS))
def test_the_split_is_the_response_summed_against_the_noise(name):
    """η E θ_{k−1}n_k = η Σ_h (A^{h−1}b)_θ r(h), by powers of the matrix."""
    lam = np.array([1e-4, 0.3, 5.0])
    found = theory.fluctuation_split(lam, ETA, BETA, LAWS[name])
    for i, x in enumerate(lam):
        A = np.array([[1 - ETA * x, BETA], [-ETA * x, BETA]])
        state, total = np.array([-ETA, -ETA]), 0.0
        for r in theory.autocorrelation(LAWS[name], np.arange(1, 3 * M)):
            total, state = total + ETA * r * state[0], A @ state
        np.testing.assert_allclose(found.noise[i], total, atol=40 * EPS * found.total[i])
    np.testing.assert_allclose(found.total, found.curvature + found.noise, rtol=1e-14)


def test_the_measured_split_is_the_expected_one():
    """ηλ⟨θ²⟩ and η⟨θ_{k−1}n_k⟩ of 400 replicas, z = 3.29."""
    lam, law = 0.5, LAWS["reshuffled"]
    weights, velocities, gradients = window("quadratic", k=400)
    before = weights[:-1]
    curvature = ETA * lam * (before**2).mean(axis=0)
    noise = ETA * (before * (gradients - lam * before)).mean(axis=0)
    total = (1 + BETA) / 2 * (velocities**2).mean(axis=0)
    expected = theory.fluctuation_split(lam, ETA, BETA, law)
    for measured, value in zip((total, curvature, noise), expected, strict=True):
        error = measured.std(ddof=1) / np.sqrt(400)
        assert abs(measured.mean() - value) < 3.29 * error


def test_a_flat_direction_has_no_split():
    with pytest.raises(ValueError, match="positive"):
        theory.fluctuation_split(np.array([0.0]), ETA, BETA, LAWS["white"])


@pytest.mark.parametrize("name", sorted(LAWS))
def test_velocities_sum_to_equation_3(name):
    """Σ_{h≥1} cov = −σ_v²/2 and Σ h·cov = −σ_θ² where the memory has died, by e⁻³⁰."""
    lam = np.array([0.5, 5.0])
    c = theory.velocity_autocovariance(lam, ETA, BETA, LAWS[name], 1200)
    V = theory.stationary_variances(lam, ETA, BETA, LAWS[name])
    np.testing.assert_allclose(c[0], V.velocity, rtol=1e-11)
    np.testing.assert_allclose(c[1:].sum(axis=0), -V.velocity / 2, rtol=1e-9)
    weighted = np.arange(1201) @ c
    np.testing.assert_allclose(weighted, -V.weight, rtol=1e-8)


def test_velocity_covariances_by_matrices():
    """The lag-one covariance of the state, P and A P + b gᵀ, differenced."""
    lam, law = np.array([0.02, 3.0]), LAWS["reshuffled"]
    system = theory.heavy_ball_system(ETA, BETA)
    P, lagged = theory.stationary_covariance(lam, system, law)
    found = theory.velocity_autocovariance(lam, ETA, BETA, law, 1)
    np.testing.assert_allclose(found[0], P[:, 1, 1], rtol=1e-9)
    np.testing.assert_allclose(found[1], lagged[:, 1, 1], rtol=1e-9)


def test_the_measured_time_is_the_expected_one():
    """τ_L of 60 replicas against the sums over expected covariances, z = 3.29."""
    L, lam = 60, np.array([0.5])
    _, velocities, _ = window("quadratic")
    tau, error = fluctuations.velocity_correlation_time(velocities, L)
    c = theory.velocity_autocovariance(lam, ETA, BETA, LAWS["reshuffled"], L)[1:, 0]
    expected = np.arange(1, L + 1) @ c / c.sum()
    assert abs(tau.mean() - expected) < 3.29 * tau.std(ddof=1) / np.sqrt(60)
    # Ten blocks and 60 directions: relative errors 1/√(2·9·60) and 1/√(2·60) of the two.
    bound = 3.29 * np.sqrt(1 / 1080 + 1 / 120)
    assert abs(np.sqrt(np.mean(error**2)) / tau.std(ddof=1) - 1) < bound


def test_the_measured_sums_are_direct_sums():
    v = np.random.default_rng(0).normal(size=(103, 2)).cumsum(axis=0)
    tau, _ = fluctuations.velocity_correlation_time(v, 5)
    sums = np.zeros((5, 2))
    for part, h in np.ndindex(10, 5):
        rows = np.arange(10 * part, 10 * part + 10)
        rows = rows[rows + h + 1 < 103]
        sums[h] += (v[rows] * v[rows + h + 1]).mean(axis=0)
    np.testing.assert_allclose(tau, np.arange(1, 6) @ sums / sums.sum(axis=0), rtol=1e-12)
    with pytest.raises(ValueError, match="too few"):
        fluctuations.velocity_correlation_time(v, 6)
