"""An eigen-solve on disk, from which it goes on after any stop."""

import logging
from pathlib import Path
from typing import Any

import numpy as np

from antisgd import devices, lanczos, results

__all__ = ["Checkpoint"]

_log = logging.getLogger(__name__)


class Checkpoint:
    """A solve on disk: the basis as rows of a file that grows, all else as arrays.

    Rows beyond the size that the arrays name are ignored, so that a kill between the two costs
    the rows alone. A restart makes another basis: it gets another file, and the old one goes once
    the arrays name the new one.
    """

    def __init__(self, folder: Path, prefix: str = ""):
        self.folder, self.prefix = folder, prefix
        self.path = folder / f"{prefix}eigenpairs.npz"
        self.kept: np.ndarray | None = None
        self.generation, self.written = 0, 0

    def write(self, state: lanczos.State) -> None:
        """Appends the rows that are new and replaces the arrays."""
        if state.kept is not self.kept:
            self.kept, self.written, self.generation = state.kept, 0, self.generation + 1
        rows, size, dimension = state.basis[0].shape[0], int(state.size), int(state.dimension)
        for start in range(self.written - self.written % rows, size, rows):
            first = max(self.written, start)
            segment = devices.fetched(state.basis[start // rows])[first - start : size - start]
            results.write_rows(self._rows(), segment[:, :dimension], first)
        self.written = size
        results.write_arrays(
            self.path, generation=self.generation, **state._replace(basis=())._asdict()
        )
        others = set(self._all_rows()) - {self._rows()}
        results.remove(*others)

    def read(self, dimension: int) -> lanczos.State | None:
        """The solve so far; None where there is none, or no whole one, which is said."""
        arrays = results.whole_arrays(self.path)
        if arrays is None or "generation" not in arrays:
            return None
        del arrays["basis"]
        self.generation, self.written = int(arrays.pop("generation")), int(arrays["size"])
        try:
            basis = results.read_rows(self._rows(), self.written, dimension)
        except (ValueError, OSError) as error:
            _log.warning("%s; the solve starts anew", error)
            return None
        scalars: dict[str, Any] = {
            name: one.item() if one.ndim == 0 else one for name, one in arrays.items()
        }
        # A solve of an earlier version says nothing of its dimension.
        scalars |= {"basis": lanczos.segments(basis, devices.mesh()), "dimension": dimension}
        state = lanczos.State(**scalars)
        self.kept = state.kept
        return state

    def remove(self) -> None:
        """Of a solve that is done with, or good for nothing and to start anew."""
        results.remove(self.path, *self._all_rows())

    def _rows(self) -> Path:
        return self.folder / f"{self.prefix}basis_{self.generation}.f32"

    def _all_rows(self) -> list[Path]:
        return list(self.folder.glob(f"{self.prefix}basis_*.f32"))
