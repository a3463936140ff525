"""Noise that three examples carry: counted, and its band found by resampling."""

from types import SimpleNamespace

import numpy as np
from scipy import stats

from antisgd import statistics
from antisgd.study.conditions import Conditions
from antisgd.study.findings import tails as findings
from antisgd.study.stages import tails

N, S, EPOCHS, ETA, BETA = 120, 4, 4, 0.05, 0.5
M = N // S
LAM = np.array([1.5, 1.0])
CONDITIONS = Conditions(N, S, ETA, BETA, EPOCHS, "without_replacement")


def planted():
    """Gaussian along the first direction, three examples alone along the second, [N, 2]."""
    g = np.random.default_rng(0).standard_normal((N, 2))
    g[:, 1] = 0
    g[[5, 50, 100], 1] = [1.0, -1.0, 1.0]
    return g


def times(g, lam, with_replacement, windows=800):
    """τ of windows after five reshuffled epochs by Eq. 1 as it stands, [windows]."""
    rng = np.random.default_rng(1)
    n, theta, v, path = g - g.mean(), np.zeros(windows), np.zeros(windows), []
    for epoch in range(5 + EPOCHS):
        order = rng.permuted(np.tile(np.arange(N), (windows, 1)), axis=1)
        if epoch >= 5 and with_replacement:
            order = rng.integers(0, N, (windows, N))
        for step in range(M):
            if epoch == 5 and step == 0:
                path = [theta]
            noise = n[order[:, step * S : (step + 1) * S]].mean(axis=1)
            v = BETA * v - ETA * (lam * theta + noise)
            theta = theta + v
            path.append(theta)
    path = np.array(path)
    steps = len(path) - 1
    assert steps == EPOCHS * M
    path = path - (path[-1] - path[0]) / steps * np.arange(steps + 1)[:, None]
    return 2 * path.var(axis=0) / np.diff(path, axis=0).var(axis=0)


def test_three_examples_count_as_three():
    number, share, leading = statistics.carriers(planted())
    # Their mean of 1/120 is what the two signs differ by.
    np.testing.assert_allclose(number[1], 3, rtol=0.05)
    np.testing.assert_allclose(share[1], 1, rtol=0.02)
    # The mean is positive: the one negative gradient lies farthest from it.
    assert leading[1, 0] == 50 and set(leading[1, 1:]) == {5, 100}
    # Σd⁴ of 120 Gaussians scatters by √96/(3√120) = 0.3.
    assert 0.4 * N / 3 < number[0] < 2.5 * N / 3
    assert np.isnan(statistics.carriers(np.full((N, 1), 0.3))[0]).all()


def test_bands_of_resampled_pictures_hold_what_windows_do():
    """Of 800 windows by another code 95 % lie within, by 200 resampled ones: z at p = 1e-3."""
    found = tails.find(planted(), LAM, CONDITIONS, ("without_replacement", "with_replacement"), 3)
    np.testing.assert_array_equal(found.places, [0, 1])
    # A quantile of 200 windows: the share beyond scatters as Beta does, twice for both ends.
    error = np.sqrt(2 * 0.025 * 0.975 / 200 + 0.95 * 0.05 / 800)
    for scheme in found.bands:
        for i in range(2):
            low, high = found.bands[scheme][i]
            tau = times(planted()[:, i], LAM[i], scheme == "with_replacement")
            inside = np.mean((tau > low) & (tau < high))
            assert abs(inside - 0.95) < stats.norm.isf(5e-4 / 4) * error


def test_the_direction_of_three_examples_is_named():
    """There the Gaussian band is far off; its own holds what is measured."""
    found = tails.find(planted(), LAM, CONDITIONS, ("with_replacement",), 3)
    law, start = CONDITIONS.noise_law("with_replacement"), CONDITIONS.starting_law
    window = CONDITIONS.window_variances(LAM, law, EPOCHS * M, start=start)
    spread = CONDITIONS.window_spread(
        LAM, law, EPOCHS * M, start=start, quantiles=(0.025, 0.5, 0.975)
    )
    one = SimpleNamespace(
        window=window, spread=spread, measured=window, eigenvalues=LAM, drift_share=np.zeros(2)
    )
    (gaussian, own, ratio, outside) = findings.period_rows(found, one, LAM, "with_replacement")
    assert gaussian["id"] == "tau_within_gaussian_band_with_replacement"
    assert own["here"] == 1 and own["n"] == 2
    band = found.bands["with_replacement"] / window.correlation_time[:, None]
    # The first direction is Gaussian, and its bands agree within the scatter of 200 windows.
    apart = np.abs(band - spread.correlation_time[:, [0, -1]]).max(axis=1)
    apart /= np.ptp(spread.correlation_time[:, [0, -1]], axis=1)
    assert apart[0] < 0.2 < apart[1]
    assert "in 1 of 2; lambda 1 (three examples hold 1)" in ratio["note"]
    assert outside["here"] == 0 and outside["n"] == 2 and outside["note"] == "by the theory 0.1"
    rows = findings.rows(found, LAM, N)
    assert "fewest 3" in rows[0]["note"]
    assert not findings.period_rows(found, one, LAM, "without_replacement")


def test_what_leaves_the_band_is_named():
    """With its curvature, its share of drift and the examples that carry its noise."""
    found = tails.find(planted(), LAM, CONDITIONS, ("with_replacement",), 3)
    law, start = CONDITIONS.noise_law("with_replacement"), CONDITIONS.starting_law
    window = CONDITIONS.window_variances(LAM, law, EPOCHS * M, start=start)
    spread = CONDITIONS.window_spread(
        LAM, law, EPOCHS * M, start=start, quantiles=(0.025, 0.5, 0.975)
    )
    high = spread.correlation_time[1, -1]
    times = window.correlation_time * [1, 1.5 * high]
    # A direction of negative curvature is in no analysis, but has examples.
    carriers = statistics.Carriers(*(np.insert(one, 1, 7, axis=0) for one in found.carriers))
    one = SimpleNamespace(
        window=window, spread=spread, measured=window._replace(correlation_time=times),
        eigenvalues=LAM, drift_share=np.array([0.1, 0.8]),
    )  # fmt: skip
    values = np.insert(LAM, 1, -1.0)
    made = findings._outside(found._replace(carriers=carriers), one, values, "with_replacement")
    assert made["here"] == 1 and made["n"] == 2
    assert f"; lambda 1: {1.5 * high:.2g} for" in made["note"]
    assert "drift 0.8, examples 50, " in made["note"]
    assert "drift makes 0.8 of their raw variance (of all 0.45), 3.02 examples" in made["note"]
