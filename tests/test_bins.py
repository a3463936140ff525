"""Bins of λ/λ_cross: which directions they hold, and what is said of them."""

from types import SimpleNamespace

import numpy as np
import pytest

from antisgd import statistics
from antisgd.study.conditions import Conditions
from antisgd.study.findings import bins

CONDITIONS = Conditions(
    num_examples=1000, batch_size=10, learning_rate=0.01, momentum=0.9, epochs=20,
    training_scheme="without_replacement",
)  # fmt: skip


def analysis(positions, factor):
    """Directions at these λ/λ_cross whose measured values are `factor` of the window's theory."""
    k = len(positions)
    window = statistics.Fluctuations(np.full(k, 2.0), np.full(k, 0.5), np.full(k, 8.0))
    noise = np.linspace(1, 3, k)
    measured = statistics.Fluctuations(
        factor * noise * window.weight, factor * noise * window.velocity,
        factor * window.correlation_time,
    )  # fmt: skip
    scatter = np.tile([0.1, 0.9, 1.3, 9.9], (k, 1))
    return SimpleNamespace(
        eigenvalues=np.array(positions) * CONDITIONS.crossover, noise=noise, window=window,
        measured=measured, spread=SimpleNamespace(correlation_time=scatter),
    )  # fmt: skip


@pytest.mark.parametrize("name", ["weight", "velocity", "correlation_time"])
def test_a_bin_holds_half_a_decade_its_mean_and_the_error_of_the_mean(name):
    """Two bins of three and four directions; two alone are too few."""
    positions = [0.02, 0.02, 0.11, 0.2, 0.3, 1.1, 1.5, 2.0, 3.0]
    factor = np.array([9, 9, 1.0, 1.2, 1.4, 0.9, 1.1, 0.8, 1.2])
    found = bins.binned(CONDITIONS, analysis(positions, factor))[name]
    np.testing.assert_array_equal(found.number, [3, 4])
    np.testing.assert_allclose(found.edges, [[0.1, 10**-0.5], [1, 10**0.5]])
    np.testing.assert_allclose(found.ratio, [1.2, 1.0])
    np.testing.assert_allclose(
        found.error, [0.2 / 3**0.5, np.std([0.9, 1.1, 0.8, 1.2], ddof=1) / 2]
    )
    np.testing.assert_allclose(found.centre[0], (0.11 * 0.2 * 0.3) ** (1 / 3))


def test_only_the_skew_of_a_windows_time_moves_what_is_expected():
    """Variances have the mean of theory; times the mean of the quantiles, without the ends."""
    found = bins.binned(CONDITIONS, analysis([1.1, 1.5, 2.0], np.ones(3)))
    assert found["weight"].expected == found["velocity"].expected == 1
    np.testing.assert_allclose(found["correlation_time"].expected, (0.9 + 1.3) / 2)


def test_rows_name_bin_scheme_and_theory():
    one = bins.binned(CONDITIONS, analysis([1.1, 1.5, 2.0], np.array([1.0, 1.1, 1.2])))
    rows = {row["id"]: row for row in bins.rows(one, "with_replacement")}
    assert len(rows) == 3
    row = rows["weight_over_theory_1_to_3.2_with_replacement"]
    assert row["here"] == pytest.approx(1.1) and row["n"] == 3
    assert row["paper_item"] == "Fig. 7" and row["note"].startswith("theory 1;")
    assert bins.panels({"a": one}) and not bins.panels(
        {"a": bins.binned(CONDITIONS, analysis([1.1], np.ones(1)))}
    )
