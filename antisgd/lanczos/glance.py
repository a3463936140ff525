"""A glance at thousands of Ritz pairs: how many have converged, without their eigenvectors.

A solve of the projected problem of m vectors takes some m³ operations, minutes for m of 10,000.
In a solve that never restarted it is a band of w diagonals: all its eigenvalues take w m²
operations, the eigenvector of one w² m, and those of a few tell how far the convergence is.
"""

from typing import NamedTuple

import numpy as np
import scipy.linalg

from antisgd.lanczos.goal import Goal, allowed, number_beyond
from antisgd.lanczos.projection import State, bandwidth, multiplied

__all__ = ["Band", "band", "converged", "is_band", "values", "vectors"]

# Basis vectors from which on a solve of the projected problem is worth avoiding.
_MANY = 512
# The pairs that converge last, a share of all and some: they all have to have before a solve of
# the projected problem is tried.
_LAST, _LAST_SHARE = 8, 1 / 16


class Band(NamedTuple):
    """The projected operator, the main diagonal and those below it, [w + 1, m], each from its
    column on; pending [m, c], the coupling to the vectors that wait."""

    diagonals: np.ndarray
    pending: np.ndarray


def is_band(state: State, which: str) -> bool:
    """Whether a glance is possible and worth it; at 'both' ends it would not tell which is last."""
    m = multiplied(state)
    return which != "both" and m >= _MANY and 16 * bandwidth(state) <= m


def band(state: State) -> Band:
    """The projected operator of a solve that never restarted."""
    m, width = multiplied(state), bandwidth(state)
    diagonals, pending = np.zeros((width + 1, m)), np.zeros((m, int(state.size) - m))
    for row, (first, elements) in enumerate(zip(state.first, state.band, strict=True)):
        found = elements[row - first :][: int(state.size) - row]
        inside = min(m - row, len(found))
        diagonals[:inside, row] = found[:inside]
        pending[row, : len(found) - inside] = found[inside:]
    return Band(diagonals, pending)


def values(problem: Band, which: str, count: int) -> np.ndarray:
    """The `count` most wanted Ritz values, in the order of `ritz`."""
    ascending = scipy.linalg.eig_banded(
        problem.diagonals, lower=True, eigvals_only=True, check_finite=False
    )
    if which == "magnitude":
        return ascending[np.argsort(-np.abs(ascending), kind="stable")[:count]]
    return ascending[:count] if which == "smallest" else ascending[::-1][:count]


def vectors(problem: Band, chosen: np.ndarray) -> np.ndarray:
    """Eigenvectors of Ritz values, [m, c], by inverse iteration: of a cluster some one in it."""
    (rows, m), width = problem.diagonals.shape, len(problem.diagonals) - 1
    both_sides = np.zeros((2 * width + 1, m))
    both_sides[width:] = problem.diagonals
    for i in range(1, rows):
        both_sides[width - i, i:] = problem.diagonals[i, : m - i]
    # Beside the eigenvalue, where the matrix can be inverted.
    beside = 4 * np.finfo(float).eps * np.abs(problem.diagonals).sum(0).max()
    start, found = np.random.default_rng(0).normal(size=m), np.zeros((m, len(chosen)))
    for index, value in enumerate(chosen):
        shifted, vector = both_sides.copy(), start
        shifted[width] -= value + beside
        for _ in range(2):
            vector = scipy.linalg.solve_banded((width, width), shifted, vector, check_finite=False)
            vector = vector / np.linalg.norm(vector)
        found[:, index] = vector
    return found


def converged(problem: Band, found: np.ndarray, goal: Goal, state: State) -> tuple[int, int]:
    """How many of the wanted Ritz values `found` belong to converged pairs, and of how many.

    By bisection, as if the more wanted converged first. Where the last ones have converged all
    are said to have, which a solve of the projected problem has to confirm.
    """

    def good(index: int) -> bool:
        value = found[[index]]
        bound = np.linalg.norm(problem.pending.T @ vectors(problem, value), axis=0)
        return bool((bound <= allowed(value, goal, state)).all())

    wanted = min(len(found), number_beyond(found, goal))
    last = min(wanted, max(_LAST, int(_LAST_SHARE * wanted)))
    if all(good(index) for index in range(wanted - 1, wanted - 1 - last, -1)):
        return wanted, wanted
    low, high = 0, wanted - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if good(middle) else (low, middle)
    return low, wanted
