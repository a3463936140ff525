"""A file from the web into a cache: resumed where it was cut, verified, and whole or not there."""

import hashlib
import os
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from tqdm import tqdm

__all__ = ["fetch"]

BLOCK = 2**18
TIMEOUT_SECONDS = 60
REMEDY = "try again later, or get it by other means and give its path as --data_dir"


def fetch(url: str, path: Path, md5: str) -> None:
    """Makes sure that `path` is the file at `url` with this MD5, downloading it if need be.

    A download that was cut goes on from where it was, now and after a restart, as long as every
    attempt brings new bytes; a server that cannot do so begins anew. It is written beside the
    path under the suffix .part and takes the path's name once verified.

    Args:
        url: the file.
        path: where it is kept.
        md5: its published MD5, in hex.

    Raises:
        OSError: no connection, no such file, a wrong checksum (the download is deleted), or no
            place to write.
    """
    if path.is_file() and _md5(path) == md5:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    resumed = _size(part) > 0
    found = _complete(url, part)
    # What was resumed may be the rest of another file: it gets a second try, from the start.
    if found != md5 and resumed:
        part.unlink()
        found = _complete(url, part)
    if found != md5:
        part.unlink()
        raise OSError(f"{url} came with MD5 {found}, expected {md5}, and was deleted: {REMEDY}")
    os.replace(part, path)


def _complete(url: str, part: Path) -> str:
    """Continues until the whole file is there; its MD5."""
    whole = False
    while not whole:
        before = _size(part)
        cause = "the connection was cut"
        try:
            whole = _append(url, part)
        except (HTTPException, URLError, ConnectionError, TimeoutError) as error:
            cause = " ".join(str(error).split())
        if not whole and _size(part) <= before:
            raise OSError(f"cannot download {url} beyond byte {_size(part):,} ({cause}): {REMEDY}")
    return _md5(part)


def _append(url: str, part: Path) -> bool:
    """One request for what is still missing; whether the file is whole."""
    start = _size(part)
    headers = {"Range": f"bytes={start}-"} if start else {}
    try:
        response = urlopen(Request(url, headers=headers), timeout=TIMEOUT_SECONDS)
    except HTTPError as error:
        # 416: there is nothing beyond what we have, and the checksum will tell what that is.
        if start and error.code == 416:
            return True
        raise
    with response:
        start = start if response.status == 206 else 0
        length = response.headers["Content-Length"]
        total = None if length is None else start + int(length)
        bar = tqdm(desc=url, total=total, initial=start, unit="B", unit_scale=True)
        with part.open("ab" if start else "wb") as file, bar:
            while block := response.read(BLOCK):
                file.write(block)
                bar.update(len(block))
    return total is None or _size(part) == total


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
