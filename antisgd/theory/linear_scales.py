"""The two scales of Sec. 4.3 and the edge of stability for any linear optimiser.

Beyond the paper, which treats heavy ball.
"""

from typing import NamedTuple

import numpy as np

from antisgd import inputs
from antisgd.theory.linear import LinearOptimizer

__all__ = ["LinearScales", "linear_scales", "stability_edge"]

# Curvatures among which the edge is looked for, in units of one over the largest of dA/dλ.
_CURVATURES = np.geomspace(1e-6, 1e6, 1201)


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


def stability_edge(optimizer: LinearOptimizer) -> float:
    """The curvature from which on the steps grow: the smallest λ where A(λ) has radius 1.

    2(1+β)/η for heavy ball, 2(1+β)/(η(1+2β)) for Nesterov; found by bisection.

    Args:
        optimizer: A and b.

    Returns:
        λ > 0; inf where no curvature makes the steps grow.
    """
    unit = np.abs(optimizer.curved).max()
    if unit == 0:
        return np.inf
    curvatures = _CURVATURES / unit
    grows = _radius(optimizer, curvatures) >= 1
    if not grows.any():
        return np.inf
    place = int(np.argmax(grows))
    low, high = (curvatures[place - 1] if place else 0.0), curvatures[place]
    for _ in range(60):
        middle = (low + high) / 2
        if _radius(optimizer, np.array([middle]))[0] >= 1:
            high = middle
        else:
            low = middle
    return float(high)


def _radius(optimizer: LinearOptimizer, curvatures: np.ndarray) -> np.ndarray:
    A = optimizer.free + curvatures[:, None, None] * optimizer.curved
    return np.abs(np.linalg.eigvals(A)).max(axis=1)
