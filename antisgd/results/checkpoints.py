"""What a stopped run goes on from: pytrees of arrays, and files that are filled piece by piece."""

import logging
import math
import os
from pathlib import Path
from typing import IO, Any

import jax
import numpy as np

from antisgd import devices
from antisgd.results.files import (
    exists,
    full_disk_named,
    read_array,
    read_arrays,
    write,
    write_arrays,
)

__all__ = [
    "holds",
    "open_recording",
    "read_checkpoint",
    "read_rows",
    "whole_arrays",
    "write_checkpoint",
    "write_rows",
]

_log = logging.getLogger(__name__)


def whole_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays of an .npz checkpoint; None if there is none, or a damaged one, which is said."""
    try:
        return read_arrays(path) if exists(path) else None
    except ValueError as error:
        _log.warning("%s; the checkpoint is ignored", str(error).partition(":")[0])
        return None


def write_checkpoint(path: Path, tree: Any) -> None:
    """Writes the leaves of a pytree of arrays, in order."""
    leaves = jax.tree.leaves(tree)
    write_arrays(path, **{f"leaf_{i}": leaf for i, leaf in enumerate(leaves)})


def read_checkpoint(path: Path, template: Any) -> Any:
    """Reads a pytree with the structure of `template`, or gives that back without a whole file.

    Raises:
        ValueError: the file holds another structure or other shapes.
    """
    arrays = whole_arrays(path)
    if arrays is None:
        return template
    leaves, structure = jax.tree.flatten(template)
    read = [arrays.get(f"leaf_{i}") for i in range(len(leaves))]
    fits = len(arrays) == len(leaves) and all(
        array is not None and array.shape == np.shape(leaf)
        for array, leaf in zip(read, leaves, strict=True)
    )
    if not fits:
        raise ValueError(f"{path} does not fit this run: remove it or use --overwrite")
    return jax.tree.unflatten(structure, read)


def holds(path: Path, shape: tuple[int, ...], dtype: Any = np.float32) -> bool:
    """Whether a .npy of that shape and type lies there, whole."""
    return devices.told(lambda: _holds(path, shape, dtype))


def _holds(path: Path, shape: tuple[int, ...], dtype: Any) -> bool:
    try:
        array = read_array(path)
    except (FileNotFoundError, ValueError):
        return False
    return array.shape == shape and array.dtype == np.dtype(dtype)


def open_recording(path: Path, shape: tuple[int, ...], dtype: Any = np.float32) -> np.memmap:
    """Opens a memory-mapped .npy of a known shape, to be filled piece by piece.

    A file that `holds` says fits is opened as it is, so that a resumed run goes on filling it;
    the caller's checkpoint says how far it had come. Else it begins as zeros. Process 0 fills it:
    to the others it is there to be read.
    """
    if not holds(path, shape, dtype):
        write(path, lambda file: _write_zeros(file, shape, np.dtype(dtype)))
    return read_array(path, mode="r+" if devices.first() else "r")


def _write_zeros(file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype) -> None:
    # Really written: a mapped hole in a file meets a full disk as a crash, not as an error.
    header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    left, zeros = math.prod(shape) * dtype.itemsize, bytes(2**20)
    while left > 0:
        left -= file.write(zeros[:left])


def write_rows(path: Path, rows: np.ndarray, start: int) -> None:
    """Writes float32 rows [n, d] from row `start` on into a raw file that grows."""
    data = np.ascontiguousarray(rows, dtype=np.float32)
    devices.alone(lambda: _write_rows(path, data, start))


def _write_rows(path: Path, data: np.ndarray, start: int) -> None:
    mode = "r+b" if path.exists() else "w+b"
    with full_disk_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with full_disk_named(path), open(path, mode) as file:
        file.seek(start * data.shape[1] * data.itemsize)
        file.write(data.tobytes())
        file.flush()
        os.fsync(file.fileno())


def read_rows(path: Path, num_rows: int, dimension: int) -> np.ndarray:
    """The first rows of a file of `write_rows`, float32 [num_rows, dimension], memory-mapped.

    Raises:
        ValueError: the file is too short.
    """
    if path.stat().st_size < 4 * num_rows * dimension:
        raise ValueError(f"{path} holds fewer than {num_rows} rows: remove it and run again")
    return np.memmap(path, np.float32, "r", shape=(num_rows, dimension))
