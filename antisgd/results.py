"""Run folders: settings, provenance, arrays, checkpoints. The only module that writes files.

Every file is written beside its place and renamed into it, so that it is there whole or not at
all, whenever the process is killed. No pickle is written or read.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import jax
import numpy as np

__all__ = [
    "check_fingerprint",
    "open_recording",
    "open_run",
    "provenance",
    "read_arrays",
    "read_checkpoint",
    "read_json",
    "read_rows",
    "write_arrays",
    "write_array",
    "write_checkpoint",
    "write_figure",
    "write_json",
    "write_rows",
    "write_text",
]

_PACKAGES = ("antisgd", "jax", "jaxlib", "flax", "optax", "numpy", "scipy")


def open_run(
    folder: Path,
    config: Mapping[str, Any],
    *,
    overwrite: bool = False,
    may_grow: tuple[str, ...] = (),
) -> Path:
    """Opens a run folder: makes it, or goes on in it if it was made with the same settings.

    Args:
        folder: the run folder.
        config: the settings that decide the results, JSON values.
        overwrite: removes what the folder holds and starts afresh.
        may_grow: settings whose value may be larger than the folder's; the larger is kept.

    Raises:
        ValueError: the folder holds a run with other settings (the message lists them), or is
            not a run folder.
        OSError: the folder cannot be written.
    """
    path = folder / "config.json"
    if overwrite and path.exists():
        shutil.rmtree(folder)
    _make_writable(folder)
    if not path.exists():
        if any(folder.iterdir()):
            raise ValueError(f"{folder} is not empty and not a run folder: choose another one")
        write_json(path, {"settings": dict(config), "provenance": provenance()})
        return folder
    stored = read_json(path)
    differing = _differences(stored["settings"], config, may_grow)
    if differing:
        raise ValueError(
            f"{folder} was made with other settings: {'; '.join(differing)}. "
            "Give another --output_dir, or --overwrite to start afresh"
        )
    write_json(path, stored | {"settings": dict(config)})
    return folder


def check_fingerprint(folder: Path, fingerprint: str) -> None:
    """Notes the data set's fingerprint in a new run folder, compares it in an old one.

    Raises:
        ValueError: the folder's run saw other data.
    """
    stored = read_json(folder / "config.json")
    then = stored.setdefault("data_fingerprint", fingerprint)
    if then != fingerprint:
        raise ValueError(
            f"the data differ from those that {folder} was made with (fingerprint {then[:12]} "
            f"then, {fingerprint[:12]} now): give the same data or another --output_dir"
        )
    write_json(folder / "config.json", stored)


def _make_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(
            f"cannot write to {folder} ({error.strerror}): give a writable --output_dir"
        ) from error


def _differences(
    stored: Mapping[str, Any], config: Mapping[str, Any], may_grow: tuple[str, ...]
) -> list[str]:
    differing = []
    for name in sorted(stored.keys() | config.keys()):
        then, now = stored.get(name), config.get(name)
        grown = name in may_grow and then is not None and now is not None and now > then
        if then != now and not grown:
            differing.append(f"{name} {then!r} then, {now!r} now")
    return differing


def provenance() -> dict[str, Any]:
    """Command, date, versions, device and git commit of this process."""
    return {
        "command": " ".join(["python -m " + _module_name(), *sys.argv[1:]]),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "git_commit": _git_commit(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _PACKAGES},
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "cpu_cores": os.cpu_count(),
    }


def _module_name() -> str:
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return spec.name if spec else Path(sys.argv[0]).stem


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _git_commit() -> str:
    root = Path(__file__).resolve().parent.parent
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _write(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with open(partial, "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def write_text(path: Path, text: str) -> None:
    """Writes a text file, whole or not at all."""
    _write(path, lambda file: file.write(text.encode()))


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
    _write(path, lambda file: np.save(file, np.asarray(array), allow_pickle=False))


def write_arrays(path: Path, **arrays: np.ndarray) -> None:
    """Writes named arrays as .npz."""
    plain = {name: np.asarray(array) for name, array in arrays.items()}
    _write(path, lambda file: np.savez(file, allow_pickle=False, **plain))


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


def write_checkpoint(path: Path, tree: Any) -> None:
    """Writes the leaves of a pytree of arrays, in order."""
    leaves = jax.tree.leaves(tree)
    write_arrays(path, **{f"leaf_{i}": np.asarray(leaf) for i, leaf in enumerate(leaves)})


def read_checkpoint(path: Path, template: Any) -> Any:
    """Reads a pytree with the structure of `template`.

    Raises:
        ValueError: the file is damaged or holds another structure or other shapes.
    """
    arrays = read_arrays(path)
    leaves, structure = jax.tree.flatten(template)
    read = [arrays.get(f"leaf_{i}") for i in range(len(leaves))]
    fits = len(arrays) == len(leaves) and all(
        array is not None and array.shape == np.shape(leaf)
        for array, leaf in zip(read, leaves, strict=True)
    )
    if not fits:
        raise ValueError(f"{path} does not fit this run: remove it or use --overwrite")
    return jax.tree.unflatten(structure, read)


def open_recording(path: Path, shape: tuple[int, ...], dtype: Any = np.float32) -> np.memmap:
    """Opens a memory-mapped .npy of a known shape, to be filled piece by piece.

    An existing file of that shape and type is opened as it is, so that a resumed run goes on
    filling it; the caller's checkpoint says how far it had come.
    """
    if path.exists():
        recording = np.lib.format.open_memmap(path, mode="r+")
        if recording.shape == shape and recording.dtype == np.dtype(dtype):
            return recording
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    np.lib.format.open_memmap(partial, mode="w+", dtype=np.dtype(dtype), shape=shape).flush()
    os.replace(partial, path)
    return np.lib.format.open_memmap(path, mode="r+")


def write_rows(path: Path, rows: np.ndarray, start: int) -> None:
    """Writes float32 rows [n, d] from row `start` on into a raw file that grows."""
    data = np.ascontiguousarray(rows, dtype=np.float32)
    mode = "r+b" if path.exists() else "w+b"
    with open(path, mode) as file:
        file.seek(start * data.shape[1] * data.itemsize)
        file.write(data.tobytes())
        file.flush()
        os.fsync(file.fileno())


def read_rows(path: Path, num_rows: int, dimension: int) -> np.ndarray:
    """Reads the first rows of a file of `write_rows`, float32 [num_rows, dimension].

    Raises:
        ValueError: the file is too short.
    """
    data = np.fromfile(path, np.float32, num_rows * dimension)
    if data.size < num_rows * dimension:
        raise ValueError(f"{path} holds fewer than {num_rows} rows: remove it and run again")
    return data.reshape(num_rows, dimension)


def write_figure(path: Path, figure: Any) -> None:
    """Writes a matplotlib figure as PNG and PDF (`path` without its ending)."""
    png, pdf = (path.with_name(f"{path.name}.{ending}") for ending in ("png", "pdf"))
    _write(png, lambda file: figure.savefig(file, format="png", dpi=288))
    undated = {"CreationDate": None}
    _write(pdf, lambda file: figure.savefig(file, format="pdf", metadata=undated))
