"""What a stage that was stopped goes on from: the values it had found, in their order."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from antisgd import devices, display, results

__all__ = ["Kept", "ValueCheckpoint"]

CHECKPOINT_SECONDS = 30.0
# Computes a value, or knows it from before a stop; and how many units of the bar were in it.
Kept = Callable[..., np.ndarray]


class ValueCheckpoint:
    """Gives back what was computed before a stop, and computes and keeps the rest.

    The stage asks for the same things in the same order, so that after a stop it comes to the same
    bits.
    """

    def __init__(
        self, path: Path, made_of: Mapping[str, Any], asked: Callable[[], bool], words: str,
        expected: int, unit: str = "draw",
    ):  # fmt: skip
        self.path, self.asked, self.saved = path, asked, time.monotonic()
        self.made_of = {name: np.asarray(value) for name, value in made_of.items()}
        self.given, self.kept = 0, self._read()
        self.expected = expected
        self.bar = display.progress_bar(words, unit, expected, shown=devices.first())

    def _read(self) -> list[np.ndarray]:
        """Nothing, if it is of other directions or another period."""
        arrays = results.whole_arrays(self.path) or {}
        same = all(
            name in arrays and np.array_equal(arrays[name], value, equal_nan=True)
            for name, value in self.made_of.items()
        )
        count = len(arrays) - len(self.made_of)
        return [arrays[f"value_{i}"] for i in range(count)] if same else []

    def __call__(self, compute: Callable[[], Any], units: int = 0) -> np.ndarray:
        """The next value, kept or computed; `units` of those that the bar counts were in it.

        Raises:
            KeyboardInterrupt: a stop was asked for, once what is computed is written.
        """
        if self.given == len(self.kept):
            self.kept.append(np.asarray(compute()))
            stop = self.asked()
            if stop or devices.anywhere(time.monotonic() - self.saved > CHECKPOINT_SECONDS):
                self._write()
            if stop:
                raise KeyboardInterrupt
        self.given += 1
        if units:
            more = self.bar.n + units > self.expected
            self.bar.total = self.bar.n + 2 * units if more else self.expected
            self.bar.update(units)
        return self.kept[self.given - 1]

    def _write(self) -> None:
        values = {f"value_{i}": value for i, value in enumerate(self.kept)}
        results.write_arrays(self.path, **self.made_of, **values)
        self.saved = time.monotonic()

    def close(self) -> None:
        """Ends the progress bar."""
        self.bar.close()
