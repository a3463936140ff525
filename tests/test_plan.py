"""What a run will need is said, and refused where it cannot fit, before anything is written."""

import dataclasses
import json
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from antisgd import data, models, results, study
from antisgd.study import cli
from antisgd.study.preflight import plan, timing
from antisgd.study.stages import record, table
from experiments.lenet import __main__ as lenet
from tests import mains, tiny

GIB = 2**30
D, K, T = 136_886, 5000, 20_000
# Of the solve: 2.5 basis vectors a pair and some.
BASIS = int(2.5 * K) + 32
PAPER = study.Settings()


@pytest.fixture
def paper():
    """LeNet on pictures of CIFAR-10's size that hold nothing."""

    def nothing(n):
        images = np.broadcast_to(np.float32(0), (n, 32, 32, 3))
        return data.Examples(images, np.broadcast_to(np.int32(0), (n,)))

    model = models.lenet()
    return study.Problem(
        lambda key: model.init(key, np.zeros((1, 32, 32, 3), np.float32)), None,
        nothing(50_000), nothing(10_000),
    )  # fmt: skip


def on(monkeypatch, machine, accelerator=None):
    """A machine of so many GiB, perhaps with an accelerator."""
    host = plan.Room("this machine", machine * GIB)
    there = plan.Room("the accelerator", accelerator * GIB) if accelerator else host
    monkeypatch.setattr(plan, "machine", lambda: host)
    monkeypatch.setattr(plan, "device", lambda: there)


def work(folder, settings=PAPER, **place):
    return plan.work(settings, study.Place(output_dir=str(folder), **place))


def test_the_papers_size_in_numbers(paper, tmp_path):
    needed = work(tmp_path)
    assert needed == plan.Work(K, K, periods=2, train=1, solves=1, records=2, products=1576)
    items = plan.memory(paper, PAPER, needed)
    # The training pictures lie there twice, as they are and in microbatches.
    assert items["examples"].device == 4 * (110_000 * 3072 + 110_000)
    assert items["networks"].device == 4 * 4 * D
    assert items["eigenpairs"].device == 4 * D * (BASIS + K)
    assert items["recording"].device == 4 * D * (K + 2 * record.EXACT_CHUNK_STEPS)
    # Both schemes' weights in float64, velocities and noise; a copy and four float64 arrays to
    # work in, or 50,000 gradients in float32 and float64.
    assert items["recording"].host == T * K * 2 * 16 + max(T * K * (16 + 4 * 8), 12 * 50_000 * K)
    one, two = (plan.disk(paper, PAPER, needed._replace(stored=stored)) for stored in (1, 2))
    assert two - one == 4 * D * (BASIS + K) and one == plan.disk(paper, PAPER, needed)
    # Gradients, full ones, velocities and noise, weights in float64; five times all weights.
    recorded = 2 * (T * K * (3 * 4 + 12) + 5 * 4 * D)
    assert plan.disk(paper, PAPER, needed) == recorded + 4 * D * (BASIS + K) + 4 * 4 * D


@pytest.mark.parametrize(
    ("machine", "accelerator", "message"),
    [
        (24, None, None),
        (8, None, r"needs about 12\.\d GiB of memory, this machine has 8 GiB: ask for fewer "
                  r"--eigenpairs or restart the basis with --basis_memory"),
        (24, 80, None),
        (24, 9, r"10\.\d GiB of memory, the accelerator has 9 GiB: ask for fewer --eigenpairs"),
        (4, 80, r"needs about 7\.45 GiB of memory, this machine has 4 GiB"),
        (24, 1, "the accelerator has 1 GiB: ask for fewer --eigenpairs"),
    ],
)  # fmt: skip
def test_memory_that_cannot_fit(paper, tmp_path, monkeypatch, machine, accelerator, message):
    on(monkeypatch, machine, accelerator)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1000 * GIB))
    if message is None:
        return plan.refuse(paper, PAPER, work(tmp_path), tmp_path)
    with pytest.raises(MemoryError, match=message):
        plan.refuse(paper, PAPER, work(tmp_path), tmp_path)


def test_a_restart_cap_is_the_remedy_that_it_is_said_to_be(paper, tmp_path, monkeypatch):
    on(monkeypatch, 24, 9)
    needed, capped = work(tmp_path), dataclasses.replace(PAPER, basis_memory=3.5)
    plan.refuse(paper, capped, needed, tmp_path)
    # A restarted basis lies on disk twice while the new one is written.
    assert plan.disk(paper, capped, needed._replace(periods=0)) > 2 * 3.49 * GIB + 4 * D * K
    capped = dataclasses.replace(PAPER, basis_memory=2.0)
    with pytest.raises(
        MemoryError, match=r"basis_memory=2 .* give at least 2\.57 or ask for fewer"
    ):
        plan.refuse(paper, capped, needed, tmp_path)


def test_a_disk_that_is_too_small_and_what_is_there_already(paper, tmp_path, monkeypatch):
    on(monkeypatch, 24)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10 * GIB))
    needed = work(tmp_path / "run")
    with pytest.raises(OSError, match=r"13\.\d GiB of disk, 10 GiB are free: give an --output_dir"):
        plan.refuse(paper, PAPER, needed, tmp_path / "run")
    (tmp_path / "run").mkdir()
    with open(tmp_path / "run" / "eigenvectors.npy", "wb") as file:
        file.truncate(4 * GIB)
    plan.refuse(paper, PAPER, needed, tmp_path / "run")


def test_times_add_up_what_is_left(paper, tmp_path, monkeypatch):
    monkeypatch.setattr(timing, "_timed_step", lambda *_: (0.01, 3.0))
    monkeypatch.setattr(timing, "_timed_product", lambda *_: (2.0, 5.0))
    monkeypatch.setattr(timing, "_timed_projection", lambda *_: 1e12)

    def rough(settings=PAPER):
        return timing.rough_times(paper, settings, work(tmp_path, settings), planning=False)

    times = rough()
    assert times["training"] == pytest.approx(100 * 1000 * 0.01)
    orthogonalised = (4 * BASIS**2 + 2 * BASIS * K) * D / 1e12
    assert times["eigenpairs"] == pytest.approx((BASIS + 56) * 2 + orthogonalised)
    period = T * 0.01 + (T + 21) * 1.0 + 2 * 2 * T * K * D / 1e12
    assert times["recording"] == pytest.approx(2 * period)
    assert times["other products"] == pytest.approx(1576 * 2)
    rest = {"compilation": 4 * 3.0 + 2 * 5.0, "figures": timing.FIGURES_SECONDS}
    assert rest.items() <= times.items()
    assert "min, compilation 22 s, figures 20 s)" in timing.text(times)
    results.write_arrays(tmp_path / "training.npz", params=np.zeros((1, 2)))
    for name in ("validity_with_replacement.npz", "density.npz", "prediction_x.npz"):
        results.write_arrays(tmp_path / name)
    anchors = {"steps": np.arange(21)}
    results.write_arrays(tmp_path / "trajectory_with_replacement" / "anchors.npz", **anchors)
    results.write_arrays(tmp_path / "eigenpairs.npz", values=np.ones(K))
    assert rough() == {"recording": pytest.approx(period)} | rest
    results.write_arrays(tmp_path / "trajectory_without_replacement" / "anchors.npz", **anchors)
    assert rough() == {} and timing.text({}) == ""
    more = rough(dataclasses.replace(PAPER, eigenpairs=K + 1, stages=table.names()[:-1]))
    assert more.keys() == {"eigenpairs", "recording", "compilation"}


def test_what_tracking_needs(paper, tmp_path, monkeypatch):
    """Ten solves and two cold ones, of 57 basis vectors each; eleven rows of weights are kept."""
    monkeypatch.setattr(timing, "_timed_step", lambda *_: (0.01, 3.0))
    monkeypatch.setattr(timing, "_timed_product", lambda *_: (2.0, 5.0))
    monkeypatch.setattr(timing, "_timed_projection", lambda *_: 1e12)
    tracking = dataclasses.replace(PAPER, track_every=10, stages=("train", "track"))
    needed = work(tmp_path, tracking)
    assert needed == plan.Work(
        0, 0, periods=0, train=1, solves=0, records=0, products=0, tracked=13
    )
    assert plan.memory(paper, tracking, needed)["tracking"].device == 4 * D * (57 + 10)
    assert plan.disk(paper, tracking, needed) == 4 * 4 * D + 4 * D * (11 + 10)
    seconds = timing.rough_times(paper, tracking, needed, planning=True)["tracking"]
    assert seconds == pytest.approx(13 * ((57 + 56) * 2 + (4 * 57**2 + 2 * 57 * 10) * D / 1e12))
    results.write_arrays(tmp_path / "tracked.npz")
    assert work(tmp_path, tracking).tracked == 0 == work(tmp_path, PAPER).tracked
    many = dataclasses.replace(tracking, track_eigenpairs=D + 1)
    with pytest.raises(
        ValueError, match=f"--track_eigenpairs={D + 1} is more than the {D} weights"
    ):
        plan.refuse(paper, many, needed, tmp_path)


def test_a_run_that_is_over_before_its_time_is_known_is_timed_for_a_plan_alone(paper, tmp_path):
    short = dataclasses.replace(PAPER, batch_size=50_000, epochs=1, analysis_epochs=1)
    assert timing.rough_times(paper, short, work(tmp_path, short), planning=False) == {}


@pytest.mark.parametrize("stage", table.STAGES, ids=lambda stage: stage.name)
def test_the_plan_goes_by_the_table_of_stages(stage, tmp_path):
    """What is not asked for, and what the folder holds, costs nothing; starting afresh all."""
    everything = work(tmp_path)
    assert everything.products == sum(one.products for one in table.STAGES)
    others = tuple(name for name in table.names() if name != stage.name)
    without = work(tmp_path, dataclasses.replace(PAPER, stages=others))
    assert everything.products - without.products == stage.products
    assert without.train == (stage.name != "train")
    assert without.solves == (stage.name != "eigenpairs")
    assert without.records == 2 * (stage.name != "analysis")
    held = tmp_path / stage.file.replace("*", "without_replacement")
    results.write_arrays(held, values=np.ones(K), steps=np.arange(21), params=np.zeros((1, 2)))
    assert stage.done(tmp_path)
    left = work(tmp_path)
    assert everything.products - left.products == stage.products
    assert left.train == (stage.name != "train")
    assert left.solves == (stage.name != "eigenpairs")
    # A solve that is still to be done makes other directions: what was recorded is not counted.
    assert left.records == 2
    assert work(tmp_path, overwrite=True) == everything


def test_a_dry_run_says_it_all_and_leaves_nothing(tmp_path, capsys):
    tiny.run(tmp_path / "run", plan=True)
    words = capsys.readouterr().out
    for part in ("650 weights, 60 examples, 10 steps an epoch", "memory: about", "disk: about",
                 "time: very roughly", "eigenpairs", "recording"):  # fmt: skip
        assert part in words
    assert not (tmp_path / "run").exists()


def test_a_plan_for_programs_has_the_numbers_of_the_one_for_readers(tmp_path, capsys):
    tiny.run(tmp_path / "run", plan=True, json=True)
    told = json.loads(capsys.readouterr().out)
    assert (told["weights"], told["examples"], told["steps_per_epoch"]) == (650, 60, 10)
    (room,) = told["memory_bytes"].values()
    assert 0 < room["wanted"] < room["available"] == plan.machine().available
    needed = work(tmp_path / "run", tiny.settings())
    assert told["disk_bytes"]["wanted"] == plan.disk(tiny.problem(), tiny.settings(), needed)
    assert told["disk_bytes"]["there"] == 0 < told["disk_bytes"]["free"]
    assert {"training", "eigenpairs", "recording", "compilation"} <= told["seconds"].keys()
    assert all(seconds >= 0 for seconds in told["seconds"].values())
    assert not (tmp_path / "run").exists()


def test_a_dry_run_over_a_run_folder_changes_nothing_there(tmp_path, capsys):
    folder = results.open_run(tmp_path / "run", {"seed": 5})
    before = (folder / "config.json").read_bytes()
    tiny.run(folder, plan=True, analysis_seeds=0, epochs=0)
    assert (folder / "config.json").read_bytes() == before
    assert [path.name for path in folder.iterdir()] == ["config.json"]
    assert "recording" not in capsys.readouterr().out


def test_what_is_refused_blocks_no_smaller_run(tmp_path):
    with pytest.raises(SystemExit, match=r"^error: --eigenpairs=700 is more than the 650 weights"):
        mains.run(lenet, tmp_path / "run", *tiny.FLAGS, "--eigenpairs=700")
    assert not (tmp_path / "run").exists()


def test_a_block_of_products_that_is_too_large(monkeypatch):
    monkeypatch.setattr(plan, "device", lambda: plan.Room("the accelerator", 10))
    with pytest.raises(MemoryError, match=r"=30 examples takes .*, the accelerator has 0 B"):
        timing._timed_product(tiny.problem(), tiny.settings(), plan.Work(5, 5, 1, True, 1, 1, 0))


def test_a_full_device_is_one_line_and_other_failures_of_it_are_not():
    def fails(words):
        def main():
            raise jax.errors.JaxRuntimeError(words)

        return cli.guarded(main)

    with pytest.raises(SystemExit, match=r"^error: the device's memory is full: lower --microb"):
        fails("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 5 bytes")
    with pytest.raises(jax.errors.JaxRuntimeError):
        fails("INTERNAL: cuSolver")
