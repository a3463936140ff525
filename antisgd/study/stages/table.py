"""The stages of a study, the one table that running, resuming, planning and `--stages` share."""

from pathlib import Path
from typing import NamedTuple

from antisgd import devices

__all__ = ["STAGES", "Stage", "names"]


class Stage(NamedTuple):
    """What a stage is called, what it takes and what it leaves.

    Attributes:
        name: in `--stages`.
        needs: stages without whose results it is left out.
        file: that its result lies in, within the folder of a network; '*' stands for a scheme.
        products: Hessian products that it takes, those of the eigen-solve not counted; two
            gradients count as one.
    """

    name: str
    needs: tuple[str, ...]
    file: str
    products: int = 0

    def done(self, folder: Path) -> bool:
        """Whether a network's folder holds a result of this stage."""
        return devices.told(lambda: any(folder.glob(self.file)))


STAGES = (
    Stage("train", (), "training.npz"),
    Stage("eigenpairs", ("train",), "eigenpairs.npz"),
    Stage("analysis", ("train", "eigenpairs"), "trajectory_*/anchors.npz"),
    Stage("covariance", ("train", "eigenpairs", "analysis"), "covariance.npz"),
    Stage("discard", ("train", "eigenpairs"), "discard.npz"),
    # 16 directions in two schemes: products at 5 places of each, secants at those and at θ_K;
    # gradients of examples beside them.
    Stage("validity", ("eigenpairs", "analysis"), "validity_*.npz", products=352),
    Stage("density", ("train", "eigenpairs"), "density.npz", products=200),
    # Secants of 32 directions at 4 drawn weights, some 4 times for each of two schemes; gradients
    # of examples beside them.
    Stage("predict", ("train", "eigenpairs"), "prediction_*.npz", products=1024),
    # Products by the settings: num_solves of stages/track.py says how many solves.
    Stage("track", ("train",), "tracked.npz"),
    Stage("figures", ("train",), "report.html"),
)


def names() -> tuple[str, ...]:
    """All stages, in the order in which they run."""
    return tuple(stage.name for stage in STAGES)
