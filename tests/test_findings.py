"""Rows of a study from results that are known: the theory itself, lines, walks, exact spectra."""

from types import SimpleNamespace

import numpy as np
import pytest

from antisgd import lanczos, statistics, theory
from antisgd.study.conditions import Conditions, conditions_of
from antisgd.study.findings import (
    density,
    drift,
    schemes,
    stationarity,
    training,
    validity,
    variances,
)
from antisgd.study.findings.rows import row as row_of
from antisgd.study.findings.study import over
from antisgd.study.stages.validity import PathCurvature
from tests import tiny

M, RATE, BETA = 100, 0.01, 0.9
CONDITIONS = Conditions(100, 1, RATE, BETA, 20, "without_replacement")
CROSS = theory.crossover_eigenvalue(RATE, BETA, M)
LAM = np.geomspace(30 * CROSS, 1e-3 * CROSS, 40)
FLAT = LAM < CROSS


def exact(law, scale=1.0):
    """An analysis that measured what the theory of the window says, times `scale` in weight."""
    window = theory.window_variances(
        LAM, RATE, BETA, law, 20 * M, start=theory.without_replacement(M), drift="mean_velocity"
    )
    stationary = theory.stationary_variances(LAM, RATE, BETA, law)
    measured = statistics.Fluctuations(
        scale * LAM * window.weight, LAM * window.velocity, scale * window.correlation_time
    )
    return SimpleNamespace(
        eigenvalues=LAM, noise=LAM, window=window, measured=measured, stationary=stationary,
        spread=SimpleNamespace(correlation_time=np.ones((LAM.size, 12))),
    )  # fmt: skip


@pytest.fixture(scope="module")
def rows():
    analyses = {
        "without_replacement": exact(theory.without_replacement(M)),
        "with_replacement": exact(theory.with_replacement(), 2.0),
    }
    made = schemes.rows(CONDITIONS, analyses)
    return {row["id"]: row for row in made}


def test_ratios_are_without_over_with_and_the_theory_stands_beside_them(rows):
    """The weight variance with replacement was doubled: half of the window's ratio is found."""
    row = rows["trace_ratio_measured"]
    assert row["here"] == pytest.approx(float(row["note"].split()[-1]) / 2, rel=2e-3)
    assert "without over with" in row["quantity"]
    row = rows["regime_ratio"]
    assert row["here"] == pytest.approx(float(row["note"].split()[-1]) * 2, rel=2e-3)


def test_the_error_of_the_measured_traces_is_that_of_resampled_directions():
    generator = np.random.default_rng(0)
    one, other = exact(theory.without_replacement(M)), exact(theory.with_replacement())
    weights = generator.lognormal(size=(2, LAM.size))
    one.measured, other.measured = (
        of.measured._replace(weight=weight)
        for of, weight in zip((one, other), weights, strict=True)
    )
    (_, row) = schemes._flat_rows(one, other, LAM > 0)
    drawn = generator.integers(0, LAM.size, (4000, LAM.size))
    anti, white = weights[:, drawn].sum(2)
    # To first order in a spread of a fifth, so to its square.
    assert row["here_error"] == pytest.approx(np.std(anti / white), rel=0.1)


def test_the_trace_by_the_limits_has_the_exact_one_beside_it(rows):
    anti, white = (
        (LAM * theory.stationary_variances(LAM, RATE, BETA, law).weight)[FLAT].sum()
        for law in (theory.without_replacement(M), theory.with_replacement())
    )
    row = rows["trace_ratio"]
    assert float(row["note"].split()[-1]) == pytest.approx(anti / white, rel=2e-3)
    # The limits meet at λ_cross only roughly, and most of this trace lies near it.
    assert anti / white < row["here"] < 2 * anti / white


def test_the_plateau_is_sought_only_where_the_window_makes_it(rows):
    row = rows["plateau"]
    assert row["n"] == np.sum(LAM < CROSS / 20)
    # T/2M in the flattest directions, here times the two of the fixture.
    assert 0.8 * 20 < row["here"] < 20


def test_beside_the_medians_stands_what_scatter_makes_of_an_exact_theory():
    """Scatter with median 0.9 whose 90th percentile of |x - 1| is 0.5, the band's ends left out."""
    scatter = np.array([0.01, *np.linspace(0.5, 1.3, 9), 1.6, 99.0])
    spread = SimpleNamespace(correlation_time=np.tile(scatter, (LAM.size, 1)))
    one = exact(theory.without_replacement(M), 2.0)
    one.spread = spread
    rows = variances._agreement_rows(one, "window", "without_replacement", "Fig. 2")
    middle = scatter[1:-1]
    off = np.abs(middle - 1)
    expected = np.median(middle), np.median(off), np.percentile(off, 90)
    for row, value in zip(rows, expected, strict=True):
        assert row["note"].startswith(f"by the theory {value:.3g}:")
        assert row["here"] == pytest.approx(2.0 if "deviation" not in row["id"] else 1.0)


def test_the_law_of_the_period_is_that_of_its_scheme():
    """And it starts from that of training, whose last batch need not be full."""
    settings = tiny.settings(sampling=("with_replacement", "without_replacement"))
    conditions = conditions_of(62, settings)
    assert (conditions.steps_per_epoch, conditions.epochs) == (11, 3)
    assert conditions.learning_rate == settings.final_learning_rate
    lags = np.arange(1, 15)
    for law, expected in (
        (conditions.starting_law, theory.with_replacement(62, 6)),
        (conditions.noise_law("without_replacement"), theory.partial_last(62, 6)),
    ):
        np.testing.assert_array_equal(
            theory.autocorrelation(law, lags), theory.autocorrelation(expected, lags)
        )
        assert law.variance == expected.variance


def test_drift_rows_tell_a_line_a_random_walk_and_noise_apart():
    """Shares by their definition: 1, 0.44 (by simulation to 0.003), 1/6; cosines 1, 0, -1/2."""
    k = 4000
    noise = np.random.default_rng(0).normal(size=(1001, k))
    line = np.linspace(0, 1, 1001)[:, None] * noise[0]
    for weights, share, cosine in (
        (line, 1, 1),
        (np.cumsum(noise, axis=0), 0.44, 0),
        (noise, 1 / 6, -1 / 2),
    ):
        rows = drift.shape_rows(weights, "toy")
        assert len(rows) == 4
        for row, expected in zip(rows, (share, share, share, cosine), strict=True):
            # A quarter of the period has 250 points: the ends of a line make 6/250 more.
            allowed = 3.29 * row["here_error"] + 0.003 + 6 / 250 * (row["id"][:11] == "drift_share")
            assert abs(row["here"] - expected) <= allowed, row


def test_the_reduction_through_a_density_is_that_of_its_eigenvalues():
    """Nodes at the eigenvalues with equal weights are the exact density."""
    lam = np.geomspace(1e-3, 10, 50)
    found = lanczos.SpectralDensity(np.stack([lam, lam]), np.full((2, 50), 1 / 50))
    found = lanczos.SpectralDensity(found.nodes[:, ::-1], found.weights)
    conditions = CONDITIONS._replace(num_examples=40)
    reduction, error = density.reduction(conditions, found, 0.0, 50)
    anti = theory.stationary_variances(lam, RATE, BETA, theory.without_replacement(40)).weight
    white = theory.stationary_variances(lam, RATE, BETA, theory.with_replacement()).weight
    expected = theory.loss_fluctuation_reduction(lam, anti, white)
    np.testing.assert_allclose(reduction, expected, rtol=1e-12)
    assert error < 1e-12
    # Curvature that the penalty makes is there in every batch: no noise below 0.02.
    reduction, _ = density.reduction(conditions, found, 0.02, 50)
    noise = np.maximum(lam - 0.02, 0)
    expected = theory.loss_fluctuation_reduction(lam, anti, white, noise)
    np.testing.assert_allclose(reduction, expected, rtol=1e-12)
    # The ten largest alone, and half of the eleventh.
    reduction, _ = density.reduction(conditions, found, 0.0, 50, 10)
    expected = theory.loss_fluctuation_reduction(lam[-10:], anti[-10:], white[-10:])
    np.testing.assert_allclose(reduction, expected, rtol=1e-12)
    reduction, _ = density.reduction(conditions, found, 0.0, 100, 21)
    share = np.append(0.5, np.ones(10))
    expected = theory.loss_fluctuation_reduction(
        lam[-11:], anti[-11:], white[-11:], share * lam[-11:]
    )
    np.testing.assert_allclose(reduction, expected, rtol=1e-12)


def test_the_penalty_of_the_pictures_is_the_curvature_without_noise():
    """c * sum(w^2) has the Hessian 2c."""
    assert tiny.problem(weight_decay=0.01).noiseless_curvature == 0.02


def test_the_curvature_along_the_path_stands_over_that_of_the_same_directions():
    """Directions of negative curvature have no time: measured and predicted stay side by side."""
    curvature = np.array([[4.0, 1.0, 0.5, -1.0], [8.0, 1.5, 0.25, -1.0]])
    secant = np.array([[4.0, 2.0, 0.5, -1.0], [8.0, 4.0, 1.0, -1.0]])
    found = PathCurvature(
        np.array([0, 2, 3, 4]), curvature, np.array([10.0, 20.0, np.nan, 1.0]), secant,
        np.array([5.5, 15.0, 4.0, 1.0]), np.array([[1.0, 2.0, 4.0, 1.0], [3.0, 2.0, 4.0, 1.0]]),
        np.array([0.5, 4.0, 1.0, 0.25, np.nan]),
    )  # fmt: skip
    noise, eigenvalues = np.array([2.4, 9.0, 2.6, 4.0]), np.array([4.0, 2.0, 1.0, 0.5, -0.1])
    # Three quarters, a third, half and a fifth of theory at θ_K, where the steepest has none.
    weight = np.array([0.5, 3.0, 0.5, 0.25]) * noise * [0.75, 1 / 3, 0.5, 0.2]
    measured = SimpleNamespace(
        correlation_time=np.array([11.0, 7.0, 30.0, 9.0]), weight=weight
    )  # fmt: skip
    window = SimpleNamespace(
        correlation_time=np.array([22.0, 7.0, 15.0, 9.0]), weight=np.array([np.nan, 3, 0.5, 0.25])
    )
    one = SimpleNamespace(
        measured=measured, window=window, noise=noise, fit_spans={"weight": (0.5, 2.0)}
    )
    conditions = SimpleNamespace(has_theory=True, crossover=3.0)
    made = validity.rows(conditions, found, one, eigenvalues, "with_replacement")
    rows = {row["id"]: row for row in made}
    end = rows["end_curvature_with_replacement"]
    assert end["here"] == pytest.approx(np.median([2, 1.5, 0.5, 10]))
    assert "medians along the path 1, 1.75" in end["note"]
    over = rows["noise_over_path_with_replacement"]
    assert over["here"] == pytest.approx(1.2) and "each of the places 1.3, 1;" in over["note"]
    assert rows["tau_over_theory_at_start_with_replacement"]["here"] == np.median([0.5, 2.0])
    assert rows["tau_over_theory_at_path_with_replacement"]["here"] == np.median([1.1, 1.5])
    assert rows["tau_over_theory_at_path_above_with_replacement"]["here"] == 1.1
    assert rows["tau_over_theory_at_secant_with_replacement"]["here"] == np.median([2.0, 2.0])
    above = rows["secant_curvature_above_with_replacement"]
    assert above["here"] == 1.5 and above["note"].endswith("theta_K alone 1")
    assert rows["secant_curvature_below_with_replacement"]["here"] == np.median([3.0, 1.5])
    assert rows["tau_over_theory_at_start_below_with_replacement"]["here"] == 2.0
    assert rows["weight_over_theory_at_start_with_replacement"]["here"] == pytest.approx(1 / 3)
    at_secants = rows["weight_over_theory_at_secant_with_replacement"]
    assert at_secants["here"] == pytest.approx(np.median([0.25, 0.25, 0.2])) == 0.25
    slope = np.polyfit(np.log([2, 1, 0.5]), np.log(noise[1:] * [4, 1, 0.25]), 1)[0]
    exponent = rows["weight_exponent_theory_at_secant_with_replacement"]
    assert exponent["here"] == pytest.approx(slope) and "4 directions" in exponent["note"]


def test_accuracies_of_the_seeds_are_compared_scheme_by_scheme():
    """Networks lie scheme by scheme, seed by seed; best and last epoch are told apart."""
    settings = tiny.settings(seeds=2, epochs=3)
    accuracy = np.array([[0.1, 0.9, 0.5], [0.2, 0.7, 0.6], [0.3, 0.6, 0.4], [0.1, 0.6, 0.2]])
    curves = {"train_loss": np.ones((4, 3)), "test_accuracy": accuracy}
    made = training.rows(settings, curves, {"test_accuracy": 0.55})
    rows = {row["id"]: row["here"] for row in made}
    assert rows == pytest.approx({
        "test_accuracy": 0.55, "best_test_accuracy": 0.9,
        "best_accuracy_without_replacement": 0.8, "best_accuracy_with_replacement": 0.6,
        "best_accuracy_difference": 0.2, "last_accuracy_without_replacement": 0.55,
        "last_accuracy_with_replacement": 0.3, "last_accuracy_difference": 0.25,
    })  # fmt: skip


def test_numbers_of_several_networks_are_averaged_with_their_error_over_networks():
    """A row that a network lacks, that is no number or that is the same in all has no average."""
    values = np.array([1.0, 2.0, 6.0])
    each = [
        [
            row_of("tau", "Fig. 2", "time", value, 0.1, unit="steps"),
            row_of("cross", "Sec. 4", "λ", 7),
        ]
        for value in values
    ]
    each[0] += [row_of("only_here", "Fig. 2", "x", 1), row_of("missing", "Fig. 2", "y", np.nan)]
    (made,) = over(each, "networks")
    assert made["id"] == "tau_over_networks" and made["unit"] == "steps" and made["n"] == 3
    assert made["here"] == 3.0
    assert made["here_error"] == pytest.approx(values.std(ddof=1) / 3**0.5)
    assert "1, 2, 6" in made["note"]
    assert over(each[:1], "networks") == []


def test_stationarity_without_the_directions_that_mostly_drift():
    """Three directions of which one drifts: the mean over the two others, both halves."""
    balance = np.array([[0.5, 0.02, 0.04], [0.3, 0.0, -0.02]])
    one = SimpleNamespace(
        balance=balance, balance_error=np.full((2, 3), 0.1), drift_share=np.array([0.51, 0.5, 0.1]),
        slope=np.full(3, np.nan),
    )  # fmt: skip
    conditions = SimpleNamespace(momentum=0.9, learning_rate=0.1)
    made = {row["id"]: row for row in stationarity.rows(conditions, one, "without_replacement")}
    np.testing.assert_allclose(made["stationarity_without_replacement"]["here"], 0.14)
    steady = made["stationarity_without_drift_without_replacement"]
    np.testing.assert_allclose(steady["here"], 0.01)
    assert steady["n"] == 2
    one.drift_share = np.array([0.6, 0.7, 0.1])
    made = {row["id"] for row in stationarity.rows(conditions, one, "without_replacement")}
    assert "stationarity_without_drift_without_replacement" not in made
