"""The measurement of one accelerator: in pieces, gone on with, told in one file."""

import json

import pytest

from antisgd import devices, lanczos
from experiments.benchmarks import accelerator

SIZES = accelerator.TOY


@pytest.fixture
def counted(monkeypatch):
    """Pieces that take no time; the second is finished at its third call."""
    calls = []

    def piece(name, run):
        calls.append(name)
        done = run.before.get("done", 0) + 1
        return {"done": done} | ({"unfinished": True} if name == "second" and done < 3 else {})

    names = ("first", "second", "third")
    made = {name: lambda run, name=name: piece(name, run) for name in names}
    monkeypatch.setattr(accelerator, "pieces", lambda sizes: made)
    return calls


def test_goes_on_where_it_was_and_starts_nothing_late(counted, tmp_path):
    time = iter([1, -1, -1])
    accelerator.measure(tmp_path, SIZES, lambda: next(time))
    assert counted == ["first"]
    for _ in range(2):
        accelerator.measure(tmp_path, SIZES, lambda: 1)
    assert counted == ["first", "second", "third", "second"]
    measured = accelerator.measure(tmp_path, SIZES, lambda: 1)
    assert counted[4:] == ["second"] and not accelerator.unfinished(measured, "second")
    assert accelerator.measure(tmp_path, SIZES, lambda: 1) == measured and len(counted) == 5
    written = json.loads((tmp_path / "measurements.json").read_text())
    assert written["pieces"] == measured and written["device"] == devices.in_words()
    assert measured["second"]["done"] == 3 and "jax" in measured["first"]["by"]["versions"]


def test_figures_of_two_devices_or_sizes_do_not_mix(counted, tmp_path, monkeypatch):
    accelerator.measure(tmp_path, SIZES, lambda: 1)
    with pytest.raises(SystemExit, match=r"error: .*another sizes than this .* --output_dir"):
        accelerator.measure(tmp_path, accelerator.Sizes(), lambda: 1)
    monkeypatch.setattr(devices, "in_words", lambda: "1 x other")
    with pytest.raises(SystemExit, match=r"another device than this \(1 x other\)"):
        accelerator.measure(tmp_path, SIZES, lambda: 1)


def test_the_ids_are_those_of_what_is_measured():
    names = [f"steps of {count}" for count in (1, SIZES.networks)]
    measured = {
        name: {"seconds_a_step": {"antisgd": ours, "PyTorch eager": 6e-3, "PyTorch graph": 3e-3}}
        for name, ours in zip(names, (1e-3, 6e-4), strict=True)
    }
    found = accelerator.ids(measured, SIZES)
    expected = {"G4_one": 3.0, "G1": 6e-4 * SIZES.networks * 1e5 / 60, "G4_many": 5.0}
    assert found == pytest.approx(expected)
    more = {
        "pairs": {"solve_seconds": 120.0, "certificate": {}},
        "recorder": {"seconds_a_step_by_microbatch": {"500": 0.02, "2000": 0.01}},
    }
    assert accelerator.ids(more, SIZES) == pytest.approx({"G2": 2.0, "G3": 200 / 60})
    assert accelerator.ids({"pairs": {"solve_seconds": 1, "unfinished": True}}, SIZES) == {}


@pytest.mark.slow
def test_all_of_it_at_toy_size_the_pairs_in_two_starts(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("ANTISGD_DATA_DIR", raising=False)
    arguments = ["--toy", f"--output_dir={tmp_path}"]
    products, begun = [], lanczos.leading_eigenpairs

    def watched(matvec, dimension, k, *, state, **options):
        products.append(None if state is None else state.products)
        return begun(matvec, dimension, k, state=state, **options)

    monkeypatch.setattr(lanczos, "leading_eigenpairs", watched)
    late = iter([1, 1, 1, 1, 1, 1, 1, -1])
    accelerator.measure(tmp_path, SIZES, lambda: next(late, -1))
    stopped = json.loads((tmp_path / "measurements.json").read_text())["pieces"]["pairs"]
    assert stopped["unfinished"] and "certificate" not in stopped
    accelerator.main(arguments)
    words = capsys.readouterr().out.splitlines()
    assert "all is measured" in words and {"G1", "G2", "G3"} <= json.loads(words[-1]).keys()
    assert products[0] is None and products[1] == stopped["products"] > 0
    pieces = json.loads((tmp_path / "measurements.json").read_text())["pieces"]
    assert pieces["pairs"]["certificate"]["converged"] == SIZES.pairs
    assert pieces["pairs"]["solve_seconds"] > stopped["solve_seconds"]
    assert all(name in pieces for name in accelerator.pieces(SIZES))
