"""The experiment of data orders runs at toy size, and its quadratic agrees with theory."""

import json

import numpy as np
import pytest
from scipy import stats

from antisgd import results
from experiments.orders import __main__ as orders
from experiments.orders import descents, simulation
from tests import mains

N, S, SEEDS = 40, 4, 2
TOY = (
    "--dataset=synthetic", f"--num_examples={N}", f"--batch_size={S}", "--learning_rate=0.01",
    "--epochs=2", "--settle_epochs=1", "--analysis_epochs=2", "--eigenpairs=3",
    f"--seeds={SEEDS}", "--cycle=2",
)  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("REPLICAS", 8), ("BEFORE", 4), ("EPOCHS", 4)):
            patch.setattr(simulation, name, value)
        return mains.run(orders, tmp_path_factory.mktemp("orders") / "run", *TOY)


@pytest.mark.slow
def test_every_order_has_its_rows(finished):
    rows = {row["id"]: row for row in json.loads((finished / "summary.json").read_text())}
    found = {name: results.read_arrays(finished / f"order_{name}.npz") for name in descents.ORDERS}
    unit = np.array([
        results.read_arrays(finished / f"network_{i}" / "orders.npz")["weights"][0]
        for i in range(SEEDS)
    ])  # fmt: skip
    for name in descents.ORDERS:
        rise = (found[name]["weights"] - found[name]["period"]) / unit
        assert rows[f"weights_{name}"]["n"] == SEEDS
        assert rows[f"weights_{name}"]["here"] == pytest.approx(rise.mean())
        if name != "without_replacement":
            change = found[name]["period"] - found["without_replacement"]["period"]
            row = rows[f"period_{name}_minus_reshuffling"]
            assert row["here"] == pytest.approx(np.mean(change / unit))
    assert rows["designed_bound"]["here"] < 1
    assert (finished / "figures" / "orders.png").exists()
    assert "<html" in (finished / "report.html").read_text()


@pytest.mark.slow
def test_all_orders_are_refused_where_batches_are_ragged(tmp_path):
    with pytest.raises(SystemExit, match="must divide the 41 pictures"):
        mains.run(orders, tmp_path / "run", *TOY, "--num_examples=41")


@pytest.mark.slow
def test_the_quadratic_agrees_with_theory(tmp_path):
    """z for p = 1e-3 over both fluctuations of four orders; of one order the mean is exact."""
    for name, one in simulation.simulate(3, 0, tmp_path / "found.npz").items():
        z = np.abs(one.measured - one.expected) / one.error
        last = 1 if name == "shuffle_once" else 2
        assert z[:last].max() < stats.t.isf(1e-3 / 16, simulation.REPLICAS - 1)
        if name == "shuffle_once":
            assert one.measured[1] < 1e-5
