"""Finite windows against dense quadratic forms and simulation, and their sampling spread."""

import numpy as np
import pytest

from antisgd import statistics, theory

A, BETA, M, T = np.array([0.003, 0.05, 0.6]), 0.7, 8, 40
DRIFTS = ("none", "mean", "mean_velocity", "line")
EPS = np.finfo(np.float64).eps


def noise_covariance(period, num_steps):
    """Exact covariance of one stretch of noise that starts at an epoch boundary."""
    if not period:
        return np.eye(num_steps)
    epoch = np.arange(num_steps) // period
    same = epoch[:, None] == epoch
    return np.where(np.eye(num_steps) > 0, 1.0, np.where(same, -1 / (period - 1), 0.0))


def dense_window(a, period_before, period, drift, history=4000):
    """Expected sample variances from the covariance matrix of all weights of the window."""
    n = history + T
    covariance = np.zeros((n, n))
    covariance[:history, :history] = noise_covariance(period_before, history)
    covariance[history:, history:] = noise_covariance(period, T)
    response = np.zeros((T + 1, n))
    kernel = np.zeros(n + 1)
    theta, v = 0.0, 0.0
    for k in range(n):
        v = BETA * v - a * theta - (k == 0)
        theta += v
        kernel[k] = theta
    for row in range(T + 1):
        end = history + row
        response[row, :end] = kernel[:end][::-1]
    weights = response @ covariance @ response.T
    time = np.arange(T + 1.0)
    remove = np.eye(T + 1)
    step = np.diff(np.eye(T + 1), axis=0)
    velocity = step @ weights @ step.T
    if drift == "mean_velocity":
        slope = np.zeros(T + 1)
        slope[-1], slope[0] = 1 / T, -1 / T
        remove = remove - np.outer(time, slope)
        step = step - slope
        velocity = step @ weights @ step.T
    if drift == "line":
        centred = time - T / 2
        slope = centred / (centred @ centred)
        remove = remove - np.outer(time, slope)
    if drift != "none":
        remove = remove - remove.mean(axis=0)
    removed = remove @ weights @ remove.T
    return np.trace(removed) / (T + 1), np.trace(velocity) / T


PROTOCOLS = {
    "without": (M, M),
    "with": (0, 0),
    "with after without": (M, 0),
}


def law(period):
    return theory.without_replacement(period) if period else theory.with_replacement()


@pytest.mark.parametrize("protocol", sorted(PROTOCOLS))
@pytest.mark.parametrize("drift", DRIFTS)
def test_windows_against_dense_quadratic_forms(protocol, drift):
    before, inside = PROTOCOLS[protocol]
    found = theory.window_variances(A, 1.0, BETA, law(inside), T, drift=drift, start=law(before))
    for i, a in enumerate(A):
        weight, velocity = dense_window(a, before, inside, drift)
        np.testing.assert_allclose(found.weight[i], weight, rtol=4000 * EPS)
        if drift != "line":
            np.testing.assert_allclose(found.velocity[i], velocity, rtol=4000 * EPS)


def test_the_mean_of_the_line_is_removed_from_velocities_too():
    """A least-squares slope is subtracted from the velocities as from the weights' path."""
    line = theory.window_variances(A, 1.0, BETA, law(M), T, drift="line")
    ends = theory.window_variances(A, 1.0, BETA, law(M), T, drift="mean_velocity")
    np.testing.assert_allclose(line.velocity, ends.velocity, rtol=1e-12)


def test_the_plateau_with_replacement_is_t_over_six():
    """τ → (T/6)(1+β)/(1−β): 10 times τ_SGD at T = 20 epochs, App. G's order of magnitude."""
    found = theory.window_variances(np.array([1e-9]), 1.0, 0.9, theory.with_replacement(), 20_000)
    np.testing.assert_allclose(found.correlation_time, 20_000 / 6 * 19, rtol=3e-3)
    ratio = found.correlation_time / theory.max_correlation_time(0.9, 1000)
    np.testing.assert_allclose(ratio, 10, rtol=3e-3)


def test_steep_directions_gain_one_sixth_from_the_mean_velocity():
    eta_lambda = np.array([0.5])
    window = theory.window_variances(eta_lambda, 1.0, 0.9, theory.without_replacement(100), 5000)
    exact = theory.stationary_variances(eta_lambda, 1.0, 0.9, theory.without_replacement(100))
    np.testing.assert_allclose(window.weight / exact.weight, 7 / 6, rtol=3e-3)


def test_interpolation_over_many_curvatures_is_accurate():
    a = np.geomspace(1e-5, 1.0, 301)
    whole = theory.window_variances(a, 1.0, 0.9, theory.without_replacement(50), 500)
    some = theory.window_variances(a[::30], 1.0, 0.9, theory.without_replacement(50), 500)
    np.testing.assert_allclose(whole.weight[::30], some.weight, rtol=1e-6)


def test_the_stated_spread_holds_its_share_of_simulated_windows():
    """Half of 400 fresh windows lie between the quartiles: binomial z below 4 in each direction."""
    lam = np.array([0.01, 0.3])
    spread = theory.window_spread(
        lam, 1.0, 0.5, law(M), 160, quantiles=(0.25, 0.75), num_windows=2000
    )
    fresh = theory.window_spread(
        lam, 1.0, 0.5, law(M), 160, quantiles=tuple(np.linspace(0.00125, 0.99875, 400)), seed=7,
        num_windows=2000,
    )  # fmt: skip
    inside = (fresh.weight > spread.weight[:, :1]) & (fresh.weight < spread.weight[:, 1:])
    assert np.all(np.abs(inside.mean(axis=1) - 0.5) < 4 * 0.5 / np.sqrt(400))


def window_forms(drift):
    """The sample variances of weights and velocities as matrices over the T + 1 weights."""
    time, step = np.arange(T + 1.0), np.diff(np.eye(T + 1), axis=0)
    remove, slope = np.eye(T + 1), np.zeros(T + 1)
    if drift in ("mean_velocity", "line"):
        slope[-1], slope[0] = 1 / T, -1 / T
    step = step - slope
    if drift == "line":
        slope = (time - T / 2) / np.sum((time - T / 2) ** 2)
    remove = remove - np.outer(time, slope)
    if drift != "none":
        remove = remove - remove.mean(axis=0)
    return remove.T @ remove / (T + 1), step.T @ step / T


def dense_weights(a, noise_covariance):
    """Covariance of the last T + 1 weights under a noise covariance over all steps."""
    n = len(noise_covariance)
    kernel, theta, v = np.zeros(n), 0.0, 0.0
    for k in range(n):
        v = BETA * v - a * theta - (k == 0)
        theta += v
        kernel[k] = theta
    rows = [np.append(kernel[: n - T + i][::-1], np.zeros(T - i)) for i in range(T + 1)]
    return np.array(rows) @ noise_covariance @ np.array(rows).T


UNALIGNED = {
    "without_replacement": theory.without_replacement(M),
    "with_replacement": theory.with_replacement(),
    "partial_last": theory.partial_last(14, 4),
    "spanning_batches": theory.spanning_batches(14, 4),
    "flip_flop": theory.flip_flop(30),
    "anti_pgd": theory.anti_pgd(),
}


def assert_windows(found_by_drift, weights_by_direction):
    """Equal to the forms over dense covariances, which round like their 4,000 steps."""
    for drift, found in found_by_drift.items():
        forms = window_forms(drift)
        for i, weights in enumerate(weights_by_direction):
            weight, velocity = (np.sum(form * weights) for form in forms)
            np.testing.assert_allclose(found.weight[i], weight, rtol=4000 * EPS)
            np.testing.assert_allclose(found.velocity[i], velocity, rtol=4000 * EPS)


def windows(law, **options):
    return {
        drift: theory.window_variances(A, 1.0, BETA, law, T, drift=drift, **options)
        for drift in DRIFTS
    }


@pytest.mark.parametrize("name", sorted(UNALIGNED))
def test_unaligned_windows_against_dense_toeplitz_forms(name):
    """What came before 2,000 steps has decayed by e⁻²⁰ in variance, at a/(1−β) = 1/100."""
    lags = np.arange(4000)
    correlation = theory.autocorrelation(UNALIGNED[name], lags)
    covariance = correlation[np.abs(lags[:, None] - lags)]
    dense = [dense_weights(a, covariance) for a in A]
    assert_windows(windows(UNALIGNED[name], aligned=False), dense)


@pytest.mark.parametrize("aligned", [True, False])
def test_windows_of_one_order_for_all_epochs(aligned):
    """The steady response to one order: its circular autocovariance over a period."""
    period = 7
    found = windows(theory.shuffle_once(period), aligned=aligned)
    dense = []
    for a in A:
        A_, pulse = np.array([[1 - a, BETA], [-a, BETA]]), np.array([-1.0, -1.0])
        turns = np.array([np.linalg.matrix_power(A_, j) @ pulse for j in range(period)])
        once = np.linalg.solve(np.eye(2) - np.linalg.matrix_power(A_, period), turns.T)[0]
        steady = once - once.mean()
        circle = np.array([steady @ np.roll(steady, h) for h in range(period)])
        lags = np.abs(np.subtract.outer(np.arange(T + 1), np.arange(T + 1)))
        dense.append(circle[lags % period] * period / (period - 1))
    assert_windows(found, dense)


def test_unaligned_windows_are_the_mean_over_their_start():
    """Dense windows that start at each of the M positions within the epoch."""
    n = 4000 + M
    whole = noise_covariance(M, n)
    dense = [
        np.mean([dense_weights(a, whole[: n - p, : n - p]) for p in range(M)], axis=0) for a in A
    ]
    assert_windows(windows(law(M), aligned=False), dense)


RAGGED = {"partial_last": (14, [4, 4, 4, 2]), "drop_last": (14, [4, 4, 4])}


@pytest.mark.parametrize("name", sorted(RAGGED))
def test_aligned_windows_of_ragged_epochs_against_dense_forms(name):
    """cov of two batch means of an epoch: (1/S_m − 1/N) C₀ on the diagonal, −C₀/N off it."""
    N, sizes = RAGGED[name]
    epochs = 4000 // len(sizes)
    block = np.diag(1 / np.array(sizes)) - 1 / N
    covariance = np.kron(np.eye(epochs), block / np.mean(np.diag(block)))
    assert T % len(sizes) == (0 if name == "partial_last" else 1)
    end = len(covariance) - (len(sizes) - T % len(sizes)) % len(sizes)
    dense = [dense_weights(a, covariance[:end, :end]) for a in A]
    assert_windows(windows(getattr(theory, name)(N, 4)), dense)


def flip_flop_covariance(period, num_steps):
    """The two passes of a pair share their batches, mirrored; a window begins with a pair."""
    n = np.arange(num_steps)
    place = np.where(n % (2 * period) < period, n % period, period - 1 - n % period)
    pair = np.equal.outer(n // (2 * period), n // (2 * period))
    same = np.equal.outer(place, place)
    return pair * np.where(same, 1.0, -1 / (period - 1))


def spanning_covariance(N, S, num_steps):
    """(1/S²)Σ over pairs of places of δ − 1/N within each epoch, over its mean on the diagonal."""
    epoch = np.arange(num_steps * S) // N
    of_batch = np.arange(num_steps * S) // S
    counts = np.zeros((num_steps, epoch[-1] + 1))
    np.add.at(counts, (of_batch, epoch), 1)
    covariance = (np.eye(num_steps) * S - counts @ counts.T / N) / S**2
    return covariance / theory.spanning_batches(N, S).variance


BY_POSITION = {
    "flip_flop": (theory.flip_flop(7), lambda n: flip_flop_covariance(7, n), 14),
    "spanning_batches": (
        theory.spanning_batches(14, 4),
        lambda n: spanning_covariance(14, 4, n),
        7,
    ),
    "spanning nearly all": (
        theory.spanning_batches(10, 7),
        lambda n: spanning_covariance(10, 7, n),
        10,
    ),
}


@pytest.mark.parametrize("name", sorted(BY_POSITION))
def test_aligned_windows_of_laws_with_longer_patterns_against_dense_forms(name):
    """From the start of a pattern, after 2,000 steps and more of the same law."""
    noise, covariance, pattern = BY_POSITION[name]
    before = 2100 // pattern * pattern
    dense = [dense_weights(a, covariance(before + T)) for a in A]
    assert_windows(windows(noise), dense)


@pytest.mark.parametrize(("before", "inside"), [("flip", "white"), ("shuffled", "flip")])
def test_a_change_of_law_from_or_to_flip_flop(before, inside):
    laws = {
        "flip": (theory.flip_flop(M), lambda n: flip_flop_covariance(M, n)),
        "white": (law(0), np.eye),
        "shuffled": (law(M), lambda n: noise_covariance(M, n)),
    }
    history = 2000 // (2 * M) * 2 * M
    whole = np.zeros((history + T, history + T))
    whole[:history, :history] = laws[before][1](history)
    whole[history:, history:] = laws[inside][1](T)
    dense = [dense_weights(a, whole) for a in A]
    assert_windows(windows(laws[inside][0], start=laws[before][0]), dense)


def test_injected_noise_has_no_position():
    """A window anywhere is an aligned one."""
    for drift, found in windows(theory.anti_pgd()).items():
        same = theory.window_variances(
            A, 1.0, BETA, theory.anti_pgd(), T, drift=drift, aligned=False
        )
        np.testing.assert_array_equal(found.weight, same.weight)


@pytest.mark.parametrize("name", ["flip_flop", "spanning_batches", "shuffle_once"])
def test_the_spread_of_other_laws_is_that_of_their_quadratic_forms(name):
    """var xᵀQx = 2 tr(QΣ)² about a mean of tr QΣ, as for reshuffling below."""
    lam, n = np.array([0.05, 0.3]), 4000
    noise, covariance, pattern = {
        "shuffle_once": (theory.shuffle_once(7), None, 7)
    }.get(name, BY_POSITION.get(name))  # fmt: skip
    spread = theory.window_spread(lam, 1.0, BETA, noise, T, num_windows=n)
    history = 1000 // pattern * pattern
    lags = np.abs(np.subtract.outer(np.arange(history + T), np.arange(history + T)))
    whole = theory.autocorrelation(noise, lags) if covariance is None else covariance(history + T)
    for i, a in enumerate(lam):
        weights = dense_weights(a, whole)
        for form, found in zip(
            window_forms("mean_velocity"), spread.relative_std[:2, i], strict=True
        ):
            Q = form @ weights
            variance = 2 * np.trace(Q @ Q)
            error = np.sqrt((48 * np.trace(Q @ Q @ Q @ Q) + 2 * variance**2) / n / variance) / 2
            assert abs(found * np.trace(Q) - np.sqrt(variance)) < 4 * error


def test_the_relative_standard_deviation_is_that_of_gaussian_quadratic_forms():
    """var xᵀQx = 2 tr(QΣ)², fourth cumulant 48 tr(QΣ)⁴, which gives the error of 4,000 windows."""
    lam, n = np.array([0.02, 0.3]), 4000
    spread = theory.window_spread(lam, 1.0, BETA, law(M), T, num_windows=n)
    for i, a in enumerate(lam):
        weights = dense_weights(a, noise_covariance(M, 2000))
        forms = window_forms("mean_velocity")
        for form, found in zip(forms, spread.relative_std[:2, i], strict=True):
            Q = form @ weights
            variance = 2 * np.trace(Q @ Q)
            error = np.sqrt((48 * np.trace(Q @ Q @ Q @ Q) + 2 * variance**2) / n / variance) / 2
            assert abs(found * np.trace(Q) - np.sqrt(variance)) < 4 * error


@pytest.mark.parametrize(
    "arguments",
    [
        {"drift": "quadratic"},
        {"noise": theory.Noise(0.8, 0, correlations=np.array([-0.1]))},
        {"noise": theory.anti_pgd(), "start": theory.with_replacement()},
        {"start": theory.with_replacement(), "aligned": False},
        {"eigenvalues": np.array([-1.0])},
        {"eigenvalues": np.array([4.0])},
    ],
)
def test_what_windows_cannot_do_is_refused(arguments):
    given = {"eigenvalues": A, "noise": law(M), "drift": "mean"} | arguments
    options = {name: given[name] for name in ("aligned", "start") if name in given}
    with pytest.raises(ValueError, match="drift|independent|range|aligned|0 < eta"):
        theory.window_variances(
            given["eigenvalues"], 1.0, BETA, given["noise"], T, drift=given["drift"], **options
        )


def test_resampled_windows_have_the_mean_of_theory_and_the_scatter_of_heavy_tails():
    """One example of 40 holds nearly all of the noise: the band is far from the Gaussian one."""
    rng, steps = np.random.default_rng(0), 8 * 10
    lam, eta, beta = np.array([0.5, 5.0]), 0.1, 0.5
    tailed = np.zeros((40, 1))
    tailed[0] = 1.0
    gaussian = rng.standard_normal((40, 1))
    orders = [
        np.concatenate([rng.permutation(40).reshape(10, 4) for _ in range(20)]) for _ in range(600)
    ]
    expected = theory.window_variances(lam, eta, beta, theory.without_replacement(10), steps)
    relative = {}
    for name, g in (("heavy", tailed), ("light", gaussian)):
        wide = np.repeat(g, 2, axis=1)
        found = statistics.resampled_windows(wide, lam, eta, beta, orders, steps)
        C = theory.without_replacement(10, 4).variance * wide.var(axis=0, ddof=1)
        for i in range(2):
            ratio = found[i] / (C * expected[i])
            error = ratio.std(axis=0, ddof=1) / np.sqrt(600)
            assert np.all(np.abs(ratio.mean(axis=0) - 1) < 3.29 * error)
            relative[name, i] = ratio.std(axis=0)
        np.testing.assert_allclose(found[2], 2 * found[0] / found[1])
    # The large example comes once an epoch in every window: the velocities scatter less.
    assert np.all(relative["heavy", 1] < 0.7 * relative["light", 1])
    with pytest.raises(ValueError, match="holds no window"):
        statistics.resampled_windows(gaussian, lam[:1], eta, beta, [orders[0][:5]], steps)
    with pytest.raises(ValueError, match="1 directions have 2"):
        statistics.resampled_windows(gaussian, lam, eta, beta, orders, steps)
