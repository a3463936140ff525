"""What has memory: this machine, or the accelerator; and bytes in words."""

import os
from pathlib import Path
from typing import NamedTuple

from antisgd import devices

__all__ = ["Room", "device", "in_words", "machine"]


class Room(NamedTuple):
    """Something with memory, and its bytes."""

    name: str
    available: int


def machine() -> Room:
    """The host, or the container that the process runs in."""
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    words = limit.read_text().strip() if limit.exists() else ""
    return Room("this machine", min(installed, int(words)) if words.isdecimal() else installed)


def device() -> Room:
    """What computes: an accelerator if there is one."""
    limit = devices.memory()
    return machine() if limit is None else Room("the accelerator", limit)


def in_words(size: float) -> str:
    """Bytes with the unit that suits them."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} TiB"
