"""Which eigenpairs a solve wants, and when it has them."""

from typing import NamedTuple

import numpy as np

from antisgd import inputs
from antisgd.lanczos.projection import ORDERS, Ritz, State, multiplied

__all__ = [
    "Goal", "Verdict", "allowed", "beyond_last", "check_due", "judge", "make_goal",
    "number_beyond", "unwanted",
]  # fmt: skip


class Goal(NamedTuple):
    """k pairs at the end `which`, or fewer: those beyond a threshold; residuals by tolerance."""

    k: int
    which: str
    tolerance: float
    threshold: float | None


class Verdict(NamedTuple):
    """Ritz pairs that are wanted, those of them that converged, and whether that is all."""

    wanted: int
    converged: int
    complete: bool


def make_goal(
    dimension: int, k: int, which: str, tolerance: float, threshold: float | None
) -> Goal:
    """A goal that makes sense, or a ValueError."""
    if which not in ORDERS:
        raise ValueError(f"which must be one of {', '.join(ORDERS)}, got {which!r}")
    k, dimension = inputs.count("k", k, 0), inputs.count("dimension", dimension)
    if not 1 <= k <= dimension:
        raise ValueError(f"cannot give {k} eigenpairs in {dimension} dimensions")
    if not inputs.number("tolerance", tolerance) > 0:
        raise ValueError(f"the tolerance must be positive, got {tolerance}")
    if threshold is not None:
        threshold = inputs.number("threshold", threshold)
    if threshold is not None and which == "both":
        raise ValueError("a threshold needs one end: largest, smallest or magnitude")
    return Goal(k, which, tolerance, threshold)


def allowed(values: np.ndarray, goal: Goal, state: State) -> np.ndarray:
    """The residual at which a pair counts as converged: at most the tolerance or the noise floor.

    The floor is twice the noise of a product, which enters by the vector and by its residual.
    """
    return np.maximum(goal.tolerance * np.abs(values), 2 * state.noise)


def judge(pairs: Ritz, goal: Goal, state: State) -> Verdict:
    """Looks at the k + 1 most wanted Ritz pairs (with a threshold the next one must be known)."""
    good = pairs.bounds <= allowed(pairs.values, goal, state)
    wanted = min(goal.k, len(pairs.values))
    settled = wanted == goal.k
    if goal.threshold is not None:
        beyond = np.flatnonzero(~_on_side(pairs.values, goal.which, goal.threshold))
        if len(beyond) and beyond[0] < goal.k:
            wanted = int(beyond[0])
            surely = ~_on_side(pairs.values, goal.which, goal.threshold, pairs.bounds)
            settled = bool(good[wanted] or surely[wanted])
    return Verdict(wanted, int(good[:wanted].sum()), bool(settled and good[:wanted].all()))


def number_beyond(values: np.ndarray, goal: Goal) -> int:
    """How many of the values, the most wanted first, lie beyond the threshold; k without one."""
    if goal.threshold is None:
        return goal.k
    beyond = np.flatnonzero(~_on_side(values, goal.which, goal.threshold))
    return min(goal.k, int(beyond[0])) if len(beyond) else goal.k


def check_due(state: State, k: int, *, glances: bool = False) -> bool:
    """Whether a look at the Ritz pairs is worth it; the state alone decides.

    Hardly ever do more than two pairs converge a product, so far from the end a look is wasted.
    A whole one, some m³ operations, takes minutes with thousands of vectors, hundreds of products
    on an accelerator seconds; a glance takes seconds.
    """
    m = multiplied(state)
    if m < min(k + state.block_size, state.dimension):
        return False
    if not len(state.history):
        return True
    last, converged = state.history[-1]
    if state.products == last:
        return True
    pause = m // 128 if glances else max(min(m // 32, m**2 // 2**15), m**2 // 2**17)
    pause = max(state.block_size, pause, (k - converged) // 2)
    return bool(state.products >= last + pause * (converged >= 0))


def beyond_last(found: np.ndarray, values: np.ndarray, goal: Goal, state: State) -> np.ndarray:
    """Which eigenvalues found elsewhere belong among the wanted `values`, errors allowed for."""
    if goal.which == "both":
        upper = (len(values) + 1) // 2
        above = _passes(found, values[upper - 1], "largest", goal, state)
        if len(values) == 1:
            return above
        return above | _passes(found, values[upper], "smallest", goal, state)
    last = values[-1] if goal.threshold is None or len(values) == goal.k else goal.threshold
    return _passes(found, last, goal.which, goal, state)


def unwanted(values: np.ndarray, goal: Goal, state: State) -> float:
    """A value far from all that are wanted."""
    if goal.which == "both" and len(values) > 1:
        upper = (len(values) + 1) // 2
        return float(values[upper - 1] + values[upper]) / 2
    return {"smallest": 1.5, "magnitude": 0.0}.get(goal.which, -1.5) * float(state.scale)


def _passes(found: np.ndarray, last: float, which: str, goal: Goal, state: State) -> np.ndarray:
    return _on_side(found, which, last, -max(goal.tolerance * abs(last), float(state.noise)))


def _on_side(values: np.ndarray, which: str, threshold: float, margin=0.0) -> np.ndarray:
    """Which values lie on the wanted side of a threshold, or may for errors of margin."""
    if which == "smallest":
        return values - margin < threshold
    if which == "largest":
        return values + margin > threshold
    return np.abs(values) + margin > abs(threshold)
