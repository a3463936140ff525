"""CIFAR-10 as bytes, from its official distributions or a prepared tensorflow-datasets folder."""

import gzip
import io
import lzma
import os
import pickle
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from antisgd.data import download, prepared

__all__ = ["Pictures", "read"]

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
REMEDY = f"get {URL} and give it or its folder as --data_dir, or give none to have it downloaded"
EXPECTED = (
    "the folder cifar-10-batches-bin or cifar-10-batches-py, an archive of either, "
    "or tensorflow-datasets' cifar10/3.0.2"
)

PER_FILE = 10_000
STEMS = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")
FOLDERS = ("", "cifar-10-batches-bin", "cifar-10-batches-py")
PREPARED = ("", "3.0.2", "cifar10/3.0.2")
ARCHIVES = ("cifar-10-binary.tar.gz", "cifar-10-python.tar.gz")
# More than any of the files has, and little enough for an archive that unpacks to terabytes.
MOST_BYTES = 2**26
DAMAGED = (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile)


class Pictures(NamedTuple):
    """Bytes: images uint8 [n, 32, 32, 3] and labels uint8 [n]."""

    images: np.ndarray
    labels: np.ndarray


def read(directory: str | Path | None) -> tuple[Pictures, Pictures]:
    """Reads the 50,000 training and 10,000 test pictures, in the order of the files.

    Archives are read member by member: nothing is unpacked to disk, links and paths that climb
    out of the folder are passed over. Pickles are read for bytes and containers alone.

    Args:
        directory: a folder or an archive as `load` takes it; None downloads the archive into
            the cache, or takes it from there.

    Raises:
        FileNotFoundError: nothing there, or one of the six files is missing.
        ValueError: damaged, truncated or foreign contents; a prepared folder without the
            extra 'tfds'.
        OSError: unreadable files, a failed download.
    """
    path = cached_archive() if directory is None else _expanded(directory)
    try:
        if directory is None:
            download.fetch(URL, path, MD5)
        return _read(path)
    except OSError as error:
        if error.errno is None:
            raise
        where = error.filename or path
        raise type(error)(f"cannot use {where} ({error.strerror}): {REMEDY}") from error


def cached_archive() -> Path:
    """Where the downloaded archive lies: $XDG_CACHE_HOME/antisgd, else ~/.cache/antisgd."""
    cache = os.environ.get("XDG_CACHE_HOME")
    if not cache:
        try:
            cache = str(Path.home() / ".cache")
        except RuntimeError as error:
            raise FileNotFoundError(
                "no home directory to keep the archive of CIFAR-10 in: set HOME or XDG_CACHE_HOME, "
                f"or {REMEDY}"
            ) from error
    return Path(cache) / "antisgd" / ARCHIVES[0]


def _expanded(directory: str | Path) -> Path:
    try:
        return Path(directory).expanduser()
    except RuntimeError as error:
        raise FileNotFoundError(f"{directory} names no home directory; {REMEDY}") from error


def _read(path: Path) -> tuple[Pictures, Pictures]:
    if path.is_file():
        return _collect(_members(path), path)
    for folder in (path / name for name in FOLDERS):
        files = _files(folder)
        if files:
            return _collect(((file.name, _content(file)) for file in files), folder)
    for folder in (path / name for name in PREPARED):
        if (folder / "dataset_info.json").is_file():
            splits = prepared.read(folder, train=5 * PER_FILE, test=PER_FILE)
            train, test = (Pictures(*_checked(*split, folder)) for split in splits)
            return train, test
    for archive in (path / name for name in ARCHIVES):
        if archive.is_file():
            return _collect(_members(archive), archive)
    found = "holds none of them" if path.is_dir() else "does not exist"
    raise FileNotFoundError(f"{path} {found}: expected {EXPECTED}; {REMEDY}")


def _files(folder: Path) -> list[Path]:
    kinds = ([folder / f"{stem}{suffix}" for stem in STEMS] for suffix in (".bin", ""))
    return next(filter(None, ([f for f in files if f.exists()] for files in kinds)), [])


def _content(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(MOST_BYTES)


def _members(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of each member that is one of the six, in the archive's order."""
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                climbs = path.is_absolute() or ".." in path.parts
                wanted = not climbs and path.name.removesuffix(".bin") in STEMS
                content = tar.extractfile(member) if wanted and member.isreg() else None
                if content:
                    yield path.name, content.read(MOST_BYTES)
            # gzip's checksum stands at its very end, which the members alone do not reach.
            while tar.fileobj.read(MOST_BYTES):
                pass
    except DAMAGED as error:
        raise ValueError(
            f"{archive} is truncated, damaged or no tar archive ({type(error).__name__}): {REMEDY}"
        ) from error


def _collect(files: Iterable[tuple[str, bytes]], where: Path) -> tuple[Pictures, Pictures]:
    images = np.empty((len(STEMS) * PER_FILE, 3, 32, 32), np.uint8)
    labels = np.empty(len(images), np.uint8)
    missing, suffix = dict.fromkeys(STEMS), ".bin"
    for name, content in files:
        stem = name.removesuffix(".bin")
        suffix = name.removeprefix(stem)
        parse = _binary if suffix else _unpickled
        rows = slice(STEMS.index(stem) * PER_FILE, (STEMS.index(stem) + 1) * PER_FILE)
        images[rows], labels[rows] = _checked(*parse(content, where / name), where / name)
        missing.pop(stem, None)
    if missing:
        names = ", ".join(stem + suffix for stem in missing)
        raise FileNotFoundError(f"{where} lacks {names}: expected {EXPECTED}; {REMEDY}")
    images, cut = images.transpose(0, 2, 3, 1), 5 * PER_FILE
    return Pictures(images[:cut], labels[:cut]), Pictures(images[cut:], labels[cut:])


def _binary(content: bytes, where: Path) -> tuple[np.ndarray, np.ndarray]:
    size = PER_FILE * 3073
    if len(content) != size:
        raise ValueError(
            f"{where} is truncated or not CIFAR-10: {len(content):,} bytes, expected {size:,} "
            f"({PER_FILE:,} records of a label and 3,072 pixels); {REMEDY}"
        )
    records = np.frombuffer(content, np.uint8).reshape(PER_FILE, 3073)
    return records[:, 1:].reshape(PER_FILE, 3, 32, 32), records[:, 0]


def _unpickled(content: bytes, where: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        batch = _BytesOnly(io.BytesIO(content), encoding="bytes").load()
        fields = {k.decode() if isinstance(k, bytes) else k: v for k, v in batch.items()}
        _, shape, dtype, _, pixels = fields["data"].state
        if dtype.arguments[0] not in {"u1", b"u1"} or shape != (PER_FILE, 3072):
            raise ValueError(f"pixels {shape}, expected bytes ({PER_FILE}, 3072)")
        pixels = np.frombuffer(pixels, np.uint8).reshape(PER_FILE, 3, 32, 32)
        return pixels, np.array(fields["labels"], np.int64).reshape(PER_FILE)
    # A damaged pickle can raise nearly anything.
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(
            f"{where} is no batch of CIFAR-10's python distribution ({reason}): {REMEDY}"
        ) from error


class _Captured:
    """Stands for numpy's arrays and dtypes: keeps what a pickle says of one and runs nothing."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _BytesOnly(pickle.Unpickler):
    """Reads containers, numbers, bytes and numpy arrays of them; refuses whatever else."""

    admitted = {
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.admitted:
            raise ValueError(f"it asks for {module}.{name}, only arrays and bytes are admitted")
        return _Captured


def _checked(images: np.ndarray, labels: np.ndarray, where: Path) -> tuple[np.ndarray, np.ndarray]:
    wrong = np.flatnonzero((labels < 0) | (labels > 9))
    if wrong.size:
        raise ValueError(
            f"{where} is damaged or not CIFAR-10: picture {wrong[0]} has label {labels[wrong[0]]}, "
            f"expected 0 to 9; {REMEDY}"
        )
    return images, labels
