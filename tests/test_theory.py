"""Stationary variances: 120-digit Eq. 49/50, every noise law by dense covariances, the limits."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from antisgd import theory
from antisgd.theory import noise as laws


def equation_49(a, beta, num_steps, digits=130):
    """σ_θ² and σ_v² by the printed matrices (Eq. 49, 50 with η = σ_δg = 1), at many digits.

    The printed form loses up to (M a/(1−β))⁻³, 36 digits at a = 1e-12.
    """
    with mpmath.workdps(digits):
        a, beta, M = mpmath.mpf(float(a)), mpmath.mpf(float(beta)), int(num_steps)
        one = mpmath.eye(2)
        D = mpmath.matrix([[1 + beta - a, -beta], [1, 0]])
        inverse = (one - D) ** -1
        fraction = (D**M + (one - D) * M - one) * inverse * inverse / (M * (M - 1))
        E = D * fraction * mpmath.matrix([[1, 0], [0, 0]])
        scale = (1 - beta) * (2 * (1 + beta) - a)
        F = mpmath.matrix([[(1 + beta) / a, 2 * beta * (a - 1 - beta) / a], [2, 2 * (a - 2)]])
        e_1 = mpmath.matrix([1, 0])
        weight, velocity = F / scale * (e_1 - (E + E.T) * e_1)
        return weight, velocity


def hard_points(count, dtype):
    """Random (a, β, M), most of them near a degeneracy: s = 0 (both), the edge, flat directions."""
    rng = np.random.default_rng(0)
    beta = rng.choice([0, 0.5, 0.9, 0.99, 0.999], count) * rng.uniform(0, 1, count) ** rng.integers(
        0, 2, count
    )
    M = np.exp(rng.uniform(np.log(2), np.log(1e6), count)).astype(int)
    small = np.exp(rng.uniform(np.log(1e-12), 0, count))
    signed = small * rng.choice([-1, 1], count)
    a = np.choose(
        rng.integers(0, 4, count),
        [
            small * 2 * (1 + beta),
            (1 - np.sqrt(beta)) ** 2 * (1 + 0.999 * signed),
            (1 + np.sqrt(beta)) ** 2 * (1 + 0.5 * signed),
            2 * (1 + beta) * (1 - small),
        ],
    )
    a, beta = np.clip(a, 1e-12, None).astype(dtype), beta.astype(dtype)
    inside = a.astype(np.float64) < 2 * (1 + beta.astype(np.float64))
    return a[inside], beta[inside], M[inside].astype(dtype)


@pytest.mark.parametrize(("dtype", "bound"), [(np.float64, 1e-14), (np.float32, 2e-6)])
def test_equation_6_to_the_last_digits_everywhere(dtype, bound):
    """The stated bound is 1e-14 or 2e-6 times the conditioning of the stability edge, 1 + 4/B."""
    a, beta, M = hard_points(2200, dtype)
    assert a.size > 2000
    with jax.enable_x64(dtype == np.float64):
        found = jax.jit(theory.variances.reshuffling_variances)(a, beta, M)
        weight, velocity = (np.asarray(x, np.float64) for x in found)
    assert np.all(np.isfinite(weight))
    for i in range(a.size):
        exact = equation_49(a[i], beta[i], M[i])
        edge = 2 * (1 + np.float64(beta[i])) - np.float64(a[i])
        for value, reference in zip((weight[i], velocity[i]), exact, strict=True):
            error = abs(float((mpmath.mpf(float(value)) - reference) / reference))
            assert error < bound * (1 + 4 / edge), (a[i], beta[i], M[i])


def test_the_flat_limit_is_exact():
    """V_θ = (M+1)/6 and V_v = 1 at β = 0 and λ = 0 (theory of the zero-curvature limit)."""
    for M in (2, 3, 10, 1000, 10**6):
        weight, velocity = theory.stationary_variances(0.0, 1.0, 0.0, theory.without_replacement(M))
        np.testing.assert_allclose(weight, (M + 1) / 6, rtol=4e-15)
        np.testing.assert_allclose(velocity, 1, rtol=4e-15)


def test_steep_and_flat_asymptotes():
    """Eq. 8 above the crossover to 2(1−β)/(Mηλ), Eq. 9 below to 1/(M(1−β)) plus z/4."""
    M, beta, eta = 100_000, 0.9, 1e-3
    law = theory.without_replacement(M)
    cross = theory.crossover_eigenvalue(eta, beta, M)
    steep = theory.correlation_time(1e4 * cross, eta, beta, law)
    np.testing.assert_allclose(steep, (1 + beta) / (eta * 1e4 * cross), rtol=2 / 3e4 * 1.5)
    flat = theory.correlation_time(1e-4 * cross, eta, beta, law)
    tau = theory.max_correlation_time(beta, M)
    np.testing.assert_allclose(flat, tau, rtol=2 / (M * (1 - beta)) + 3e-4 / 4 * 1.5)


def test_equations_8_and_9_are_the_two_ends_of_equation_6():
    """Eq. 8 is exact with replacement; Eq. 9 holds to 1/(M(1−β)) and z/4 below the crossover."""
    M, beta, eta = 100_000, 0.9, 1e-3
    lam = np.geomspace(1e-3, 100, 20)
    white = theory.stationary_variances(lam, eta, beta, theory.with_replacement())
    steep = theory.steep_variances(lam, eta, beta)
    np.testing.assert_allclose(steep.weight, white.weight, rtol=1e-14)
    np.testing.assert_allclose(steep.velocity, white.velocity, rtol=1e-14)
    cross = theory.crossover_eigenvalue(eta, beta, M)
    flat = theory.flat_variances(eta, beta, M)
    exact = theory.stationary_variances(1e-5 * cross, eta, beta, theory.without_replacement(M))
    np.testing.assert_allclose(flat.weight, exact.weight, rtol=3 / (M * (1 - beta)))
    np.testing.assert_allclose(flat.velocity, exact.velocity, rtol=3 / (M * (1 - beta)))
    tau = theory.max_correlation_time(beta, M)
    np.testing.assert_allclose(2 * flat.weight / flat.velocity, tau, rtol=1e-14)
    at_cross = theory.steep_variances(cross, eta, beta)
    np.testing.assert_allclose(2 * at_cross.weight / at_cross.velocity, tau, rtol=1e-14)


def test_the_loss_fluctuation_is_that_of_a_simulated_quadratic():
    """½ Σ λθ² of SGD with white noise on four directions, 4 standard errors over 4,000 replicas."""
    rng = np.random.default_rng(0)
    lam, eta, beta, replicas = np.array([0.05, 0.2, 1.0, 3.0]), 0.3, 0.5, 4000
    scatter = np.array([2.0, 0.5, 1.0, 0.3])
    theta, v = np.zeros((replicas, 4)), np.zeros((replicas, 4))
    for _ in range(600):
        noise = np.sqrt(scatter) * rng.standard_normal((replicas, 4))
        v = beta * v - eta * (lam * theta + noise)
        theta = theta + v
    losses = (lam * theta**2).sum(1) / 2
    variances = theory.steep_variances(lam, eta, beta).weight
    expected = theory.loss_fluctuation(lam, variances, scatter)
    assert abs(losses.mean() - expected) < 4 * losses.std() / np.sqrt(replicas)


def test_the_uniform_form_is_within_one_per_cent():
    eta, beta, M = 5e-3, 0.9, 1000
    cross = theory.crossover_eigenvalue(eta, beta, M)
    lam = np.geomspace(1e-4, 1e3, 200) * cross
    uniform = (1 + beta) / (eta * lam) * theory.crossover_function(3 * lam / cross)
    exact = theory.correlation_time(lam, eta, beta, theory.without_replacement(M))
    assert 0.005 < np.abs(uniform / exact - 1).max() < 0.0094
    at_cross = theory.correlation_time(cross, eta, beta, theory.without_replacement(M))
    assert 0.53 < at_cross / theory.max_correlation_time(beta, M) < 0.55


def dense_variances(covariance, a, beta, phases):
    """Phase-averaged variances from a noise covariance [n, n] over a long stretch of steps."""
    n = len(covariance)
    response = np.zeros(n)
    theta, v = 0.0, 0.0
    for k in range(n):
        v = beta * v - a * theta - (k == 0)
        theta += v
        response[k] = theta
    velocity = np.diff(response, prepend=0.0)
    result = []
    for h in (response, velocity):
        rows = [np.concatenate([h[: n - p][::-1], np.zeros(p)]) for p in range(phases)]
        result.append(np.mean([row @ covariance @ row for row in rows]))
    return result


LAWS = {
    "without_replacement": theory.without_replacement(6),
    "with_replacement": theory.with_replacement(),
    "shuffle_once": theory.shuffle_once(6),
    "flip_flop": theory.flip_flop(6),
    "anti_pgd": theory.anti_pgd(),
    "partial_last": theory.partial_last(14, 4),
    "drop_last": theory.drop_last(14, 4),
    "spanning_batches": theory.spanning_batches(14, 4),
}


@pytest.mark.parametrize("a", [0.02, 0.3, 1.5])
@pytest.mark.parametrize("beta", [0.0, 0.6])
@pytest.mark.parametrize("name", sorted(LAWS))
def test_every_law_against_a_dense_quadratic_form(name, a, beta):
    law, n = LAWS[name], 1500
    steps = np.arange(n)
    covariance = theory.autocorrelation(law, steps[:, None] - steps)
    weight, velocity = dense_variances(covariance, a, beta, 1)
    found = theory.stationary_variances(a, 1.0, beta, law)
    # The response has decayed by max|Λ|^1500 < 1e-12; sums of n² terms round at n·eps.
    np.testing.assert_allclose(found.weight, weight, rtol=n * 2.3e-16 * 40)
    np.testing.assert_allclose(found.velocity, velocity, rtol=n * 2.3e-16 * 40)


def test_true_epoch_noise_averaged_over_phase_is_equation_6():
    """The noise covariance depends on phase; the phase average of the variances does not notice."""
    M, n, a, beta = 5, 1000, 0.05, 0.7
    epoch = np.arange(n) // M
    same = epoch[:, None] == epoch
    covariance = np.where(np.eye(n) > 0, 1.0, np.where(same, -1 / (M - 1), 0.0))
    weight, velocity = dense_variances(covariance, a, beta, M)
    found = theory.stationary_variances(a, 1.0, beta, theory.without_replacement(M))
    np.testing.assert_allclose(found.weight, weight, rtol=1e-11)
    np.testing.assert_allclose(found.velocity, velocity, rtol=1e-11)


def test_reshuffling_through_the_general_road_agrees():
    """The sum over lags of the variogram and the divided difference are two roads to Eq. 6."""
    lam = np.array([0.0, 1e-9, 1e-3, 0.1, 1.0, 30.0])
    law = theory.without_replacement(100)
    listed = theory.Noise(0.0, 0, correlations=theory.autocorrelation(law, np.arange(1, 101)))
    one = theory.stationary_variances(lam, 0.1, 0.9, law)
    other = theory.stationary_variances(lam, 0.1, 0.9, listed)
    np.testing.assert_allclose(one.weight, other.weight, rtol=100 * 2.3e-16)
    np.testing.assert_allclose(one.velocity, other.velocity, rtol=100 * 2.3e-16)


def test_shuffling_once_halves_the_flat_variance():
    once = theory.stationary_variances(1e-7, 1.0, 0.0, theory.shuffle_once(1000)).weight
    again = theory.stationary_variances(1e-7, 1.0, 0.0, theory.without_replacement(1000)).weight
    np.testing.assert_allclose(once / again, 0.5, rtol=1e-3)


def test_anti_pgd_is_two_steps_an_epoch():
    a, beta = np.array([1e-6, 0.1, 1.0]), 0.9
    found = theory.stationary_variances(a, 1.0, beta, theory.anti_pgd())
    B = 2 * (1 + beta) - a
    np.testing.assert_allclose(found.weight, 1 / ((1 - beta) * B), rtol=1e-14)
    np.testing.assert_allclose(found.velocity, (2 * (1 - beta) + a) / ((1 - beta) * B), rtol=1e-14)


def test_an_index_stream_has_the_law_of_its_scheme():
    """from_indices on a long stream: reshuffling's law within 4 standard errors of 40 streams."""
    rng = np.random.default_rng(0)
    N, S, M = 24, 4, 6
    found = []
    for _ in range(40):
        stream = np.concatenate([rng.permutation(N).reshape(M, S) for _ in range(50)])
        law = theory.from_indices(stream, N, 2 * M)
        found.append(np.concatenate([[law.variance], law.correlations]))
    exact = theory.without_replacement(M, S)
    expected = theory.autocorrelation(exact, np.arange(1, 2 * M + 1))
    expected = np.concatenate([[exact.variance], expected])
    error = np.std(found, axis=0, ddof=1) / np.sqrt(40) + 1e-15
    assert np.all(np.abs(np.mean(found, axis=0) - expected) < 4 * error + 2 / 300)


def test_a_fixed_order_read_as_a_stream_is_shuffle_once():
    order = np.random.default_rng(1).permutation(24).reshape(6, 4)
    law = theory.from_indices(np.tile(order, (40, 1)), 24, 30)
    expected = theory.autocorrelation(theory.shuffle_once(6), np.arange(1, 31))
    np.testing.assert_allclose(law.correlations, expected, atol=1e-14)


def test_jit_vmap_and_grad_go_through():
    law = theory.without_replacement(50)

    def variance(lam, beta):
        return theory.stationary_variances(lam, 0.1, beta, law).weight

    lam = jnp.asarray([0.0, 1e-3, 0.1, 1.0, 19.0])
    mapped = jax.jit(jax.vmap(variance, (0, None)))(lam, 0.9)
    exact = theory.stationary_variances(np.asarray(lam, np.float64), 0.1, np.float64(0.9), law)
    np.testing.assert_allclose(mapped, exact.weight, rtol=1e-5)
    with jax.enable_x64(True):
        weight, slopes_at = jax.jit(variance), jax.jit(jax.grad(variance, argnums=(0, 1)))
        for x, b in ((0.5, 0.9), (1e-6, 0.9), (0.02633403898972405, 0.9), (0.3, 0.0)):
            x, b = jnp.float64(x), jnp.float64(b)
            slopes = slopes_at(x, b)
            for i, slope in enumerate(slopes):
                h = 1e-6 * max(float((x, b)[i]), 1e-3) * (1 if i == 0 or b > 0 else 1)
                up = weight(x + h * (i == 0), b + h * (i == 1))
                down = weight(x - h * (i == 0) * (x > h), b - h * (i == 1) * (b > h))
                span = h * (1 + float((x, b)[i] > h))
                np.testing.assert_allclose(slope, (up - down) / span, rtol=2e-4)


@pytest.mark.parametrize(("a", "beta"), [(-1e-9, 0.9), (3.8, 0.9), (0.1, 1.0), (0.1, -0.1)])
def test_outside_the_stable_region(a, beta):
    law = theory.without_replacement(10)
    with pytest.raises(ValueError, match="stationary|momentum"):
        theory.stationary_variances(a, 1.0, beta, law)
    if 0 <= beta < 1:
        traced = jax.jit(lambda x: theory.stationary_variances(x, 1.0, beta, law))(a)
        assert np.isposinf(traced.weight)
        assert np.isposinf(traced.velocity)


@pytest.mark.parametrize("steps", [1, 0, 2.5])
def test_an_epoch_of_one_batch_has_no_noise(steps):
    with pytest.raises(ValueError, match="steps_per_epoch"):
        theory.without_replacement(steps)


def test_trace_ratio_is_the_exact_ratio_far_below_the_crossover():
    """Corrected Eq. 111 within z/4 of the ratio of summed variances; the printed one is far off."""
    rng = np.random.default_rng(0)
    eta, beta, M = 1e-3, 0.9, 100_000
    cross = theory.crossover_eigenvalue(eta, beta, M)
    lam = cross * np.exp(rng.uniform(np.log(1e-5), np.log(1e-2), 200))
    noise = lam * np.exp(rng.normal(size=200))
    reshuffled = theory.stationary_variances(lam, eta, beta, theory.without_replacement(M))
    white = theory.stationary_variances(lam, eta, beta, theory.with_replacement())
    exact = np.sum(noise * reshuffled.weight) / np.sum(noise * white.weight)
    ratio = theory.trace_ratio(lam, eta, beta, M, noise)
    np.testing.assert_allclose(ratio, exact, rtol=0.01)
    printed = np.sum(lam * noise) / np.sum(noise) / cross
    assert printed > 1.5 * exact


def test_loss_fluctuation_reduction_of_one_direction_is_one_minus_the_variance_ratio():
    lam, eta, beta = np.array([0.3]), 0.01, 0.9
    anti = theory.stationary_variances(lam, eta, beta, theory.without_replacement(100)).weight
    white = theory.stationary_variances(lam, eta, beta, theory.with_replacement()).weight
    reduction = theory.loss_fluctuation_reduction(lam, anti, white)
    np.testing.assert_allclose(reduction, 1 - anti[0] / white[0], rtol=1e-14)


def test_variances_scale_with_the_squared_learning_rate_at_fixed_eta_lambda():
    law = laws.without_replacement(40)
    one = theory.stationary_variances(0.5, 0.2, 0.5, law)
    other = theory.stationary_variances(0.25, 0.4, 0.5, law)
    np.testing.assert_allclose(other.weight, 4 * one.weight, rtol=1e-14)


ON_ANOTHER_DEVICE = """
import jax, jax.numpy as jnp
from antisgd.theory.precision import float64_on_host
first, second = jax.devices()
jax.config.update("jax_default_device", second)
with float64_on_host():
    x = jnp.zeros(())
assert x.devices() == {first} and x.dtype == "float64", (x.devices(), x.dtype)
assert jnp.zeros(()).devices() == {second} and jnp.zeros(()).dtype == "float32"
"""


def test_the_theory_is_computed_on_the_host_whatever_the_networks_use():
    """The second of two CPU devices stands for an accelerator, which may know no complex128."""
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    subprocess.run([sys.executable, "-c", ON_ANOTHER_DEVICE], check=True, env=environment)
