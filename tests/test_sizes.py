"""Microbatches and blocks by the memory: the largest that fit, kept by the folder, or one line."""

import dataclasses
import json
import re
from types import SimpleNamespace

import jax.numpy as jnp
import pytest
from jax.tree_util import Partial

from antisgd import hessian, results
from antisgd.study import Place, preflight
from antisgd.study.preflight import plan, sizes
from tests import tiny

NEEDED = plan.Work(5, 0, 0, 1, 1, 0, 0)
FREE = tiny.settings(microbatch_size=None)


def room(monkeypatch, free, problem=None, needed=NEEDED):
    """A device with so many bytes beside the rest of the study."""
    problem = problem or tiny.problem()
    beside = plan.beside_products(problem, FREE, needed)
    monkeypatch.setattr(plan, "device", lambda: plan.Room("the accelerator", beside + free))
    monkeypatch.setattr(plan, "machine", lambda: plan.Room("this machine", 2**40))


@pytest.fixture
def programs(monkeypatch):
    """Programs of 1,000 bytes and a hundred a product; those that were compiled."""
    made = []

    def compiled(problem, settings, size, block):
        made.append((size, block))
        held = SimpleNamespace(temp_size_in_bytes=1000 + 100 * size * block)
        return SimpleNamespace(memory_analysis=lambda: held), (), size

    monkeypatch.setattr(sizes, "compiled", compiled)
    return made


@pytest.mark.parametrize(
    ("free", "size", "block", "compiled"),
    [
        (10**6, 60, 4, [(60, 4)]),
        # What cannot fit by its share of the first alone is passed over.
        (7_001, 15, 4, [(60, 4), (15, 4)]),
        (6_900, 8, 4, [(60, 4), (15, 4), (8, 4)]),
        (2_650, 8, 2, [(60, 4), (8, 2)]),
    ],
)
def test_the_largest_that_fits_is_chosen(monkeypatch, programs, free, size, block, compiled):
    settings = dataclasses.replace(FREE, eigenpairs=80)
    needed = NEEDED._replace(pairs=80)
    problem = tiny.problem()
    beside = plan.beside_products(problem, settings, needed)
    monkeypatch.setattr(plan, "device", lambda: plan.Room("the accelerator", beside + free))
    found = sizes.sized(problem, settings, Place(output_dir="nowhere"), needed)
    assert (found.microbatch_size, found.block_size) == (size, block)
    assert programs == compiled


def test_what_is_given_is_kept_and_nothing_compiled(programs, monkeypatch):
    room(monkeypatch, 0)
    for given in (tiny.settings(), dataclasses.replace(FREE, stages=("train",))):
        place = Place(output_dir="nowhere")
        assert sizes.sized(tiny.problem(), given, place) == given
    assert not programs
    given = dataclasses.replace(FREE, block_size=3)
    room(monkeypatch, 10**6)
    assert sizes.sized(tiny.problem(), given, place, NEEDED).block_size == 3


def test_no_size_that_fits_is_one_line(programs, monkeypatch):
    room(monkeypatch, 900)
    with pytest.raises(MemoryError, match=r"takes .* B beside the rest: ask for fewer --eigenp"):
        sizes.sized(tiny.problem(), FREE, Place(output_dir="nowhere"), NEEDED)


def test_a_refusal_names_what_fits(programs, monkeypatch):
    room(monkeypatch, 3_000)
    settings, problem = tiny.settings(microbatch_size=60), tiny.problem()
    program, _, _ = sizes.compiled(problem, settings, 60, 1)
    with pytest.raises(MemoryError, match=r"=60 examples takes 6.84 KiB, .*: give --micro") as told:
        sizes.check(program, problem, settings, NEEDED)
    named = int(re.search(r"give --microbatch_size=(\d+)", str(told.value))[1])
    assert named == 15
    smaller = dataclasses.replace(settings, microbatch_size=named)
    sizes.check(sizes.compiled(problem, smaller, named, 1)[0], problem, smaller, NEEDED)


def _rounded(matvec, vector):
    mantissa, exponent = jnp.frexp(vector)
    return matvec(jnp.ldexp(jnp.round(mantissa * 64) / 64, exponent))


@pytest.mark.filterwarnings("ignore:4 of 5 eigenpairs", "ignore:from index")
def test_a_precision_whose_noise_drowns_pairs_is_refused_and_its_solve_removed(
    tmp_path, monkeypatch
):
    """A CPU has no lower one: vectors rounded to 7 bits stand for it."""
    exact = hessian.hessian_vector_product

    def product(*arguments, precision, **options):
        matvec = exact(*arguments, **options)
        return matvec if precision == "highest" else Partial(_rounded, matvec)

    monkeypatch.setattr(hessian, "hessian_vector_product", product)
    folder, stages = tmp_path / "run", ("train", "eigenpairs")
    with pytest.raises(ValueError, match=r"--precision=high leaves a noise of .* of the 5 eigen"):
        tiny.run(folder, stages=stages, precision="high")
    assert not (folder / "eigenpairs.npz").exists()
    assert not list((folder / "checkpoints").glob("*eigenpairs*")), "noise stays in the basis"
    tiny.run(folder, stages=stages)
    assert results.read_arrays(folder / "eigenpairs.npz")["certificate_noise_limited"] == 0
    assert json.loads((folder / "config.json").read_text())["precision"] == "highest"


def test_a_folder_keeps_its_sizes_whatever_the_memory_is_then(tmp_path, monkeypatch):
    """Chosen by the memory that real programs say that they need, and gone on with."""
    problem, taken = tiny.problem(num_examples=1200), {}
    with tiny.small():
        for size in (500, 250):
            program, _, _ = sizes.compiled(problem, FREE, size, 1)
            taken[size] = program.memory_analysis().temp_size_in_bytes
        assert taken[250] < taken[500]
        room(monkeypatch, taken[250], problem)
        place = Place(output_dir=str(tmp_path / "run"))
        chosen = sizes.sized(problem, FREE, place, NEEDED)
        assert (chosen.microbatch_size, chosen.block_size) == (250, 1)
        with preflight.opened(problem, chosen, place, work=NEEDED):
            pass
        room(monkeypatch, 2**40)
        assert sizes.sized(problem, FREE, place, NEEDED) == chosen
        anew = sizes.sized(problem, FREE, dataclasses.replace(place, overwrite=True), NEEDED)
    assert anew.microbatch_size == 500
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    assert stored["sizes"] == {"microbatch_size": 250, "block_size": 1}
    given = sizes.sized(problem, dataclasses.replace(FREE, microbatch_size=20), place, NEEDED)
    assert given.microbatch_size == 20
