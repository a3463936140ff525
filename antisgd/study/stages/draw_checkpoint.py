"""What a prediction that was stopped goes on from: what its draws gave, in their order."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from antisgd import devices, display, results

__all__ = ["DrawCheckpoint"]

CHECKPOINT_SECONDS = 30.0


class DrawCheckpoint:
    """Gives back what was computed before a stop, and computes and keeps the rest.

    The fixed point asks for the same things in the same order, so that after a stop it comes to
    the same bits.
    """

    def __init__(
        self, path: Path, made_of: Mapping[str, Any], asked: Callable[[], bool], words: str,
        expected: int,
    ):  # fmt: skip
        self.path, self.asked, self.saved = path, asked, time.monotonic()
        self.made_of = {name: np.asarray(value) for name, value in made_of.items()}
        self.given, self.kept = 0, self._read()
        self.expected = expected
        self.bar = display.progress_bar(words, "draw", expected, shown=devices.first())

    def _read(self) -> list[np.ndarray]:
        """Nothing, if it is of other directions or another period."""
        arrays = results.whole_arrays(self.path) or {}
        same = all(
            name in arrays and np.array_equal(arrays[name], value, equal_nan=True)
            for name, value in self.made_of.items()
        )
        count = len(arrays) - len(self.made_of)
        return [arrays[f"draw_{i}"] for i in range(count)] if same else []

    def __call__(self, compute: Callable[[], Any], draws: int = 0) -> np.ndarray:
        """The next value, kept or computed; `draws` of those that the bar counts were in it.

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
        if draws:
            self.bar.total = max(self.expected, self.bar.n + 2 * draws)
            self.bar.update(draws)
        return self.kept[self.given - 1]

    def _write(self) -> None:
        draws = {f"draw_{i}": value for i, value in enumerate(self.kept)}
        results.write_arrays(self.path, **self.made_of, **draws)
        self.saved = time.monotonic()

    def close(self) -> None:
        """Ends the progress bar."""
        self.bar.close()
