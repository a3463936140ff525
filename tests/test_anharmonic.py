"""Self-consistent curvature and noise against simulated anharmonic losses and plain quadrature."""

from itertools import permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from antisgd import hessian, renormalisation, theory, trajectory

ETA, BETA, M, LAMBDA = 0.1, 0.9, 20, 0.05
Z = 3.29  # two-sided p = 1e-3

# Losses with curvature λ at 0: their size k sets how far they are from a parabola.
LOSSES = {
    "quartic": (
        lambda x, k: LAMBDA * x * x / 2 + k * (x * x) ** 2 / 4,
        lambda x, k: LAMBDA * x + k * x * x * x,
        lambda x, k: LAMBDA + 3 * k * x * x,
    ),
    "cosh": (
        lambda x, k: LAMBDA * np.cosh(k * x) / k**2,
        lambda x, k: LAMBDA * np.sinh(k * x) / k,
        lambda x, k: LAMBDA * np.cosh(k * x),
    ),
    "exponential": (
        lambda x, k: LAMBDA * (np.exp(-k * x) / k**2 + x / k),
        lambda x, k: LAMBDA * (1 - np.exp(-k * x)) / k,
        lambda x, k: LAMBDA * np.exp(-k * x),
    ),
}


def reshuffled(rng, replicas):
    noise = rng.standard_normal((M, replicas))
    return (noise - noise.mean(axis=0)) * np.sqrt(M / (M - 1))


def simulated(name, k, white, replicas=500, burn=2000, steps=4000, seed=0):
    """Mean and variance of θ over replicas and time by Eq. 1, and the error of the variance."""
    rng, gradient = np.random.default_rng(seed), LOSSES[name][1]
    theta, v, first, second = (np.zeros(replicas) for _ in range(4))
    for epoch in range((burn + steps) // M):
        draws = rng.standard_normal((M, replicas)) if white else reshuffled(rng, replicas)
        for n in draws:
            v = BETA * v - ETA * (gradient(theta, k) + n)
            theta = theta + v
            if epoch * M >= burn:
                first, second = first + theta / steps, second + theta**2 / steps
    mean = first.mean()
    each = second - 2 * mean * first + mean**2
    return mean, each.mean(), each.std() / np.sqrt(replicas)


def law(white):
    return theory.with_replacement() if white else theory.without_replacement(M)


def predicted(name, k, white):
    loss, gradient, _ = LOSSES[name]
    return theory.anharmonic_variance(
        lambda x: loss(x, k), lambda x: gradient(x, k), ETA, BETA, law(white), 1.0,
        curvature=LAMBDA,
    )  # fmt: skip


def gaussian(name, k, white):
    """The same with Gaussian averages only, by quadrature."""
    nodes, shares = np.polynomial.hermite_e.hermegauss(60)
    shares = shares / shares.sum()
    _, gradient, curvature = LOSSES[name]

    def averages(mean, variance):
        x = mean[:, None] + np.sqrt(variance)[:, None] * nodes
        return theory.Averages(gradient(x, k) @ shares, curvature(x, k) @ shares, np.ones(1))

    return theory.self_consistent(averages, 1, ETA, BETA, law(white))


# (loss, k, what Gaussian averages may miss). λ_eff/λ from 1.3 to 11 for the even ones.
CASES = [
    ("quartic", 5e-4, 0.08),
    ("quartic", 0.01, 0.2),
    ("quartic", 0.1, 0.2),
    ("cosh", 0.3, 0.08),
    ("exponential", 0.15, None),
]


@pytest.mark.parametrize("white", [True, False], ids=["white", "reshuffled"])
@pytest.mark.parametrize(("name", "k", "miss"), CASES)
def test_simulated_variances_are_the_predicted_ones(name, k, miss, white):
    """Within 5 % (and 4 standard errors) for the shaped, 8 to 20 % for the Gaussian closure."""
    mean, variance, error = simulated(name, k, white)
    found = predicted(name, k, white)
    assert abs(variance / found.variance - 1) < 0.05 + 4 * error / variance
    assert abs(mean - found.mean) < 0.1 * np.sqrt(variance)
    if miss is not None:
        assert abs(variance / gaussian(name, k, white).weight[0] - 1) < miss + 4 * error / variance


def test_a_parabola_has_the_harmonic_variance():
    for white in (True, False):
        found = theory.anharmonic_variance(
            lambda x: LAMBDA * x**2 / 2, lambda x: LAMBDA * x, ETA, BETA, law(white), 2.0,
            curvature=0.3 * LAMBDA,
        )  # fmt: skip
        exact = theory.stationary_variances(LAMBDA, ETA, BETA, law(white)).weight
        np.testing.assert_allclose(found.variance, 2 * exact, rtol=1e-6)
        np.testing.assert_allclose(found.curvature, LAMBDA, rtol=1e-6)


def test_white_noise_in_a_pure_quartic_has_boltzmanns_moment():
    """⟨x²⟩ = √(4T/κ) Γ(3/4)/Γ(1/4) with T the temperature of the noise, to order ηs."""
    from scipy.special import gamma

    kappa, eta = 0.5, 1e-4
    found = theory.anharmonic_variance(
        lambda x: kappa * x**4 / 4, lambda x: kappa * x**3, eta, BETA, law(True), 1.0,
        curvature=0.1,
    )  # fmt: skip
    T = eta / (2 * (1 - BETA))
    exact = np.sqrt(4 * T / kappa) * gamma(3 / 4) / gamma(1 / 4)
    np.testing.assert_allclose(found.variance, exact, rtol=2e-4)


def test_what_does_not_confine_is_refused():
    with pytest.raises(ArithmeticError, match="slope"):
        theory.anharmonic_variance(
            lambda x: np.log(np.cosh(x)) * 1e-9, lambda x: np.tanh(x) * 1e-9, ETA, BETA,
            law(True), 1.0, curvature=1e-2,
        )  # fmt: skip
    with pytest.raises(ValueError, match="ergodic"):
        theory.anharmonic_variance(
            np.square, lambda x: 2 * x, ETA, BETA, theory.shuffle_once(4), 1.0, curvature=2.0
        )


# --- the fixed point ------------------------------------------------------------------------


def random_polynomial(seed=0, k=3):
    rng = np.random.default_rng(seed)
    H = np.diag(rng.uniform(0.05, 0.3, k))
    T = rng.normal(size=(k,) * 3)
    T = 0.002 * sum(np.transpose(T, order) for order in permutations(range(3)))
    w = rng.uniform(0.1, 0.3, (4, k))
    Q = np.einsum("ni,nj,nk,nl->ijkl", w, w, w, w) * 0.2
    return H, T, Q


def test_polynomial_averages_are_the_derivatives_averaged_by_quadrature():
    H, T, Q = random_polynomial()
    nodes, shares = np.polynomial.hermite_e.hermegauss(5)
    shares = shares / shares.sum()
    mean, variance = np.array([0.3, -0.2, 0.5]), np.array([0.7, 1.9, 0.4])

    grid = np.array(list(np.ndindex(5, 5, 5)))
    x, share = mean + np.sqrt(variance) * nodes[grid], shares[grid].prod(axis=1)
    bent = np.einsum("ijk,nk->nij", T, x) / 2 + np.einsum("ijkl,nk,nl->nij", Q, x, x) / 6
    slopes = x @ H + np.einsum("nij,nj->ni", bent, x)
    curves = H + np.einsum("ijk,nk->nij", T, x) + np.einsum("ijkl,nk,nl->nij", Q, x, x) / 2
    gradient, curvature = share @ slopes, share @ np.diagonal(curves, axis1=1, axis2=2)
    found = theory.polynomial_averages(H, np.ones(3), T, Q)(mean, variance)
    np.testing.assert_allclose(found.gradient, gradient, rtol=1e-11)
    np.testing.assert_allclose(found.curvature, curvature, rtol=1e-11)


def test_the_fixed_point_reproduces_itself():
    H, T, Q = random_polynomial()
    averages = theory.polynomial_averages(H, np.array([1.0, 2.0, 0.5]), T, Q)
    found = theory.self_consistent(averages, 3, ETA, BETA, law(False))
    again = averages(found.mean, found.weight)
    V = theory.stationary_variances(again.curvature, ETA, BETA, law(False))
    np.testing.assert_allclose(found.weight, again.noise * V.weight, rtol=1e-7)
    np.testing.assert_allclose(again.gradient, 0, atol=1e-8)
    assert np.abs(found.mean).max() > 0.1


def test_one_quartic_direction_is_the_root_of_its_cubic():
    """White noise at small η: (λ + 3κσ²)σ² = T, a quadratic equation in σ²."""
    kappa, eta = 0.02, 1e-5
    averages = theory.polynomial_averages(
        [[LAMBDA]], np.ones(1), np.zeros((1, 1, 1)), np.full((1, 1, 1, 1), 6 * kappa)
    )
    found = theory.self_consistent(averages, 1, eta, BETA, law(True))
    T = eta / (2 * (1 - BETA))
    exact = (np.sqrt(LAMBDA**2 + 12 * kappa * T) - LAMBDA) / (6 * kappa)
    np.testing.assert_allclose(found.weight, exact, rtol=3 * eta * LAMBDA + 1e-8)


def test_walls_that_look_unstable_on_the_way_have_a_fixed_point():
    """At the harmonic variance the averaged cosh is e^16 steeper: still (λ e^{k²σ²/2})σ² = T."""
    k, eta = 0.8, 0.1
    found = theory.self_consistent(
        lambda m, s: theory.Averages(0 * m, 0.01 * np.exp(k**2 * s / 2), np.ones(1)), 1, eta, 0.9,
        law(True),
    )  # fmt: skip
    s = found.weight[0]
    exact = theory.stationary_variances(0.01 * np.exp(k**2 * s / 2), eta, 0.9, law(True)).weight
    np.testing.assert_allclose(s, exact, rtol=1e-7)
    assert found.harmonic[0] > 5 * s


@pytest.mark.parametrize(
    ("averages", "message"),
    [
        (lambda m, s: theory.Averages(m, 0.1 - s, np.ones(1)), "curvature"),
        (lambda m, s: theory.Averages(m, 0.1 + 0 * s, np.zeros(1)), "without noise"),
        (
            lambda m, s: theory.Averages(m, np.where(s > 1, 10.0, 0.001), np.ones(1)),
            "no self-consistent",
        ),
    ],
)
def test_no_fixed_point_is_refused(averages, message):
    with pytest.raises(ArithmeticError, match=message):
        theory.self_consistent(averages, 1, ETA, BETA, law(True), max_iterations=50)


# --- a network ------------------------------------------------------------------------------

D, K, N = 6, 2, 12


def coupled(params, examples, weights):
    """A loss with per-example cubic and quartic terms: C depends on θ, and so does H."""
    z = examples @ params
    return jnp.sum(weights * (z**2 / 2 + 0.1 * z**3 + 0.05 * z**4)) / jnp.sum(weights)


@pytest.fixture
def network():
    examples = jax.random.normal(jax.random.key(0), (N, D))
    P = jnp.linalg.qr(jax.random.normal(jax.random.key(1), (D, D)))[0][:K]

    def slope_at(theta):
        return P @ jax.grad(coupled)(theta, examples, jnp.ones(N))

    def gradients_at(theta):
        return trajectory.example_gradients(coupled, theta, examples, P, microbatch_size=N)

    return examples, P, slope_at, gradients_at


def test_averages_of_a_network_are_those_of_written_out_derivatives(network):
    """In float64: p·∇L and R(0)·var p·∇l_n at the same points, E p'Hp over a Gaussian along p."""
    examples, P, slope_at, gradients_at = network
    deviations = np.array([0.3, 0.2])
    X, rows = np.asarray(examples, np.float64), np.asarray(P, np.float64)
    offsets = renormalisation.gaussian_offsets(
        jax.random.key(2), P, jnp.asarray(deviations, jnp.float32), 3
    )

    def written(x):
        z, along = X @ (centre + x), X @ rows.T
        gradients = (z + 0.3 * z**2 + 0.2 * z**3)[:, None] * along
        without = z[:, None] - along * (rows @ x)
        second = without**2 + (deviations * along) ** 2
        curvature = ((1 + 0.6 * without + 0.6 * second) * along**2).mean(axis=0)
        return np.array([gradients.mean(0), curvature, 0.5 * gradients.var(0, ddof=1)])

    centre = np.full(D, 0.1)
    pairs = [(written(x) + written(-x)) / 2 for x in np.asarray(offsets, np.float64)]
    found = renormalisation.average_over(
        slope_at, gradients_at, jnp.asarray(centre, jnp.float32), P, offsets,
        deviations=jnp.asarray(deviations), noise_scale=0.5,
    )  # fmt: skip
    np.testing.assert_allclose(np.array(found.mean), np.mean(pairs, axis=0), rtol=1e-4)
    spread = np.std(pairs, axis=0, ddof=1) / np.sqrt(3)
    np.testing.assert_allclose(np.array(found.error), spread, rtol=1e-3)


def test_antithetic_pairs_leave_no_odd_term(network):
    """A cubic loss has a curvature that is linear in θ: one pair gives its average exactly."""
    _, P, _, gradients_at = network
    T = np.random.default_rng(0).normal(size=D)

    def slope_at(theta):
        return P @ (theta + (T @ theta) ** 2 * T / 2)

    offsets = renormalisation.gaussian_offsets(jax.random.key(3), P, jnp.ones(K), 1)
    found = renormalisation.average_over(
        slope_at, gradients_at, jnp.zeros(D), P, offsets, deviations=jnp.ones(K), noise_scale=1.0
    )
    np.testing.assert_allclose(found.mean.curvature, 1, rtol=1e-5)


def test_noise_draws_have_the_covariance_of_single_gradients():
    """Of five examples, where N − 1 is not N, with a penalty, whose gradient is no noise."""
    gradients = np.random.default_rng(2).normal(size=(5, D)) * np.geomspace(3, 0.5, D)

    def gradient_of(weights):
        assert np.all(weights > 0)
        return weights @ gradients / weights.sum() + 7.0

    keys = jax.random.split(jax.random.key(6), 50)
    g = np.concatenate([renormalisation.noise_draws(key, gradient_of, 5, 50) for key in keys])
    n = len(g)
    expected = np.cov(gradients.T)
    spread = np.sqrt((np.outer(np.diag(expected), np.diag(expected)) + expected**2) / n)
    assert np.all(np.abs(g.T @ g / n - expected) < 4.5 * spread)
    assert np.all(np.abs(g.mean(axis=0)) < 4.5 * np.sqrt(np.diag(expected) / n))
    assert 4.5 * np.diag(spread).max() < 0.2 * np.diag(expected).max()


def test_draws_have_the_stated_covariance():
    P = jnp.linalg.qr(jax.random.normal(jax.random.key(1), (D, D)))[0][:K]
    n = 20_000
    shape = jnp.asarray(np.random.default_rng(0).normal(size=(D, D)), jnp.float32)
    y = jax.random.normal(jax.random.key(5), (n, D)) @ shape
    x = renormalisation.gaussian_offsets(jax.random.key(4), P, jnp.array([2.0, 0.5]), n, outside=y)
    found = np.cov(np.asarray(x, np.float64).T)
    rows, shape = np.asarray(P, np.float64), np.asarray(shape, np.float64)
    beyond = np.eye(D) - rows.T @ rows
    expected = rows.T @ np.diag([4, 0.25]) @ rows + beyond @ shape.T @ shape @ beyond
    spread = np.sqrt((np.outer(np.diag(expected), np.diag(expected)) + expected**2) / n)
    assert np.all(np.abs(found - expected) < 4.5 * spread)


def test_a_network_has_a_fixed_point(network):
    """Along the draws of one key the iteration reproduces itself, and the mean moves."""
    examples, P, slope_at, gradients_at = network
    product = hessian.hessian_vector_product(coupled, jnp.zeros(D), examples, microbatch_size=N)
    averages = renormalisation.make_averages(
        jax.random.key(5), slope_at, gradients_at, jnp.zeros(D), P,
        eigenvalues=np.sum(P * jax.vmap(product)(P), axis=1), noise_scale=0.5, num_pairs=4,
    )  # fmt: skip
    # At the minimum of this loss no example has a gradient: noise comes with the fluctuation.
    start = averages(np.zeros(K), np.zeros(K))
    assert np.all(start.noise == 0)

    def seeded(mean, variance):
        found = averages(mean, variance)
        return theory.Averages(found.gradient, found.curvature, found.noise + 0.5)

    found = theory.self_consistent(seeded, K, ETA, 0.5, law(True), tolerance=1e-4)
    again = seeded(found.mean, found.weight)
    V = theory.stationary_variances(again.curvature, ETA, 0.5, law(True))
    np.testing.assert_allclose(again.noise * V.weight, found.weight, rtol=1e-3)
    assert np.all(found.mean != 0) and np.all(found.curvature > start.curvature)
