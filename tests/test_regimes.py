"""The rows that compare both regimes, where the measurements are the theory itself."""

from types import SimpleNamespace

import numpy as np
import pytest

from antisgd import statistics, theory
from experiments import comparison, regimes, summary, training
from tests import tiny

M, RATE, BETA = 100, 0.01, 0.9
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
    given = f"--learning_rate={RATE}", "--learning_rate_decay=1", "--analysis_epochs=20"
    with tiny.given(*given):
        made = regimes.rows(SimpleNamespace(steps_per_epoch=M), analyses)
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
    (_, row) = regimes._flat_rows(one, other, LAM > 0)
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
    assert row["paper"] == 10
    # T/2M in the flattest directions, here times the two of the fixture.
    assert 0.8 * 20 < row["here"] < 20


def test_beside_the_medians_stands_what_scatter_makes_of_an_exact_theory():
    """Scatter with median 0.9 whose 90th percentile of |x - 1| is 0.5, the band's ends left out."""
    scatter = np.array([0.01, *np.linspace(0.5, 1.3, 9), 1.6, 99.0])
    spread = SimpleNamespace(correlation_time=np.tile(scatter, (LAM.size, 1)))
    one = exact(theory.without_replacement(M), 2.0)
    one.spread = spread
    rows = summary._agreement_rows(one, "window", "without_replacement", "Fig. 2")
    middle = scatter[1:-1]
    off = np.abs(middle - 1)
    expected = np.median(middle), np.median(off), np.percentile(off, 90)
    for row, value in zip(rows, expected, strict=True):
        assert row["note"].startswith(f"by the theory {value:.3g}:")
        assert row["here"] == pytest.approx(2.0 if "deviation" not in row["id"] else 1.0)


@pytest.mark.parametrize(
    ("arguments", "papers"),
    [
        (["--dataset=cifar10", "--num_examples=50000"], True),
        (["--dataset=cifar10", "--num_examples=5000"], False),
        (["--dataset=digits"], False),
    ],
)
def test_the_papers_values_stand_beside_its_own_pictures_only(arguments, papers):
    rows = [{"id": "x", "paper": 0.63, "paper_error": None, "here": 0.6}]
    with tiny.given(*arguments):
        (row,) = comparison.for_data(rows, training.on_the_papers_pictures())
    assert row["paper"] == (0.63 if papers else None)
