"""Averages over the weights that a window visits, and the stage that predicts by them."""

import contextlib
import dataclasses
import itertools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from antisgd import (
    fluctuations,
    lanczos,
    sources,
    statistics,
    study,
    theory,
    trajectory,
)
from antisgd.study.conditions import conditions_of
from antisgd.study.findings import bins, relaxation, velocities
from antisgd.study.findings import predict as findings
from antisgd.study.stages import drawn, predict

ETA, BETA, M, T = 0.1, 0.8, 10, 60
LAWS = {"white": theory.with_replacement(), "reshuffled": theory.without_replacement(M)}
Z = 3.29


def responses(a):
    """θ_k − θ_0 of each unit push, [T + 1, T], and the share of the way to the minimum, [T + 1]."""
    pushed, share = np.zeros((T + 1, T)), np.zeros(T + 1)
    for n in range(T):
        theta = v = 0.0
        for k in range(n, T):
            v = BETA * v - a * theta - ETA * (k == n)
            theta += v
            pushed[k + 1, n] = theta
    v = 0.0
    for k in range(T):
        v = BETA * v + a * (1 - share[k])
        share[k + 1] = share[k] + v
    return pushed, share


@pytest.mark.parametrize("name", LAWS)
def test_visited_weights_are_dense_responses(name):
    """Of any sign of curvature; more than a hundred by interpolation."""
    lam = np.array([-0.05, 1e-6, 0.3, 20.0])
    lags = np.subtract.outer(np.arange(T), np.arange(T))
    noise = theory.autocorrelation(LAWS[name], lags)
    noise *= name == "white" or np.equal.outer(np.arange(T) // M, np.arange(T) // M)
    if name == "reshuffled":
        noise = np.where(noise < 0, -1 / (M - 1), noise)
    found = theory.visited_weights(lam, ETA, BETA, LAWS[name], T)
    for i, one in enumerate(lam):
        pushed, share = responses(ETA * one)
        variance = np.einsum("kn,nm,km->", pushed, noise, pushed) / (T + 1)
        np.testing.assert_allclose(found.variance[i], variance, rtol=1e-11)
        np.testing.assert_allclose(found.reach[i], share.mean(), rtol=1e-11, atol=1e-14)
        np.testing.assert_allclose(found.path_variance[i], share.var(), rtol=1e-11, atol=1e-14)
    many = np.geomspace(1e-6, 20, 150)
    close = theory.visited_weights(many, ETA, BETA, LAWS[name], T)
    exact = [theory.visited_weights(part, ETA, BETA, LAWS[name], T) for part in many.reshape(2, 75)]
    for rough, *parts in zip(close, *exact, strict=True):
        part = np.concatenate(parts)
        np.testing.assert_allclose(rough, part, atol=2e-3 * part.max())


def quartic(kappa, lam=0.3, theta_0=1.0):
    """Averages of λx²/2 + κx⁴/4 about θ_0, and the loss's slope and curvature."""

    def averages(mean, variance):
        x = theta_0 + mean
        second = x**2 + variance
        gradient = lam * x + kappa * (x**3 + 3 * x * variance)
        return theory.Averages(gradient, lam + 3 * kappa * second, np.full(1, 4.0))

    return averages, lambda x: lam * x + kappa * x**3, lambda x: lam + 3 * kappa * x**2


@pytest.mark.parametrize("name", LAWS)
def test_the_curvature_on_the_way_is_that_of_simulated_windows(name):
    """From one θ_0 off the minimum: mean, spread and curvature over replicas and times."""
    averages, slope, curvature = quartic(0.08)
    found = theory.visited_averages(averages, 1, ETA, BETA, LAWS[name], T, tolerance=1e-6)
    rng, replicas = np.random.default_rng(0), 20_000
    x, v = np.ones(replicas), np.zeros(replicas)
    path = [x]
    for k in range(T):
        if k % M == 0:
            noise = 2 * rng.standard_normal((M, replicas))
            if name == "reshuffled":
                noise = (noise - noise.mean(axis=0)) * np.sqrt(M / (M - 1))
        v = BETA * v - ETA * (slope(x) + noise[k % M])
        x = x + v
        path.append(x)
    path = np.array(path)
    assert curvature(path).mean() > 1.3 * curvature(0)
    # Gaussian averages, the path that of one curvature: a twentieth.
    assert found.curvature[0] == pytest.approx(curvature(path).mean(), rel=0.05)
    assert found.mean[0] == pytest.approx(path.mean() - 1, abs=0.05)
    assert found.variance[0] == pytest.approx(path.var(), rel=0.1)
    assert found.change < 1e-6


def test_a_fixed_point_reproduces_itself_and_none_is_refused():
    averages, *_ = quartic(0.3)
    found = theory.visited_averages(averages, 1, ETA, BETA, LAWS["white"], T, tolerance=1e-13)
    again = averages(found.mean, found.variance)
    seen = theory.visited_weights(again.curvature, ETA, BETA, LAWS["white"], T)
    minimum = found.mean - again.gradient / again.curvature
    np.testing.assert_allclose(found.mean, seen.reach * minimum, rtol=1e-6)
    spread = again.noise * seen.variance + minimum**2 * seen.path_variance
    np.testing.assert_allclose(found.variance, spread, rtol=1e-6)
    varying = itertools.cycle((0.1, 0.2))
    bad = {
        "no stationary state": lambda m, s: theory.Averages(m, 0.1 - s, np.ones(1)),
        "without noise": lambda m, s: theory.Averages(m, 0.1 + 0 * s, np.zeros(1)),
        "do not settle": lambda m, s: theory.Averages(m, next(varying) * np.ones(1), np.ones(1)),
    }
    for message, one in bad.items():
        with pytest.raises(ArithmeticError, match=message):
            theory.visited_averages(one, 1, ETA, BETA, LAWS["white"], T, max_iterations=20)


def test_averages_that_are_rough_settle_as_far_as_they_can():
    """A hundred directions that push each other, each told with 3 % of error at every new place."""
    k, rng = 100, np.random.default_rng(0)
    lam = np.geomspace(1, 0.05, k)

    def averages(rough):
        def at(mean, variance):
            shared = 1 + variance.sum() / 3
            jitter = np.exp(rough * rng.standard_normal(k))
            return theory.Averages(0 * lam, lam * shared * jitter, 0.1 * lam)

        return at

    law = ETA, BETA, LAWS["white"], T
    smooth = theory.visited_averages(averages(0.0), k, *law, tolerance=1e-6)
    assert np.all(smooth.curvature > 1.2 * lam)
    for _ in range(5):
        found = theory.visited_averages(averages(0.03), k, *law, tolerance=0.05, max_iterations=15)
        off = np.log(found.curvature / smooth.curvature)
        assert found.change < 0.05
        assert abs(off.mean()) < 0.05
        # Of one direction its own error, and what is left to the fixed point.
        assert np.sqrt(np.mean(off**2)) < np.hypot(0.05, 1.5 * 0.03)


# --- the stage ------------------------------------------------------------------------------

D, N, S = 6, 60, 6


def problem(bend=0.0):
    """Least squares whose residuals are bent: H is constant for bend 0."""
    rng = np.random.default_rng(0)
    wide = rng.standard_normal((N, D)) * np.geomspace(2, 0.3, D)
    x = jnp.asarray(wide, jnp.float32)
    y = jnp.asarray(wide.sum(axis=1) + rng.standard_normal(N), jnp.float32)

    def loss(params, examples, weights):
        inputs, targets = examples
        r = inputs @ params["w"] - targets
        return jnp.sum(weights * (r**2 / 2 + bend * r**4)) / jnp.sum(weights)

    return study.Problem(lambda key: {"w": jnp.zeros(D)}, loss, train=(x, y))


SETTINGS = study.Settings(
    batch_size=S, learning_rate=0.02, learning_rate_decay=1.0, epochs=1, analysis_epochs=5,
    eigenpairs=4, microbatch_size=N, stages=("predict",),
)  # fmt: skip


def at_minimum(one, k=4):
    """θ_K at the minimum of the quadratic, and the k leading pairs of the Hessian of `one`."""
    x, y = (np.asarray(part, np.float64) for part in one.train)
    theta = np.linalg.lstsq(x, y, rcond=None)[0]
    H = jax.hessian(lambda w: one.loss({"w": w}, one.train, jnp.ones(N)))(jnp.asarray(theta))
    values, vectors = np.linalg.eigh(np.asarray(H, np.float64))
    return {"w": jnp.asarray(theta, jnp.float32)}, values[::-1][:k], vectors[:, ::-1][:, :k].T


def predicted(one, folder, density=None, settings=SETTINGS):
    params, values, vectors = at_minimum(one)
    rows = np.asarray(vectors, np.float32)
    return predict.predict(one, settings, params, rows, values, density, folder), values


def test_in_a_parabola_the_prediction_is_the_harmonic_one_with_the_noise_on_the_way(tmp_path):
    """C by the written-out gradients at the drawn weights' second moments: l_n is quadratic."""
    one = problem()
    found, values = predicted(one, tmp_path)
    params, _, vectors = at_minimum(one)
    x, y = (np.asarray(part, np.float64) for part in one.train)
    residual, along = x @ np.asarray(params["w"], np.float64) - y, x @ vectors.T
    conditions = conditions_of(N, SETTINGS)
    for scheme, each in found.items():
        assert not each.refused
        np.testing.assert_allclose(each.curvature, values, rtol=1e-5)
        law = conditions.noise_law(scheme)
        C = law.variance * (residual[:, None] * along).var(axis=0, ddof=1)
        np.testing.assert_allclose(each.start_noise, C, rtol=1e-4)
        start = conditions.starting_law
        if scheme == "without_replacement":
            law = start = theory.uncancelled(law, float(each.changing.mean()))
        seen = theory.window_variances(
            values, 0.02, 0.9, law, 50, start=start, drift="mean_velocity"
        )
        np.testing.assert_allclose(each.correlation_time, seen.correlation_time, rtol=1e-4)
        np.testing.assert_allclose(each.weight, each.noise * seen.weight, rtol=1e-4)
        assert np.isnan(each.length_outside)
        # The noise grows with the spread: residuals r + x·(θ − θ_K).
        assert np.all(each.noise > each.start_noise)


def test_the_noise_that_does_not_cancel_is_that_of_the_spread_within_an_epoch(
    tmp_path, monkeypatch
):
    """l_n is quadratic: of r_n x_n along p the part (x_n·y)(x_n·p) changes, y within an epoch."""
    monkeypatch.setattr(drawn, "PAIRS", 100)
    one = problem()
    params, values, vectors = at_minimum(one)
    found, _ = predicted(one, tmp_path)
    each = found["without_replacement"]
    assert not found["with_replacement"].changing.size
    x, y = (np.asarray(part, np.float64) for part in one.train)
    law = theory.without_replacement(N // S, S)
    seen = theory.window_variances(values, 0.02, 0.9, law, N // S, drift="mean")
    within = each.noise * seen.weight
    along, residual = x @ vectors.T, x @ np.asarray(params["w"], np.float64) - y
    curved = along[:, :, None] * along[:, None]
    part = ((curved - curved.mean(axis=0)) ** 2 @ within).mean(axis=0)
    still = (residual[:, None] * along).var(axis=0)
    expected = np.mean(part / (part + still))
    error = each.changing.std(ddof=1) / np.sqrt(len(each.changing))
    assert abs(each.changing.mean() - expected) < Z * error
    assert error < 0.15 * expected


def test_reshuffled_noise_is_that_of_examples_before_their_own_step(tmp_path):
    """Least squares: the residual is r_n(1 + s|x_n|²) where an own step of −s∇l_n is not made."""
    one = problem()
    found, _ = predicted(one, tmp_path)
    params, _, vectors = at_minimum(one)
    x, y = (np.asarray(part, np.float64) for part in one.train)
    gradients = (x @ np.asarray(params["w"], np.float64) - y)[:, None] * (x @ vectors.T)
    steps = theory.own_step_share(N // S, SETTINGS.momentum)
    steps *= SETTINGS.learning_rate / ((1 - SETTINGS.momentum) * S)
    before = 1 + steps[:, None, None] * np.sum(x**2, axis=1)[:, None]
    expected = (before * gradients).var(axis=1).mean(axis=0) / gradients.var(axis=0)
    np.testing.assert_allclose(found["without_replacement"].own_step, expected, rtol=1e-3)
    assert np.all(expected > 1.01)
    np.testing.assert_array_equal(found["with_replacement"].own_step, 1)
    for each in found.values():
        averaged = each.start_noise * each.pair_noise.mean(axis=0)
        np.testing.assert_allclose(each.noise, averaged * each.own_step, rtol=1e-6)


def test_a_prediction_is_read_again_until_there_is_a_density(tmp_path, monkeypatch):
    one = problem(0.01)
    first, values = predicted(one, tmp_path)
    monkeypatch.setattr(drawn, "make_averages", None)
    again, _ = predicted(one, tmp_path)
    for scheme in first:
        for before, after in zip(first[scheme], again[scheme], strict=True):
            np.testing.assert_array_equal(before, after)
    monkeypatch.undo()
    outer = values[-1] / np.array([2.0, 4.0])
    density = lanczos.SpectralDensity(np.array([[values[0], *outer]]), np.array([[0.5, 0.3, 0.2]]))
    wider, _ = predicted(one, tmp_path, density)
    params, _, vectors = at_minimum(one)
    rows = np.asarray(vectors, np.float32)
    shares, law = np.array([0.6, 0.4]), conditions_of(N, SETTINGS).noise_law("with_replacement")
    shares = shares * outer / (shares @ outer)
    seen = theory.visited_weights(outer, 0.02, 0.9, law, 50).variance
    aside = np.asarray(drawn.noise_aside(one, SETTINGS, params, rows), np.float64)
    squares = law.variance * (shares @ seen) * np.sum(aside**2, axis=1)
    np.testing.assert_allclose(
        wider["with_replacement"].length_outside, np.sqrt(squares.mean()), rtol=1e-5
    )
    C = drawn.noise_at(one, SETTINGS, params, rows)
    np.testing.assert_allclose(C, np.diag(rows @ noise_of(one, params) @ rows.T), rtol=1e-4)


def noise_of(one, params):
    """C₀ of all dimensions by each example's gradient."""
    gradients = jax.vmap(
        lambda x, y: jax.grad(lambda w: one.loss({"w": w}, (x[None], y[None]), jnp.ones(1)))(
            params["w"]
        )
    )(*one.train)
    return np.cov(np.asarray(gradients, np.float64).T)


def test_noise_outside_the_directions_is_that_of_examples_that_are_read(tmp_path):
    one = problem()
    params, _, vectors = at_minimum(one)
    rows = np.asarray(vectors, np.float32)
    source = sources.Source(N, lambda rows: tuple(np.asarray(part)[rows] for part in one.train))
    read = dataclasses.replace(one, train=source)
    pieces = dataclasses.replace(SETTINGS, microbatch_size=8)
    there = np.asarray(drawn.noise_aside(one, SETTINGS, params, rows))
    here = np.asarray(drawn.noise_aside(read, pieces, params, rows))
    np.testing.assert_allclose(here, there, rtol=1e-4, atol=1e-5 * np.abs(there).max())
    assert np.abs(there @ rows.T).max() < 1e-5 * np.abs(there).max()


def test_the_weights_spread_outside_the_directions_as_their_noise_does(monkeypatch):
    """l_n is quadratic: with the residual r_n + x_n·δ the noise along p is known for any Σ_δ."""
    monkeypatch.setattr(drawn, "PAIRS", 100)
    one = problem()
    params, values, vectors = at_minimum(one)
    rows = jnp.asarray(vectors, jnp.float32)
    C = drawn.noise_at(one, SETTINGS, params, rows)
    aside = drawn.noise_aside(one, SETTINGS, params, rows)
    flat, restore = ravel_pytree(params)
    drawing = drawn.Drawing(
        one, N, flat, restore, rows, values, C, np.arange(4), 1.0, aside, (3.0, 1.5),
        jax.random.key(0),
    )  # fmt: skip

    def kept(compute, units=0):
        return np.asarray(compute())

    averages, last = drawn.make_averages(drawing, kept)
    spread = np.array([1e-3, 2e-3, 2e-3, 4e-3])
    found = averages(np.zeros(4), spread)
    x, y = (np.asarray(part, np.float64) for part in one.train)
    along, residual = x @ vectors.T, x @ np.asarray(params["w"], np.float64) - y
    still = (residual[:, None] * along).var(axis=0, ddof=1)
    beyond = np.eye(D) - vectors.T @ vectors

    def expected(outside):
        sigma = vectors.T @ np.diag(spread) @ vectors
        sigma += outside**2 * beyond @ noise_of(problem(), params) @ beyond
        means = (x[:, :, None] * along[:, None]).mean(axis=0)
        squares = along**2 * np.einsum("nd,de,ne->n", x, sigma, x)[:, None]
        return still + (squares.sum(0) - N * np.sum(means * (sigma @ means), axis=0)) / (N - 1)

    error = C * last[0][:, 1].std(axis=0, ddof=1) / np.sqrt(100)
    assert np.all(np.abs(found.noise - expected(3.0)) < Z * error)
    assert np.all(expected(3.0) - expected(0) > 5 * error)
    shares = drawn.changing_shares(drawing, np.zeros(4), spread, kept)
    error = shares.std(axis=0, ddof=1) / np.sqrt(100)
    assert np.all(np.abs(shares.mean(axis=0) - (1 - still / expected(1.5))) < Z * error)
    assert np.all(still / expected(1.5) - still / expected(3.0) > 5 * error)


def test_a_stopped_prediction_goes_on_within_its_draws_to_the_same_bits(tmp_path, monkeypatch):
    """Stopped after each of its first values, it computes none of them twice."""
    one = dataclasses.replace(SETTINGS, sampling=("with_replacement",))
    whole, _ = predicted(problem(0.01), tmp_path / "whole", settings=one)
    ratios, asked = drawn._ratios, itertools.count(1)
    computed = []

    def counted(*arguments):
        computed.append(arguments)
        return ratios(*arguments)

    @contextlib.contextmanager
    def postponed():
        yield lambda: next(asked) <= 4

    monkeypatch.setattr(drawn, "_ratios", counted)
    monkeypatch.setattr(predict.interruption, "postponed", postponed)
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            predicted(problem(0.01), tmp_path, settings=one)
    # The gradient at θ_K, two pairs of draws, one gradient of the four at the draws.
    assert len(computed) == 2
    found, _ = predicted(problem(0.01), tmp_path, settings=one)
    for before, after in zip(whole["with_replacement"], found["with_replacement"], strict=True):
        np.testing.assert_array_equal(before, after)
    longer = dataclasses.replace(one, analysis_epochs=6)
    computed.clear()
    predicted(problem(0.01), tmp_path, settings=longer)
    assert computed


def test_a_refusal_is_a_row_that_says_why_and_nothing_else(tmp_path):
    wide = dataclasses.replace(SETTINGS, learning_rate=0.4)
    found, values = predicted(problem(-0.02), tmp_path, settings=wide)
    each = found["with_replacement"]
    assert "averaged curvature" in each.refused
    conditions = conditions_of(N, SETTINGS)
    (row,) = findings.rows(conditions, each, SimpleNamespace(), values, "with_replacement")
    assert (row["here"], row["note"]) == (0, each.refused)
    assert findings.shown(found, values, {}) == {}


def test_rows_put_the_measured_over_the_prediction_and_the_harmonic_theory(tmp_path, monkeypatch):
    monkeypatch.setattr(bins, "PER_DECADE", 1)
    found, values = predicted(problem(0.01), tmp_path)
    each = found["without_replacement"]
    window = SimpleNamespace(correlation_time=np.arange(1.0, 5))
    one = SimpleNamespace(
        measured=statistics.Fluctuations(
            2 * each.weight, 3 * each.velocity, 1.5 * each.correlation_time
        ),
        window=window, noise=1.1 * each.noise,
    )  # fmt: skip
    # The first direction lies above 1 alone, the other three in the decade below.
    conditions = SimpleNamespace(crossover=values[0] / 1.5)
    made = findings.rows(conditions, each, one, values, "without_replacement")
    rows = {row["id"].removesuffix("_without_replacement"): row for row in made}
    assert rows["tau_over_prediction"]["here"] == pytest.approx(1.5)
    assert rows["weight_over_prediction"]["here"] == pytest.approx(2)
    assert rows["velocity_over_prediction"]["here"] == pytest.approx(3)
    assert rows["noise_over_prediction"]["here"] == pytest.approx(1.1)
    harmonic = np.median(1.5 * each.correlation_time / window.correlation_time)
    assert rows["tau_over_harmonic"]["here"] == pytest.approx(harmonic)
    for name, here in {"weight": 2, "tau": 1.5}.items():
        binned = rows[f"{name}_over_prediction_0.1_to_1"]
        assert (binned["here"], binned["n"]) == (pytest.approx(here), 3)
    ratio = np.median(each.curvature / values)
    assert ratio > 1
    assert rows["predicted_curvature"]["here"] == pytest.approx(ratio)
    means = each.pair_curvature.mean(axis=1)
    error = abs(means[0] - means[1]) / 2 / means.mean()
    assert rows["predicted_curvature_error"]["here"] == pytest.approx(error)
    low, high = each.time_band.T
    assert rows["tau_within_prediction"]["here"] == np.mean((low < 1.5) & (high > 1.5))
    (line,) = findings.shown(
        {"without_replacement": each}, values, {"without_replacement": "without"}
    ).values()
    np.testing.assert_array_equal(line["weight"], each.weight)


# --- Eq. 3's sums ---------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["with_replacement", "without_replacement"])
def test_the_time_by_sums_is_that_of_theory(scheme):
    """In simulated windows of the law; planted times of 1.3 are seen."""
    rng, epochs, k = np.random.default_rng(0), 30, 800
    settings = dataclasses.replace(SETTINGS, analysis_epochs=epochs, momentum=BETA)
    conditions = conditions_of(N, settings)
    lam = np.geomspace(1, 30, k) if scheme == "without_replacement" else np.geomspace(5, 30, k)
    theta, v, V = np.zeros(k), np.zeros(k), []
    for _ in range(40 + epochs):
        noise = rng.standard_normal((M, k))
        if scheme == "without_replacement":
            noise = (noise - noise.mean(axis=0)) * np.sqrt(M / (M - 1))
        for n in noise:
            v = BETA * v - 0.02 * (lam * theta + n)
            theta = theta + v
            V.append(v)
    V = np.array(V)[-epochs * M :]
    path = SimpleNamespace(velocities=V, weights=np.concatenate([np.zeros((1, k)), V.cumsum(0)]))
    law = conditions.noise_law(scheme)
    stationary = SimpleNamespace(correlation_time=theory.correlation_time(lam, 0.02, BETA, law))
    window = theory.window_variances(lam, 0.02, BETA, law, epochs * M)
    _, still = statistics.remove_drift(path.weights, V, "mean_velocity")
    one = SimpleNamespace(
        eigenvalues=lam, stationary=stationary, window=window,
        measured=SimpleNamespace(velocity=(still**2).mean(axis=0)),
    )  # fmt: skip
    (row,) = velocities.rows(conditions, one, path, lam, scheme)
    # The mean velocity is taken off as if every pair of steps lay far from the ends: 2 of 30.
    assert abs(row["here"] - 1) < Z * row["here_error"] + 0.02
    # Planted times of 1.3 would lie far outside.
    assert Z * row["here_error"] + 0.02 < 0.3


def test_velocity_sums_are_direct_sums():
    v = np.random.default_rng(0).normal(size=(40, 2))
    c = np.array([(v[: 40 - h] * v[h:]).mean(axis=0) for h in range(1, 6)])
    expected = [c.sum(axis=0), np.arange(1, 6) @ c]
    np.testing.assert_allclose(fluctuations.velocity_sums(v, 5), expected, rtol=1e-12)
    with pytest.raises(ValueError, match="hold no correlation"):
        fluctuations.velocity_sums(v, 40)


def test_the_mean_velocity_taken_off_leaves_no_sum():
    """Σ_kl (v_k − v̄)(v_l − v̄) = 0, so T c(0) + 2Σ(T − h)c(h) = 0 for what is left."""
    lam, steps, noise = np.array([0.5, 3.0]), 30, LAWS["reshuffled"]
    sums = [velocities.expected_sums(lam, ETA, BETA, noise, h, steps)[0] for h in range(1, steps)]
    kept = np.diff(sums, axis=0, prepend=0)
    c = theory.velocity_autocovariance(lam, ETA, BETA, noise, 1)
    total = steps * (c[0] - (c[1] - kept[0])) + 2 * (steps - np.arange(1, steps)) @ kept
    np.testing.assert_allclose(total / (steps * c[0]), 0, atol=1e-12)


# --- relaxation -----------------------------------------------------------------------------


def test_a_relaxation_in_the_parabola_is_taken_off_and_a_bend_is_seen():
    """θ_K far from the minimum: with its path subtracted theory is left."""
    rng, k, epochs = np.random.default_rng(0), 400, 8
    settings = dataclasses.replace(SETTINGS, analysis_epochs=epochs, momentum=BETA)
    conditions = conditions_of(N, settings)
    lam, rate, start = np.geomspace(0.05, 20, k), 0.02, 3 * rng.standard_normal(k)
    theta, v = start.copy(), 0.1 * rng.standard_normal(k)
    V, noises = [], []
    for _ in range(epochs):
        noise = rng.standard_normal((M, k))
        for n in (noise - noise.mean(axis=0)) * np.sqrt(M / (M - 1)):
            v = BETA * v - rate * (lam * theta + n)
            theta = theta + v
            V.append(v)
            noises.append(n)
    V = np.array(V)
    path = np.concatenate([np.zeros((1, k)), V.cumsum(axis=0)])
    recorded = SimpleNamespace(
        trajectory=trajectory.Trajectory(path, V, np.array(noises)),
        anchor_gradients=(lam * start)[None],
    )
    found = relaxation.rows(conditions, recorded, lam, "without_replacement")
    relaxed, bent = found
    assert abs(relaxed["here"] - 1) < 0.1 + Z * relaxed["here_error"]
    assert relaxed["here_error"] < 0.1
    assert bent["here"] > 0.3
    (alone,) = relaxation.rows(conditions, recorded, lam, "with_replacement")
    assert alone["id"] == "tau_over_relaxed_with_replacement"
    assert relaxation.rows(conditions, recorded, -lam, "without_replacement") == []
