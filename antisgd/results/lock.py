"""The lock of a run folder: one process at a time, freed by the system when its holder dies."""

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from antisgd import devices
from antisgd.results.files import full_disk_named

__all__ = ["LOCK", "held"]

LOCK = ".lock"


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Holds a run folder, which is made if it is missing, against all other processes.

    Process 0 holds it for those of its run.

    Raises:
        ValueError: another process holds it; names that one.
        OSError: the folder cannot be written, or its file system has no locks.
    """
    if not devices.first():
        yield
        return
    path = folder / LOCK
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise OSError(
            f"cannot write to {folder} ({error.strerror}): give a writable --output_dir"
        ) from error
    try:
        _take(file, path)
        yield
    finally:
        os.close(file)


def _take(file: int, path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = "another process"
        with suppress(OSError, UnicodeDecodeError):
            holder = path.read_text().strip() or holder
        raise ValueError(
            f"{path.parent} is being worked in by {holder}: wait for it, stop it, or give another "
            "--output_dir"
        ) from error
    except OSError as error:
        raise OSError(
            f"cannot lock {path} ({error.strerror}): give an --output_dir on a file system that "
            "has locks"
        ) from error
    since = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    with full_disk_named(path):
        os.ftruncate(file, 0)
        os.write(file, f"process {os.getpid()} on {socket.gethostname()} since {since}\n".encode())
