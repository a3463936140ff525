"""The leading eigenvalues along training, and what it took to find them."""

import numpy as np

from antisgd import plotting
from antisgd.study.findings.rows import Panels, Rows, row
from antisgd.study.stages.track import Tracked

__all__ = ["panels", "rows"]

_ITEM = "Sec. 5.1"


def rows(found: Tracked) -> Rows:
    """λ_1 against λ_cross and the edge of stability; Hessian products taken and saved.

    Args:
        found: of the stage.
    """
    last, count = int(found.epochs[-1]), len(found.epochs)
    largest = found.values[:, 0]
    made = []
    lines = {"crossover": (found.crossover, "λ_cross"), "edge": (found.edge, "2(1+β)/η")}
    for name, (line, words) in lines.items():
        if np.isfinite(line).all():
            quantity = f"largest eigenvalue over {words} after epoch {last}"
            made.append(row(f"tracked_over_{name}", _ITEM, quantity, largest[-1] / line[-1]))
    if np.isfinite(found.edge).all():
        ratio = largest / found.edge
        note = f"after epoch {found.epochs[ratio.argmax()]}, of {count} looked at"
        quantity = "highest largest eigenvalue along training over 2(1+β)/η"
        made.append(row("tracked_highest_over_edge", _ITEM, quantity, ratio.max(), note=note))
    return made + _products(found)


def _products(found: Tracked) -> Rows:
    """What the solves took, and what starting from the last one saved where that was measured."""
    k, others = found.values.shape[1], found.products[1:]
    quantity = f"Hessian products of a solve for {k} eigenpairs started from the last one"
    each = f"the first, from a random vector, took {found.products[0]:.0f}; without the probe "
    note = f"{each}for missed pairs and the certificate"
    made = [row("tracked_products", _ITEM, quantity, others.mean(), n=len(others), note=note)]
    compared = np.flatnonzero(np.isfinite(found.cold_products))
    for place in compared:
        warm, cold = found.products[place], found.cold_products[place]
        epoch = found.epochs[place]
        quantity = f"share of products saved by that start, after epoch {epoch}"
        note = f"{warm:.0f} against {cold:.0f} from a random vector"
        made.append(row(f"tracked_saved_{epoch}", _ITEM, quantity, 1 - warm / cold, note=note))
    off = np.abs(found.values - found.cold_values)[compared] / found.values[compared, :1]
    quantity = "largest difference of an eigenvalue between both starts, over the largest"
    made.append(row("tracked_difference", _ITEM, quantity, off.max(), n=off.size))
    return made


def panels(found: Tracked) -> Panels:
    """Leading eigenvalues over epochs."""
    figure = plotting.tracked_eigenvalues(found.epochs, found.values, found.crossover, found.edge)
    return {"tracked_eigenvalues": figure}
