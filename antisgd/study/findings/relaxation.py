"""A minimum that is not reached: its noise-free path taken off; what bends beyond (Sec. 5.3)."""

import numpy as np

from antisgd import relaxation, theory
from antisgd.study.conditions import Conditions
from antisgd.study.findings.rows import Rows, mean_row, median_row
from antisgd.study.stages.period import Recording

__all__ = ["rows", "velocity_before"]

# Directions that are looked at, spread evenly over those found; parts of the test of T⁴ against M.
_DIRECTIONS, _PARTS = 200, 4


def rows(conditions: Conditions, recorded: Recording, eigenvalues: np.ndarray, scheme: str) -> Rows:
    """Correlation time with the relaxation from θ_K subtracted; the share of what bends as T⁴.

    Args:
        conditions: of the period.
        recorded: the period.
        eigenvalues: of all directions, [k].
        scheme: of the period.
    """
    rated = conditions.learning_rate * eigenvalues
    usable = np.flatnonzero((rated > 0) & (rated < 2 * (1 + conditions.momentum)))
    if usable.size < 3:
        return []
    few = np.linspace(0, usable.size - 1, min(_DIRECTIONS, usable.size)).astype(int)
    made = [_relaxed_row(conditions, recorded, eigenvalues, usable[few], scheme)]
    # The law of a later part is that of the first only where the scheme is that of training.
    long = conditions.epochs >= 2 * _PARTS and not conditions.epochs % _PARTS
    if scheme == conditions.training_scheme and long:
        made.append(_bend_row(conditions, recorded, eigenvalues, usable[few], scheme))
    return made


def velocity_before(conditions: Conditions, recorded: Recording, chosen: np.ndarray) -> np.ndarray:
    """P v_K along some directions, by Eq. 1 backwards from the first step, [n]; zero for β = 0."""
    rate, beta = conditions.learning_rate, conditions.momentum
    force = recorded.anchor_gradients[0][chosen] + recorded.trajectory.noise[0][chosen]
    first = recorded.trajectory.velocities[0][chosen]
    return (first + rate * force) / beta if beta else np.zeros_like(first)


def _relaxed_row(conditions, recorded: Recording, eigenvalues, chosen, scheme: str):
    rate, beta = conditions.learning_rate, conditions.momentum
    weights, velocities, _ = (part[:, chosen] for part in recorded.trajectory)
    slope, lam = recorded.anchor_gradients[0][chosen], eigenvalues[chosen]
    before = velocity_before(conditions, recorded, chosen)
    rates = np.full(len(velocities), rate)
    x, v = relaxation.remove_relaxation(weights, velocities, lam, slope, before, rates, beta)
    expected = theory.relaxed_window_variances(lam, rates, beta, conditions.noise_law(scheme))
    ratio = 2 * x.var(axis=0) / v.var(axis=0) / expected.correlation_time
    made = median_row(
        f"tau_over_relaxed_{scheme}", "Sec. 5.3",
        "correlation time over theory, the noise-free path from theta_K subtracted, median", ratio,
    )  # fmt: skip
    return made | {"note": "in place of the straight line; the theory of a window from rest"}


def _bend_row(conditions, recorded: Recording, eigenvalues, chosen, scheme: str):
    """T⁴ against M: a bent drift grows so, the fluctuation as theory says."""
    law, steps = conditions.noise_law(scheme), len(recorded.trajectory.velocities)
    arguments = (eigenvalues[chosen], conditions.learning_rate, conditions.momentum, law)
    whole, part = (
        theory.window_variances(*arguments, length, drift="line").weight
        for length in (steps, steps // _PARTS)
    )
    found = relaxation.bend(recorded.trajectory.weights[:, chosen], _PARTS, whole / part)
    quantity = "share of the weight variance that grows with the window as T^4, mean"
    note = f"0 without a bent drift; the period against its {_PARTS} parts, lines removed"
    return mean_row(f"bend_share_{scheme}", "Sec. 5.3", quantity, found.share, note=note)
