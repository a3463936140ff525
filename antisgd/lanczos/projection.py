"""The state of a solve and the projected problem in it, solved in float64 on the host."""

from typing import Any, NamedTuple

import numpy as np
import scipy.linalg

from antisgd import devices, display
from antisgd.lanczos.basis import Basis, mesh_of

__all__ = [
    "ORDERS", "Ritz", "State", "bandwidth", "expected_products", "multiplied", "projected", "ritz",
]  # fmt: skip

# What comes first among eigenvalues, by name: the most wanted has the largest rank.
ORDERS = ("largest", "smallest", "magnitude", "both")


class State(NamedTuple):
    """All of a solve between two products: arrays and numbers only, so that any format keeps it.

    The first m basis vectors have been multiplied, m = len(kept) + len(band); the others wait.
    The projected operator is diagonal on the `kept` vectors, which couple to those that followed
    them by `coupling`; row j of `band` holds its elements from basis vector `first[j]` on.
    """

    basis: Basis  # segments [rows, d], of which the first `size` vectors are in use
    size: int
    kept: np.ndarray  # float64 [p]
    coupling: np.ndarray  # float64 [p, w]
    band: np.ndarray  # float64 [m - p, width], zero beyond a row's end
    first: np.ndarray  # int64 [m - p]
    key: np.ndarray  # uint32, the data of a JAX key
    block_size: int
    products: int  # matrix-vector products so far
    scale: float  # largest norm of a product with a basis vector
    noise: float  # rounding of a product, nan until measured
    asymmetry: float  # largest |qᵢ'A qⱼ - qⱼ'A qᵢ| block relative to scale
    history: np.ndarray  # int64 [checks, 2]: vectors multiplied, pairs converged
    dimension: int  # d; over a mesh the basis is filled up with zero columns

    def __repr__(self) -> str:
        return display.described(self)


class Ritz(NamedTuple):
    """Approximate eigenpairs, the most wanted first.

    values float64 [k], coefficients float64 [m, k] in the basis, bounds float64 [k]: the
    residual norms that exact arithmetic would give.
    """

    values: np.ndarray
    coefficients: np.ndarray
    bounds: np.ndarray

    def __repr__(self) -> str:
        return display.described(self)


def multiplied(state: State) -> int:
    """m, the number of basis vectors that have been multiplied: the projected problem's size."""
    return len(state.kept) + len(state.band)


def ritz(state: State, which: str, count: int) -> Ritz:
    """The `count` most wanted Ritz pairs: eigenpairs of the projected operator, in float64.

    Over a mesh of several processes those that the first one finds.

    Args:
        state: after one product or more.
        which: one of `ORDERS`: 'largest' and 'smallest' algebraic, 'magnitude', or 'both' ends
            (⌈count/2⌉ of the largest, then the smallest, in descending order).
        count: pairs, at most `multiplied(state)` are returned.
    """
    if not state.basis or mesh_of(state.basis[0]) is None:
        return _ritz(state, which, count)
    return devices.told(lambda: _ritz(state, which, count))


def _ritz(state: State, which: str, count: int) -> Ritz:
    square, pending = projected(state)
    m, width = len(square), bandwidth(state)
    count = min(count, m)
    ranges = {"largest": [(m - count, m - 1)], "smallest": [(0, count - 1)]}
    ends = [(m - (count + 1) // 2, m - 1)] + [(0, count // 2 - 1)] * (count > 1)
    wanted = {**ranges, "both": ends}.get(which, [(0, m - 1)])
    parts = [_eigh(square, width, *pair, last=pair is wanted[-1]) for pair in wanted]
    order = 1 if which == "smallest" else -1
    values = np.concatenate([values[::order] for values, _ in parts])
    vectors = parts[0][1][:, ::order]
    if len(parts) > 1:
        vectors = np.concatenate([vectors, parts[1][1][:, ::order]], 1)
    if which == "magnitude":
        leading = np.argsort(-np.abs(values), kind="stable")[:count]
        values, vectors = values[leading], vectors[:, leading]
    return Ritz(values, vectors, np.linalg.norm(pending.T @ vectors, axis=0))


def projected(state: State) -> tuple[np.ndarray, np.ndarray]:
    """T [m, m], its diagonal and what lies below, and the coupling [m, w] to waiting vectors.

    In the order that LAPACK overwrites without a copy: with 10,000 vectors one takes 0.8 GB.
    """
    p, m, size = len(state.kept), multiplied(state), int(state.size)
    square, pending = np.zeros((m, m), order="F"), np.zeros((m, size - m))
    square[np.arange(p), np.arange(p)] = state.kept

    def fill(vectors: Any, first: int, values: np.ndarray) -> None:
        inside = max(0, min(m, first + len(values)) - first)
        square[first : first + inside, vectors] = values[:inside]
        rest = values[inside : size - first]
        pending[vectors, : len(rest)] = rest.T

    fill(slice(0, p), p, state.coupling.T)
    for row, (first, values) in enumerate(zip(state.first, state.band, strict=True)):
        place = p + row
        fill(place, place, values[place - first :])
    return square, pending


def _eigh(
    square: np.ndarray, width: int, low: int, high: int, *, last: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Eigenpairs low … high, ascending; a tridiagonal problem the quick way; `last` uses it up."""
    if len(square) > 2 and width == 1:
        diagonals = np.diag(square), np.diag(square, -1)
        return scipy.linalg.eigh_tridiagonal(*diagonals, select="i", select_range=(low, high))
    return scipy.linalg.eigh(
        square, subset_by_index=(low, high), check_finite=False, overwrite_a=last
    )


def bandwidth(state: State) -> int:
    """Diagonals below the main one that the projected operator has elements on; all if in doubt."""
    if len(state.kept) or not len(state.band):
        return multiplied(state)
    below = state.band.shape[1] - 1 - (np.arange(len(state.band)) - state.first)
    return int(below.max())


def expected_products(state: State, count: int) -> np.ndarray:
    """The elements [m, count] of A between the m multiplied vectors and the next ones to be."""
    p, m = len(state.kept), multiplied(state)
    columns = m + np.arange(count)
    expected = np.zeros((m, count))
    if p:
        inside = columns - p < state.coupling.shape[1]
        expected[:p, inside] = state.coupling[:, columns[inside] - p]
    if len(state.band):
        places = columns - state.first[:, None]
        width = state.band.shape[1]
        values = np.take_along_axis(state.band, np.minimum(places, width - 1), 1)
        expected[p:] = np.where(places < width, values, 0)
    return expected
