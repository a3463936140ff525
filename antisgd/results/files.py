"""Files that are there whole or not at all, whenever the process is killed, and free of pickles.

Each is written beside its place and renamed into it, by process 0 alone while others wait.
"""

import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np

from antisgd import devices

__all__ = [
    "exists",
    "full_disk_named",
    "read_array",
    "read_arrays",
    "read_json",
    "remove",
    "write",
    "write_array",
    "write_arrays",
    "write_figure",
    "write_json",
    "write_text",
]


def write(path: Path, fill: Callable[[IO[bytes]], Any]) -> None:
    """Writes what `fill` puts into the file that it is given, whole or not at all.

    Raises:
        OSError: naming the file and the remedy.
    """
    devices.alone(lambda: _write(path, fill))


def _write(path: Path, fill: Callable[[IO[bytes]], Any]) -> None:
    partial = path.with_name(path.name + ".partial")
    with full_disk_named(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(partial, "wb") as file:
                fill(file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


@contextmanager
def full_disk_named(path: Path) -> Iterator[None]:
    """Turns what the system says of a full or failing disk into a line that names the file."""
    try:
        yield
    except OSError as error:
        raise OSError(
            f"cannot write {path} ({error.strerror or error}): free some space, and the same "
            "command goes on from the last checkpoint"
        ) from error


def exists(path: Path) -> bool:
    """Whether a file is there, for all processes alike."""
    return devices.told(path.exists)


def remove(*paths: Path) -> None:
    """Removes files, those that are there."""

    def unlink() -> None:
        for path in paths:
            path.unlink(missing_ok=True)

    devices.alone(unlink)


def write_text(path: Path, text: str) -> None:
    """Writes a text file, whole or not at all."""
    write(path, lambda file: file.write(text.encode()))


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file; a NaN or infinity becomes null, which JSON can express."""
    write_text(path, json.dumps(_finite(value), indent=2, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, (np.generic, float)):
        value = value.item() if isinstance(value, np.generic) else value
        return None if isinstance(value, float) and not np.isfinite(value) else value
    return value


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        ValueError: the file is not JSON.
    """
    try:
        return json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged ({error}): remove it or use --overwrite") from error


def write_array(path: Path, array: np.ndarray) -> None:
    """Writes one array as .npy, to be read back memory-mapped if it is large."""
    whole = np.asarray(devices.fetched(array))
    write(path, lambda file: np.save(file, whole, allow_pickle=False))


def write_arrays(path: Path, **arrays: Any) -> None:
    """Writes named arrays as .npz."""
    plain = {name: np.asarray(devices.fetched(array)) for name, array in arrays.items()}
    write(path, lambda file: np.savez(file, allow_pickle=False, **plain))


def read_array(path: Path, *, mode: Literal["r", "r+"] = "r") -> np.memmap:
    """Opens a .npy memory-mapped.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        return np.load(path, mmap_mode=mode, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} is damaged ({error}): remove it and run again") from error


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Reads the arrays of an .npz file.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (ValueError, EOFError, KeyError, OSError, zipfile.BadZipFile) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{path} is damaged ({error}): remove it and run again") from error


def write_figure(path: Path, figure: Any) -> None:
    """Writes a matplotlib figure as PNG and PDF (`path` without its ending)."""
    png, pdf = (path.with_name(f"{path.name}.{ending}") for ending in ("png", "pdf"))
    write(png, lambda file: figure.savefig(file, format="png", dpi=288))
    undated = {"CreationDate": None}
    write(pdf, lambda file: figure.savefig(file, format="pdf", metadata=undated))
