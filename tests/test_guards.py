"""A run that diverges stops at once and says where; what is not certain is marked as such."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from antisgd import heavy_ball, plotting, results, statistics, trajectory
from antisgd.study.conditions import conditions_of
from antisgd.study.divergence import check_finite
from antisgd.study.stages import analysis, eigenpairs, record, train
from antisgd.study.stages.period import Recording
from tests import tiny

BOUND = r"learning rate 0\.01 with momentum 0\.9 is stable only for .* = 380; lower --learning_rate"
GIVEN = tiny.settings(learning_rate_decay=1.0, full_gradient="quadratic")
FAST = dataclasses.replace(GIVEN, learning_rate=1e5)


@pytest.fixture(autouse=True)
def small():
    with tiny.small():
        yield


def losses(networks, steps, network, step, value):
    made = np.ones((networks, steps))
    made[network, step:] = value
    return made


@pytest.mark.parametrize(("value", "words"), [(np.nan, "not finite"), (3e7, r"3e\+07")])
def test_the_first_bad_loss_is_named_by_seed_and_step(value, words):
    networks = [(seed, GIVEN) for seed in range(3)] * 2
    found = losses(6, 10, network=4, step=7, value=value)
    with pytest.raises(
        FloatingPointError, match=rf"seed 1 is {words} at step 27 \(epoch 2\): {BOUND}"
    ):
        check_finite(found, 2, 10, networks)
    check_finite(np.ones((6, 10)), 2, 10, networks)


def test_the_settings_named_are_those_of_the_network_that_diverged():
    """Seeds, settings, schemes: networks that differ in learning rate train side by side."""
    slow, decayed = (dataclasses.replace(GIVEN, learning_rate=rate) for rate in (0.001, 0.02))
    decayed = dataclasses.replace(decayed, learning_rate_decay=0.5, epochs=1)
    networks = [(seed, one) for one in (slow, decayed) for seed in range(2)]
    with pytest.raises(FloatingPointError, match=r"seed 1 .*\(epoch 2\): learning rate 0\.01 with"):
        check_finite(losses(4, 10, network=3, step=0, value=np.inf), 2, 10, networks)


def test_training_stops_in_the_epoch_that_diverges(tmp_path):
    with pytest.raises(FloatingPointError, match=r"seed 0 is .* at step \d \(epoch 0\).*1e\+05"):
        train.train(tiny.problem(), FAST, tmp_path)


def test_the_network_that_diverges_is_found_among_schemes_and_settings(tmp_path):
    """Schemes × settings × seeds, as the networks are trained: the second of the settings does."""
    varied = [dataclasses.replace(one, seeds=2, epochs=2) for one in (GIVEN, FAST)]
    with pytest.raises(FloatingPointError, match=r"seed 0 is .* \(epoch 0\): learning rate 1e\+05"):
        train.train_networks(tiny.problem(), varied, tmp_path / "checkpoint.npz")


def test_the_very_last_update_is_looked_at_too(tmp_path, monkeypatch):
    """Its loss is nobody's minibatch loss: only the curves after the epoch show it."""
    real = train.evaluators

    def broken(problem, settings):
        evaluate = real(problem, settings)
        return lambda *networks: evaluate(*networks) * np.nan

    monkeypatch.setattr(train, "evaluators", broken)
    with pytest.raises(FloatingPointError, match=r"seed 0 is not finite at step 10 \(epoch 0\)"):
        train.train(tiny.problem(), dataclasses.replace(GIVEN, epochs=1), tmp_path)


def recorded(folder, settings=GIVEN, seed=3):
    problem = tiny.problem()
    settings = dataclasses.replace(settings, seeds=4)
    optimizer = train.optimizer_at(settings, 0, *train.hyperparameters(settings))
    state = heavy_ball.init(optimizer, problem.init(jax.random.key(0)))
    directions = np.eye(2, problem.dimension, dtype=np.float32)
    return record.record(
        problem, settings, state, directions, np.ones(2), scheme="without_replacement",
        folder=folder, seed=seed,
    )  # fmt: skip


def test_recording_names_seed_and_step_across_chunks_and_epochs(tmp_path, monkeypatch):
    """Six training epochs of ten steps came before; the loss breaks in the second chunk."""
    real = record.check_finite

    def broken(losses, epoch, *rest, **places):
        bad = losses * np.where(np.arange(losses.shape[1]) < 1, 1, np.nan)
        hit = epoch == 7 and places["first"] == 4
        real(bad if hit else losses, epoch, *rest, **places)

    monkeypatch.setattr(record, "check_finite", broken)
    with pytest.raises(
        FloatingPointError, match=rf"seed 3 is not finite at step 75 \(epoch 7\): {BOUND}"
    ):
        recorded(tmp_path)


def test_recording_stops_in_the_chunk_that_diverges(tmp_path):
    with pytest.raises(FloatingPointError, match=r"seed 3 is .* at step 6\d \(epoch 6\).*1e\+05"):
        recorded(tmp_path, FAST)


def test_a_product_that_is_not_finite_names_learning_rate_and_bound(tmp_path):
    problem = tiny.problem()
    params = jax.tree.map(lambda leaf: leaf * jnp.nan, problem.init(jax.random.key(0)))
    with pytest.raises(FloatingPointError, match=f"product 1 of the matvec is not .*; {BOUND}"):
        eigenpairs.find(problem, GIVEN, params, tmp_path)


def found_before(folder, largest=1.0):
    results.write_array(folder / "eigenvectors.npy", np.eye(5, 650, dtype=np.float32))
    results.write_arrays(
        folder / "eigenpairs.npz",
        values=largest * np.geomspace(1, 0.1, 5),
        residuals=np.full(5, 1e-4),
        converged=np.array([True, True, False, True, True]),
        certificate_identifiable=3,
    )
    return eigenpairs.load(folder, GIVEN)


def test_a_minimum_that_sgd_leaves_is_refused_before_it_is_recorded(tmp_path):
    found_before(tmp_path, largest=379)
    with pytest.raises(FloatingPointError, match=f"largest curvature .* is 381: {BOUND}"):
        found_before(tmp_path, largest=381)


def test_unconverged_and_blurred_pairs_are_marked_in_the_analysis(tmp_path):
    pairs = found_before(tmp_path)
    np.testing.assert_array_equal(pairs.blurred, [0, 0, 0, 1, 1])
    rng = np.random.default_rng(0)
    period = Recording(
        trajectory=trajectory.assemble(*rng.normal(size=(3, 30, 5))),
        anchor_steps=np.arange(0, 31, 10), anchor_gradients=rng.normal(size=(4, 5)),
        curves=np.ones((4, 4)), full_gradient_error=np.zeros(5), kept=np.zeros((3, 9)),
        final=None,
    )  # fmt: skip
    pairs = pairs._replace(values=np.array([1.0, 0.5, 0.3, -0.1, 0.2]))
    conditions = conditions_of(60, GIVEN)
    found = analysis.analyse(period, pairs.values, "without_replacement", conditions)
    found = analysis.marked(found, pairs)
    np.testing.assert_array_equal(found.unconverged, [0, 0, 1, 0])
    np.testing.assert_array_equal(found.blurred, [0, 0, 0, 1])
    figure = plotting.variances_figure({"without": found}, 1.0, 10.0)
    assert all({"not converged", "no single eigenvectors"} <= names(one) for one in figure.axes)


def names(axis):
    return {text.get_text() for text in axis.get_legend().get_texts()}


@pytest.mark.parametrize("marked", [False, True])
def test_unconverged_pairs_are_crossed_in_every_figure_of_single_directions(marked):
    values, unconverged = np.geomspace(1, 0.1, 5), np.array([0, 1, 0, 0, 1], bool) & marked
    law = statistics.PowerLaw(1.0, 0.1, 0.1, 1.0, 5)
    density = plotting.eigenvalue_density(values, 2.0, unconverged).axes[0]
    noise = plotting.noise_against_curvature(values, values, law, values[[0, -1]], unconverged)
    discarded = plotting.discarded_directions(
        np.arange(6), np.ones(6), values, values, 0.5, 0.1, unconverged=unconverged
    )
    for axis in (density, noise.axes[0], discarded.axes[1]):
        crosses = [line for line in axis.lines if line.get_label() == "not converged"]
        assert len(crosses) == marked
        assert (axis.get_legend() is not None and "not converged" in names(axis)) == marked
        for line in crosses:
            assert len(line.get_xdata()) == 2
