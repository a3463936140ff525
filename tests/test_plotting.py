"""Figures carry the artists, labels and values they were given; no pixel is compared."""

import io
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from antisgd import plotting, statistics

M, STEPS = 50, 1000
CROSS, LIMIT = 0.1, 300.0


def analysis(k=40, drifting=(), decorrelated=False):
    """What a regime's panels read, made up."""
    rng = np.random.default_rng(k)
    eigenvalues = np.geomspace(1, 1e-3, k)
    lags = np.arange(1, 2 * M + 1)
    law = np.where(lags <= M, -(M - lags) / (M * (M - 1)), 0.0) * (not decorrelated)
    time = 1 / (eigenvalues / 30 + 1 / LIMIT)
    per_noise = statistics.Fluctuations(time * 1e-3, np.full(k, 2e-3), time)
    noise = 1e-4 * eigenvalues
    factor = np.exp(0.1 * rng.normal(size=k))
    measured = statistics.Fluctuations(noise * per_noise[0] * factor, noise * 2e-3, time * factor)
    share = np.zeros(k)
    share[list(drifting)] = 0.9
    return SimpleNamespace(
        eigenvalues=eigenvalues, lags=lags, autocorrelation=law + 1e-4 * rng.normal(size=2 * M),
        autocorrelation_theory=law, noise=noise, measured=measured, stationary=per_noise,
        window=per_noise, drift_share=share, unconverged=np.zeros(k, bool),
        blurred=np.zeros(k, bool),
        spread=SimpleNamespace(correlation_time=np.tile([0.8, 1.3], (k, 1))),
        fits={"weight": statistics.fit_power_law(eigenvalues, measured.weight),
              "velocity": statistics.PowerLaw(1.066, 0.001, 0.002, 2e-7, k)},
        fit_spans={"weight": np.array([1e-3, CROSS]), "velocity": np.array([1e-3, 1.0])},
    )  # fmt: skip


BAND = statistics.independent_noise_band(STEPS, 40, 2 * M)[1:]
REGIMES = {"without replacement": analysis(), "with replacement": analysis(decorrelated=True)}
ONE = {"without replacement": analysis()}


def figures():
    curves = {name: np.linspace(0.1, 0.9, 12) for name in
              ("train_loss", "test_loss", "train_accuracy", "test_accuracy")}  # fmt: skip
    alignment = statistics.alignment(np.diag([3.0, 2.0, 1.0]) + 0.1, np.array([3.0, 2.0, 1.0]))
    values, accuracy = REGIMES["without replacement"], np.array([[0.64, 0.65], [0.63, 0.66]])
    return {
        "fig01": plotting.noise_autocorrelation(ONE, BAND, M),
        "fig02": plotting.variances_figure(ONE, CROSS, LIMIT),
        "fig05": plotting.eigenvalue_density(values.eigenvalues, CROSS),
        "fig05_density": plotting.spectrum_count(
            np.array([[1e-3, 0.1, 2.0], [-0.1, 0.2, 1.0]]), np.full((2, 3), 10.0),
            values.eigenvalues, CROSS),
        "fig06": plotting.noise_autocorrelation(REGIMES, BAND, M),
        "fig07": plotting.variances_figure(REGIMES, CROSS, LIMIT),
        "fig08": plotting.training_curves(curves, 10),
        "fig11": plotting.discarded_directions(np.arange(5), np.full(5, 0.5), values.eigenvalues,
                                               np.ones(40), CROSS, 0.4),
        "fig13": plotting.leading_variances({"recorded": alignment}),
        "fig14": plotting.noise_against_curvature(
            values.eigenvalues, values.noise, values.fits["velocity"], np.array([1e-3, 1.0])),
        "seeds": plotting.accuracy_comparison({"best epoch": accuracy, "last epoch": accuracy},
                                              ["without", "with"]),
    }  # fmt: skip


@pytest.fixture(scope="module")
def drawn():
    return figures()


def line(axis, label):
    (found,) = [one for one in axis.lines if one.get_label() == label]
    return found


def legend(owner):
    return [text.get_text() for text in owner.get_legend().get_texts()]


def notes(axis):
    return {text.get_text() for text in axis.texts}


def test_every_axis_says_what_it_shows(drawn):
    for name, figure in drawn.items():
        labels = [figure.get_axes()[0].get_ylabel(), figure.get_axes()[-1].get_xlabel()]
        assert labels[0], name
        assert labels[1] or name == "seeds"


@pytest.mark.parametrize("kind, first", [("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_figures_can_be_written(drawn, kind, first):
    buffer = io.BytesIO()
    drawn["fig14"].savefig(buffer, format=kind)
    assert buffer.getvalue().startswith(first)


def test_nothing_reaches_beyond_the_figure(drawn):
    for name, figure in drawn.items():
        figure.draw_without_rendering()
        tight, size = figure.get_tightbbox(), figure.get_size_inches()
        assert tight.x0 > -0.02 and tight.y0 > -0.02, name
        assert tight.x1 < size[0] + 0.02 and tight.y1 < size[1] + 0.02, name


def test_fig_1_shows_window_means_inside_a_band_around_eq_2(drawn):
    (axis,) = drawn["fig01"].get_axes()
    points = line(axis, "_measured")
    one = ONE["without replacement"]
    assert len(points.get_xdata()) == 2 * M  # 100 lags need no averaging
    np.testing.assert_array_equal(points.get_ydata(), one.autocorrelation)
    np.testing.assert_array_equal(line(axis, "theory (Eq. 2)").get_ydata(),
                                  one.autocorrelation_theory)  # fmt: skip
    (band,) = axis.collections
    edge = band.get_paths()[0].vertices[:, 1]
    assert edge.max() == pytest.approx(np.max(one.autocorrelation_theory + 2 * BAND))
    assert edge.min() == pytest.approx(np.min(one.autocorrelation_theory - 2 * BAND))
    assert "one epoch" in notes(axis)
    assert axis.get_xlabel() == "lag (update steps)"
    assert legend(axis) == ["2σ of independent noise", "theory (Eq. 2)", "measured"]


def test_many_lags_are_averaged_in_windows_and_the_band_narrows_with_them():
    one = SimpleNamespace(lags=np.arange(1, 1201), autocorrelation=np.arange(1200.0),
                          autocorrelation_theory=np.zeros(1200))  # fmt: skip
    (axis,) = plotting.noise_autocorrelation({"": one}, np.ones(1200), 600).get_axes()
    points = line(axis, "_measured")
    np.testing.assert_allclose(points.get_xdata(), np.arange(60) * 20 + 10.5)
    np.testing.assert_allclose(points.get_ydata(), np.arange(60) * 20 + 9.5)
    (band,) = axis.collections
    assert band.get_paths()[0].vertices[:, 1].max() == pytest.approx(2 / np.sqrt(20))
    assert "measured, mean of 20 lags" in legend(axis)


def test_fig_6_has_a_panel_for_each_regime_on_one_scale(drawn):
    left, right = drawn["fig06"].get_axes()
    assert (left.get_title(), right.get_title()) == tuple(REGIMES)
    assert left.get_ylim() == right.get_ylim()


def test_fig_2_shows_variances_fits_theory_and_scales(drawn):
    variance, time = drawn["fig02"].get_axes()
    for axis in (variance, time):
        assert axis.get_xscale() == axis.get_yscale() == "log"
        assert "$\\lambda_\\mathrm{cross}$" in notes(axis)
    assert "$\\tau_\\mathrm{SGD}$" in notes(time)
    one = ONE["without replacement"]
    weight, velocity = (one_line for one_line in variance.lines if one_line.get_label() == "_fit")
    np.testing.assert_array_equal(weight.get_xdata(), [1e-3, CROSS])
    np.testing.assert_allclose(velocity.get_ydata(), 2e-7 * np.array([1e-3, 1.0]) ** 1.066)
    labels = legend(variance)
    # The error in the legend is twice the standard error.
    assert any("1.066 \\pm 0.002" in label and "(2σ)" in label for label in labels)
    assert labels[2:] == ["theory (Eq. 6)", "theory, finite window"]
    np.testing.assert_array_equal(line(time, "_measured").get_ydata(),
                                  one.measured.correlation_time)  # fmt: skip
    assert legend(time) == [
        "95 % of directions", "measured", "theory (Eq. 6)", "theory, finite window",
    ]  # fmt: skip
    theory = line(time, "theory (Eq. 6)")
    np.testing.assert_array_equal(theory.get_xdata(), one.eigenvalues[::-1])
    np.testing.assert_array_equal(theory.get_ydata(), one.stationary.correlation_time[::-1])
    heights = time.collections[0].get_paths()[0].vertices[:, 1]
    limits = one.window.correlation_time.min() * 0.8, one.window.correlation_time.max() * 1.3
    np.testing.assert_allclose([heights.min(), heights.max()], limits)


def test_theory_for_the_variances_follows_the_trend_of_the_noise(drawn):
    variance = drawn["fig02"].get_axes()[0]
    one = ONE["without replacement"]
    drawn_lines = [x.get_ydata() for x in variance.lines if len(x.get_xdata()) == 40
                   and x.get_linestyle() == "--"]  # fmt: skip
    assert len(drawn_lines) == 4
    expected = (one.noise * one.stationary.weight)[::-1]
    # A pure power law is its own running median.
    np.testing.assert_allclose(drawn_lines[0], expected, rtol=1e-9)
    np.testing.assert_allclose(drawn_lines[3], 2e-3 * one.noise[::-1], rtol=1e-9)


def test_drifting_directions_are_hollow_and_named():
    one = analysis(drifting=(3, 7))
    for axis in plotting.variances_figure({"": one}, CROSS, LIMIT).get_axes():
        assert "mostly drift" in legend(axis)
        for hollow in (x for x in axis.lines if x.get_label() == "_mostly drift"):
            assert hollow.get_markerfacecolor() == "none"
            np.testing.assert_array_equal(hollow.get_xdata(), one.eigenvalues[[3, 7]])
        for full in (x for x in axis.lines if x.get_label() == "_measured"):
            assert len(full.get_xdata()) == 38


def test_fig_7_has_columns_for_regimes_and_shared_scales(drawn):
    without, with_, time_without, time_with = drawn["fig07"].get_axes()
    assert (without.get_title(), with_.get_title()) == tuple(REGIMES)
    assert without.get_ylim() == with_.get_ylim()
    assert time_without.get_ylim() == time_with.get_ylim()
    low, high = time_with.get_ylim()
    shown = REGIMES["with replacement"].measured.correlation_time
    assert low < shown.min() and shown.max() < high


def test_fig_5_counts_every_eigenvalue_and_says_where_the_crossover_is(drawn):
    (axis,) = drawn["fig05"].get_axes()
    assert sum(bar.get_height() for bar in axis.patches) == 40
    (inset,) = axis.child_axes
    assert sum(bar.get_height() for bar in inset.patches) == 20
    assert "0.001" in inset.get_title()
    assert "$\\lambda_\\mathrm{cross}$" in notes(axis)
    (flat,) = plotting.eigenvalue_density(np.geomspace(1e-4, 1e-2, 30), CROSS).get_axes()
    assert not flat.texts
    assert "all below" in flat.get_title()
    assert flat.get_xlim()[1] < 0.02


def test_the_whole_spectrum_is_counted_beside_the_eigenvalues_found(drawn):
    (axis,) = drawn["fig05_density"].get_axes()
    mean = line(axis, "all, by the density")
    counted = np.interp([2e-3, 0.15, 1.5], *mean.get_data())
    np.testing.assert_allclose(counted, [20, 15, 5])
    found = line(axis, "those found")
    assert found.get_ydata()[-1] == 40
    assert found.get_xdata()[0] == REGIMES["with replacement"].eigenvalues.max()
    assert "$\\lambda_\\mathrm{cross}$" in notes(axis)


def test_fig_8_shades_the_analysis_period_and_shows_percent(drawn):
    loss, accuracy = drawn["fig08"].get_axes()
    assert loss.get_yscale() == "log"
    np.testing.assert_allclose(line(accuracy, "test set").get_ydata(), np.linspace(10, 90, 12))
    (shade,) = loss.patches
    assert (shade.get_x(), shade.get_x() + shade.get_width()) == (10, 12)
    labels = [text.get_text() for text in drawn["fig08"].legends[0].get_texts()]
    assert labels == ["training set", "test set", "analysis period"]


def test_fig_11_has_three_panels_on_one_index(drawn):
    top, middle, bottom = drawn["fig11"].get_axes()
    assert top.get_xlim() == bottom.get_xlim() == (0, 40)
    assert "test accuracy (%)" in top.get_ylabel()
    np.testing.assert_array_equal(top.lines[0].get_ydata(), np.full(5, 50.0))
    assert "$\\lambda_\\mathrm{cross}$" in notes(middle)
    assert line(bottom, "± 2σ of a random vector").get_ydata()[0] == 0.8


def test_fig_13_shows_both_bases_and_the_cosine(drawn):
    (axis,) = drawn["fig13"].get_axes()
    assert axis.get_title() == "recorded, cosine similarity 1.00"
    np.testing.assert_allclose(line(axis, "_measured").get_ydata(), [3.1, 2.1, 1.1])
    own = line(axis, "eigenvalues of $C$").get_ydata()
    assert np.all(np.diff(own) < 0) and own.sum() == pytest.approx(6.3)


def test_fig_14_shows_the_fit_with_two_standard_errors(drawn):
    (axis,) = drawn["fig14"].get_axes()
    (label,) = legend(axis)
    assert "1.066 \\pm 0.002" in label
    assert len(line(axis, "_measured").get_xdata()) == 40


def test_seeds_are_joined_and_their_mean_has_a_standard_error(drawn):
    axis = drawn["seeds"].get_axes()[0]
    np.testing.assert_allclose(line(axis, "one seed").get_ydata(), [64, 63])
    (bars,) = axis.containers
    mean, _, (segments,) = bars
    np.testing.assert_allclose(mean.get_ydata(), [64.5, 64.5])
    lengths = [np.ptp(segment[:, 1]) for segment in segments.get_segments()]
    # Two seeds d apart: standard error d/2.
    np.testing.assert_allclose(lengths, [1.0, 3.0])
    assert [tick.get_text() for tick in axis.get_xticklabels()] == ["without", "with"]


def test_plotting_needs_no_display_and_leaves_the_style_of_others_alone():
    code = (
        "import sys, matplotlib; before = dict(matplotlib.rcParams)\n"
        "from antisgd import plotting; import numpy as np\n"
        "plotting.eigenvalue_density(np.arange(1., 9.), 3.)\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "assert dict(matplotlib.rcParams) == before\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PATH": "", "MPLBACKEND": "agg"})
