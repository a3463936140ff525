"""Designed orders: their law, their bound, their batches, and what they do to the weights."""

import itertools

import jax
import numpy as np
import pytest
from scipy import stats

from antisgd import sampling, theory

HERE = np.arange(4)
POSITIONS = np.array([[2, 0, 3, 1], [0, 1, 2, 3], [3, 1, 0, 2]])
LAMBDA, ETA, BETA = np.array([0.05, 0.6, 4.0]), 0.2, 0.7


def test_the_law_of_a_design_by_all_orders():
    """Enumeration of the 4! orders of one cycle and of the next, averaged over the cycle."""
    M, E = 4, 3
    x = np.array([1.0, -2.0, 0.5, 4.0])
    x = x - x.mean()
    runs = []
    for order in itertools.permutations(range(M)):
        cycle = np.empty(E * M)
        for e in range(E):
            cycle[e * M + POSITIONS[e]] = x[list(order)]
        runs.append(cycle)
    C = np.array(runs).T @ np.array(runs) / len(runs)
    found = [np.trace(C, offset=h) / (E * M) for h in range(E * M)]
    law = theory.order_law(POSITIONS, batch_size=1)
    np.testing.assert_allclose(law.correlations, np.array(found[1:]) / found[0], atol=1e-15)
    # C₀ is normalised by M − 1 here.
    np.testing.assert_allclose(law.variance * x.var(ddof=1), found[0], rtol=1e-14)


def test_known_orders_are_designs():
    flip = theory.order_law(np.stack([HERE, HERE[::-1]])).correlations
    np.testing.assert_allclose(flip, theory.flip_flop(4).correlations, atol=1e-16)
    once = theory.order_law(HERE[None]).correlations
    expected = theory.autocorrelation(theory.without_replacement(4), np.arange(1, 4))
    np.testing.assert_allclose(once, expected, atol=1e-16)
    # A new order every E epochs adds ∝ 1/E once E epochs are longer than the memory.
    fewer, many = (
        theory.stationary_variances(LAMBDA, ETA, BETA, theory.order_law(np.tile(HERE, (E, 1))))
        for E in (300, 600)
    )
    limit = theory.stationary_variances(LAMBDA, ETA, BETA, theory.shuffle_once(4)).weight
    np.testing.assert_allclose(2 * many.weight - fewer.weight, limit, rtol=1e-9)


@pytest.mark.parametrize(
    "law",
    [theory.without_replacement(9), theory.order_law(POSITIONS), theory.shuffle_once(5),
     theory.with_replacement(), theory.drop_last(23, 4)],
)  # fmt: skip
@pytest.mark.parametrize("T", [1, 7, 10])
def test_the_mean_of_weights_by_its_impulse_response(law, T):
    """Var θ̄ = Σ_h r(h) Σ_j p_j p_{j+h}, p the response of the mean of T weights to one kick."""
    steps, r = 6000, theory.autocorrelation(law, np.arange(6000))
    for lam, found in zip(
        LAMBDA, theory.averaged_variances(LAMBDA, ETA, BETA, law, T), strict=True
    ):
        theta, v, path = 0.0, 0.0, []
        for k in range(steps):
            v = BETA * v - ETA * lam * theta - ETA * (k == 0)
            theta += v
            path.append(theta)
        p = np.convolve(path, np.ones(T) / T)[:steps]
        power = np.abs(np.fft.rfft(p, 2 * steps)) ** 2
        again = np.fft.irfft(power)[:steps]
        exact = r[0] * again[0] + 2 * r[1:] @ again[1:]
        white = np.abs(again).max() / (1 - BETA) * 100
        np.testing.assert_allclose(found, exact, rtol=1e-9, atol=1e-14 * white)


def test_the_mean_of_an_epoch_of_a_repeating_order_is_free_of_noise():
    found = theory.averaged_variances(LAMBDA, ETA, BETA, theory.shuffle_once(50), 100)
    white = theory.averaged_variances(LAMBDA, ETA, BETA, theory.with_replacement(), 100)
    assert (found < 1e-25 * white).all()


def test_the_response_of_means_rebuilds_their_variance():
    law = theory.order_law(POSITIONS)
    response = theory.average_response(LAMBDA, ETA, BETA, 6, len(law.correlations))
    white = theory.averaged_variances(LAMBDA, ETA, BETA, theory.with_replacement(), 6)
    exact = theory.averaged_variances(LAMBDA, ETA, BETA, law, 6)
    np.testing.assert_allclose(white + law.correlations @ response, exact, atol=1e-13 * white.max())


def test_two_epochs_are_designed_best_of_all():
    """Every one of the 4! designs, for slopes of no shape at all."""
    for seed in range(5):
        slope = np.random.default_rng(seed).standard_normal(7)
        every = [
            theory.order_law(np.stack([HERE, np.array(p)])).correlations @ slope
            for p in itertools.permutations(range(4))
        ]
        found = theory.best_order(slope, 4, 2)
        np.testing.assert_allclose([found.change, found.bound], min(every), atol=1e-13)


def test_the_bound_holds_for_three_epochs():
    slope = np.random.default_rng(3).standard_normal(11)
    every = [
        theory.order_law(np.array([HERE, p, q])).correlations @ slope
        for p, q in itertools.product(itertools.permutations(range(4)), repeat=2)
    ]
    found = theory.best_order(slope, 4, 3)
    assert found.bound <= min(every) + 1e-13 <= found.change + 2e-13
    assert found.change <= np.quantile(every, 0.02)


def test_one_order_is_best_where_the_response_is_convex():
    """Without momentum cov(θ_k, θ_{k+h}) ∝ (1 − ηλ)^h: convex, and the bound is attained."""
    slope = theory.loss_fluctuation_slope(LAMBDA, LAMBDA, ETA, 0.0, 60)
    found = theory.best_order(slope, 12, 5)
    np.testing.assert_array_equal(found.positions, np.tile(np.arange(12), (5, 1)))
    np.testing.assert_allclose(found.change, found.bound, rtol=1e-12)


def test_a_designed_schedule_stands_where_it_was_designed():
    """Every example once an epoch, a batch of the same examples at its place, then a new order."""
    scheme, key, S = sampling.designed(POSITIONS), jax.random.key(5), 3
    epochs = [
        np.asarray(jax.jit(scheme, static_argnums=(2, 3))(key, e, 12, S)[0]) for e in range(4)
    ]
    for e, one in enumerate(epochs):
        np.testing.assert_array_equal(np.sort(one.ravel()), np.arange(12))
        if e < 3:
            np.testing.assert_array_equal(one[POSITIONS[e]], epochs[0][POSITIONS[0]])
    assert not np.array_equal(epochs[3][POSITIONS[0]], epochs[0][POSITIONS[0]])


def test_weights_under_designed_batches_have_the_predicted_fluctuation():
    """Real batches of heavy-tailed examples, 4,000 replicas; z for p = 1e-3 over three λ."""
    S, M, E, replicas = 3, 4, 3, 4000
    random = np.random.default_rng(0)
    g = random.standard_t(5, (M * S, 3))
    g -= g.mean(axis=0)
    keys = jax.random.split(jax.random.key(1), replicas)
    draw = jax.jit(jax.vmap(lambda key, e: sampling.designed(POSITIONS)(key, e, 12, S)[0],
                            in_axes=(0, None)))  # fmt: skip
    theta, v, taken = np.zeros((replicas, 3)), np.zeros((replicas, 3)), []
    for epoch in range(24):
        batches = np.asarray(draw(keys, epoch))
        for step in range(M):
            v = BETA * v - ETA * (LAMBDA * theta + g[batches[:, step]].mean(axis=1))
            theta = theta + v
            if epoch >= 24 - E:
                taken.append(theta**2)
    each = np.mean(taken, axis=0)
    law = theory.order_law(POSITIONS, batch_size=S)
    V = theory.stationary_variances(LAMBDA, ETA, BETA, law).weight
    expected = law.variance * g.var(axis=0, ddof=1) * V
    z = (each.mean(axis=0) - expected) / (each.std(axis=0) / np.sqrt(replicas))
    # The start is forgotten but for (1 − ηλ/(1−β))^84 = 0.05 in the flattest direction's weights.
    settled = slice(1, None)
    assert np.abs(z[settled]).max() < stats.norm.isf(1e-3 / 4)


def planted(N=24, k=3, seed=2):
    return np.random.default_rng(seed).standard_normal((N, k))


def test_the_variance_of_an_order_by_running_it():
    g = planted()
    order = np.random.default_rng(0).permutation(24).reshape(6, 4)
    theta, v, noise = np.zeros(3), np.zeros(3), (g - g.mean(axis=0))[order].mean(axis=1)
    for epoch in range(1000):
        path = []
        for n in noise:
            v = BETA * v - ETA * (LAMBDA * theta + n)
            theta = theta + v
            path.append(theta)
        if epoch == 998:
            before = theta
    np.testing.assert_allclose(theta, before, atol=1e-12)
    found = theory.repeated_order_variances(g, LAMBDA, ETA, BETA, order)
    np.testing.assert_allclose(found, np.mean(np.square(path), axis=0), rtol=1e-10)
    np.testing.assert_allclose(np.mean(path, axis=0), 0, atol=1e-12)


def test_no_exchange_improves_a_balanced_order():
    g, S = planted(), 4
    order = theory.balanced_order(g, LAMBDA, ETA, BETA, S, sweeps=100)
    np.testing.assert_array_equal(np.sort(order.ravel()), np.arange(24))

    def value(rows):
        return theory.repeated_order_variances(g, LAMBDA, ETA, BETA, rows) @ LAMBDA / 2

    balanced, changed = value(order), []
    for i, j in itertools.combinations(range(24), 2):
        other = order.ravel().copy()
        other[[i, j]] = other[[j, i]]
        changed.append(value(other.reshape(6, S)))
    assert min(changed) >= balanced * (1 - 1e-6)
    random = [value(np.random.default_rng(i).permutation(24).reshape(6, S)) for i in range(50)]
    assert balanced < min(random)


def test_a_balanced_order_repeats():
    order = theory.balanced_order(planted(), LAMBDA, ETA, BETA, 4, sweeps=1)
    for epoch in (0, 3):
        schedule = sampling.repeated(order)(jax.random.key(epoch), epoch, 24, 4)
        np.testing.assert_array_equal(schedule.indices, order)
        assert np.all(np.asarray(schedule.weights) == 1)


REFUSED = {
    "no permutation": (lambda: theory.order_law([[0, 1, 1]]), "row 0 of positions"),
    "one batch": (lambda: theory.order_law([[0]]), "one batch an epoch"),
    "floats": (lambda: sampling.designed([[0.0, 1.0]]), "positions must be integers"),
    "few lags": (lambda: theory.best_order(np.ones(3), 4, 2), "need the slope at 7 lags"),
    "ragged": (
        lambda: sampling.designed(POSITIONS)(jax.random.key(0), 0, 13, 3), "design of 4 batches",
    ),
    "other size": (
        lambda: sampling.repeated([[0, 1], [2, 3]])(jax.random.key(0), 0, 8, 2),
        "order of 2 batches",
    ),
    "twice": (lambda: sampling.repeated([[0, 1], [1, 2]]), "row 0 of the order"),
    "indivisible": (
        lambda: theory.balanced_order(planted(), LAMBDA, ETA, BETA, 5), "must divide the 24",
    ),
    "left out": (
        lambda: theory.repeated_order_variances(planted(), LAMBDA, ETA, BETA, [[0, 1], [2, 3]]),
        "order of 24 examples",
    ),
    "no average": (
        lambda: theory.averaged_variances(LAMBDA, ETA, BETA, theory.with_replacement(), 0),
        "must be an integer",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_named(name):
    call, words = REFUSED[name]
    with pytest.raises(ValueError, match=words):
        call()
