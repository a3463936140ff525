"""Statistics against closed forms, direct sums and many simulated series; z at p = 1e-3."""

import numpy as np
import pytest
from scipy import signal

from antisgd import statistics

Z = 3.29  # two-sided p = 1e-3


def ar1(rng, phi, num_steps, k):
    """Stationary x_t = φ x_{t−1} + ε of variance 1: autocovariance φ^h."""
    innovations = rng.normal(size=(num_steps, k)) * np.sqrt(1 - phi**2)
    innovations[0] /= np.sqrt(1 - phi**2)
    return signal.lfilter([1.0], [1.0, -phi], innovations, axis=0)


def assert_mean(samples, expected):
    """The mean over the last axis agrees with the expectation within Z standard errors."""
    error = samples.std(axis=-1, ddof=1) / np.sqrt(samples.shape[-1])
    assert np.all(np.abs(samples.mean(axis=-1) - expected) < Z * error)


# --- autocovariance and autocorrelation ----------------------------------------------------


@pytest.mark.parametrize("remove_mean", [False, True])
def test_autocovariance_is_the_direct_sum(remove_mean):
    x = np.random.default_rng(0).normal(size=(57, 70)) + 0.5
    measured = statistics.autocovariance(x, 56, remove_mean=remove_mean)
    centred = x - x.mean(axis=0) * remove_mean
    direct = [np.sum(centred[: 57 - h] * centred[h:], axis=0) / (57 - h) for h in range(57)]
    # An FFT of size n errs by a few eps·log n of the largest sum, divided by as little as 1.
    np.testing.assert_allclose(measured, direct, atol=20 * np.finfo(float).eps * 57 * 1.5)


def test_a_cosine_has_a_cosine_for_its_autocovariance():
    steps = np.arange(4000)
    x = np.cos(2 * np.pi * steps / 40)[:, None]
    measured = statistics.autocovariance(x, 80)[:, 0]
    # What is left of cos(2ωk + ωh) after T − h terms of a sum bounded by 1/(2 sin ω).
    bound = 1 / (2 * np.sin(2 * np.pi / 40)) / (4000 - 80)
    np.testing.assert_allclose(measured, np.cos(2 * np.pi * np.arange(81) / 40) / 2, atol=bound)


def test_ar1_autocovariance_is_unbiased():
    x = ar1(np.random.default_rng(1), 0.8, 300, 4000)
    for lag in (0, 1, 5, 20):
        assert_mean(statistics.autocovariance(x, 20)[lag], 0.8**lag)


def test_removing_the_sample_mean_biases_white_noise_by_one_over_the_steps():
    x = np.random.default_rng(2).normal(size=(50, 20_000))
    assert_mean(statistics.autocovariance(x, 5, remove_mean=True)[5], -1 / 50)


def test_autocorrelation_starts_at_one_and_forgets_the_scale():
    x = ar1(np.random.default_rng(3), 0.5, 100, 3)
    r = statistics.autocorrelation(x, 10)
    np.testing.assert_allclose(r[0], 1, rtol=1e-15)
    np.testing.assert_allclose(statistics.autocorrelation(1e-20 * x, 10), r, rtol=1e-12)


def test_a_lag_beyond_the_series_and_a_constant_zero_are_refused():
    with pytest.raises(ValueError, match="max_lag=5 must lie below the 5 recorded steps"):
        statistics.autocovariance(np.ones((5, 1)), 5)
    with pytest.raises(ValueError, match="without any variation"):
        statistics.autocorrelation(np.zeros((5, 1)), 2)


def test_band_of_independent_noise_is_the_spread_of_the_mean_autocorrelation():
    rng = np.random.default_rng(4)
    repeats = [statistics.mean_autocorrelation(rng.normal(size=(200, 8)), 50) for _ in range(1500)]
    mean, error = np.array(repeats).transpose(1, 2, 0)
    band = statistics.independent_noise_band(200, 8, 50)
    assert band[0] == 0
    spread = mean[[1, 10, 50]].std(axis=1)
    # The variance of a standard deviation of n values is 1/(2n); 2/T for the ratio c(h)/c(0).
    assert np.all(np.abs(spread / band[[1, 10, 50]] - 1) < Z / np.sqrt(2 * 1500) + 2 / 200)
    rms_error = np.sqrt(np.mean(error[[1, 10, 50]] ** 2, axis=1))
    assert np.all(np.abs(rms_error / band[[1, 10, 50]] - 1) < Z / np.sqrt(2 * 1500 * 7) + 2 / 200)


def test_effective_directions_explain_the_spread_where_directions_are_correlated():
    rng = np.random.default_rng(5)
    mixing = rng.normal(size=(3, 12))
    covariance = mixing.T @ mixing
    rho = covariance / np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    expected = 12**2 / np.sum(rho**2)
    series = [rng.normal(size=(300, 3)) @ mixing for _ in range(1500)]
    effective = np.array([statistics.effective_directions(x) for x in series])
    assert abs(effective.mean() / expected - 1) < 0.01
    mean = np.array([statistics.mean_autocorrelation(x, 20)[0][20] for x in series])
    band = statistics.independent_noise_band(300, expected, 20)[20]
    assert abs(mean.std() / band - 1) < Z / np.sqrt(2 * 1500) + 2 / 300


def test_independent_directions_are_worth_themselves_even_in_a_short_series():
    rng = np.random.default_rng(6)
    effective = np.array(
        [statistics.effective_directions(rng.normal(size=(40, 60))) for _ in range(50)]
    )
    # Without the correction this would be 60/(1 + 60/40) = 24.
    assert np.all(effective <= 60)
    assert effective.mean() > 0.96 * 60
    assert statistics.effective_directions(np.ones((7, 1)) @ np.ones((1, 5))) == pytest.approx(1)


# --- drift ---------------------------------------------------------------------------------


@pytest.fixture
def walk():
    velocities = np.random.default_rng(7).normal(size=(50, 3)) + 0.3
    return np.concatenate([np.zeros((1, 3)), np.cumsum(velocities, axis=0)]), velocities


def test_mean_velocity_brings_the_last_point_back_to_the_first(walk):
    weights, velocities = statistics.remove_drift(*walk, "mean_velocity")
    np.testing.assert_allclose(weights[-1], weights[0], atol=1e-13)
    np.testing.assert_allclose(velocities.sum(axis=0), 0, atol=1e-13)


def test_line_leaves_no_covariance_with_time_and_the_least_variance(walk):
    time = np.arange(51.0) - 25
    line = statistics.remove_drift(*walk, "line")
    np.testing.assert_allclose(time @ line[0], 0, atol=1e-11)
    of = {mode: statistics.variances(*statistics.remove_drift(*walk, mode)).weight
          for mode in ("none", "mean_velocity", "line")}  # fmt: skip
    assert np.all(of["line"] < np.minimum(of["none"], of["mean_velocity"]))


@pytest.mark.parametrize("mode", ["none", "mean_velocity", "line"])
def test_every_removal_leaves_velocities_the_increments_of_the_weights(walk, mode):
    weights, velocities = statistics.remove_drift(*walk, mode)
    np.testing.assert_allclose(np.diff(weights, axis=0), velocities, atol=1e-13)


@pytest.mark.parametrize("mode", ["mean_velocity", "line"])
def test_adding_a_drift_changes_nothing_once_it_is_removed(walk, mode):
    weights, velocities = walk
    slope = np.array([1.0, -20.0, 0.0])
    drifting = weights + np.arange(51.0)[:, None] * slope, velocities + slope
    expected = statistics.variances(*statistics.remove_drift(weights, velocities, mode))
    measured = statistics.variances(*statistics.remove_drift(*drifting, mode))
    np.testing.assert_allclose(measured, expected, rtol=1e-10)


def test_drift_share_is_one_for_a_line_and_small_for_noise():
    time = np.arange(1001.0)[:, None]
    np.testing.assert_allclose(statistics.drift_share(3 * time), 1, rtol=3e-3)
    noise = np.random.default_rng(8).normal(size=(1001, 20_000))
    # (θ_T − θ_0)²/12 of independent points has the expectation 2σ²/12.
    assert_mean(statistics.drift_share(noise)[None], 1 / 6)


def test_unknown_removals_and_mismatched_lengths_are_refused(walk):
    with pytest.raises(ValueError, match="none, mean_velocity, line, got 'quadratic'"):
        statistics.remove_drift(*walk, "quadratic")
    with pytest.raises(ValueError, match="50 velocities need 51 weights, not 50"):
        statistics.remove_drift(walk[0][1:], walk[1], "line")


# --- variances and their errors ------------------------------------------------------------


def test_variances_and_correlation_time_of_ar1():
    # v = θ_k − θ_{k−1} has variance 2(1 − φ), so τ = 2·1/(2(1 − φ)) = 1/(1 − φ).
    x = ar1(np.random.default_rng(9), 0.9, 4001, 2000)
    measured = statistics.variances(x, np.diff(x, axis=0))
    # The sample mean takes (1 + φ)/(1 − φ)/T of the variance of the weights.
    assert_mean(measured.weight, 1 - 19 / 4001)
    assert_mean(measured.velocity, 0.2)
    np.testing.assert_allclose(
        measured.correlation_time, 2 * measured.weight / measured.velocity, rtol=1e-15
    )
    assert abs(np.median(measured.correlation_time) / 10 - 1) < 0.02


def test_variances_hold_float64_where_the_records_are_float32():
    x = 1e4 + np.random.default_rng(10).normal(size=(1001, 1))
    expected = np.var(x.astype(np.float32).astype(np.float64))
    measured = statistics.variances(x.astype(np.float32), np.diff(x, axis=0))
    np.testing.assert_allclose(measured.weight, expected, rtol=1e-9)


@pytest.mark.parametrize("phi", [0.0, 0.9])
def test_block_errors_are_the_spread_over_repetitions(phi):
    x = ar1(np.random.default_rng(11), phi, 8001, 1000)
    velocities = np.diff(x, axis=0)
    measured = statistics.variances(x, velocities)
    errors = statistics.block_errors(x, velocities, 20)
    for name in ("weight", "velocity", "correlation_time"):
        spread = getattr(measured, name).std()
        rms = np.sqrt(np.mean(getattr(errors, name) ** 2))
        # The spread is known to 1/√(2·1000), the pooled error to 1/√(2·19·1000); blocks of 400
        # steps miss correlations over 10 steps by about 10/400.
        assert abs(rms / spread - 1) < Z / np.sqrt(2 * 1000) + 0.025


def test_block_errors_are_the_jackknife_written_out():
    rng = np.random.default_rng(12)
    weights, velocities = rng.normal(size=(13, 2)), rng.normal(size=(12, 2))
    replicates = []
    for left_out in range(4):
        keep = np.arange(12) // 3 != left_out
        weight, velocity = (np.var(x[:12][keep], axis=0) for x in (weights, velocities))
        replicates.append([weight, velocity, 2 * weight / velocity])
    expected = np.sqrt(3 / 4 * 4) * np.std(np.array(replicates), axis=0)
    np.testing.assert_allclose(statistics.block_errors(weights, velocities, 4), expected, rtol=1e-9)
    with pytest.raises(ValueError, match="num_blocks=1 must be 2 to 12"):
        statistics.block_errors(weights, velocities, 1)


# --- power laws ----------------------------------------------------------------------------


def test_a_power_law_is_recovered_exactly():
    x = np.geomspace(1e-3, 10, 20)
    fit = statistics.fit_power_law(x, 3 * x**-1.5)
    assert fit.exponent == pytest.approx(-1.5, rel=1e-12)
    assert fit.prefactor == pytest.approx(3, rel=1e-12)
    assert fit.num_points == 20
    assert fit.exponent_error < 1e-12 and fit.robust_error < 1e-12


def fits(rng, scatter, errors_known, repeats=800):
    x = np.geomspace(1e-2, 1, 40)
    sigma = scatter(x)
    y = [x * np.exp(sigma * rng.normal(size=40)) for _ in range(repeats)]
    return [statistics.fit_power_law(x, z, z * sigma if errors_known else None) for z in y]


@pytest.mark.parametrize("errors_known", [False, True])
def test_exponent_errors_are_calibrated(errors_known):
    def scatter(x):
        return 0.1 * x**0.5 if errors_known else np.full_like(x, 0.1)

    found = fits(np.random.default_rng(13), scatter, errors_known)
    exponents = np.array([fit.exponent for fit in found])
    assert_mean(exponents[None], 1)
    for error in ("exponent_error", "robust_error"):
        z = (exponents - 1) / np.array([getattr(fit, error) for fit in found])
        # Student's t with 38 degrees of freedom has variance 38/36; HC3 is up to 10 % cautious.
        assert abs(z.std() - 1.0) < Z / np.sqrt(2 * 800) + 0.1


def test_only_the_robust_error_survives_unequal_scatter():
    found = fits(np.random.default_rng(14), lambda x: 0.3 * np.abs(np.log10(x * 10)) ** 2, False)
    spread = np.std([fit.exponent for fit in found])
    ordinary = np.mean([fit.exponent_error for fit in found])
    robust = np.mean([fit.robust_error for fit in found])
    assert ordinary < 0.8 * spread
    assert abs(robust / spread - 1) < Z / np.sqrt(2 * 800) + 0.1


def test_known_errors_make_the_fit_follow_the_certain_points():
    x = np.array([1.0, 2.0, 4.0, 8.0])
    y = x * np.array([1, 1, 1, 100])
    fit = statistics.fit_power_law(x, y, np.array([1e-6, 1e-6, 1e-6, 1e6]) * y)
    assert fit.exponent == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("x, y", [([1, 2], [1, 2]), ([1, 2, 3], [1, 0, 2]), ([2, 2, 2], [1, 2, 3])])
def test_points_without_a_power_law_are_refused(x, y):
    with pytest.raises(ValueError, match="three or more positive points"):
        statistics.fit_power_law(np.array(x), np.array(y))


# --- curvature and alignment ---------------------------------------------------------------


def test_restoring_slope_is_the_slope_wherever_the_minimum_lies():
    rng = np.random.default_rng(15)
    weights, curvature = rng.normal(size=(21, 4)), np.array([0.1, 1.0, -2.0, 0.0])
    measured = statistics.restoring_slope(weights, curvature * weights + rng.normal(size=4))
    np.testing.assert_allclose(measured, curvature, atol=1e-14)


def test_cosine_similarity_of_a_matrix_with_itself_its_negative_and_its_complement():
    A = np.diag([1.0, 2.0, 0.0])
    assert statistics.cosine_similarity(A, 5 * A) == pytest.approx(1)
    assert statistics.cosine_similarity(A, -A) == pytest.approx(-1)
    assert statistics.cosine_similarity(A, np.diag([0, 0, 1.0])) == 0


def test_random_cosine_similarity_is_the_mean_over_rotations():
    rng = np.random.default_rng(16)
    first, second = np.array([3.0, 1.0, 0.5]), np.array([2.0, 1.0])
    cosines = []
    for _ in range(2000):
        rotation, _ = np.linalg.qr(rng.normal(size=(12, 12)))
        A = np.diag(np.append(first, np.zeros(9)))
        B = rotation[:, :2] * second @ rotation[:, :2].T
        cosines.append(statistics.cosine_similarity(A, B))
    expected = statistics.random_cosine_similarity(first, second, 12)
    assert_mean(np.array(cosines)[None], expected)


def test_alignment_of_commuting_and_of_rotated_matrices():
    eigenvalues = np.array([3.0, 2.0, 1.0])
    aligned = statistics.alignment(np.diag(2 * eigenvalues), eigenvalues)
    np.testing.assert_allclose(aligned.own_variances, aligned.hessian_variances)
    assert aligned.cosine == pytest.approx(1)
    assert aligned.commutator == 0
    rotation, _ = np.linalg.qr(np.random.default_rng(17).normal(size=(3, 3)))
    C, H = rotation * eigenvalues @ rotation.T, np.diag(eigenvalues)
    rotated = statistics.alignment(C, eigenvalues)
    np.testing.assert_allclose(rotated.own_variances, eigenvalues)
    np.testing.assert_allclose(rotated.hessian_variances, np.diag(C))
    expected = np.linalg.norm(C @ H - H @ C) / (np.linalg.norm(C) * np.linalg.norm(H))
    assert rotated.commutator == pytest.approx(expected)
    assert rotated.cosine == pytest.approx(np.trace(C @ H) / np.linalg.norm(H) ** 2)
