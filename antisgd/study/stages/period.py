"""An analysis period: what is recorded of it, and the files that its steps fill."""

import logging
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.flatten_util import ravel_pytree

from antisgd import devices, results, trajectory
from antisgd.study.problem import Problem
from antisgd.study.settings import Settings

__all__ = [
    "KEPT",
    "Period",
    "Recording",
    "flush",
    "folder_of",
    "keep",
    "keep_weights",
    "kept_epochs",
    "open_files",
]

# Places of a period at which the curvature can be taken again.
KEPT = 5

_log = logging.getLogger(__name__)


class Period(NamedTuple):
    """What is recorded and where to.

    Attributes:
        problem: network, loss and examples.
        settings: of the study.
        directions: [k, d], over several devices by columns.
        scheme: name of the sampling scheme.
        key: the network's stream of examples, carried on from training.
        seed: of the network, for messages.
        folder: trajectory folder of the scheme.
        files: name → memory-mapped projections [steps, k], which the steps fill.
        kept: weights at the epochs of `kept_epochs`, [n, d], memory-mapped.
    """

    problem: Problem
    settings: Settings
    directions: jax.Array
    scheme: str
    key: jax.Array
    seed: int
    folder: Path
    files: dict[str, np.memmap]
    kept: np.memmap

    @property
    def steps_per_epoch(self) -> int:
        """M."""
        return -(-self.problem.num_examples // self.settings.batch_size)


class Recording(NamedTuple):
    """One analysis period.

    Attributes:
        trajectory: weights, velocities and noise along the k directions.
        anchor_steps: [epochs + 1], epoch boundaries.
        anchor_gradients: exact P∇L there, [epochs + 1, k].
        curves: metrics at θ_K and after each epoch, [epochs + 1, curves].
        full_gradient_error: what remains of the error of the modelled full gradient, [k];
            zero with exact ones.
        kept: weights at the epochs of `kept_epochs`, float32 [n, d], memory-mapped; zeros where a
            recording of an earlier version has none.
        final: weights at the end, a pytree.
    """

    trajectory: trajectory.Trajectory
    anchor_steps: np.ndarray
    anchor_gradients: np.ndarray
    curves: np.ndarray
    full_gradient_error: np.ndarray
    kept: np.ndarray
    final: Any


def folder_of(network: Path, scheme: str, period: int) -> Path:
    """Where a network's folder keeps a period of a regime; the first, of number 0, at its top."""
    return (network / f"period_{period}" if period else network) / f"trajectory_{scheme}"


def open_files(folder: Path, names: list[str], shape: tuple[int, int]) -> dict[str, np.memmap]:
    """The files to fill. Where one is missing or of other directions, the period starts anew."""
    paths = {name: folder / f"{name}.npy" for name in names}
    if not all(results.holds(path, shape) for path in paths.values()):
        if results.exists(folder / "checkpoint.npz"):
            words = "%s is recorded anew, %d steps along %d directions"
            _log.warning(words, folder.name, *shape)
        results.remove(folder / "checkpoint.npz", folder / "checkpoint_within.npz")
    return {name: results.open_recording(path, shape) for name, path in paths.items()}


def kept_epochs(epochs: int) -> np.ndarray:
    """Epochs of a period after which the weights are kept whole: five, spread evenly, the last."""
    return np.unique(np.ceil(np.arange(1, KEPT + 1) / KEPT * epochs)).astype(int)


def keep(files: dict[str, np.memmap], projected: trajectory.Projections, row: int) -> None:
    """Writes a chunk's projections into the files from a row on."""
    if not devices.first():
        return
    for name, file in files.items():
        values = getattr(projected, name)
        file[row : row + len(values)] = values


def keep_weights(period: Period, params: Any, epoch: int) -> None:
    """Keeps the weights whole where the epoch is one of `kept_epochs`."""
    place = np.flatnonzero(kept_epochs(period.settings.analysis_epochs) == epoch)
    if place.size and devices.first():
        period.kept[place[0]] = ravel_pytree(params)[0]
        period.kept.flush()


def flush(files: dict[str, np.memmap]) -> None:
    """To disk, before a checkpoint says that the rows are there."""

    def to_disk() -> None:
        for file in files.values():
            file.flush()

    devices.alone(to_disk)
