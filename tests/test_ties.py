"""A run folder's parts belong together, and settings that cannot work are refused at once."""

import dataclasses
import shutil

import numpy as np
import pytest

from antisgd import results
from antisgd.study import Place
from antisgd.study.preflight import plan
from experiments import pictures, sweep
from tests import tiny

STAGES = ("train", "eigenpairs", "analysis")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return tiny.run(tmp_path_factory.mktemp("ties") / "run", stages=STAGES)


def test_results_of_other_weights_are_refused(finished, tmp_path):
    """As where another run's training was written over this one's."""
    folder = shutil.copytree(finished, tmp_path / "run")
    checkpoint = folder / "checkpoints" / "training.npz"
    arrays = results.read_arrays(checkpoint)
    name = next(name for name, array in arrays.items() if array.ndim > 1)
    results.write_arrays(checkpoint, **arrays | {name: arrays[name] + 1e-6})
    before = tiny.arrays_of(folder / "trajectory_without_replacement")
    with pytest.raises(ValueError, match="are those of other weights.*--overwrite"):
        tiny.run(folder, stages=STAGES)
    tiny.same_arrays(before, folder / "trajectory_without_replacement")


def test_one_altered_byte_of_the_eigenvectors_is_found(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "run")
    path = folder / "eigenvectors.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is not what the solve wrote: remove it"):
        tiny.run(folder, stages=STAGES)
    path.unlink()
    tiny.run(folder, stages=STAGES)
    tiny.same_arrays(tiny.arrays_of(finished), folder)


def test_a_folder_of_an_earlier_version_has_no_stamp_and_goes_on(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "run")
    (folder / "weights.json").unlink()
    arrays = results.read_arrays(folder / "eigenpairs.npz")
    del arrays["vectors_fingerprint"]
    results.write_arrays(folder / "eigenpairs.npz", **arrays)
    tiny.run(folder, stages=STAGES)
    assert (folder / "weights.json").exists()


def test_a_damaged_config_names_a_remedy_that_works(finished, tmp_path):
    folder = shutil.copytree(finished, tmp_path / "run")
    (folder / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json is damaged: give another --output_dir, or"):
        tiny.run(folder, stages=STAGES)


@pytest.mark.parametrize("changes, message", [
    ({"batch_size": 60}, "--batch_size=60 is all of the training examples"),
    ({"eigenpairs": 1}, "--eigenpairs=1: statistics"),
    ({"eigenpairs": 2}, "--eigenpairs=2: statistics"),
    ({"learning_rate": float("nan")}, "--learning_rate=nan"),
    ({"momentum": float("nan")}, "--momentum=nan"),
    ({"learning_rate_decay": float("nan")}, "--learning_rate_decay=nan"),
])  # fmt: skip
def test_settings_that_cannot_work_are_refused_before_anything_is_written(
    tmp_path, changes, message
):
    with pytest.raises(ValueError, match=message):
        tiny.run(tmp_path / "run", **changes)
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize("penalty", [-1.0, float("nan"), float("inf")])
def test_a_penalty_that_is_no_number_is_named(penalty):
    chosen = pictures.Pictures(dataset="synthetic", num_examples=60, weight_decay=penalty)
    with pytest.raises(ValueError, match=f"--weight_decay={penalty} is negative or no number"):
        pictures.problem(tiny.network(), "tiny", chosen, tiny.settings())


def test_too_many_networks_are_told_to_be_fewer():
    problem, settings = tiny.problem(), dataclasses.replace(tiny.settings(), seeds=10**9)
    needed = plan.work(settings, Place(output_dir="none"))
    with pytest.raises(MemoryError, match="ask for fewer --seeds"):
        plan.refuse(problem, settings, needed, Place(output_dir="none").folder)


def test_a_sweep_without_a_grid_is_refused(tmp_path):
    with pytest.raises(ValueError, match="--grid is empty"):
        sweep.main(sweep.Options(sweep_dir=str(tmp_path)))


def test_eigenvectors_are_fingerprinted_as_they_lie_on_disk(finished):
    kept = results.read_arrays(finished / "eigenpairs.npz")
    assert len(str(kept["vectors_fingerprint"])) == 64
    assert np.load(finished / "eigenvectors.npy").shape[0] == len(kept["values"])
