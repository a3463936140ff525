"""SIGTERM and Ctrl-C: at once, or after a checkpoint where a stage can write one."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

from antisgd import devices

__all__ = ["install", "postponed"]

# Seconds to the next checkpoint: fewer than a machine that is taken away gives.
PATIENCE = 20
WORD = f"stopping at the next checkpoint, within {PATIENCE} s; once more stops at once\n"

_signals = SimpleNamespace(wait=False, came=False)


def install() -> None:
    """Makes SIGTERM and Ctrl-C raise KeyboardInterrupt, or wait inside `postponed`."""
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
        signal.signal(number, _stop)


@contextmanager
def postponed() -> Iterator[Callable[[], bool]]:
    """Inside, a first signal waits until the end, a second one or the end of patience raises.

    Yields:
        `asked() -> bool`: whether one waits in any process, for a loop that writes its checkpoint
        and ends; all processes ask at the same places.

    Raises:
        KeyboardInterrupt: on leaving, if one waited.
    """
    _signals.wait, _signals.came = True, False

    def asked() -> bool:
        _signals.came = devices.anywhere(_signals.came)
        return _signals.came

    try:
        yield asked
    finally:
        signal.alarm(0)
        _signals.wait = False
    if _signals.came:
        raise KeyboardInterrupt


def _stop(signum, frame):
    del signum, frame
    if not _signals.wait or _signals.came:
        raise KeyboardInterrupt
    _signals.came = True
    signal.alarm(PATIENCE)
    # Not print: the signal may have come in the midst of one.
    os.write(2, WORD.encode())
