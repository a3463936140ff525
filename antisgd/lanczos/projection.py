"""The state of a solve and the projected problem in it, solved in float64 on the host."""

from typing import NamedTuple

import numpy as np
import scipy.linalg

from antisgd import devices, display
from antisgd.lanczos.basis import Basis, mesh_of

__all__ = ["ORDERS", "Ritz", "State", "expected_products", "multiplied", "projected", "ritz"]

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
    m = len(square)
    count = min(count, m)
    ranges = {"largest": [(m - count, m - 1)], "smallest": [(0, count - 1)]}
    ends = [(m - (count + 1) // 2, m - 1)] + [(0, count // 2 - 1)] * (count > 1)
    parts = [_eigh(square, *pair) for pair in {**ranges, "both": ends}.get(which, [(0, m - 1)])]
    order = 1 if which == "smallest" else -1
    values = np.concatenate([values[::order] for values, _ in parts])
    vectors = np.concatenate([vectors[:, ::order] for _, vectors in parts], 1)
    if which == "magnitude":
        leading = np.argsort(-np.abs(values), kind="stable")[:count]
        values, vectors = values[leading], vectors[:, leading]
    return Ritz(values, vectors, np.linalg.norm(pending.T @ vectors, axis=0))


def projected(state: State) -> tuple[np.ndarray, np.ndarray]:
    """T [m, m] and the coupling [m, w] of multiplied to waiting vectors."""
    p, m, size = len(state.kept), multiplied(state), int(state.size)
    upper = np.zeros((m, size))
    upper[np.arange(p), np.arange(p)] = state.kept
    upper[:p, p : p + state.coupling.shape[1]] = state.coupling
    for row, (first, values) in enumerate(zip(state.first, state.band, strict=True)):
        stop = min(size, first + len(values))
        upper[p + row, first:stop] = values[: stop - first]
    square = np.triu(upper[:, :m])
    return square + np.triu(square, 1).T, upper[:, m:]


def _eigh(square: np.ndarray, low: int, high: int) -> tuple[np.ndarray, np.ndarray]:
    """Eigenpairs low … high, ascending; a tridiagonal problem the quick way."""
    if len(square) > 2 and not np.triu(square, 2).any():
        diagonals = np.diag(square), np.diag(square, 1)
        return scipy.linalg.eigh_tridiagonal(*diagonals, select="i", select_range=(low, high))
    return scipy.linalg.eigh(square, subset_by_index=(low, high), check_finite=False)


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
