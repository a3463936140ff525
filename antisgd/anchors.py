"""The full gradient along eigenvectors from a quadratic model, corrected where it is known."""

from typing import NamedTuple

import numpy as np

from antisgd import display

__all__ = ["FullGradientModel", "quadratic_full_gradient"]


class FullGradientModel(NamedTuple):
    """The quadratic model of the full gradient, and how wrong it was at the anchors.

    Attributes:
        gradients: modelled P∇L(θ_{k−1}) at every step, [T, k].
        raw_error: root mean square over anchors of exact − quadratic, [k].
        remaining_error: the same after the correction, each inner anchor predicted from its
            neighbours, [k]; nan with fewer than three anchors.
    """

    gradients: np.ndarray
    raw_error: np.ndarray
    remaining_error: np.ndarray

    def __repr__(self) -> str:
        return display.described(self)


def quadratic_full_gradient(
    eigenvalues: np.ndarray,
    weights: np.ndarray,
    anchor_steps: np.ndarray,
    anchor_gradients: np.ndarray,
) -> FullGradientModel:
    """Full gradient along eigenvectors from the quadratic model, corrected at anchors.

    P∇L(θ) ≈ Λ P(θ − θ_K) + P∇L(θ_K); the difference to the exact gradient at the anchor steps
    is interpolated linearly in time and added. Beyond the paper, which computes the full
    gradient at every step.

    Args:
        eigenvalues: λ, [k], at θ_K.
        weights: P(θ_k − θ_K), [T + 1, k].
        anchor_steps: increasing step indices into `weights`, the first one 0, the last one T.
        anchor_gradients: exact P∇L there, [anchors, k].

    Raises:
        ValueError: anchors that do not begin at 0 and end at T.
    """
    num_steps = weights.shape[0] - 1
    if anchor_steps[0] != 0 or anchor_steps[-1] != num_steps:
        raise ValueError(f"the anchors must run from step 0 to step {num_steps}")
    error = anchor_gradients - (eigenvalues * weights[anchor_steps] + anchor_gradients[0])
    steps = np.arange(num_steps)
    after = np.searchsorted(anchor_steps, steps, side="right")
    share = (steps - anchor_steps[after - 1]) / np.diff(anchor_steps)[after - 1]
    correction = error[after - 1] + share[:, None] * (error[after] - error[after - 1])
    gradients = eigenvalues * weights[:-1] + anchor_gradients[0] + correction
    return FullGradientModel(
        gradients,
        np.sqrt(np.mean(error[1:] ** 2, axis=0)),
        _left_out_error(anchor_steps, error),
    )


def _left_out_error(anchor_steps: np.ndarray, error: np.ndarray) -> np.ndarray:
    if len(anchor_steps) < 3:
        return np.full(error.shape[1], np.nan)
    before, here, after = anchor_steps[:-2], anchor_steps[1:-1], anchor_steps[2:]
    share = ((here - before) / (after - before))[:, None]
    predicted = (1 - share) * error[:-2] + share * error[2:]
    return np.sqrt(np.mean((error[1:-1] - predicted) ** 2, axis=0))
