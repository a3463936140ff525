"""The main experiment with a tiny network: what it writes, that it goes on, what it refuses."""

import json
import shutil
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver

from antisgd import heavy_ball, lanczos, models, objective, results, theory
from experiments import accuracy, drift, lenet, training, validity
from experiments import flags as shared
from tests import tiny

FLAGS = flags.FLAGS
TOY = {
    "dataset": "synthetic",
    "num_examples": 60,
    "batch_size": 6,
    "learning_rate": 0.01,
    "epochs": 3,
    "analysis_epochs": 3,
    "eigenpairs": 6,
}
FIGURES = {
    "fig01", "fig02", "fig05", "fig05_density", "fig06", "fig07", "fig08", "fig11", "fig13",
    "fig14", "seeds",
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def parsed_flags():
    FLAGS(["lenet"])
    with (
        flagsaver.flagsaver(),
        jax.numpy_rank_promotion("allow"),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(models, "lenet", tiny.network)
        patch.setattr(validity, "PROBES", 2)
        patch.setattr(validity, "NODES", 5)
        patch.setattr(shared, "KEPT_COMPILE_SECONDS", 0.0)
        yield


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory, monkeypatch):
    """One compilation cache for all toy runs of this process, so that only the first compiles."""
    base = tmp_path_factory.getbasetemp()
    monkeypatch.setenv("ANTISGD_CACHE_DIR", str(base / "compiled"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(base / "downloads"))


def run(folder, **changes):
    with flagsaver.flagsaver(**(TOY | {"output_dir": str(folder)} | changes)):
        shared.guarded(lenet.main)(["lenet"])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "toy"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ANTISGD_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "compiled"))
        run(folder, seeds=2)
    return folder


def arrays_of(folder):
    found = {}
    for path in sorted(Path(folder).rglob("*.np[yz]")):
        if "checkpoint" in str(path):
            continue
        loaded = np.load(path)
        parts = loaded if isinstance(loaded, np.lib.npyio.NpzFile) else {"": loaded}
        found |= {f"{path.relative_to(folder)}:{name}": np.array(parts[name]) for name in parts}
    return found


def test_a_run_folder_holds_what_is_promised(finished):
    assert {path.stem for path in (finished / "figures").glob("*.png")} == FIGURES
    assert {path.stem for path in (finished / "figures").glob("*.pdf")} == FIGURES
    config = json.loads((finished / "config.json").read_text())
    assert config["settings"]["batch_size"] == 6
    assert len(config["data_fingerprint"]) == 64
    assert np.load(finished / "eigenvectors.npy", mmap_mode="r").shape[0] == 6
    for regime in ("without_replacement", "with_replacement"):
        inside = finished / f"trajectory_{regime}"
        assert np.load(inside / "weights.npy").shape == (31, 6)
        assert np.load(inside / "velocities.npy").shape == (30, 6)
        assert np.load(inside / "noise.npy").shape == (30, 6)
    assert "<html" in (finished / "report.html").read_text()


def test_rows_are_complete_and_their_names_unique(finished):
    rows = json.loads((finished / "summary.json").read_text())
    keys = {"id", "paper_item", "quantity", "unit", "paper", "paper_error", "here", "here_error",
            "n", "note"}  # fmt: skip
    assert all(set(row) == keys for row in rows)
    names = [row["id"] for row in rows]
    assert len(set(names)) == len(names)
    assert {"best_accuracy_difference", "tau_over_theory_window_without_replacement",
            "loss_fluctuation_reduction", "noise_autocorrelation_near_with_replacement"} <= set(
        names
    )  # fmt: skip


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
    for regime in ("without_replacement", "with_replacement"):
        noise = np.load(finished / f"trajectory_{regime}" / "noise.npy").reshape(3, 10, 6)
        ratio[regime] = np.sqrt(np.mean(noise.sum(1) ** 2) / np.mean(noise**2) / 10)
    assert ratio["without_replacement"] < 0.4
    assert ratio["with_replacement"] > 0.5


def test_the_same_command_again_changes_no_bit(finished):
    before = arrays_of(finished)
    run(finished, seeds=2)
    after = arrays_of(finished)
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(array, after[name], err_msg=name)


def test_stage_by_stage_gives_the_bits_of_one_run(finished, tmp_path):
    for stage in shared.STAGES:
        run(tmp_path / "staged", seeds=2, stages=[stage])
    whole, staged = arrays_of(finished), arrays_of(tmp_path / "staged")
    assert whole.keys() == staged.keys()
    for name, array in whole.items():
        np.testing.assert_array_equal(array, staged[name], err_msg=name)


def test_more_eigenpairs_extend_the_solve_and_record_anew(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "grown")
    (folder / "density.npz").unlink()
    first = np.load(folder / "eigenpairs.npz")["values"]
    stages = ["eigenpairs", "analysis"]
    run(folder, seeds=2, eigenpairs=9, stages=stages)
    second = np.load(folder / "eigenpairs.npz")["values"]
    assert len(second) == 9
    np.testing.assert_allclose(second[:6], first, rtol=2e-3)
    before = arrays_of(folder)
    assert before["trajectory_without_replacement/noise.npy:"].shape == (30, 9)
    assert before["trajectory_with_replacement/weights.npy:"].shape == (31, 9)
    assert before["covariance.npz:examples"].shape == (9, 9)
    assert before["discard.npz:counts"][-1] == 9
    assert before["validity.npz:index"][-1] == 8
    run(folder, seeds=2, eigenpairs=9, stages=stages)
    for name, array in arrays_of(folder).items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


def test_the_two_full_gradient_modes_agree_within_the_stated_error(finished, tmp_path):
    """The remaining error, an r.m.s. over anchors, bounds the r.m.s. difference of the noise."""
    run(tmp_path / "quadratic", seeds=2, full_gradient="quadratic",
        sampling=["without_replacement"],
        stages=["train", "eigenpairs", "analysis"])  # fmt: skip
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
    with flagsaver.flagsaver(**TOY):
        problem = training.load_problem(tiny.network(), weight_decay=FLAGS.weight_decay)
    theta = jnp.asarray(np.load(finished / "training.npz")["params"][0])
    template = problem.init(jax.random.key(0))
    restore = jax.flatten_util.ravel_pytree(template)[1]
    vectors = jnp.asarray(np.load(finished / "eigenvectors.npy"))
    return problem, theta, restore, vectors


def _final_weights(finished, problem):
    """θ_{K+T}, flat, from the recording's own checkpoint."""
    weights = problem.init(jax.random.key(0))
    optimizer = training.optimizer_at(0, *training.hyperparameters())
    state = heavy_ball.init(optimizer, weights)
    anchors = {"gradients": np.zeros((4, 6), np.float32), "curves": np.zeros((4, 4))}
    path = finished / "trajectory_without_replacement" / "checkpoint.npz"
    state, _, done = results.read_checkpoint(path, (state, anchors, -1))
    assert done == 3
    return jax.flatten_util.ravel_pytree(state.params)[0]


def test_the_static_covariance_is_that_of_single_examples(finished, trained):
    """(1/S − 1/N) C₀ from a loop over the examples, to rounding of float32 gradients."""
    problem, theta, restore, vectors = trained
    train = problem.dataset.train

    def loss(flat, n):
        one = jax.tree.map(lambda leaf: leaf[n][None], train)
        return problem.loss(restore(flat), one, jnp.ones(1))

    gradient = jax.jit(jax.grad(loss))
    each = np.array([vectors @ gradient(theta, n) for n in range(60)], np.float64)
    expected = (1 / 6 - 1 / 60) * np.cov(each.T)
    found = np.load(finished / "covariance.npz")["examples"]
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


def test_the_curves_take_few_pictures_and_the_final_accuracies_all(tmp_path):
    with flagsaver.flagsaver(**TOY, curve_examples=7):
        problem = training.load_problem(tiny.network(), weight_decay=FLAGS.weight_decay)
        trained = training.train(problem, tmp_path)
        rows = {one["id"]: one["here"] for one in accuracy.training_rows(problem, trained)}
    params = jax.tree.map(lambda leaf: leaf[0], trained.states.params)
    for part, examples in problem.dataset._asdict().items():
        right = problem.apply(params, examples.images).argmax(-1) == examples.labels
        few, whole = np.mean(right[:7]), np.mean(right)
        assert few != whole
        assert trained.curves[f"{part}_accuracy"][0, -1] == pytest.approx(few)
        assert rows[f"{part}_accuracy"] == pytest.approx(whole)


def test_discarded_directions_leave_the_accuracy_of_the_rest(finished, trained):
    problem, theta, restore, vectors = trained
    kept = np.load(finished / "discard.npz")
    np.testing.assert_array_equal(kept["counts"], np.arange(7))
    np.testing.assert_allclose(kept["projections"], vectors @ theta, rtol=1e-3, atol=1e-4)
    for n in (0, 3, 6):
        left = theta - vectors[:n].T @ (vectors[:n] @ theta)
        accuracy = objective.evaluate(problem.apply, restore(left), problem.dataset.test).accuracy
        assert abs(kept["accuracies"][n] - accuracy) < 1e-6


def test_the_curvature_at_the_end_is_that_of_the_last_weights(finished, trained):
    """p·H p by differences of the gradient at θ_{K+T}, from the recording's own checkpoint."""
    problem, theta, restore, vectors = trained
    final = _final_weights(finished, problem)
    gradient = jax.grad(
        lambda flat: problem.loss(restore(flat), problem.dataset.train, jnp.ones(60))
    )
    product = jax.jit(lambda p: jax.jvp(gradient, (final,), (p,))[1])
    exact = [jnp.vdot(p, product(p)) for p in vectors]
    kept = np.load(finished / "validity.npz")
    np.testing.assert_allclose(kept["curvature"], exact, rtol=1e-3)


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


def test_the_reduction_through_a_density_is_that_of_its_eigenvalues():
    """Nodes at the eigenvalues with equal weights are the exact density."""
    lam = np.geomspace(1e-3, 10, 50)
    density = lanczos.SpectralDensity(np.stack([lam, lam]), np.full((2, 50), 1 / 50))
    rate, M = 0.01, 40
    with flagsaver.flagsaver(learning_rate=rate, learning_rate_decay=1.0, weight_decay=0.0):
        reduction, error = validity._reduction(density, M)
    anti = theory.stationary_variances(lam, rate, 0.9, theory.without_replacement(M)).weight
    white = theory.stationary_variances(lam, rate, 0.9, theory.with_replacement()).weight
    expected = theory.loss_fluctuation_reduction(lam, anti, white)
    np.testing.assert_allclose(reduction, expected, rtol=1e-12)
    assert error < 1e-12
    # Curvature that the penalty makes is there in every batch: no noise below 0.02.
    with flagsaver.flagsaver(learning_rate=rate, learning_rate_decay=1.0, weight_decay=0.01):
        reduction, _ = validity._reduction(density, M)
    noise = np.maximum(lam - 0.02, 0)
    expected = theory.loss_fluctuation_reduction(lam, anti, white, noise)
    np.testing.assert_allclose(reduction, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 61}, "batch_size=61 is larger than the 60"),
        ({"momentum": 1.0}, r"momentum=1.0 is outside \[0, 1\)"),
        ({"momentum": -0.1}, "outside"),
        ({"learning_rate": 0.0}, "not positive"),
        ({"learning_rate_decay": 1.5}, "outside"),
        ({"weight_decay": -1.0}, "negative"),
        ({"eigenpairs": 10**6}, "more than the 650 weights"),
        ({"stages": ["trian"]}, "unknown trian"),
        ({"sampling": ["with_replacement", "with_replacement"]}, "twice"),
        ({"analysis_seeds": 2}, "more than --seeds"),
        ({"num_examples": 10**6, "dataset": "digits"}, "1500|1,500"),
        ({"dataset": "cifar10", "data_dir": "/nonexistent"}, "nonexistent"),
        ({"stages": ["figures"]}, "no trained network"),
        (
            {"learning_rate": 1e6, "seeds": 2},
            r"the loss of seed 0 is \S+ at step \d.*lower --learning_rate",
        ),
    ],
)
def test_bad_input_is_one_line(tmp_path, changes, message):
    with pytest.raises(SystemExit, match=message) as stopped:
        run(tmp_path / "bad", **changes)
    assert str(stopped.value).startswith("error: ")
    assert "\n" not in str(stopped.value)


def test_a_finished_run_is_not_damaged_by_other_flags(finished):
    before = (finished / "summary.json").read_bytes()
    with pytest.raises(SystemExit, match="seed 0 then, 1 now.*--overwrite"):
        run(finished, seeds=2, seed=1)
    assert (finished / "summary.json").read_bytes() == before


def test_changed_data_are_refused(finished, tmp_path):
    config = json.loads((finished / "config.json").read_text())
    folder = tmp_path / "run"
    folder.mkdir()
    config["data_fingerprint"] = "0" * 64
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(SystemExit, match="data differ"):
        run(folder, seeds=2)


def test_an_unwritable_output_folder_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="give a writable --output_dir"):
        run(tmp_path / "file" / "run")


def test_a_second_run_of_the_same_shapes_compiles_nothing(finished, tmp_path):
    """Every program of another seed's run comes from the cache on disk, as in a new process."""
    requests = Counter()
    jax.monitoring.register_event_listener(lambda event, **_: requests.update([event]))
    jax.clear_caches()
    run(tmp_path / "second", seeds=2, seed=1, stages=["train", "eigenpairs", "analysis"])
    asked = "/jax/compilation_cache/compile_requests_use_cache"
    assert requests["/jax/compilation_cache/cache_misses"] == 0
    assert requests["/jax/compilation_cache/cache_hits"] == requests[asked] > 10
