"""How results print: what they hold, in a few lines, and how far long work is."""

import sys
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

__all__ = ["described", "progress_bar"]

# A log, which nobody watches, gets a line now and then instead of every refresh.
SECONDS_A_LINE = 30.0

# Numbers that are written out; more are told by type and shape.
_WRITTEN = 6


def described(result: Any) -> str:
    """`Name(field=value, …)` with arrays as 'float32[200, 650]': for `__repr__` of NamedTuples."""
    parts = (f"{name}={_brief(value)}" for name, value in zip(result._fields, result, strict=True))
    return f"{type(result).__name__}({', '.join(parts)})"


def _brief(value: Any) -> str:
    if isinstance(value, (np.ndarray, jax.Array)):
        return _brief_array(value)
    if hasattr(value, "_fields") and type(value).__module__.startswith("antisgd"):
        return described(value)
    if isinstance(value, (dict, list, tuple)) or hasattr(value, "_fields"):
        return _brief_tree(value)
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _brief_array(array: Any) -> str:
    if (
        isinstance(array, jax.core.Tracer)
        or array.size > _WRITTEN
        or array.dtype.kind not in "fiub"
    ):
        return f"{array.dtype}{list(array.shape)}"
    if isinstance(array, jax.Array) and array.is_deleted():
        return f"{array.dtype}{list(array.shape)} (used up)"
    return np.array2string(np.asarray(array), precision=5, separator=", ", max_line_width=10**6)


def _brief_tree(tree: Any) -> str:
    leaves = jax.tree.leaves(tree)
    if not leaves:
        return repr(tree) if len(repr(tree)) <= 80 else f"{type(tree).__name__} without arrays"
    numbers = sum(int(np.prod(np.shape(leaf))) for leaf in leaves)
    if len(leaves) == numbers <= _WRITTEN and not any(hasattr(leaf, "shape") for leaf in leaves):
        return repr(tree)
    return f"<{type(tree).__name__} of {len(leaves)} leaves, {numbers:,} numbers>"


def progress_bar(
    description: str, unit: str, total: int | None = None, done: int = 0, *, shown: bool = True
) -> Any:
    """A bar on the terminal; where standard error is none, a line every half minute.

    Words beside it are set with `set_postfix_str(words, refresh=False)`: a refresh would be a line.

    Args:
        description: what is done.
        unit: of `total`.
        total: how much there is to do, None if that is not known.
        done: how much was done before.
        shown: False for processes that are not to be heard.

    Returns:
        a `tqdm`, to be updated and closed.
    """
    shared = {"desc": description, "unit": unit, "total": total, "initial": done}
    shared |= {} if shown else {"disable": True}
    if sys.stderr.isatty():
        return tqdm(**shared, mininterval=1)
    line = "{desc}: {n_fmt}/{total_fmt} {unit}s [{elapsed}<{remaining}{postfix}]"
    return tqdm(
        **shared, file=_Lines(), bar_format=line, mininterval=SECONDS_A_LINE,
        maxinterval=SECONDS_A_LINE, miniters=1,
    )  # fmt: skip


class _Lines:
    """Standard error where a refresh does not overwrite the one before."""

    def write(self, text: str) -> None:
        words = text.strip("\r\n ")
        if words:
            sys.stderr.write(f"{words}\n")

    def flush(self) -> None:
        sys.stderr.flush()
