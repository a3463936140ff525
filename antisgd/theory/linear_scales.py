"""The two scales of Sec. 4.3 for any linear optimiser (beyond the paper)."""

from typing import NamedTuple

import numpy as np

from antisgd import inputs
from antisgd.theory.linear import LinearOptimizer

__all__ = ["LinearScales", "linear_scales"]


class LinearScales(NamedTuple):
    """Where reshuffled noise stops to reach the weights, and how long it is remembered there.

    Attributes:
        effective_learning_rate: η_eff, what a unit of gradient moves a flat direction in the end.
        crossover: λ_cross = 3/(M η_eff); 3(1−β)/(Mη) for heavy ball (Eq. 109b).
        max_correlation_time: τ_SGD, update steps; M/3·(1+β)/(1−β) for heavy ball (Eq. 109a).
    """

    effective_learning_rate: float
    crossover: float
    max_correlation_time: float


def linear_scales(optimizer: LinearOptimizer, steps_per_epoch: int) -> LinearScales:
    """η_eff, λ_cross and τ_SGD of a linear optimiser, in the limit of long epochs.

    In a flat direction 2V_θ/V_v → τ_SGD = M η_eff²/(3 V_v), with V_θ = η_eff² M/6 of reshuffled
    and V_v of white noise, per unit noise variance. Weight decay is left out of both: it acts as
    further curvature.

    Args:
        optimizer: A and b.
        steps_per_epoch: M.

    Raises:
        ValueError: an optimiser whose own state does not forget, or an epoch of less than a step.
    """
    M = inputs.count("steps_per_epoch", steps_per_epoch, 1)
    # The optimiser's own state y_k = D y_{k−1} + b n_k, θ_k − θ_{k−1} = c·y_{k−1} + b_0 n_k.
    c, D = optimizer.free[0, 1:], optimizer.free[1:, 1:]
    first, b = optimizer.response[0], optimizer.response[1:]
    n = len(b)
    if n and not np.abs(np.linalg.eigvals(D)).max() < 1:
        raise ValueError("the optimiser's own state does not forget: there is no flat limit")
    moved = first + c @ np.linalg.solve(np.eye(n) - D, b)
    y = np.linalg.solve(np.eye(n * n) - np.kron(D, D), np.outer(b, b).ravel()).reshape(n, n)
    velocity = first**2 + c @ y @ c
    rate = float(abs(moved))
    return LinearScales(rate, 3 / (M * rate), float(M * rate**2 / (3 * velocity)))
