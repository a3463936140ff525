"""Which networks are trained side by side: all of a run, or those that its folder grows by.

A cohort is begun with the seeds that are asked for then, has a checkpoint of its own and is
finished as it was begun, whatever is asked for meanwhile. Seed i is the same whatever their number:
to rounding, since programs of more networks side by side may add up in another order.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from antisgd import results
from antisgd.study.settings import Training

__all__ = ["Cohort", "cohorts", "finished", "in_order", "whole"]


class Cohort(NamedTuple):
    """Networks of every scheme × seed, in this order.

    Attributes:
        schemes: that they are trained with.
        seeds: their numbers.
    """

    schemes: tuple[str, ...]
    seeds: range


def whole(settings: Training) -> Cohort:
    """All networks of the settings."""
    return Cohort(settings.trained_schemes, range(settings.seeds))


def cohorts(settings: Training, checkpoint: Path) -> Iterator[tuple[Cohort, Path]]:
    """The cohorts that a run folder has or is to have, and the checkpoint of each.

    Args:
        settings: of all networks that there are to be.
        checkpoint: of the first cohort; the others lie beside it.
    """
    held = min(_begun(checkpoint, len(settings.sampling)) or settings.seeds, settings.seeds)
    one = Cohort(settings.sampling[:1], range(1))
    yield (one if held == 1 else whole(settings)._replace(seeds=range(held))), checkpoint
    if held == 1 < settings.seeds and settings.sampling[1:]:
        # One network is trained with the first scheme alone, several with each.
        beside = checkpoint.with_name(f"{checkpoint.stem}_others{checkpoint.suffix}")
        yield Cohort(settings.sampling[1:], range(1)), beside
    while held < settings.seeds:
        path = checkpoint.with_name(f"{checkpoint.stem}_{held}{checkpoint.suffix}")
        left = settings.seeds - held
        more = min(_begun(path, len(settings.sampling)) or left, left)
        yield Cohort(settings.sampling, range(held, held + more)), path
        held += more


def in_order(settings: Training, parts: Sequence[tuple[Cohort, Any]]) -> Any:
    """What each cohort has of its networks, leaves [networks, …], as all networks have it."""
    names = [(s, i) for cohort, _ in parts for s in cohort.schemes for i in cohort.seeds]
    wanted = whole(settings)
    places = np.array([names.index((s, i)) for s in wanted.schemes for i in wanted.seeds])
    return jax.tree.map(
        lambda *leaves: np.concatenate([np.asarray(leaf) for leaf in leaves])[places],
        *(one for _, one in parts),
    )


def finished(folder: Path) -> int:
    """Networks that a run folder holds fully trained."""
    return len((results.whole_arrays(folder / "training.npz") or {}).get("params", ()))


def _begun(checkpoint: Path, schemes: int) -> int:
    """Seeds of a cohort that has a checkpoint, 0 without one; a single network is one seed."""
    networks = len((results.whole_arrays(checkpoint) or {}).get("leaf_0", ()))
    return 1 if networks == 1 else networks // schemes
