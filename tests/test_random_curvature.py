"""Noise that depends on the weights: exact enumeration, simulation, a network's permutations."""

from itertools import permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from antisgd import renormalisation, theory

N, D, BETA = 6, 2, 0.5
RNG = np.random.default_rng(3)
HALVES = RNG.normal(size=(N, D, D))
HESSIANS = np.einsum("nij,nkj->nik", HALVES, HALVES) + 0.2 * np.eye(D)
CENTRES = RNG.normal(size=(N, D))


def batches_mean(values, batches):
    return np.array([values[list(batch)].mean(axis=0) for batch in batches])


def white_by_batches(eta, batches):
    """Second moments over all equally likely batches: the Kronecker map of (1, θ, v), solved."""
    H = batches_mean(HESSIANS, batches)
    pull = batches_mean(np.einsum("nij,nj->ni", HESSIANS, CENTRES), batches)
    size, one = 1 + 2 * D, np.eye(D)
    square = np.zeros((size**2, size**2))
    for h, p in zip(H, pull, strict=True):
        v = np.hstack([eta * p[:, None], -eta * h, BETA * one])
        step = np.vstack([np.eye(size)[:1], np.hstack([np.zeros((D, 1)), one, 0 * one]) + v, v])
        square += np.kron(step, step) / len(H)
    # The eigenvector of eigenvalue 1: E xxᵀ with x_0 = 1.
    fixed = np.linalg.svd(square - np.eye(size**2))[2][-1].reshape(size, size)
    fixed = fixed / fixed[0, 0]
    mean = fixed[0, 1:]
    return mean, fixed[1:, 1:] - np.outer(mean, mean)


WHITE = {
    "with_replacement": [(i, j) for i in range(N) for j in range(N)],
    "independent_batches": [(i, j) for i in range(N) for j in range(i)],
}


@pytest.mark.parametrize("name", sorted(WHITE))
def test_white_moments_are_exact(name):
    """At a learning rate where the spread of the weights makes a twentieth of the noise."""
    eta = 0.03
    found = theory.random_curvature_moments(
        HESSIANS, CENTRES, eta, BETA, getattr(theory, name)(N, 2)
    )
    mean, covariance = white_by_batches(eta, WHITE[name])
    np.testing.assert_allclose(found.mean, mean[:D], rtol=1e-9)
    np.testing.assert_allclose(found.covariance, covariance, rtol=1e-8, atol=1e-10)
    rest = np.einsum("nij,nj->ni", HESSIANS, found.minimum - CENTRES)
    law = getattr(theory, name)(N, 2)
    at_minimum = law.variance * np.cov(rest.T)
    assert np.trace(found.noise) > 1.05 * np.trace(at_minimum)


def epoch_maps(eta):
    """The affine maps of (θ, v) over every order of an epoch of single examples, [720, …]."""
    one, zero = np.eye(D), np.zeros((D, 1))
    steps = []
    for h, a in zip(HESSIANS, CENTRES, strict=True):
        v = np.hstack([eta * (h @ a)[:, None], -eta * h, BETA * one])
        steps.append(np.vstack([np.eye(1 + 2 * D)[:1], np.hstack([zero, one, 0 * one]) + v, v]))
    return np.array(steps), list(permutations(range(N)))


def reshuffled_by_enumeration(eta):
    """Mean and covariance averaged over the positions of an epoch, over all 720 orders."""
    steps, orders = epoch_maps(eta)
    size = 1 + 2 * D
    products = np.tile(np.eye(size), (len(orders), 1, 1))
    ahead, every = np.zeros((N, size, size)), np.zeros((N, size**2, size**2))
    for m in range(N):
        products = steps[[order[m] for order in orders]] @ products
        ahead[m] = products.mean(axis=0)
        flat = np.einsum("oij,okl->ikjl", products, products).reshape(size**2, size**2)
        every[m] = flat / len(orders)
    fixed = np.linalg.svd(every[-1] - np.eye(size**2))[2][-1]
    fixed = fixed / fixed[0]
    second = np.mean([(part @ fixed).reshape(size, size) for part in every], axis=0)
    mean = second[0, 1:]
    return mean, second[1:, 1:] - np.outer(mean, mean)


def test_the_shift_of_the_mean_is_exact_to_leading_order():
    """Halving η halves the relative error of the shift, over all 720 orders of an epoch."""
    errors = []
    for eta in (0.02, 0.01, 0.005):
        found = theory.random_curvature_moments(
            HESSIANS, CENTRES, eta, BETA, theory.without_replacement(N, 1)
        )
        mean, _ = reshuffled_by_enumeration(eta)
        shift, exact = found.mean - found.minimum, mean[:D] - found.minimum
        errors.append(np.linalg.norm(shift - exact) / np.linalg.norm(exact))
    assert errors[-1] < 0.05
    np.testing.assert_allclose(np.array(errors[:-1]) / errors[1:], 2, rtol=0.2)


def test_reshuffled_covariances_by_enumeration():
    """Averaged over the epoch: exact to leading order, the relative error falls like η."""
    errors = []
    for eta in (0.02, 0.01, 0.005):
        found = theory.random_curvature_moments(
            HESSIANS, CENTRES, eta, BETA, theory.without_replacement(N, 1)
        )
        _, covariance = reshuffled_by_enumeration(eta)
        errors.append(np.abs(np.diag(found.covariance)[:D] / np.diag(covariance)[:D] - 1).max())
    assert errors[-1] < 0.03
    np.testing.assert_allclose(np.array(errors[:-1]) / errors[1:], 2, rtol=0.1)


def test_what_cannot_be_stationary_is_refused():
    law = theory.with_replacement(N, 1)
    with pytest.raises(ValueError, match="batch size"):
        theory.random_curvature_moments(HESSIANS, CENTRES, 0.1, BETA, theory.with_replacement())
    with pytest.raises(ArithmeticError, match="not stable"):
        theory.random_curvature_moments(HESSIANS, CENTRES, 10.0, BETA, law)
    with pytest.raises(ArithmeticError, match="diverge"):
        theory.random_curvature_moments(HESSIANS, CENTRES, 0.6, BETA, law)
    with pytest.raises(ValueError, match="repeats"):
        theory.implicit_regulariser(0.1, BETA, theory.shuffle_once(4))


# --- the regulariser ------------------------------------------------------------------------


def test_the_regulariser_without_momentum_is_a_quarter_of_the_learning_rate():
    assert theory.implicit_regulariser(0.1, 0.0, theory.with_replacement()) == 0
    for M in (2, 9, 1000):
        found = theory.implicit_regulariser(0.1, 0.0, theory.without_replacement(M))
        np.testing.assert_allclose(found, 0.1 / 4, rtol=1e-12)
        np.testing.assert_allclose(theory.epoch_drift(0.1, 0.0, M), 0.01 * M / 4, rtol=1e-12)
    with pytest.raises(ValueError, match="two steps"):
        theory.epoch_drift(0.1, 0.0, 1)


def test_the_regulariser_moves_the_minimum_of_flat_quadratics():
    """(H̄ + κ∇²tr C)^{-1}κ∇tr C against the stationary shift, where Mηλ ≪ 1 − β."""
    eta, law = 1e-4, theory.without_replacement(N, 1)
    found = theory.random_curvature_moments(HESSIANS, CENTRES, eta, BETA, law)
    rest = np.einsum("nij,nj->ni", HESSIANS, found.minimum - CENTRES)
    slope = 2 * law.variance / (N - 1) * np.einsum("nij,nj->i", HESSIANS - HESSIANS.mean(0), rest)
    kappa = theory.implicit_regulariser(eta, BETA, law)
    expected = -np.linalg.solve(HESSIANS.mean(0), kappa * slope)
    np.testing.assert_allclose(found.mean - found.minimum, expected, rtol=20 * N * eta)


EXAMPLES = jax.random.normal(jax.random.key(0), (N, 3))
TARGETS = jnp.sin(3 * jnp.sum(EXAMPLES, axis=1))


def network_loss(params, examples, weights):
    x, y = examples
    out = jnp.tanh(x @ params["in"] + params["bias"][None]) @ params["out"]
    return jnp.sum(weights * (out - y) ** 2) / jnp.sum(weights)


def network():
    keys = jax.random.split(jax.random.key(1), 3)
    return {
        "in": jax.random.normal(keys[0], (3, 4)),
        "bias": jax.random.normal(keys[1], (4,)),
        "out": jax.random.normal(keys[2], (4,)),
    }


def test_the_gradient_of_the_trace_is_that_of_its_value():
    flat, unravel = ravel_pytree(network())

    def trace(theta):
        def one(x, y):
            single = (x[None], y[None])
            return ravel_pytree(jax.grad(network_loss)(unravel(theta), single, jnp.ones(1)))[0]

        return jnp.sum(jnp.var(jax.vmap(one)(EXAMPLES, TARGETS), axis=0, ddof=1))

    for size in (6, 2):
        found = renormalisation.noise_trace_gradient(
            network_loss, network(), (EXAMPLES, TARGETS), microbatch_size=size
        )
        np.testing.assert_allclose(found, jax.grad(trace)(flat), rtol=2e-4, atol=2e-4)
    with pytest.raises(ValueError, match="must divide"):
        renormalisation.noise_trace_gradient(
            network_loss, network(), (EXAMPLES, TARGETS), microbatch_size=4
        )


@pytest.mark.parametrize("beta", [0.0, 0.7])
def test_reshuffling_drifts_down_the_trace_of_the_noise(beta):
    """E θ_M over all 720 orders of an epoch of a tanh network, less M full-batch steps."""
    eta, orders = 2e-3, np.array(list(permutations(range(N))))
    with jax.enable_x64(True):
        data = (jnp.asarray(EXAMPLES, jnp.float64), jnp.asarray(TARGETS, jnp.float64))
        params = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), network())
        flat, unravel = ravel_pytree(params)

        def run(weights):
            def step(carry, w):
                theta, v = carry
                g = jax.grad(lambda x: network_loss(unravel(x), data, w))(theta)
                v = beta * v - eta * g
                return (theta + v, v), None

            return jax.lax.scan(step, (flat, jnp.zeros_like(flat)), weights)[0][0]

        ends = jax.jit(jax.vmap(run))(jnp.eye(N)[orders])
        full = run(jnp.ones((N, N)))
        drift = np.asarray(ends.mean(axis=0) - full)
        slope = renormalisation.noise_trace_gradient(network_loss, params, data, microbatch_size=N)
    law = theory.without_replacement(N, 1)
    expected = -theory.epoch_drift(eta, beta, N) * law.variance * np.asarray(slope)
    cosine = drift @ expected / np.linalg.norm(drift) / np.linalg.norm(expected)
    assert cosine > 0.99
    np.testing.assert_allclose(np.linalg.norm(drift), np.linalg.norm(expected), rtol=0.1)
