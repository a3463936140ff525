"""Figures carry the artists, labels and values they were given; no pixel is compared."""

import io
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patheffects import Stroke

from antisgd import plotting, statistics, theory
from antisgd.plotting import injected, quadratic
from antisgd.plotting.logarithms import label_logarithms

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
MANY = np.geomspace(1e-2, 1, 60)


PAPER = {0: 0.63, 35: 0.54, 5000: 0.44, 7000: 0.10}


def setting(momentum, window=0.7, **more):
    """What `scale_panel` reads, with Eq. 109 at this momentum."""
    limit = theory.max_correlation_time(momentum, M)
    crossover = theory.crossover_eigenvalue(0.01, momentum, M)

    def seeds(factor):
        factors = factor * np.array([0.9, 1.1])
        return SimpleNamespace(limit=factors * limit, limit_of_all=factors * limit,
                               crossover=factors * crossover)  # fmt: skip

    expected = SimpleNamespace(limit=limit, crossover=crossover)
    return SimpleNamespace(expected=expected, measured=seeds(0.6), window=seeds(window),
                           error=seeds(0.1), **more)  # fmt: skip


MOMENTA = np.array([0.9, 0.5, 0.75])


def scales(**more):
    """Fig. 10 over the momentum and over something with a logarithmic axis."""
    found = [setting(one, **more) for one in MOMENTA]
    return plotting.scales_figure(
        {"momentum": (MOMENTA, found), "batch size": (MOMENTA * 100, found)}
    )


def shaken():
    eigenvalues = np.geomspace(0.3, 30, 20)
    times = {"white": 1 / eigenvalues, "anti": np.full(20, 0.1), "strong": np.full(20, 0.1)}

    def window(time):
        values = SimpleNamespace(weight=time / 10, correlation_time=time)
        return SimpleNamespace(eigenvalues=eigenvalues, measured=values, expected=values)

    return injected.shaken_weights({name: [window(time)] for name, time in times.items()})


def bins(ratio, number=(40, 20, 0, 7)):
    ratios = np.array([ratio, ratio, np.nan, 1.0])
    return plotting.Bins(np.array([0.03, 0.1, 0.3, 2.0]), ratios, ratios / 20, np.array(number))


def agreement():
    found = {"weight": bins(1.2), "velocity": bins(1.0), "correlation_time": bins(0.7)}
    return plotting.binned_agreement({title: found for title in REGIMES})


def simulated():
    """What each of the quadratic's figures reads, for two sampling schemes."""
    x = np.geomspace(0.01, 10, 20)
    one = SimpleNamespace(measured=1 / x, error=0.01 / x, expected=1 / x)
    names = ("weight", "correlation_time", "autocorrelation")
    cases = ("with_replacement", "without_replacement", "drop_last", "nesterov_with")
    return SimpleNamespace(x=x, found={case: dict.fromkeys(names, one) for case in cases})


def tracked(edge=1.0):
    """Two eigenvalues at four epochs, one of them negative once."""
    values = np.array([[4.0, 1.0], [3.0, -1.0], [2.0, 0.5], [1.0, 0.4]])
    rates = np.geomspace(0.1, 0.05, 4)
    return plotting.tracked_eigenvalues(np.arange(4) * 5, values, 0.03 / rates, edge * 3.8 / rates)


def figures():
    curves = {name: np.linspace(0.1, 0.9, 12) for name in
              ("train_loss", "test_loss", "train_accuracy", "test_accuracy")}  # fmt: skip
    alignment = statistics.alignment(np.diag([3.0, 2.0, 1.0]) + 0.1, np.array([3.0, 2.0, 1.0]))
    values, accuracy = REGIMES["without replacement"], np.array([[0.64, 0.65], [0.63, 0.66]])
    return {
        "fig01": plotting.noise_autocorrelation(ONE, BAND, M),
        "fig02": plotting.variances_figure(ONE, CROSS, LIMIT),
        "fig05": plotting.eigenvalue_density(values.eigenvalues, CROSS),
        "fig05_many": plotting.eigenvalue_density(MANY, CROSS),
        "fig05_density": plotting.spectrum_count(
            np.array([[1e-3, 0.1, 2.0], [-0.1, 0.2, 1.0]]), np.full((2, 3), 10.0),
            values.eigenvalues, CROSS),
        "fig06": plotting.noise_autocorrelation(REGIMES, BAND, M),
        "fig07": plotting.variances_figure(REGIMES, CROSS, LIMIT),
        "fig08": plotting.training_curves(curves, 10),
        "fig10": scales(),
        "fig11": plotting.discarded_directions(np.arange(5), np.full(5, 0.5), values.eigenvalues,
                                               np.ones(40), CROSS, 0.4),
        "fig11_paper": plotting.discarded_directions(
            np.arange(0, 41, 5), np.linspace(0.6, 0.5, 9), values.eigenvalues, np.ones(40), CROSS,
            0.4, paper=PAPER),
        "fig13": plotting.leading_variances({"recorded": alignment}),
        "fig14": plotting.noise_against_curvature(
            values.eigenvalues, values.noise, values.fits["velocity"], np.array([1e-3, 1.0])),
        "seeds": plotting.accuracy_comparison({"best epoch": accuracy, "last epoch": accuracy},
                                              ["without", "with"]),
        "bins": agreement(),
        "tracked": tracked(),
        "shaken": shaken(),
        "quadratic": quadratic.variances(simulated()),
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


def visible(axis):
    """Texts of the tick labels inside what an axis shows, the minor ones included."""
    low, high = sorted(axis.get_view_interval())
    return [
        tick.label1.get_text()
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks())
        if low <= tick.get_loc() <= high and tick.label1.get_text()
    ]


def form(text):
    return "power" if text.startswith("$10^") else "product" if "times" in text else "plain"


def logarithmic(figure):
    both = (axis for axes in figure.get_axes() for axis in (axes.xaxis, axes.yaxis))
    return [axis for axis in both if axis.get_scale() == "log"]


def test_a_logarithmic_axis_never_mixes_powers_and_plain_numbers(drawn):
    for name, figure in drawn.items():
        figure.draw_without_rendering()
        for axis in logarithmic(figure):
            labels = visible(axis)
            assert len({form(text) for text in labels}) == 1, (name, labels)
            assert len(labels) > 1, name


@pytest.mark.parametrize(
    "low, high, wanted",
    [
        (0.02, 1.9, ["0.02", "0.05", "0.1", "0.2", "0.5", "1"]),
        (0.019, 2.0, ["$10^{-1}$", "$10^{0}$"]),
        (400, 11000, ["500", "1000", "2000", "5000", "10000"]),
        (0.56, 0.94, ["0.6", "0.7", "0.8", "0.9"]),
        (1.02, 1.19, ["1.05", "1.1", "1.15"]),
        (2.2, 8.5, ["4", "6", "8"]),
        (3e-6, 1.5e-5, ["$5{\\times}10^{-6}$", "$1{\\times}10^{-5}$"]),
        (1e-8, 1e-5, ["$10^{-8}$", "$10^{-7}$", "$10^{-6}$", "$10^{-5}$"]),
    ],
)
def test_the_form_of_a_logarithmic_axis_goes_by_its_length(low, high, wanted):
    figure = Figure()
    axes = figure.add_subplot(xscale="log", xlim=(low, high))
    label_logarithms(axes)
    figure.draw_without_rendering()
    assert visible(axes.xaxis) == wanted


def test_an_axis_is_labelled_by_what_it_shows_when_it_is_drawn():
    axes = Figure().add_subplot(xscale="log", xlim=(1e-4, 1))
    label_logarithms(axes)
    axes.set_xlim(0.5, 2)
    axes.figure.draw_without_rendering()
    assert visible(axes.xaxis) == ["0.5", "1", "2"]


def test_fits_lie_above_the_points_with_a_white_edge_and_bars_at_their_ends(drawn):
    for name, count in (("fig02", 2), ("fig14", 1)):
        axis = drawn[name].get_axes()[0]
        fits = [one for one in axis.lines if one.get_label() == "_fit"]
        assert len(fits) == count
        for fit in fits:
            measured = [one for one in axis.lines if one.get_label() == "_measured"]
            assert fit.get_zorder() > max(one.get_zorder() for one in measured)
            (halo,) = (one for one in fit.get_path_effects() if isinstance(one, Stroke))
            assert halo._gc["foreground"] == "white" and halo._gc["linewidth"] > fit.get_linewidth()
            assert fit.get_marker() == "|" and len(fit.get_xdata()) == 2
    assert "ends of the fitted region" in legend(drawn["fig02"].get_axes()[0])


WORDS_OF_ONE_USE = ("Eq.", "paper", "LeNet", "CIFAR", "digits", "cross-entropy", "ResNet")


def test_figures_of_any_network_name_no_data_no_network_and_no_paper(drawn):
    for name in set(drawn) - {"fig10", "fig11_paper"}:
        figure = drawn[name]
        texts = [text.get_text() for text in figure.findobj(lambda x: hasattr(x, "get_text"))]
        assert not [t for t in texts if any(word in t for word in WORDS_OF_ONE_USE)], name


def test_the_source_of_the_data_stands_below_everything_else():
    words = "some pictures (their copy), commit 0123abc"
    makers = (agreement, shaken, lambda: plotting.variances_figure(REGIMES, CROSS, LIMIT))
    for make in makers:
        figure = make()
        height = figure.get_size_inches()[1]
        assert plotting.label_source(figure, words) is figure
        figure.draw_without_rendering()
        renderer = figure._get_renderer()
        box = figure._supxlabel.get_window_extent(renderer)
        assert figure.get_supxlabel() == words
        assert box.y0 >= 0 and box.x0 >= 0 and box.x1 <= figure.bbox.width
        assert box.y1 < min(axes.get_tightbbox(renderer).y0 for axes in figure.get_axes())
        assert figure.get_size_inches()[1] > height


def test_a_long_source_goes_on_in_a_second_line():
    figure = plotting.label_source(plotting.eigenvalue_density(MANY, CROSS), "word " * 30)
    figure.draw_without_rendering()
    box = figure._supxlabel.get_window_extent(figure._get_renderer())
    assert "\n" in figure.get_supxlabel()
    assert box.y0 >= 0 and box.x1 <= figure.bbox.width


def test_fig_1_shows_window_means_inside_a_band_around_eq_2(drawn):
    (axis,) = drawn["fig01"].get_axes()
    points = line(axis, "_measured")
    one = ONE["without replacement"]
    assert len(points.get_xdata()) == 2 * M  # 100 lags need no averaging
    np.testing.assert_array_equal(points.get_ydata(), one.autocorrelation)
    np.testing.assert_array_equal(line(axis, "theory").get_ydata(),
                                  one.autocorrelation_theory)  # fmt: skip
    (band,) = axis.collections
    edge = band.get_paths()[0].vertices[:, 1]
    assert edge.max() == pytest.approx(np.max(one.autocorrelation_theory + 2 * BAND))
    assert edge.min() == pytest.approx(np.min(one.autocorrelation_theory - 2 * BAND))
    assert "one epoch" in notes(axis)
    assert axis.get_xlabel() == "lag (update steps)"
    assert legend(axis) == ["2σ of independent noise", "theory", "measured"]


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
    assert labels[2:] == [
        "theory, stationary", "theory, finite window", "ends of the fitted region",
    ]  # fmt: skip
    np.testing.assert_array_equal(line(time, "_measured").get_ydata(),
                                  one.measured.correlation_time)  # fmt: skip
    assert legend(time) == [
        "95 % of directions", "measured", "theory, stationary", "theory, finite window",
    ]  # fmt: skip
    theory = line(time, "theory, stationary")
    np.testing.assert_array_equal(theory.get_xdata(), one.eigenvalues[::-1])
    np.testing.assert_array_equal(theory.get_ydata(), one.stationary.correlation_time[::-1])
    heights = time.collections[0].get_paths()[0].vertices[:, 1]
    limits = one.window.correlation_time.min() * 0.8, one.window.correlation_time.max() * 1.3
    np.testing.assert_allclose([heights.min(), heights.max()], limits)


def test_theory_for_the_variances_follows_the_trend_of_the_noise(drawn):
    variance = drawn["fig02"].get_axes()[0]
    one = ONE["without replacement"]
    drawn_lines = [x.get_ydata() for x in variance.lines if len(x.get_xdata()) == 40
                   and x.is_dashed()]  # fmt: skip
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
    (axis,) = drawn["fig05_many"].get_axes()
    (bars,) = axis.containers
    assert sum(bar.get_height() for bar in bars) == 60
    (inset,), cover = axis.child_axes, axis.patches[-1]
    drawn["fig05_many"].draw_without_rendering()
    hidden, small = cover.get_window_extent(), inset.get_tightbbox()
    assert hidden.x0 < small.x0 and hidden.y0 < small.y0 and cover.get_zorder() < inset.zorder
    assert sum(bar.get_height() for bar in inset.patches) == 30
    assert "0.01" in inset.get_title()
    assert "$\\lambda_\\mathrm{cross}$" in notes(axis)
    (flat,) = plotting.eigenvalue_density(np.geomspace(1e-4, 1e-2, 60), CROSS).get_axes()
    assert not flat.texts
    assert "all below" in flat.get_title()
    assert flat.get_xlim()[1] < 0.02


def test_fig_5_of_few_eigenvalues_counts_them_one_by_one(drawn):
    (axis,) = drawn["fig05"].get_axes()
    assert not axis.patches and not axis.child_axes
    steps = line(axis, "_count")
    np.testing.assert_array_equal(steps.get_ydata(), np.arange(1, 41))
    assert np.all(np.diff(steps.get_xdata()) < 0) and steps.get_drawstyle() == "steps-post"
    np.testing.assert_array_equal(line(axis, "_rug").get_xdata(), steps.get_xdata())
    assert axis.get_xscale() == "log" and "at least" in axis.get_ylabel()
    assert "$\\lambda_\\mathrm{cross}$" in notes(axis)
    (flat,) = plotting.eigenvalue_density(np.array([0.05, -0.01, 0.02]), CROSS).get_axes()
    assert flat.get_xscale() == "linear" and "all below" in flat.get_title()


def test_the_whole_spectrum_is_counted_beside_the_eigenvalues_found(drawn):
    (axis,) = drawn["fig05_density"].get_axes()
    mean = line(axis, "all, by the density, ± one standard error")
    counted = np.interp([2e-3, 0.15, 1.5], *mean.get_data())
    np.testing.assert_allclose(counted, [20, 15, 5])
    found = line(axis, "those found")
    assert found.get_ydata()[-1] == 40
    assert found.get_xdata()[0] == REGIMES["with replacement"].eigenvalues.max()
    assert "$\\lambda_\\mathrm{cross}$" in notes(axis)


def test_tracked_eigenvalues_stand_between_the_crossover_and_the_edge(drawn):
    (axis,) = drawn["tracked"].axes
    largest = line(axis, "largest of 2 eigenvalues")
    np.testing.assert_array_equal(largest.get_xydata(), [[0, 4], [5, 3], [10, 2], [15, 1]])
    cross = line(axis, "$\\lambda_\\mathrm{cross}$").get_ydata()
    edge = line(axis, "stability, $2(1+\\beta)/\\eta$").get_ydata()
    np.testing.assert_allclose([cross[0], cross[-1], edge[0], edge[-1]], [0.3, 0.6, 38, 76])
    (without,) = tracked(edge=np.nan).axes
    assert not [one for one in without.lines if "stability" in str(one.get_label())]


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


def test_fig_11_marks_the_number_above_the_crossover_and_nothing_of_the_paper_by_itself(drawn):
    above = np.sum(REGIMES["without replacement"].eigenvalues > CROSS)
    for axis in drawn["fig11"].get_axes():
        assert [above, above] in [list(one.get_xdata()) for one in axis.lines]
    top = drawn["fig11"].get_axes()[0]
    assert f"{above} above" in " ".join(notes(top)) and top.get_legend() is None


def test_fig_11_shows_the_papers_points_and_says_which_lie_beyond(drawn):
    top = drawn["fig11_paper"].get_axes()[0]
    here, paper = legend(top)
    assert here == "here" and "44 % at 5,000" in paper and "10 % at 7,000" in paper
    squares = line(top, paper)
    np.testing.assert_allclose(squares.get_xydata(), [[0, 63], [35, 54]])
    assert squares.get_marker() == "s" and "35" in notes(top)
    assert squares.get_zorder() > line(top, "here").get_zorder()
    assert top.get_ylim()[1] > 63


def test_fig_10_draws_eq_109_as_a_curve_and_the_window_as_points(drawn):
    limit, _, crossover, _ = drawn["fig10"].get_axes()
    for axis, formula in (
        (limit, lambda beta: theory.max_correlation_time(beta, M)),
        (crossover, lambda beta: theory.crossover_eigenvalue(0.01, beta, M)),
    ):
        beta, curve = line(axis, "theory (Eq. 109)").get_data()
        assert len(beta) > 50 and (beta[0], beta[-1]) == (0.5, 0.9)
        np.testing.assert_allclose(curve, [formula(one) for one in beta], rtol=1e-9)
        window = line(axis, "theory, finite window")
        assert window.get_linestyle() == "None" and window.get_marker() == "x"
        assert len(window.get_xdata()) == 3
    assert len(drawn["fig10"].legends[0].get_texts()) == 4


def test_every_line_of_the_injected_noise_is_named_and_has_the_colour_of_its_points(drawn):
    figure = drawn["shaken"]
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    noises = ("white", "anti", "strong")
    ends = (", measured", ", theory of its window")
    assert named == [noise + end for noise in noises for end in ends]
    for axis in figure.get_axes():
        points = [one for one in axis.lines if one.get_label() == "_measured"]
        lines = [line(axis, f"{noise}, theory of its window") for noise in noises]
        assert [one.get_color() for one in lines] == [one.get_color() for one in points]
        assert min(one.get_zorder() for one in lines) > max(one.get_zorder() for one in points)
        assert len({str(one._dash_pattern) for one in lines}) == 3


def test_bins_show_ratios_with_errors_and_the_number_behind_each(drawn):
    axes = drawn["bins"].get_axes()
    assert [axis.get_title() for axis in axes[:2]] == list(REGIMES)
    assert len(axes) == 6
    for row, ratio in enumerate((1.2, 1.0, 0.7)):
        first, second = axes[2 * row : 2 * row + 2]
        assert first.get_ylim() == second.get_ylim()
        points, _, (bars,) = first.containers[0]
        np.testing.assert_allclose(points.get_xydata(), [[0.03, ratio], [0.1, ratio], [2, 1]])
        lengths = [np.ptp(bar[:, 1]) for bar in bars.get_segments()]
        np.testing.assert_allclose(lengths, np.array([ratio, ratio, 1]) / 10)
        assert notes(first) == {"n =", "40", "20", "7"}
        ends = np.concatenate([bar[:, 1] for bar in bars.get_segments()])
        low, high = first.get_ylim()
        assert ends.min() > low + 0.12 * (high - low) and ends.max() < high
    assert "weight variance" in axes[0].get_ylabel() and axes[0].get_xscale() == "log"
    (said,) = drawn["bins"].legends[0].get_texts()
    assert "one standard error" in said.get_text()


def test_the_quadratics_figures_say_what_is_measured_and_what_theory(drawn):
    figures = (drawn["quadratic"], quadratic.autocorrelations(simulated()))
    for figure in figures:
        said = [text.get_text() for text in figure.legends[0].get_texts()]
        assert said == ["measured ± two standard errors", "theory"]


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
