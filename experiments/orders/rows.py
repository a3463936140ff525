"""What the orders do to a quadratic and to networks, in rows."""

import numpy as np

from antisgd.study.findings.rows import Rows, mean_row, row
from experiments.orders import descents, simulation

__all__ = ["TITLES", "network_rows", "quadratic_rows"]

TITLES = {
    "without_replacement": "reshuffling",
    "flip_flop": "flip-flop",
    "shuffle_once": "one order",
    "designed": "blind design",
    "balanced": "one balanced order",
}
ITEM = "Sec. 7"


def quadratic_rows(found: dict[str, simulation.Simulated]) -> Rows:
    """Simulated fluctuations, in units of reshuffling's expected one."""
    made = []
    for name, one in found.items():
        for i, (key, words) in enumerate((("weights", "the weights"), ("means", "epoch means"))):
            off = (one.measured[i] - one.expected[i]) / one.error[i]
            exact = one.expected[i] < 1e-12
            note = f"theory {one.expected[i]:.4g}"
            note += (
                "; rounding and what is left of the start" if exact else f", off by {off:.2g} se"
            )
            quantity = f"loss fluctuation of {words} over reshuffling's, quadratic, {TITLES[name]}"
            made.append(
                row(f"quadratic_{key}_{name}", ITEM, quantity, one.measured[i], one.error[i],
                    n=simulation.REPLICAS, note=note)
            )  # fmt: skip
    return made


def network_rows(expected: list[descents.Expected], found: dict[str, descents.Descent]) -> Rows:
    """Fluctuations over theory's, what an order gains over reshuffling, and the test loss."""
    unit = np.array([one.weights[0] for one in expected])
    words = "loss fluctuation of reshuffling by theory, along the eigenvectors"
    made = [mean_row("expected_fluctuation", ITEM, words, unit)]
    words = "blind design: least fluctuation that its bound leaves possible, over reshuffling's"
    made.append(mean_row("designed_bound", ITEM, words, [one.bound for one in expected] / unit))
    first = found["without_replacement"]
    for place, name in enumerate(descents.ORDERS):
        one, title = found[name], TITLES[name]
        for key, what in (("weights", "weights"), ("means", "epoch means")):
            theory = np.mean([getattr(e, key)[place] for e in expected] / unit)
            rise = (getattr(one, key) - one.period) / unit
            quantity = f"loss at the {what} above that at the period's mean weights, {title}"
            note = f"over reshuffling's expected fluctuation; theory {theory:.3g}"
            made.append(mean_row(f"{key}_{name}", ITEM, quantity, rise, note=note))
        if name == "without_replacement":
            continue
        for key, what in (
            ("weights", "training loss at the weights"), ("means", "training loss at epoch means"),
            ("period", "training loss at the period's mean weights"),
            ("test_loss", "test loss at the weights"),
            ("test_loss_period", "test loss at the period's mean weights"),
        ):  # fmt: skip
            change = (getattr(one, key) - getattr(first, key)) / unit
            quantity = f"{what}, {title} minus reshuffling"
            note = "over reshuffling's expected fluctuation; paired by network"
            if key in ("weights", "means"):
                theory = np.mean([(getattr(e, key)[place] - getattr(e, key)[0]) for e in expected]
                                 / unit)  # fmt: skip
                note += f"; theory {theory:.3g}"
            made.append(mean_row(f"{key}_{name}_minus_reshuffling", ITEM, quantity, change,
                                 note=note))  # fmt: skip
    return made
