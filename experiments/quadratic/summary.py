"""The rows of summary.json of the quadratic experiment: measured over theory, with z."""

from typing import Any

import numpy as np

from antisgd.study.findings.rows import row

__all__ = ["isotropic_rows", "overall_row", "part_rows"]

_ITEMS = {
    "variances": "Eq. 6",
    "autocorrelations": "Eq. 2",
    "phase": "Eq. 6",
    "windows": "Sec. 5.3",
}
_BEYOND = (
    "nesterov",
    "average",
    "independent",
    "shuffle",
    "flip",
    "drop_last",
    "partial",
    "spanning",
)
_WORDS = {"correlation_time": "correlation time", "weight": "weight variance",
          "velocity": "velocity variance", "autocorrelation": "noise autocorrelation"}  # fmt: skip


def part_rows(name: str, part: Any) -> list[dict[str, Any]]:
    """One row for each case and quantity of a part; the mean is over curvatures or lags."""
    rows = []
    for label, quantities in part.found.items():
        for quantity, one in quantities.items():
            difference = quantity == "autocorrelation"
            theory = 0.0 if difference else 1.0
            kind = "minus theory" if difference else "over theory"
            z = (one.mean - theory) / one.mean_error
            beyond = label.startswith(_BEYOND) or name in ("phase", "windows")
            rows.append(
                row(f"{name}_{label}_{quantity}", "beyond" if beyond else _ITEMS[name],
                    f"{_WORDS[quantity]} {kind}, {label.replace('_', ' ')} ({name})",
                    one.mean, one.mean_error, n=one.z.size,
                    note=f"theory {theory:g}, z = {z:+.2f}; largest |z| of the {one.z.size} "
                    f"values is {np.abs(one.z).max():.2f}")
            )  # fmt: skip
    return rows


def overall_row(parts: dict[str, Any]) -> dict[str, Any]:
    """The largest |z| of all values, and how many exceed 2."""
    z = [
        one.z.ravel()
        for part in parts.values()
        for quantities in part.found.values()
        for one in quantities.values()
    ]
    z = np.abs(np.concatenate(z))
    return row("largest_z", "all", "largest |z| of all values", z.max(), n=z.size,
               note=f"of {z.size} independent normal values: about "
               f"{np.sqrt(2 * np.log(z.size)):.1f}; {np.mean(z > 2):.1%} exceed 2 "
               "(normal: 4.6%); values of one law share their noise")  # fmt: skip


def isotropic_rows(found: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """Fig. 3 in numbers: both bases against the one value that theory gives all directions."""
    rows = []
    expected = {name: found[f"expected_{name}"][0] for name in ("weight", "velocity")}
    for basis, words in (("own", "original basis"), ("principal", "eigenbasis of Sigma")):
        weight, velocity = found[f"{basis}_weight"], found[f"{basis}_velocity"]
        tau = 2 * weight / velocity
        limit = 2 * expected["weight"] / expected["velocity"]
        for name, values, theory in (
            ("weight", weight, expected["weight"]),
            ("velocity", velocity, expected["velocity"]),
            ("correlation_time", tau, limit),
        ):
            rows.append(_spread_row(basis, name, f"{_WORDS[name]}, {words}", values, theory))
        mean = weight.mean() / velocity.mean() * 2 / limit
        linear = 2 * (weight - weight.mean() / velocity.mean() * velocity) / velocity.mean()
        error = linear.std(ddof=1) / limit / np.sqrt(weight.size)
        if basis == "own":
            rows.append(
                row("isotropic_own_mean", "Fig. 3", "ratio of mean variances over theory, original "
                    "basis", mean, error, n=weight.size,
                    note=f"theory 1, z = {(mean - 1) / error:+.2f}")
            )  # fmt: skip
    return rows


def _spread_row(
    basis: str, name: str, quantity: str, values: np.ndarray, theory: float
) -> dict[str, Any]:
    low, high = np.percentile(values, [10, 90])
    return row(f"isotropic_{basis}_{name}", "Fig. 3", f"90th over 10th percentile, {quantity}",
               high / low, n=values.size,
               note=f"mean {values.mean():.4g}, theory {theory:.4g} in every direction; from "
               f"{values.min():.3g} to {values.max():.3g}")  # fmt: skip
