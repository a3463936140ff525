"""Linear optimisers: matrices read off optax, explicit update loops, and the closed heavy ball."""

import numpy as np
import optax
import pytest

from antisgd import theory

LAMBDA, ETA, BETA = np.array([0.02, 0.5, 3.0]), 0.1, 0.8


def systems_agree(one, other, signs):
    """Equal up to a change of basis of the hidden state: same response of θ to an impulse."""
    for lam in LAMBDA:
        paths = []
        for system in (one, other):
            A = system.free + lam * system.curved
            x, path = system.response, []
            for _ in range(30):
                path.append(x[0])
                x = A @ x
            paths.append(path)
        np.testing.assert_allclose(*paths, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        (optax.sgd(ETA), {"momentum": 0.0}),
        (optax.sgd(ETA, BETA), {}),
        (optax.sgd(ETA, BETA, nesterov=True), {"nesterov": True}),
        (optax.chain(optax.scale(-ETA), optax.trace(BETA)), {}),
        (optax.chain(optax.trace(BETA, nesterov=True), optax.scale(-ETA)), {"nesterov": True}),
        (
            optax.chain(optax.ema(BETA, debias=False), optax.scale(-ETA)),
            {"dampening": BETA},
        ),
        (
            optax.chain(optax.add_decayed_weights(0.3), optax.trace(BETA), optax.scale(-ETA)),
            {"l2": 0.3},
        ),
        (
            optax.chain(optax.trace(BETA), optax.add_decayed_weights(0.3), optax.scale(-ETA)),
            {"decoupled": 0.3},
        ),
    ],
)
def test_matrices_read_off_optax_are_the_written_ones(optimizer, options):
    momentum = options.pop("momentum", BETA)
    written = theory.heavy_ball_system(ETA, momentum, **options)
    systems_agree(theory.from_optax(optimizer), written, None)


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (optax.adam(ETA), "not linear"),
        (optax.sgd(optax.exponential_decay(ETA, 10, 0.5)), "step to step"),
        (optax.chain(optax.ema(BETA, debias=True), optax.scale(-ETA)), "step to step"),
        (optax.sign_sgd(ETA), "not linear"),
        # Met by no gradient near one; a small one that meets every gradient.
        (optax.chain(optax.clip_by_global_norm(1e3), optax.sgd(ETA, BETA)), "not linear"),
        (optax.chain(optax.clip_by_global_norm(1e-6), optax.sgd(ETA, BETA)), "not linear"),
        (optax.chain(optax.clip(30.0), optax.sgd(ETA)), "not linear"),
    ],
)
def test_optimisers_without_matrices_are_refused(optimizer, message):
    with pytest.raises(ValueError, match=message):
        theory.from_optax(optimizer)


@pytest.mark.parametrize(
    "law", [theory.without_replacement(12), theory.with_replacement(), theory.flip_flop(6)]
)
def test_heavy_ball_as_a_system_is_equation_6(law):
    P, lagged = theory.stationary_covariance(LAMBDA, theory.heavy_ball_system(ETA, BETA), law)
    exact = theory.stationary_variances(LAMBDA, ETA, BETA, law)
    np.testing.assert_allclose(P[:, 0, 0], exact.weight, rtol=1e-10)
    np.testing.assert_allclose(2 * (P - lagged)[:, 0, 0], exact.velocity, rtol=1e-10)
    np.testing.assert_allclose(P[:, 1, 1], exact.velocity, rtol=1e-10)


def reshuffled_noise(rng, replicas, epochs, M):
    """Exactly Eq. 2: Gaussian noise with its epoch mean removed, unit variance."""
    noise = rng.standard_normal((epochs, M, replicas))
    return ((noise - noise.mean(axis=1, keepdims=True)) * np.sqrt(M / (M - 1))).reshape(
        -1, replicas
    )


@pytest.mark.parametrize(
    "options", [{"nesterov": True}, {"dampening": 0.3}, {"l2": 0.2}, {"decoupled": 0.5}]
)
def test_explicit_update_loops_have_the_predicted_variance(options):
    """Loops written out for one direction with an average of the weights; |z| < 4 over replicas."""
    lam, alpha, M, replicas = 0.7, 0.9, 8, 1500
    d, l2, w = (options.get(k, 0.0) for k in ("dampening", "l2", "decoupled"))
    noise = reshuffled_noise(np.random.default_rng(0), replicas, 40, M)
    theta, buffer, average = (np.zeros(replicas) for _ in range(3))
    squares = np.zeros((2, replicas))
    for k, n in enumerate(noise):
        gradient = (lam + l2) * theta + n
        buffer = BETA * buffer + (1 - d) * gradient
        step = gradient + BETA * buffer if options.get("nesterov") else buffer
        theta = theta - ETA * w * theta - ETA * step
        average = alpha * average + (1 - alpha) * theta
        if k >= len(noise) - M:
            squares += np.stack([theta, average]) ** 2 / M
    system = theory.with_weight_average(theory.heavy_ball_system(ETA, BETA, **options), alpha)
    P, _ = theory.stationary_covariance(np.array([lam]), system, theory.without_replacement(M))
    error = squares.std(axis=1, ddof=1) / np.sqrt(replicas)
    assert np.all(np.abs(squares.mean(axis=1) - P[0, [0, 2], [0, 2]]) < 4 * error)


@pytest.mark.parametrize(
    ("options", "edge"),
    [
        ({}, 2 * (1 + BETA) / ETA),
        ({"nesterov": True}, 2 * (1 + BETA) / (ETA * (1 + 2 * BETA))),
        # A penalty is curvature, decay shortens the weights before the step.
        ({"l2": 0.3}, 2 * (1 + BETA) / ETA - 0.3),
        ({"decoupled": 0.3}, (2 - ETA * 0.3) * (1 + BETA) / ETA),
    ],
)
def test_the_edge_of_stability(options, edge):
    """Closed forms by Jury's criterion, and powers of A on both sides."""
    system = theory.heavy_ball_system(ETA, BETA, **options)
    assert theory.stability_edge(system) == pytest.approx(edge, rel=1e-9)
    sizes = [
        np.abs(np.linalg.matrix_power(system.free + side * edge * system.curved, 4000)).max()
        for side in (0.99, 1.01)
    ]
    assert sizes[0] < 1 < sizes[1]


def test_without_curvature_in_it_nothing_grows():
    still = theory.LinearOptimizer(np.eye(1), np.zeros((1, 1)), np.zeros(1))
    assert theory.stability_edge(still) == np.inf


def test_unstable_directions_are_refused():
    system = theory.heavy_ball_system(1.0, 0.0)
    with pytest.raises(ValueError, match="not stable"):
        theory.stationary_covariance(np.array([2.5]), system, theory.with_replacement())


def test_noise_that_repeats_through_its_spectral_lines():
    """A plain sum over the periodic response of one order, and the scalar closed form."""
    lam, M = np.array([1e-3, 0.3, 2.0]), 9
    law = theory.shuffle_once(M)
    system = theory.heavy_ball_system(ETA, BETA)
    P, lagged = theory.stationary_covariance(lam, system, law)
    exact = theory.stationary_variances(lam, ETA, BETA, law)
    np.testing.assert_allclose(P[:, 0, 0], exact.weight, rtol=1e-12)
    np.testing.assert_allclose(2 * (P - lagged)[:, 0, 0], exact.velocity, rtol=1e-9)
    for i, x in enumerate(lam):
        A = system.free + x * system.curved
        turns = [np.linalg.matrix_power(A, j) @ system.response for j in range(M)]
        once = np.linalg.solve(np.eye(2) - np.linalg.matrix_power(A, M), np.array(turns).T)
        # The response to a unit pulse every M steps; r is one pulse train less its mean.
        steady = once - once.mean(axis=1, keepdims=True)
        np.testing.assert_allclose(P[i], steady @ steady.T * M / (M - 1), rtol=1e-9)
