"""App. I: the procedure on variances of known scales, its errors, and the main at toy size."""

import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure

from antisgd import data, ensemble, plotting, theory
from experiments.hyperparameters import __main__ as hyperparameters
from experiments.hyperparameters import scales
from tests import mains, tiny

ETA, BETA, N, S = 1e-3, 0.9, 50_000, 64
LIMIT = theory.max_correlation_time(BETA, N / S)
CROSS = theory.crossover_eigenvalue(ETA, BETA, N / S)
# 25 steep directions and 75 flat ones, in no order.
EIGENVALUES = np.random.default_rng(0).permutation(
    CROSS * np.concatenate([np.geomspace(2, 50, 25), np.geomspace(1e-3, 0.5, 75)])
)


def two_regimes(eigenvalues=EIGENVALUES):
    """Correlation times of the variances of Eq. 8 and 9, each on its side of the crossover."""
    steep = theory.steep_variances(eigenvalues, ETA, BETA)
    flat = theory.flat_variances(ETA, BETA, N / S)
    weight = np.where(eigenvalues > CROSS, steep.weight, flat.weight)
    velocity = np.where(eigenvalues > CROSS, steep.velocity, flat.velocity)
    return 2 * weight / velocity


def test_times_that_follow_the_theory_exactly_give_eq_109():
    """'… then τ_SGD and λ_cross would also follow the theory accurately' (App. I)."""
    found, error = scales.determine(EIGENVALUES, two_regimes(), CROSS)
    assert found.limit == pytest.approx(LIMIT, rel=1e-12)
    assert found.crossover == pytest.approx(CROSS, rel=1e-12)
    assert found.limit_of_all == pytest.approx(np.mean(two_regimes()), rel=1e-12)
    assert error.limit < 1e-9 * LIMIT and error.crossover < 1e-9 * CROSS


def test_only_the_twenty_leading_directions_make_the_line():
    times, order = two_regimes(), np.argsort(EIGENVALUES)[::-1]
    times[order[20:25]] *= 7
    found, _ = scales.determine(EIGENVALUES, times, CROSS)
    assert found.crossover == pytest.approx(CROSS, rel=1e-12)
    times[order[19]] *= 7
    found, _ = scales.determine(EIGENVALUES, times, CROSS)
    assert abs(found.crossover / CROSS - 1) > 0.1


def test_stated_errors_are_the_scatter_of_repetitions():
    """Independent scatter of 4 % a direction; 2,000 repetitions give a deviation to 1.6 %.

    The bound is five of those, and 2 % for what a scatter of 4 % adds in second order.
    """
    rng, times = np.random.default_rng(1), two_regimes()
    runs = [
        scales.determine(EIGENVALUES, times * rng.normal(1, 0.04, times.size), CROSS)
        for _ in range(2000)
    ]
    values, errors = np.moveaxis(np.array(runs), 0, -1)
    stated = np.sqrt(np.mean(errors**2, axis=-1))
    for scale in (0, 2):
        assert values[scale].std() / stated[scale] == pytest.approx(1, abs=5 * 0.016 + 0.02)


def test_directions_that_cannot_give_a_scale_give_none():
    flat = EIGENVALUES[EIGENVALUES < CROSS]
    found, _ = scales.determine(flat, two_regimes(flat), CROSS)
    assert found.limit == pytest.approx(LIMIT) and np.isnan(found.crossover)
    steep = EIGENVALUES[EIGENVALUES > CROSS]
    found, _ = scales.determine(steep, two_regimes(steep), CROSS)
    assert np.isnan(found.limit) and np.isnan(found.crossover)


def network(factor):
    """An analysis whose measured times are `factor` of a theory that follows Eq. 109."""
    times = two_regimes()
    return SimpleNamespace(
        eigenvalues=EIGENVALUES, measured=SimpleNamespace(correlation_time=factor * times),
        window=SimpleNamespace(correlation_time=0.9 * times),
        stationary=SimpleNamespace(correlation_time=times),
    )  # fmt: skip


def test_rows_state_deviation_and_spread():
    one = scales.compare([network(1.0), network(1.2)], LIMIT, CROSS)
    rows = {row["id"]: row for row in scales.setting_rows("here", "somewhere", one)}
    tau = rows["tau_sgd_here"]
    assert tau["here"] == pytest.approx(1.1 * LIMIT) and tau["paper"] == LIMIT
    assert tau["here_error"] == pytest.approx(0.1 * LIMIT) and tau["n"] == 2
    assert "off by +10.0%" in tau["note"] and "spread over seeds 12.9%" in tau["note"]
    assert rows["tau_sgd_over_window_here"]["here"] == pytest.approx(1.1 / 0.9)
    # A common factor shifts the whole line along with its height.
    assert rows["lambda_cross_here"]["here"] == pytest.approx(CROSS)
    alone = scales.compare([network(1.2)], LIMIT, CROSS)
    rows = {row["id"]: row for row in scales.setting_rows("here", "somewhere", alone)}
    assert rows["tau_sgd_here"]["here_error"] == alone.error.limit[0]


def test_errors_of_the_points_make_an_error_of_the_exponent():
    """Three settings, each of two seeds: repeated, fitted exponents scatter by what is stated."""
    factors, rng = np.array([1.0, 2.0, 4.0]), np.random.default_rng(3)
    ones = [scales.compare([network(1.0), network(1.1)], f * LIMIT, CROSS) for f in factors]
    measured = [one.measured.limit for one in ones]
    stated = scales._error_of_points(factors * LIMIT, measured, ones, "limit")
    relative = np.std([1.0, 1.1], ddof=1) / 1.05 / np.sqrt(2)
    x, y = np.log(factors), np.log(factors) + relative * rng.normal(size=(4000, 3))
    fitted = np.polyfit(x, y.T, 1)[0]
    # 4,000 repetitions give a deviation to 1.1 %: z for p = 1e-3.
    assert stated == pytest.approx(fitted.std(), rel=3.3 * 0.011)


def test_the_larger_of_scatter_and_own_errors_is_the_error_of_an_exponent():
    ones = []
    for factor in (1.0, 2.0, 4.0):
        one = scales.compare([network(1.0), network(1.1)], factor * LIMIT, CROSS)
        exact = one.measured._replace(limit=one.measured.limit * factor)
        ones.append(one._replace(measured=exact))
    (row,) = [r for r in scales.grid_rows({"S": ones}) if r["id"] == "tau_sgd_exponent_S"]
    measured = [one.measured.limit for one in ones]
    own = scales._error_of_points(np.array([1.0, 2.0, 4.0]) * LIMIT, measured, ones, "limit")
    assert row["here"] == pytest.approx(1.0) and row["here_error"] == pytest.approx(own)
    assert own > 0.01


def test_networks_that_give_no_scale_are_left_out_and_counted():
    one = scales.compare([network(1.0), network(1.2), network(1.4)], LIMIT, CROSS)
    measured = one.measured._replace(limit=one.measured.limit * [1, np.nan, 1])
    partly = one._replace(measured=measured)
    row = {row["id"]: row for row in scales.setting_rows("here", "somewhere", partly)}[
        "tau_sgd_here"
    ]
    assert row["here"] == pytest.approx(1.2 * LIMIT) and row["n"] == 2
    assert row["note"].endswith("; 1 networks give none")
    assert "none" not in scales.setting_rows("here", "somewhere", one)[0]["note"]
    axis = Figure().add_subplot()
    plotting.scale_panel(axis, np.array([1.0]), [partly], "limit")
    (measured,) = axis.containers
    np.testing.assert_allclose(measured.lines[0].get_ydata(), 1.2 * LIMIT)


def test_grid_rows_find_the_power_of_eq_109():
    """Three settings whose measured τ_SGD is the 1.5th power of Eq. 109's, the window's the 1.2."""
    ones = []
    for factor in (1.0, 2.0, 4.0):
        one = scales.compare([network(1.0)], LIMIT, CROSS)
        limit = one.measured.limit * factor**1.5
        expected = one.expected._replace(limit=factor * LIMIT)
        window = one.window._replace(limit=one.window.limit * factor**1.2)
        measured = one.measured._replace(limit=limit)
        ones.append(one._replace(measured=measured, window=window, expected=expected))
    rows = {row["id"]: row for row in scales.grid_rows({"batch size": ones, "momentum": ones[:2]})}
    assert rows["tau_sgd_exponent_batch_size"]["here"] == pytest.approx(1.5)
    assert rows["tau_sgd_exponent_batch_size"]["note"].endswith("at the same eigenvalues: 1.2")
    excess = rows["tau_sgd_over_window_exponent_batch_size"]
    assert excess["here"] == pytest.approx(0.3) and excess["note"].startswith("that theory: 0; ")
    assert not {"tau_sgd_exponent_momentum", "lambda_cross_exponent_batch_size"} & set(rows)
    deviations = np.array([0, np.sqrt(2) - 1, 1])
    assert rows["tau_sgd_off_eq109"]["here"] == pytest.approx(np.sqrt(np.mean(deviations**2)))
    assert rows["tau_sgd_off_eq109"]["n"] == 3 and "tau_sgd_off_seeds" not in rows


def line(axis, label):
    (found,) = [one for one in axis.lines if one.get_label() == label]
    return found


def test_fig_10_has_a_column_a_hyper_parameter_and_bars_of_the_seeds():
    ones = [scales.compare([network(1.0), network(1.2)], LIMIT, CROSS)] * 3
    figure = plotting.scales_figure(
        {"batch size $S$": (np.array([128, 32, 64]), ones), "momentum": (np.arange(3.0), ones)}
    )
    upper, _, lower, last = figure.get_axes()
    assert (lower.get_xscale(), last.get_xscale(), upper.get_yscale()) == ("log", "linear", "log")
    np.testing.assert_array_equal(line(upper, "theory (Eq. 109)").get_xdata(), [32, 64, 128])
    assert [tick.get_text() for tick in lower.get_xticklabels()] == ["128", "32", "64"]
    np.testing.assert_allclose(line(upper, "theory, finite window").get_ydata(), 0.9 * LIMIT)
    (bars,) = upper.containers
    segments = bars[2][0].get_segments()
    np.testing.assert_allclose([np.ptp(x[:, 1]) for x in segments], 2 * 0.2 / 2**0.5 * LIMIT)
    np.testing.assert_allclose(lower.containers[0][0].get_ydata(), CROSS)


TOY = (
    "--dataset=synthetic", "--num_examples=60", "--batch_size=6", "--learning_rate=0.01",
    "--learning_rates=0.01", "--momenta=0.8", "--momenta_learning_rate=0.01",
    "--batch_sizes=6,7", "--epochs=3", "--analysis_epochs=3", "--seeds=2", "--analysis_seeds=1",
    "--eigenpairs=6", "--full_gradient=quadratic",
)  # fmt: skip
SETTINGS = {
    "learning_rate=0.01,momentum=0.9,batch_size=6",
    "learning_rate=0.01,momentum=0.8,batch_size=6",
    "learning_rate=0.01,momentum=0.9,batch_size=7",
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    base = tmp_path_factory.mktemp("hyperparameters")
    mains.run_apart("hyperparameters", base / "run", *TOY)
    return base


@pytest.mark.slow
def test_each_setting_has_a_folder_and_no_eigenvectors_are_left(finished):
    folder = finished / "run"
    assert {path.name for path in folder.iterdir() if "=" in path.name} == SETTINGS
    assert not list(folder.rglob("eigenvectors.npy")) + list(folder.rglob("trajectory_*"))
    assert {path.stem for path in (folder / "figures").glob("*.png")} == {"fig09", "fig10"}
    rows = {row["id"]: row for row in json.loads((folder / "summary.json").read_text())}
    # Nothing lies below the crossover of such a run or all does: what is there is finite.
    assert all(np.isfinite(row["here"]) for row in rows.values())
    assert {f"tau_sgd_all_eta0.01_beta{b}_S{s}" for b, s in ((0.9, 6), (0.8, 6), (0.9, 7))} <= set(
        rows
    )
    assert rows["train_accuracy"]["n"] == 6 and rows["train_accuracy"]["paper"] is None
    assert "<html" in (folder / "report.html").read_text()


@pytest.mark.slow
def test_settings_of_one_batch_size_share_their_programs(finished):
    """η and β are no constants of the compiled programs: one of each kind a batch size.

    Recording has two, for whole chunks of steps and for an epoch's last one.
    """
    kept = [path.name.split("-")[0] for path in (finished / "cache").glob("*-cache")]
    assert kept.count("jit_run_epoch") == 2 and kept.count("jit_record") == 2 * 2


@pytest.mark.slow
def test_the_theory_is_that_of_a_smaller_last_batch(finished):
    """60 = 8·7 + 4: nine steps an epoch, of which the last has four pictures."""
    place = finished / "run" / "learning_rate=0.01,momentum=0.9,batch_size=7" / "seed_0"
    kept = np.load(place / "analysis.npz")
    law, rate = theory.partial_last(60, 7), 0.01 * 0.98**3
    expected = theory.stationary_variances(kept["eigenvalues"], rate, 0.9, law)
    np.testing.assert_allclose(kept["stationary/weight"], expected.weight, rtol=1e-9)
    window = theory.window_variances(kept["eigenvalues"], rate, 0.9, law, 27)
    np.testing.assert_allclose(kept["window/weight"], window.weight, rtol=1e-9)
    rows = json.loads((finished / "run" / "summary.json").read_text())
    (row,) = [row for row in rows if row["id"] == "tau_sgd_all_eta0.01_beta0.9_S7"]
    measured = kept["measured/correlation_time"].mean()
    off = measured / (60 / 7 / 3 * 19) - 1
    assert row["here"] == pytest.approx(measured) and f"off by {off:+.1%}" in row["note"]


@pytest.mark.slow
def test_settings_of_one_batch_size_are_trained_each_with_its_own_momentum(finished):
    """Seed by seed from the same weights; over few steps a larger β moves farther from them."""
    params = {
        name: np.load(finished / "run" / name / "training.npz")["params"] for name in SETTINGS
    }
    fast, slow = (params[f"learning_rate=0.01,momentum={b},batch_size=6"] for b in (0.9, 0.8))
    pictures = data.load("synthetic", num_examples=60, seed=0).train.images[:1]
    keys, _ = ensemble.network_keys(0, 2)
    for seed in range(2):
        first = tiny.network().init(keys[seed], pictures)
        first = np.asarray(jax.flatten_util.ravel_pytree(first)[0])
        moved = [np.linalg.norm(one[seed] - first) for one in (fast, slow)]
        assert moved[1] < moved[0] < np.linalg.norm(fast[0] - fast[1])


@pytest.mark.slow
def test_a_finished_setting_is_skipped_and_a_missing_one_made_again_to_the_bit(finished):
    folder = finished / "run"
    paths = sorted(folder.glob("*/seed_0/analysis.npz"))
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in paths}
    summary = (folder / "summary.json").read_bytes()
    # As if stopped after the second setting's rows, before its eigenvectors were dropped.
    missing, kept = paths[0], paths[1]
    missing.unlink()
    (missing.parent / "eigenpairs.npz").unlink()
    (kept.parent / "eigenvectors.npy").write_bytes(b"left over")
    mains.run_apart("hyperparameters", folder, *TOY)
    assert not (kept.parent / "eigenvectors.npy").exists()
    for path, (content, modified) in before.items():
        assert path.read_bytes() == content
        assert (path.stat().st_mtime_ns == modified) == (path != missing)
    assert (folder / "summary.json").read_bytes() == summary


@pytest.mark.slow
def test_a_further_value_trains_and_analyses_its_setting_alone(finished):
    """From here on the folder holds more than the other tests ask for."""
    folder, setting = finished / "run", "learning_rate=0.01,momentum=0.7,batch_size=6"
    kept = [*folder.glob("*/seed_0/analysis.npz"), *folder.glob("checkpoints/*.npz")]
    assert len(kept) == 2 * len(SETTINGS)
    before = {path: path.stat().st_mtime_ns for path in kept}
    mains.run_apart("hyperparameters", folder, *TOY, "--momenta=0.7,0.8")
    assert before == {path: path.stat().st_mtime_ns for path in kept}
    assert (folder / setting / "seed_0" / "analysis.npz").exists()
    ids = {row["id"] for row in json.loads((folder / "summary.json").read_text())}
    assert {f"tau_sgd_all_eta0.01_beta{beta}_S6" for beta in (0.7, 0.8, 0.9)} <= ids


@pytest.mark.slow
def test_a_finished_folder_takes_more_seeds(finished):
    """The third network of every setting alone is trained, and the second analysed."""
    folder = finished / "run"
    kept = [*folder.glob("*/seed_0/analysis.npz"), *folder.glob("checkpoints/*.npz")]
    before = {path: path.stat().st_mtime_ns for path in kept}
    held = {path: np.load(path)["params"] for path in folder.glob("*/training.npz")}
    more = "--momenta=0.7,0.8", "--seeds=3", "--analysis_seeds=2"
    mains.run_apart("hyperparameters", folder, *TOY, *more)
    assert before == {path: path.stat().st_mtime_ns for path in kept}
    assert len(list(folder.glob("*/seed_1/analysis.npz"))) == len(SETTINGS) + 1
    for path, params in held.items():
        grown = np.load(path)["params"]
        np.testing.assert_array_equal(grown[:2], params)
        assert len(grown) == 3 and not np.array_equal(grown[2], grown[1])
    rows = {row["id"]: row for row in json.loads((folder / "summary.json").read_text())}
    assert rows["tau_sgd_all_eta0.01_beta0.9_S6"]["n"] == 2
    assert rows["train_accuracy"]["n"] == 3 * (len(SETTINGS) + 1)


REFUSED = {
    "momentum=1.0 is outside": ["--momenta=0.9,1"],
    "--batch_sizes: invalid literal": ["--batch_sizes=6,7.5"],
    "--learning_rates is empty": ["--learning_rates="],
    "--sampling": ["--sampling=with_replacement"],
    "--analysis_seeds=0": ["--analysis_seeds=0"],
    "batch_size=61 is larger than the 60": ["--batch_sizes=6,61"],
}


@pytest.mark.parametrize("message", REFUSED)
def test_bad_input_is_one_line(tmp_path, message):
    with pytest.raises(SystemExit, match=f"error: .*{message}") as stopped:
        mains.run(hyperparameters, tmp_path / "run", *TOY, *REFUSED[message])
    assert "\n" not in str(stopped.value)
    assert not (tmp_path / "run").exists()
