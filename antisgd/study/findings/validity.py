"""The curvature at the period's end over that at its start (Sec. 5)."""

import numpy as np

from antisgd.study.findings.rows import Rows, median_row
from antisgd.study.stages.validity import EndCurvature

__all__ = ["rows"]


def rows(found: EndCurvature, eigenvalues: np.ndarray) -> Rows:
    """p·H(θ_{K+T})p over λ, in the median over the directions it was taken along."""
    ratio = found.curvature / eigenvalues[found.directions]
    low, high = np.percentile(ratio, [10, 90])
    quantity = "curvature along the directions at the period's end over its start, median"
    made = median_row("end_curvature", "Sec. 5", quantity, ratio)
    spread = f"10th to 90th percentile {low:.3g} to {high:.3g}"
    return [made | {"note": f"{spread}; error over directions, of one run"}]
