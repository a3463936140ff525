"""Noise that does not cancel over an epoch because the examples' gradients change within it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from antisgd import renormalisation, theory, trajectory

ETA, BETA, N, S = 0.02, 0.8, 60, 3
M = N // S
LAW = theory.without_replacement(M, S)
WHITE = theory.with_replacement()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.9])
def test_the_law_is_the_mixture_of_reshuffled_and_white_noise(share):
    """Second moments are linear in the correlations: everywhere that positions are kept too."""
    lam = np.geomspace(0.01, 50, 7)
    law = theory.uncancelled(LAW, share)

    def mixed(of):
        parts = zip(of(LAW), of(WHITE), strict=True)
        return [(1 - share) * kept + share * lost for kept, lost in parts]

    for of in (
        lambda law: theory.window_variances(lam, ETA, BETA, law, 3 * M)[:2],
        lambda law: theory.window_variances(lam, ETA, BETA, law, 3 * M, aligned=False)[:2],
        lambda law: theory.stationary_variances(lam, ETA, BETA, law),
        lambda law: theory.visited_weights(lam, ETA, BETA, law, 3 * M)[:1],
        lambda law: [theory.autocorrelation(law, np.arange(2 * M))],
    ):
        for found, expected in zip(of(law), mixed(of), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    assert law.variance == LAW.variance


def test_ragged_batches_keep_their_mean_correlations():
    """By lag over all positions, from the chain: the batches' covariances are −1/N' each."""
    ragged, share = theory.partial_last(11, 3), 0.3
    law = theory.uncancelled(ragged, share)
    expected = (1 - share) * theory.autocorrelation(ragged, np.arange(1, 6))
    np.testing.assert_allclose(theory.autocorrelation(law, np.arange(1, 6)), expected, rtol=1e-12)
    sizes = np.array([3, 3, 3, 2])
    variance = np.mean(1 / sizes - 1 / law.num_examples)
    found = [-(4 - h) / 4 / law.num_examples / variance for h in range(1, 4)]
    np.testing.assert_allclose(found, expected[:3], rtol=1e-12)


def test_what_is_no_part_of_an_epoch_is_refused():
    for law in (WHITE, theory.shuffle_once(M), theory.flip_flop(M), theory.anti_pgd()):
        with pytest.raises(ValueError, match="independent epochs"):
            theory.uncancelled(law, 0.1)
    for share in (-0.1, 1.0):
        with pytest.raises(ValueError, match="share"):
            theory.uncancelled(LAW, share)


def bent():
    """Gradients λθ + ΔH_nθ + r_n along a steep and a flat direction: λ, ΔH [N, 2, 2], r [N, 2].

    The steep one carries much noise, and its coupling to the flat one moves the flat gradients.
    """
    rng = np.random.default_rng(0)
    B = rng.normal(size=(N, 2, 2))
    B = (B + B.transpose(0, 2, 1)) / 2
    r = rng.normal(size=(N, 2)) * [6, 1]
    return np.array([4.0, 0.05]), (B - B.mean(0)) * [[1, 1.5], [1.5, 0.02]], r - r.mean(0)


def test_changing_gradients_are_those_of_a_random_curvature():
    """mean_n var_θ(p·ΔH_nθ) = mean_n p·ΔH_nΣΔH_np, and all of it with the residuals r_n."""
    lam, dH, r = bent()
    deviations, centre, pairs = np.array([0.3, 0.2]), np.array([0.1, -0.4]), 4000

    def gradients_at(theta):
        return (np.diag(lam) + dH) @ np.asarray(theta) + r

    offsets = renormalisation.gaussian_offsets(
        jax.random.key(0), jnp.eye(2), jnp.asarray(deviations, jnp.float32), 2 * pairs
    )
    changed, whole = renormalisation.changing_gradients(gradients_at, jnp.asarray(centre), offsets)
    assert changed.shape == whole.shape == (pairs, 2)
    part = (dH**2 @ deviations**2).mean(0)
    for found, expected in ((changed, part), (whole, part + ((dH @ centre + r) ** 2).mean(0))):
        error = found.std(axis=0, ddof=1) / np.sqrt(pairs)
        assert np.all(np.abs(found.mean(axis=0) - expected) < 3.9 * error)
        assert np.all(error < 0.03 * expected)
    for count in (0, 3):
        with pytest.raises(ValueError, match="even number"):
            renormalisation.changing_gradients(gradients_at, jnp.asarray(centre), offsets[:count])


def simulated(replicas=500, rest=40, epochs=20):
    """Reshuffled heavy ball: weights [T, R, 2], noise of the epochs summed [E, R, 2], σ_δg² [2]."""
    lam, dH, r = bent()
    rng = np.random.default_rng(1)
    x, v = np.zeros((2, replicas, 2))
    X, sums, squares = [], [], []
    for epoch in range(rest + epochs):
        batches = rng.permuted(np.tile(np.arange(N), (replicas, 1)), axis=1).reshape(-1, M, S)
        noises = []
        for k in range(M):
            b = batches[:, k]
            noise = np.einsum("rsij,rj->ri", dH[b], x) / S + r[b].mean(axis=1)
            X.append(x)
            noises.append(noise)
            v = BETA * v - ETA * (lam * x + noise)
            x = x + v
        if epoch >= rest:
            sums.append(np.sum(noises, axis=0))
            squares.append(np.mean(np.square(noises), axis=(0, 1)))
    return np.array(X[rest * M :]), np.array(sums), np.mean(squares, axis=0)


def test_uncancelled_noise_moves_flat_directions_as_its_law_says():
    """The spread within an epoch gives the share, the share the variance of the weights."""
    lam, dH, r = bent()
    X, sums, noise = simulated()
    share = sums.var(axis=(0, 1)) / (M * noise)
    within = noise * theory.window_variances(lam, ETA, BETA, LAW, M, drift="mean").weight
    part = (dH**2 @ within).mean(0)
    predicted = part / (part + (r**2).mean(0))
    # To leading order in 1/M, and gradients do not wait for the weights: a tenth.
    np.testing.assert_allclose(share, predicted, rtol=0.1)
    assert share[1] > 0.09
    found = X.var(axis=(0, 1))
    cancelled = noise * theory.stationary_variances(lam, ETA, BETA, LAW).weight
    assert found[1] > 4 * cancelled[1]
    assert found[0] == pytest.approx(cancelled[0], rel=0.05)
    law = theory.uncancelled(LAW, float(share[1]))
    flat = noise[1] * theory.stationary_variances(lam[1:], ETA, BETA, law).weight[0]
    # A slow direction has moved twice in the window: 1,000 squares, 3.3 errors of a Gaussian's.
    assert found[1] == pytest.approx(flat, rel=3.3 * np.sqrt(2 / 1000))


# --- examples are drawn before their own step -------------------------------------------------


def test_the_share_of_its_own_step_by_the_responses_of_all_that_came_before():
    pushed = [sum(BETA**i for i in range(h)) * (1 - BETA) for h in range(M)]
    expected = [sum(pushed[1 : m + 1]) / M for m in range(M)]
    found = theory.own_step_share(M, BETA)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(theory.own_step_share(M, 0.0), np.arange(M) / M)


def noise_as_drawn(reshuffled):
    """Noise of single examples as they are drawn over that of all at the same weights, [epochs, M].

    A flat direction: gradients c_n + d_nθ with mean d_n zero, steep examples with large c_n.
    """
    rng, epochs, replicas = np.random.default_rng(1), 40, 400
    large = np.arange(N) < N // 2
    c = np.where(large, 3.0, 0.3) * np.where(np.arange(N) % 2, 1, -1)
    d = np.where(large, 2.0, -2.0)
    theta, v = np.zeros((2, replicas))
    drawn, all_of_them = np.zeros((2, epochs, M))
    for epoch in range(epochs):
        order = rng.random((replicas, N)).argsort(axis=1)
        order = order if reshuffled else rng.integers(0, N, (replicas, N))
        for m in range(M):
            gradients = c + d * theta[:, None]
            gradients -= gradients.mean(axis=1, keepdims=True)
            batch = np.take_along_axis(gradients, order[:, m * S : (m + 1) * S], axis=1)
            drawn[epoch, m], all_of_them[epoch, m] = np.mean(batch**2), np.mean(gradients**2)
            v = BETA * v - ETA * batch.mean(axis=1)
            theta = theta + v
    return c, d, drawn / all_of_them


@pytest.mark.parametrize("reshuffled", [True, False])
def test_reshuffled_examples_have_the_noise_that_they_have_before_their_own_step(reshuffled):
    """g_n at θ + s g_n is g_n(1 + s d_n); drawn with replacement they have that of all examples."""
    c, d, ratio = noise_as_drawn(reshuffled)
    s = theory.own_step_share(M, BETA) * ETA / ((1 - BETA) * S) * reshuffled
    expected = np.mean((c * (1 + s[:, None] * d)) ** 2, axis=1) / np.mean(c**2)
    error = ratio.std(axis=0, ddof=1) / np.sqrt(len(ratio))
    scores = (ratio.mean(axis=0) - expected) / error
    assert np.abs(scores).max() < 4.2
    assert not reshuffled or expected[-1] > 1.1


def test_gradients_beyond_their_own_step():
    """Of a cubic loss at θ + s∇l_n(θ), against the same written out."""
    x = jax.random.normal(jax.random.key(0), (5, 3))
    theta, rows = jnp.array([0.3, -0.2, 0.5]), jnp.eye(3)[:2]

    def loss(params, examples, weights):
        return jnp.sum(weights * (examples @ params) ** 3) / jnp.sum(weights)

    found = trajectory.example_gradients(loss, theta, x, rows, microbatch_size=2, own_step=0.1)
    for example, each in zip(np.asarray(x), found, strict=True):
        at = theta + 0.1 * 3 * (example @ theta) ** 2 * example
        np.testing.assert_allclose(each, (3 * (example @ at) ** 2 * example)[:2], rtol=1e-5)
