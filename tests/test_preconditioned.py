"""Adaptive optimisers at frozen second moments against written-out loops, and Adam as it is."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from antisgd import theory

D, M, RATE, B1, EPSILON = 3, 8, 0.02, 0.8, 0.3
RNG = np.random.default_rng(5)
ROOT = RNG.normal(size=(D, D))
HESSIAN = ROOT @ ROOT.T / 3 + np.diag([0.1, 0.5, 2.0])
MIXING = RNG.normal(size=(D, D)) * np.array([0.2, 1.0, 3.0])[:, None]
NU = np.diag(MIXING @ MIXING.T)


def reshuffled(rng, replicas, epochs):
    noise = rng.standard_normal((epochs, M, replicas, D))
    noise = (noise - noise.mean(axis=1, keepdims=True)) * np.sqrt(M / (M - 1))
    return noise.reshape(-1, replicas, D) @ MIXING.T


def states():
    """Optimisers after 12 steps, as (optax, state, D up to a factor, system of unit metric)."""
    params = {"a": jnp.zeros(2), "b": jnp.zeros(1)}
    nu = {"a": jnp.asarray(NU[:2]), "b": jnp.asarray(NU[2:])}
    mu = jax.tree.map(lambda x: 0.3 * x, nu)

    def at(optimizer):
        def fill(node):
            if not hasattr(node, "_fields") or "nu" not in node._fields:
                return node
            now = {"nu": nu, "mu": mu, "count": jnp.array(12)}
            return node._replace(**{k: now[k] for k in node._fields})

        is_node = lambda n: hasattr(n, "_fields") and "nu" in n._fields  # noqa: E731
        return optimizer, jax.tree.map(fill, optimizer.init(params), is_leaf=is_node), params

    return {
        "adam": at(optax.adam(RATE, B1, 0.9, EPSILON)),
        "adamw": at(optax.adamw(RATE, B1, 0.9, EPSILON, weight_decay=0.5)),
        "rmsprop": at(optax.rmsprop(RATE, 0.9, EPSILON, momentum=B1)),
    }


def written(name, optimizer_step=13):
    """D and the system of D = 1, from the papers' update rules; the count grows before its use."""
    if name == "rmsprop":
        return np.sqrt(NU + EPSILON), theory.heavy_ball_system(RATE, B1)
    corrected = 1 - 0.9**optimizer_step, 1 - B1**optimizer_step
    metric = np.sqrt(NU / corrected[0]) + EPSILON
    eta = RATE / corrected[1]
    decoupled = {"decoupled": 0.5 * RATE / eta} if name == "adamw" else {}
    return metric, theory.heavy_ball_system(eta, B1, dampening=B1, **decoupled)


@pytest.mark.parametrize("name", ["adam", "adamw", "rmsprop"])
def test_metric_and_matrices_are_those_of_the_update_rule(name):
    with jax.enable_x64(True):
        found = theory.frozen_from_optax(*states()[name])
    metric, system = written(name)
    np.testing.assert_allclose(found.metric / found.metric[0], metric / metric[0], rtol=1e-6)
    # The response of θ to a pulse at a curvature that is λ in the metric of the reference weight.
    reference = metric / found.metric
    for lam in (0.0, 3.0):
        paths = []
        for one, scale in ((found.optimizer, 1.0), (system, reference[0])):
            A, x, path = one.free + lam / scale * one.curved, one.response / scale, []
            for _ in range(30):
                path.append(x[0])
                x = A @ x
            paths.append(path)
        np.testing.assert_allclose(*paths, rtol=1e-6)


def test_variances_of_a_written_out_loop():
    """θ −= η m/D with m = b1 m + (1−b1) g, true reshuffling, 2,000 replicas; z = 3.29."""
    metric = np.sqrt(NU) + EPSILON
    noise = reshuffled(np.random.default_rng(0), 2000, 50)
    theta, m, squares = np.zeros((2000, D)), np.zeros((2000, D)), np.zeros((2000, D))
    found = theory.precondition(HESSIAN, MIXING @ MIXING.T, metric)
    for k, n in enumerate(noise):
        m = B1 * m + (1 - B1) * (theta @ HESSIAN + n)
        theta = theta - RATE * m / metric
        if k >= len(noise) - M:
            squares += (theta @ found.directions.T) ** 2 / M
    system = theory.heavy_ball_system(RATE, B1, dampening=B1)
    # Against the variances after 400 steps: the flattest direction is within e⁻⁴ of stationary.
    P, _ = theory.stationary_covariance(found.eigenvalues, system, theory.without_replacement(M))
    expected = found.noise_variances * P[:, 0, 0]
    error = squares.std(axis=0, ddof=1) / np.sqrt(2000)
    assert np.all(np.abs(squares.mean(axis=0) - expected) < 3.29 * error)


def test_adam_with_slow_second_moments_is_near_its_frozen_limit():
    """Its own ν, b2 = 0.9995, white noise that dominates the gradients: within 5 % and 4 errors."""
    rng, replicas, eta = np.random.default_rng(1), 300, 0.05
    theta, m, nu = np.zeros((replicas, D)), np.zeros((replicas, D)), np.tile(NU, (replicas, 1))
    frozen = theory.precondition(HESSIAN, MIXING @ MIXING.T, np.sqrt(NU) + EPSILON)
    squares, burn, steps = np.zeros((replicas, D)), 500, 3000
    for k in range(burn + steps):
        g = theta @ HESSIAN + rng.standard_normal((replicas, D)) @ MIXING.T
        m, nu = B1 * m + (1 - B1) * g, 0.9995 * nu + 0.0005 * g * g
        theta = theta - eta * m / (np.sqrt(nu) + EPSILON)
        if k >= burn:
            squares += (theta @ frozen.directions.T) ** 2 / steps
    system = theory.heavy_ball_system(eta, B1, dampening=B1)
    P, _ = theory.stationary_covariance(frozen.eigenvalues, system, theory.with_replacement())
    expected = frozen.noise_variances * P[:, 0, 0]
    error = squares.std(axis=0) / np.sqrt(replicas)
    assert np.all(np.abs(squares.mean(axis=0) - expected) < 0.05 * expected + 4 * error)


def test_without_second_moments_there_is_no_metric():
    sgd = optax.sgd(RATE, B1)
    with pytest.raises(ValueError, match="no second moments"):
        theory.frozen_from_optax(sgd, sgd.init(jnp.zeros(2)), jnp.zeros(2))
    with pytest.raises(ValueError, match="positive"):
        theory.precondition(HESSIAN, HESSIAN, np.zeros(D))
