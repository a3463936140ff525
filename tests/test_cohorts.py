"""A run folder that grows by seeds: those it has stay, those it lacks are trained beside them."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

from antisgd import results, study
from antisgd.study.preflight import plan
from antisgd.study.stages import cohorts, train
from tests import tiny

NAMES = ("without_replacement", "with_replacement")
SETTINGS = study.Settings(seeds=3, sampling=NAMES)
ANALYSED = {"epochs": 2, "eigenpairs": 3, "stages": ("train", "eigenpairs")}


@pytest.fixture(autouse=True)
def small():
    with tiny.small():
        yield


def grown(folder, *numbers, **changes):
    """A training of the toy network at one number of seeds after the other."""
    for seeds in numbers:
        settings = tiny.settings(seeds=seeds, epochs=2, **changes)
        trained = train.train(tiny.problem(), settings, folder)
    return trained


@pytest.fixture(scope="module")
def at_once(tmp_path_factory):
    with tiny.small():
        return grown(tmp_path_factory.mktemp("at_once"), 3)


def same(first, second):
    """To the rounding of two programs: 20 steps of some hundred operations each in float32."""
    for one, other in zip(*map(jax.tree.leaves, (first, second)), strict=True):
        bound = 2000 * np.finfo(np.float32).eps * np.abs(one).max()
        np.testing.assert_allclose(one, other, rtol=0, atol=bound)


def test_a_grown_folder_has_the_networks_of_all_at_once_and_trains_none_again(
    at_once, tmp_path, monkeypatch
):
    """Weights, velocities and curves in the same order; those that were there keep their bits."""
    first, numbers, real = grown(tmp_path, 2), [], train._run_epochs

    def counted(problem, varied, cohort, *rest):
        numbers.append((cohort.schemes, list(cohort.seeds)))
        return real(problem, varied, cohort, *rest)

    monkeypatch.setattr(train, "_run_epochs", counted)
    second = grown(tmp_path, 3)
    assert numbers == [(NAMES, [2])]
    same(at_once, second)
    old = jax.tree.map(lambda leaf: leaf[np.array([0, 1, 3, 4])], second.states)
    jax.tree.map(np.testing.assert_array_equal, first.states, old)
    kept = results.read_arrays(tmp_path / "training.npz")
    assert kept["seed"].tolist() == 2 * [0, 1, 2] and kept["regime"].tolist() == 3 * [0] + 3 * [1]
    flat = jax.vmap(lambda p: jax.flatten_util.ravel_pytree(p)[0])(second.states.params)
    np.testing.assert_array_equal(kept["params"], flat)
    grown(tmp_path, 3)
    assert len(numbers) == 1


def test_a_folder_that_was_stopped_before_it_grew_finishes_as_it_was_begun(
    at_once, tmp_path, monkeypatch
):
    """From one network, stopped, over a second seed, stopped before it came, to three."""
    stop = {"after": 1}

    def asked():
        stop["after"] -= 1
        return stop["after"] < 0

    @train.interruption.contextmanager
    def postponed():
        yield asked
        if stop["after"] < 0:
            raise KeyboardInterrupt

    monkeypatch.setattr(train.interruption, "postponed", postponed)
    for seeds in (1, 2):
        stop["after"] = 0
        with pytest.raises(KeyboardInterrupt):
            grown(tmp_path, seeds)
    stop["after"] = 10
    same(at_once, grown(tmp_path, 3))


def test_the_cohorts_of_a_folder_follow_from_its_checkpoints(tmp_path):
    path = tmp_path / "training.npz"

    def there(settings=SETTINGS):
        return {
            file.stem: (one.schemes, list(one.seeds))
            for one, file in cohorts.cohorts(settings, path)
        }

    assert there() == {"training": (NAMES, [0, 1, 2])}
    results.write_checkpoint(path, [np.zeros((1, 5))])
    rest = {"training_others": (NAMES[1:], [0]), "training_1": (NAMES, [1, 2])}
    assert there() == {"training": (NAMES[:1], [0])} | rest
    alone = dataclasses.replace(SETTINGS, sampling=NAMES[:1])
    assert there(alone) == {"training": (NAMES[:1], [0]), "training_1": (NAMES[:1], [1, 2])}
    results.write_checkpoint(path, [np.zeros((4, 5))])
    results.write_checkpoint(tmp_path / "training_2.npz", [np.zeros((2, 5))])
    more = dataclasses.replace(SETTINGS, seeds=5)
    assert there(more) == {
        "training": (NAMES, [0, 1]), "training_2": (NAMES, [2]), "training_3": (NAMES, [3, 4]),
    }  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return tiny.run(tmp_path_factory.mktemp("runs") / "two", seeds=2, **ANALYSED)


def test_a_finished_folder_takes_more_seeds_and_analyses_more_of_them(finished, tmp_path):
    """The eigenpairs of the first network stay as they are; those of the others come beside."""
    folder = shutil.copytree(finished, tmp_path / "grown")
    before = tiny.arrays_of(folder)
    tiny.run(folder, **ANALYSED | {"seeds": 3, "analysis_seeds": 3})
    after = tiny.arrays_of(folder)
    for name in ("eigenpairs.npz:values", "eigenvectors.npy:"):
        np.testing.assert_array_equal(before[name], after[name])
    assert after["training.npz:params"].shape[0] == 6
    for seed in (1, 2):
        params = after["training.npz:params"][seed]
        assert results.read_json(folder / f"seed_{seed}" / "weights.json")
        values = after[f"seed_{seed}/eigenpairs.npz:values"]
        assert values.shape == (3,) and not np.array_equal(values, before["eigenpairs.npz:values"])
        assert not np.array_equal(params, after["training.npz:params"][0])
    assert json.loads((folder / "config.json").read_text())["settings"]["seeds"] == 3


def test_fewer_seeds_and_untrained_ones_are_refused_in_a_line(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "run")
    before = (folder / "config.json").read_bytes()
    with pytest.raises(ValueError, match="seeds 2 then, 1 now.*--output_dir") as refused:
        tiny.run(folder, **ANALYSED | {"seeds": 1})
    assert "\n" not in str(refused.value) and (folder / "config.json").read_bytes() == before
    with pytest.raises(ValueError, match="4 of the 6 trained networks: add train to --stages"):
        tiny.run(folder, **ANALYSED | {"seeds": 3, "stages": ("eigenpairs",)})


def test_the_plan_counts_the_networks_that_are_missing(finished):
    place = study.Place(output_dir=str(finished))
    for seeds, share in ((2, 0.0), (8, 0.75)):
        needed = plan.work(tiny.settings(**ANALYSED | {"seeds": seeds}), place)
        assert needed.train == share
    anew = dataclasses.replace(place, overwrite=True)
    assert plan.work(tiny.settings(**ANALYSED), anew).train == 1
