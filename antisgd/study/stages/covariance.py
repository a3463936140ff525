"""The noise covariance along the eigenvectors, from the recording and from single gradients."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from antisgd import devices, results, trajectory
from antisgd.study.problem import Problem
from antisgd.study.settings import Settings

__all__ = ["Covariances", "find", "of_examples"]

# Per-example gradients are held so many at a time.
MOST_GRADIENTS = 100


class Covariances(NamedTuple):
    """The covariance of the noise along the k eigenvectors, [k, k], found in two ways.

    Attributes:
        recorded: of the noise of the analysis period without replacement, as in App. L.
        examples: (1/S − 1/N) C₀ of the per-example gradients at θ_K (Eq. 108): no trajectory,
            no bias from a few steps in many dimensions.
    """

    recorded: np.ndarray
    examples: np.ndarray


def find(
    problem: Problem,
    settings: Settings,
    params: Any,
    directions: np.ndarray,
    noise: np.ndarray,
    folder: Path,
) -> Covariances:
    """Both covariances; that of the examples is kept in covariance.npz.

    Args:
        problem: loss and examples.
        settings: for S.
        params: θ_K.
        directions: eigenvectors, [k, d].
        noise: recorded along them, [T, k].
        folder: of the network.
    """
    path, k = folder / "covariance.npz", len(directions)
    if not results.exists(path) or len(results.read_arrays(path)["examples"]) < k:
        results.write_arrays(path, examples=of_examples(problem, settings, params, directions))
    noise = np.asarray(noise, np.float64)
    recorded = noise.T @ noise / len(noise)
    return Covariances(recorded, results.read_arrays(path)["examples"][:k, :k])


def of_examples(
    problem: Problem, settings: Settings, params: Any, directions: np.ndarray
) -> np.ndarray:
    """(1/S − 1/N) C₀ along the directions [k, d] from per-example gradients (Eq. 108), [k, k]."""
    mesh = devices.mesh()
    gradients = trajectory.example_gradients(
        problem.loss,
        params,
        problem.train,
        devices.columns(directions, mesh),
        microbatch_size=min(settings.microbatch, MOST_GRADIENTS),
        mesh=mesh,
    )
    scale = 1 / settings.batch_size - 1 / problem.num_examples
    each = np.array(devices.fetched(gradients), np.float64)
    each -= each.mean(axis=0)
    return scale * (each.T @ each) / (len(each) - 1)
