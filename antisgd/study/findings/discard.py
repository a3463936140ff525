"""What is left of the network without its leading directions (Fig. 11)."""

from collections.abc import Mapping

import numpy as np

from antisgd import plotting
from antisgd.study.findings.rows import Panels, Rows, row
from antisgd.study.stages.discard import MARKED, Discarding

__all__ = ["panels", "rows"]


def rows(crossover: float, found: Discarding, eigenvalues: np.ndarray, num_examples: int) -> Rows:
    """Accuracy at the marked numbers of directions, at λ_cross and at the end.

    Args:
        crossover: λ_cross.
        found: of the stage.
        eigenvalues: [k].
        num_examples: of the test set.
    """
    above = int(np.sum(eigenvalues > crossover))
    wanted = dict.fromkeys([0, above, *MARKED, int(found.counts[-1])])
    made = []
    for n in sorted(wanted):
        place = np.flatnonzero(found.counts == n)
        if not place.size:
            continue
        accuracy = found.accuracies[place[0]]
        made.append(
            row(
                f"accuracy_without_{n}",
                "Fig. 11",
                f"test accuracy without the {n} leading eigenvectors",
                accuracy,
                np.sqrt(accuracy * (1 - accuracy) / num_examples),
                n=num_examples,
                note="all above the crossover" if 0 < n == above < len(eigenvalues) else "",
            )
        )
    largest = np.abs(found.projections).max() / found.deviation
    quantity = "largest |p_i theta| over the standard deviation of a random vector's"
    made.append(row("largest_projection", "Fig. 11", quantity, largest, n=len(found.projections)))
    return made


def panels(
    crossover: float,
    found: Discarding,
    eigenvalues: np.ndarray,
    unconverged: np.ndarray,
    marks: Mapping[int, float] | None = None,
) -> Panels:
    """Fig. 11; `marks` are accuracies of the paper by the number of directions discarded."""
    figure = plotting.discarded_directions(
        found.counts, found.accuracies, eigenvalues, found.projections, crossover,
        found.deviation, unconverged=unconverged, paper=marks,
    )  # fmt: skip
    return {"discarded_directions": figure}
