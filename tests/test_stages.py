"""The stages of the main experiment with a tiny network: what they write, where they go on from."""

import contextlib
import dataclasses
import itertools
import json
import shutil
from collections import Counter
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from antisgd import (
    data,
    fluctuations,
    heavy_ball,
    lanczos,
    objective,
    results,
    statistics,
    streaming,
    theory,
)
from antisgd.study.conditions import conditions_of
from antisgd.study.stages import analysis, density, drawn, period, table, train, validity
from tests import tiny

SCHEMES = ("without_replacement", "with_replacement")
FIGURES = {
    "agreement", "fig01", "fig02", "fig05", "fig05_density", "fig06", "fig07", "fig08", "fig11",
    "fig13", "fig14", "seeds", "tracked_eigenvalues",
}  # fmt: skip
SIZE = {"seeds": 2, "epochs": 3, "eigenpairs": 6, "track_every": 2, "track_eigenpairs": 3}


def run(folder, **changes):
    return tiny.run(folder, **SIZE | changes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    # What tests of other files compiled with other options is not on disk.
    jax.clear_caches()
    return run(tmp_path_factory.mktemp("runs") / "toy")


def test_a_run_folder_holds_what_is_promised(finished):
    for ending in ("png", "pdf"):
        assert {path.stem for path in (finished / "figures").glob(f"*.{ending}")} == FIGURES
    config = json.loads((finished / "config.json").read_text())
    assert config["settings"]["batch_size"] == 6
    assert len(config["data_fingerprint"]) == 64
    assert np.load(finished / "eigenvectors.npy", mmap_mode="r").shape[0] == 6
    for scheme in SCHEMES:
        inside = finished / f"trajectory_{scheme}"
        assert np.load(inside / "weights.npy").shape == (31, 6)
        assert np.load(inside / "velocities.npy").shape == (30, 6)
        assert np.load(inside / "noise.npy").shape == (30, 6)
    page = (finished / "report.html").read_text()
    assert "<h3>Fig. 2: variances and correlation time against curvature</h3>" in page
    assert all(stage.done(finished) for stage in table.STAGES)


def test_rows_are_complete_and_their_names_unique(finished):
    rows = json.loads((finished / "summary.json").read_text())
    keys = {"id", "paper_item", "quantity", "unit", "paper", "paper_error", "here", "here_error",
            "n", "note"}  # fmt: skip
    assert all(set(row) == keys for row in rows)
    names = [row["id"] for row in rows]
    assert len(set(names)) == len(names)
    labels = [(row["paper_item"], row["quantity"]) for row in rows]
    assert len(set(labels)) == len(labels), [one for one in labels if labels.count(one) > 1]
    assert {"best_accuracy_difference", "tau_over_theory_window_without_replacement",
            "loss_fluctuation_reduction", "noise_autocorrelation_near_with_replacement"} <= set(
        names
    )  # fmt: skip
    # On these pictures no value of the paper stands beside them.
    assert "best_test_accuracy" in names
    assert not [row for row in rows if row["paper"] is not None]


def test_velocities_are_the_steps_of_the_weights(finished):
    inside = finished / "trajectory_without_replacement"
    steps = np.diff(np.load(inside / "weights.npy"), axis=0)
    np.testing.assert_allclose(steps, np.load(inside / "velocities.npy"), atol=1e-12)


def test_the_recorded_weights_end_where_the_network_does(finished, trained):
    """Eq. 1 along the directions from the recorded gradients, against the weights themselves."""
    problem, theta, restore, vectors = trained
    moved = vectors @ (_final_weights(finished, problem) - theta)
    weights = np.load(finished / "trajectory_without_replacement" / "weights.npy")
    # Each of the 30 steps rounds the weights once.
    bound = 30 * np.finfo(np.float32).eps * float(jnp.linalg.norm(theta))
    np.testing.assert_allclose(weights[-1], moved, rtol=0, atol=bound)
    assert np.abs(weights[-1]).max() > 100 * bound


def test_exact_noise_sums_nearly_to_zero_over_an_epoch_without_replacement_only(finished):
    """Along a moving trajectory the sum is not exactly zero, but far below √M deviations."""
    ratio = {}
    for scheme in SCHEMES:
        noise = np.load(finished / f"trajectory_{scheme}" / "noise.npy").reshape(3, 10, 6)
        ratio[scheme] = np.sqrt(np.mean(noise.sum(1) ** 2) / np.mean(noise**2) / 10)
    assert ratio["without_replacement"] < 0.4
    assert ratio["with_replacement"] > 0.5


def test_the_same_command_again_changes_no_bit(finished):
    before = tiny.arrays_of(finished)
    shown = {path: path.read_bytes() for path in (finished / "figures").iterdir()}
    summary = (finished / "summary.json").read_bytes()
    run(finished)
    tiny.same_arrays(before, finished)
    assert (finished / "summary.json").read_bytes() == summary
    assert shown == {path: path.read_bytes() for path in (finished / "figures").iterdir()}


def test_stage_by_stage_gives_the_bits_of_one_run(finished, tmp_path):
    """And each leaves the file that the table says: by it a later command goes on."""
    folder = tmp_path / "staged"
    for count, stage in enumerate(table.STAGES, 1):
        run(folder, stages=(stage.name,))
        done = [one.done(folder) for one in table.STAGES]
        assert done == [True] * count + [False] * (len(done) - count)
    tiny.same_arrays(finished, folder)


def test_a_longer_period_is_recorded_anew_to_the_bits_of_a_long_one(finished, tmp_path):
    """Network and eigenpairs stay; the curvature along the period is that of its new places."""
    folder = shutil.copytree(finished, tmp_path / "longer")
    longer = {"analysis_epochs": 6, "stages": ("analysis", "validity")}
    with pytest.raises(ValueError, match="analysis_epochs 3 then, 2 now"):
        run(folder, analysis_epochs=2)
    run(folder, **longer)
    held = tiny.arrays_of(folder)
    assert held["trajectory_with_replacement/noise.npy:"].shape == (60, 6)
    assert held["validity_with_replacement.npz:epochs"][-1] == 6
    shutil.rmtree(folder / "trajectory_with_replacement")
    (folder / "validity_with_replacement.npz").unlink()
    run(folder, **longer)
    tiny.same_arrays(held, folder)
    noise = "trajectory_without_replacement/noise.npy:"
    np.testing.assert_allclose(held[noise][:30], tiny.arrays_of(finished)[noise], atol=1e-6)


def test_more_eigenpairs_extend_the_solve_and_record_anew(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "grown")
    (folder / "density.npz").unlink()
    first = np.load(folder / "eigenpairs.npz")["values"]
    grown = {"eigenpairs": 9, "stages": ("eigenpairs", "analysis")}
    run(folder, **grown)
    second = np.load(folder / "eigenpairs.npz")["values"]
    assert len(second) == 9
    np.testing.assert_allclose(second[:6], first, rtol=2e-3)
    before = tiny.arrays_of(folder)
    assert before["trajectory_without_replacement/noise.npy:"].shape == (30, 9)
    assert before["trajectory_with_replacement/weights.npy:"].shape == (31, 9)
    assert before["covariance.npz:examples"].shape == (9, 9)
    assert before["discard.npz:counts"][-1] == 9
    for scheme in SCHEMES:
        assert before[f"validity_{scheme}.npz:index"][-1] == 8
    run(folder, **grown)
    tiny.same_arrays(before, folder)


def test_the_two_full_gradient_modes_agree_within_the_stated_error(finished, tmp_path):
    """The remaining error, an r.m.s. over anchors, bounds the r.m.s. difference of the noise."""
    run(tmp_path / "quadratic", full_gradient="quadratic", sampling=("without_replacement",),
        stages=("train", "eigenpairs", "analysis"))  # fmt: skip
    inside = "trajectory_without_replacement"
    exact = np.load(finished / inside / "noise.npy")
    modelled = np.load(tmp_path / "quadratic" / inside / "noise.npy")
    stated = np.load(tmp_path / "quadratic" / inside / "anchors.npz")["full_gradient_error"]
    difference = np.sqrt(np.mean((exact - modelled) ** 2, axis=0))
    assert np.median(difference / stated) < 3
    assert np.sqrt(np.mean(difference**2)) < 0.5 * np.sqrt(np.mean(exact**2))


@pytest.fixture(scope="module")
def trained(finished):
    """What the toy run's files say, and its problem: θ_K, eigenvectors, the loss as a function."""
    problem = tiny.problem()
    theta = jnp.asarray(np.load(finished / "training.npz")["params"][0])
    template = problem.init(jax.random.key(0))
    restore = jax.flatten_util.ravel_pytree(template)[1]
    vectors = jnp.asarray(np.load(finished / "eigenvectors.npy"))
    return problem, theta, restore, vectors


def _final_weights(finished, problem):
    """θ_{K+T}, flat, from the recording's own checkpoint."""
    settings = tiny.settings(**SIZE)
    optimizer = train.optimizer_at(settings, 0, *train.hyperparameters(settings))
    state = heavy_ball.init(optimizer, problem.init(jax.random.key(0)))
    anchors = {"gradients": np.zeros((4, 6), np.float32), "curves": np.zeros((4, 4))}
    path = finished / "trajectory_without_replacement" / "checkpoint.npz"
    state, _, done = results.read_checkpoint(path, (state, anchors, -1))
    assert done == 3
    return jax.flatten_util.ravel_pytree(state.params)[0]


def test_the_static_covariance_is_that_of_single_examples(finished, trained):
    """(1/S − 1/N) C₀ from a loop over the examples, to rounding of float32 gradients."""
    problem, theta, restore, vectors = trained

    def loss(flat, n):
        one = jax.tree.map(lambda leaf: leaf[n][None], problem.train)
        return problem.loss(restore(flat), one, jnp.ones(1))

    gradient = jax.jit(jax.grad(loss))
    each = np.array([vectors @ gradient(theta, n) for n in range(60)], np.float64)
    expected = (1 / 6 - 1 / 60) * np.cov(each.T)
    found = np.load(finished / "covariance.npz")["examples"]
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_settings_that_are_trained_side_by_side_are_those_trained_alone(tmp_path):
    """Schemes × settings × seeds, in this order."""
    problem, slow = tiny.problem(), tiny.settings(seeds=2, epochs=2)
    varied = [slow, dataclasses.replace(slow, learning_rate=0.03, momentum=0.5)]
    together = train.train_networks(problem, varied, tmp_path / "together.npz").states.params
    alone = [
        train.train_networks(problem, [one], tmp_path / f"{i}.npz").states.params
        for i, one in enumerate(varied)
    ]

    def by_place(params, settings):
        return jax.vmap(lambda p: jax.flatten_util.ravel_pytree(p)[0])(params).reshape(
            2, settings, 2, -1
        )

    for i, one in enumerate(alone):
        np.testing.assert_allclose(
            by_place(together, 2)[:, i], by_place(one, 1)[:, 0], rtol=1e-4, atol=1e-5
        )


def test_the_curves_take_few_examples_and_the_final_accuracies_all(tmp_path):
    problem, settings = tiny.problem(), tiny.settings(curve_examples=7, epochs=3)
    trained = train.train(problem, settings, tmp_path)
    params = jax.tree.map(lambda leaf: leaf[0], trained.states.params)
    final = train.final_metrics(problem, params)
    for part, examples in problem.parts.items():
        right = tiny.network().apply(params, examples.images).argmax(-1) == examples.labels
        few, whole = np.mean(right[:7]), np.mean(right)
        assert few != whole
        assert trained.curves[f"{part}_accuracy"][0, -1] == pytest.approx(few)
        assert final[f"{part}_accuracy"] == pytest.approx(whole)


def test_discarded_directions_leave_the_accuracy_of_the_rest(finished, trained):
    problem, theta, restore, vectors = trained
    kept = np.load(finished / "discard.npz")
    np.testing.assert_array_equal(kept["counts"], np.arange(7))
    np.testing.assert_allclose(kept["projections"], vectors @ theta, rtol=1e-3, atol=1e-4)
    for n in (0, 3, 6):
        left = theta - vectors[:n].T @ (vectors[:n] @ theta)
        accuracy = objective.evaluate(tiny.network().apply, restore(left), problem.test).accuracy
        assert abs(kept["accuracies"][n] - accuracy) < 1e-6


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_fluctuation_relation_is_that_of_the_recorded_gradients(finished, scheme):
    """The analysis takes them from the velocities by Eq. 1; float32 rounds each to eps |v|/η."""
    inside = finished / f"trajectory_{scheme}"
    weights, velocities, gradients = (
        np.load(inside / f"{name}.npy") for name in ("weights", "velocities", "gradients")
    )
    conditions = conditions_of(60, tiny.settings(**SIZE))
    found, error = analysis._balance(weights, velocities, conditions)
    rate, beta = conditions.learning_rate, conditions.momentum
    exact = fluctuations.fluctuation_balance(
        weights, velocities, gradients, rate, beta, num_blocks=2, steps_per_epoch=10
    )
    theta = weights - weights.mean(axis=0)
    size = np.sqrt(np.mean(theta**2, axis=0) * np.mean(velocities**2, axis=0)) / exact.motion
    bound = 8 * np.finfo(np.float32).eps * size.max()
    np.testing.assert_allclose(found, exact.residual, rtol=0, atol=bound)
    np.testing.assert_allclose(error, np.broadcast_to(exact.error, error.shape), rtol=1e-5)
    assert np.abs(found).max() > 100 * bound
    rows = {row["id"]: row for row in json.loads((finished / "summary.json").read_text())}
    positive = np.load(finished / "eigenpairs.npz")["values"] > 0
    here = rows[f"stationarity_{scheme}"]["here"]
    np.testing.assert_allclose(here, found[:, positive].mean(), rtol=1e-5)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_curvature_along_the_path_is_that_of_the_weights_kept(finished, trained, scheme):
    """p·H(θ_t)p by differentiating the gradient; the recorded projections say where θ_t lies."""
    problem, theta, restore, vectors = trained
    inside = finished / f"trajectory_{scheme}"
    kept, weights = np.load(inside / "kept_weights.npy"), np.load(inside / "weights.npy")
    places = period.kept_epochs(3)
    np.testing.assert_array_equal(places, [1, 2, 3])
    bound = 30 * np.finfo(np.float32).eps * float(jnp.linalg.norm(theta))
    moved = np.array([vectors @ (one - theta) for one in kept])
    np.testing.assert_allclose(weights[10 * places], moved, rtol=0, atol=bound)
    gradient = jax.grad(lambda flat: problem.loss(restore(flat), problem.train, jnp.ones(60)))
    product = jax.jit(lambda at, p: jax.jvp(gradient, (at,), (p,))[1])

    def gradient_of(at, example):
        one = jax.tree.map(lambda leaf: leaf[None], example)
        return jax.grad(lambda flat: problem.loss(restore(flat), one, jnp.ones(1)))(at)

    exact = [[jnp.vdot(p, product(at, p)) for p in vectors] for at in kept]
    found = np.load(finished / f"validity_{scheme}.npz")
    np.testing.assert_allclose(found["curvature"], exact, rtol=1e-3)
    laws = {"without_replacement": theory.without_replacement(10, 6),
            "with_replacement": theory.with_replacement(60, 6)}  # fmt: skip
    scale = laws[scheme].variance
    for at, noise in zip(kept, found["noise"], strict=True):
        alone = jax.vmap(lambda e, at=at: vectors @ gradient_of(at, e))(problem.train)
        np.testing.assert_allclose(noise, scale * np.var(alone, axis=0, ddof=1), rtol=1e-3)
    # Secants about the mean of the period along each direction, √3 deviations to both sides.
    still = statistics.remove_drift(weights, np.load(inside / "velocities.npy"), "mean_velocity")
    reach = np.sqrt(3 * statistics.variances(*still).weight)
    for at, secants in zip((theta, *kept), found["secant"], strict=True):
        middle = weights.mean(axis=0) - vectors @ (at - theta)
        ends = [
            [jnp.vdot(p, gradient(at + (m + sign * h) * p)) for sign in (1, -1)]
            for p, m, h in zip(vectors, middle, reach, strict=True)
        ]
        ends = np.array(ends, np.float64)
        bound = 300 * np.finfo(np.float32).eps * np.abs(ends).max() / reach.min()
        np.testing.assert_allclose(
            secants, (ends[:, 0] - ends[:, 1]) / (2 * reach), rtol=1e-3, atol=bound
        )


def test_a_stopped_curvature_goes_on_within_its_values_to_the_same_bits(
    finished, tmp_path, monkeypatch
):
    """Stopped after each of its first values, it computes none of them twice."""
    shutil.copytree(finished, tmp_path / "run")
    computed, asked = [], itertools.count(1)

    @contextlib.contextmanager
    def postponed():
        yield lambda: next(asked) <= 20

    def counted(*arguments, name, original):
        computed.append(name)
        return original(*arguments)

    for name in ("_rayleigh", "_secant"):
        original = getattr(validity, name)
        monkeypatch.setattr(validity, name, partial(counted, name=name, original=original))
    monkeypatch.setattr(validity.interruption, "postponed", postponed)
    (path,) = (tmp_path / "run").glob("validity_with_replacement.npz")
    before = np.load(path)
    for known in (path, tmp_path / "run" / "checkpoints" / path.name):
        known.unlink()
    for _ in range(20):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "run", stages=("validity",))
    run(tmp_path / "run", stages=("validity",))
    # Six directions at three places, and the secants at θ_K too.
    assert Counter(computed) == {"_rayleigh": 18, "_secant": 24}
    after = np.load(path)
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array, err_msg=name)


def test_the_density_is_that_of_the_hessian(finished, trained):
    """To rounding what one call of the solver says of the same weights."""
    problem, theta, restore, _ = trained
    operator = streaming.products(problem.loss, restore(theta), problem.train, 60)
    found = np.load(finished / "density.npz")
    probes, steps = found["nodes"].shape
    whole = lanczos.spectral_density(
        **operator, dimension=problem.dimension, key=jax.random.key(0),
        num_probes=probes, num_steps=steps,
    )  # fmt: skip
    assert (probes, steps) == (2, 5)
    np.testing.assert_allclose(found["nodes"], whole.nodes, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["weights"], whole.weights, rtol=1e-4, atol=1e-6)


def test_a_stopped_density_goes_on_within_its_solves_to_the_same_bits(
    finished, tmp_path, monkeypatch
):
    """Stopped after each of its five products of both vectors, it takes none of them twice."""
    folder = shutil.copytree(finished, tmp_path / "run")
    taken, asked, original = [], itertools.count(1), density.lanczos.extend_together

    @contextlib.contextmanager
    def postponed():
        yield lambda: next(asked) <= 5

    def counted(*arguments, **options):
        taken.append(len(arguments[1]))
        return original(*arguments, **options)

    monkeypatch.setattr(density.lanczos, "extend_together", counted)
    monkeypatch.setattr(density.interruption, "postponed", postponed)
    before = np.load(folder / "density.npz")
    (folder / "density.npz").unlink()
    for _ in range(5):
        with pytest.raises(KeyboardInterrupt):
            run(folder, stages=("density",))
    assert len(list((folder / "checkpoints").glob("density_*"))) == 4
    run(folder, stages=("density",))
    assert taken == 5 * [2]
    assert not list((folder / "checkpoints").glob("density_*"))
    after = np.load(folder / "density.npz")
    for name, array in before.items():
        np.testing.assert_array_equal(after[name], array, err_msg=name)


@pytest.mark.parametrize("k", [1, 9, 16, 17, 60, 2000])
def test_the_curvature_along_the_path_is_taken_along_steep_and_flat_directions(k):
    chosen = validity._chosen(k)
    assert len(chosen) == min(k, validity.DIRECTIONS) and chosen[0] == 0 and chosen[-1] == k - 1
    assert np.all(np.diff(chosen) > 0)
    if k == 2000:
        assert np.sum(chosen < 60) > 5 < np.sum(chosen >= 60)


def test_secants_of_some_directions_stand_for_all_of_them():
    """Their ratio to λ lies between in log λ; without positive curvature there is none."""
    eigenvalues, chosen = np.array([4.0, 2.0, 1.0, -1.0]), np.array([0, 2, 3])
    made = validity._interpolated(np.array([8.0, 1.0, 5.0]), chosen, eigenvalues)
    np.testing.assert_allclose(made, [8, 2 * 1.5, 1, 0], rtol=1e-15)
    assert not validity._interpolated(np.ones(1), np.zeros(1, int), -np.ones(2)).any()


@pytest.mark.parametrize("epochs, places", [(1, [1]), (3, [1, 2, 3]), (20, [4, 8, 12, 16, 20])])
def test_weights_are_kept_at_five_places_the_last_of_them_the_end(epochs, places):
    np.testing.assert_array_equal(period.kept_epochs(epochs), places)


def test_a_recording_that_kept_no_weights_goes_on_without_them(finished, tmp_path):
    """As a version before this one left it: its projections and results stay as they are."""
    folder = shutil.copytree(finished, tmp_path / "older")
    for path in [*folder.glob("*/kept_weights.npy"), *folder.glob("validity_*.npz")]:
        path.unlink()
    before = tiny.arrays_of(folder)
    run(folder)
    assert not list(folder.glob("validity_*.npz"))
    after = tiny.arrays_of(folder)
    for name, array in before.items():
        np.testing.assert_array_equal(array, after[name], err_msg=name)
    rows = {row["id"] for row in json.loads((folder / "summary.json").read_text())}
    assert "regime_ratio" in rows and "end_curvature_without_replacement" not in rows


def test_shorter_windows_are_pieces_of_the_recording(finished):
    """Mean velocity removed from each epoch of M = 10 steps, by hand, over theory on its grid."""
    inside = finished / "trajectory_without_replacement"
    weights, values = (
        np.load(inside / "weights.npy"),
        np.load(finished / "eigenpairs.npz")["values"],
    )
    settings = json.loads((finished / "config.json").read_text())["settings"]
    rate = 0.01 * settings["learning_rate_decay"] ** settings["epochs"]
    squares = np.zeros((2, len(values)))
    for start in (0, 10, 20):
        window = weights[start : start + 11]
        line = np.linspace(0, 1, 11)[:, None] * (window[-1] - window[0])
        squares += np.var(window - line, axis=0), np.var(np.diff(window, axis=0), axis=0)
    time = (2 * squares[0] / squares[1])[values > 0]
    expected = theory.window_variances(
        values[values > 0], rate, 0.9, theory.without_replacement(10), 10,
        drift="mean_velocity",
    )  # fmt: skip
    rows = {row["id"]: row for row in json.loads((finished / "summary.json").read_text())}
    here = rows["tau_over_theory_1_epochs_without_replacement"]["here"]
    np.testing.assert_allclose(here, np.median(time / expected.correlation_time), rtol=1e-5)
    assert "tau_over_theory_5_epochs_without_replacement" not in rows


def test_a_finished_run_is_not_damaged_by_other_settings(finished):
    before = (finished / "summary.json").read_bytes()
    with pytest.raises(ValueError, match="seed 0 then, 1 now.*--overwrite"):
        run(finished, seed=1)
    assert (finished / "summary.json").read_bytes() == before


def test_changed_data_are_refused(finished, tmp_path):
    config = json.loads((finished / "config.json").read_text())
    folder = tmp_path / "run"
    folder.mkdir()
    config["data_fingerprint"] = "0" * 64
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="data differ"):
        run(folder)


def test_the_fingerprint_is_that_of_the_examples(finished):
    """Of both sets, as it was before a study took them one by one."""
    config = json.loads((finished / "config.json").read_text())
    dataset = data.load("synthetic", num_examples=60, seed=0)
    assert config["data_fingerprint"] == data.fingerprint(dataset)


def test_a_second_run_of_the_same_shapes_compiles_nothing(finished, tmp_path):
    """Every program of another seed's run comes from the cache on disk, as in a new process."""
    requests = Counter()
    jax.monitoring.register_event_listener(lambda event, **_: requests.update([event]))
    jax.clear_caches()
    run(tmp_path / "second", seed=1, stages=("train", "eigenpairs", "analysis"))
    asked = "/jax/compilation_cache/compile_requests_use_cache"
    assert requests["/jax/compilation_cache/cache_misses"] == 0
    assert requests["/jax/compilation_cache/cache_hits"] == requests[asked] > 10


# --- the table ------------------------------------------------------------------------------


def test_the_table_says_how_many_products_the_stages_take():
    products = {stage.name: stage.products for stage in table.STAGES if stage.products}
    # What a prediction takes depends on how it settles: the table has a round number.
    assert products.pop("predict") >= 2 * drawn.PAIRS * drawn.DIRECTIONS * len(SCHEMES)
    assert products == {
        # Two gradients for one: products at the weights kept, secants at those and at θ_K.
        "validity": validity.DIRECTIONS * (2 * period.KEPT + 1) * len(SCHEMES),
        "density": density.PROBES * density.NODES,
    }  # fmt: skip


def test_the_table_is_in_the_order_of_what_the_stages_need():
    for place, stage in enumerate(table.STAGES):
        assert set(stage.needs) <= set(table.names()[:place])
    assert len(set(table.names())) == len(table.STAGES)


def test_a_stage_without_what_it_needs_is_left_out(tmp_path):
    run(
        tmp_path / "run", epochs=0, track_every=None, track_eigenpairs=None,
        stages=("train", "covariance", "discard", "validity", "density"),
    )  # fmt: skip
    done = {stage.name for stage in table.STAGES if stage.done(tmp_path / "run")}
    assert done == {"train"}
