"""What is left of the network without its leading Hessian directions (Fig. 11, App. J)."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from antisgd import results, trajectory
from antisgd.study.problem import Problem

__all__ = ["MARKED", "Discarding", "discard"]

# Numbers of discarded directions at which the accuracy is evaluated, besides λ_cross and all.
EVALUATIONS = 40
# The numbers that are named in every run, those of the paper's text.
MARKED = (0, 35, 5000, 7000)


class Discarding(NamedTuple):
    """Test accuracy without the leading eigenvectors.

    Attributes:
        counts: how many are projected out of θ, increasing, [n].
        accuracies: of the test pictures, fractions, [n].
        projections: p_i·θ, [k].
        deviation: ‖θ‖/√d, the standard deviation of a random vector's projection.
    """

    counts: np.ndarray
    accuracies: np.ndarray
    projections: np.ndarray
    deviation: float


def discard(
    problem: Problem,
    params: Any,
    vectors: np.ndarray,
    eigenvalues: np.ndarray,
    crossover: float,
    folder: Path,
) -> Discarding:
    """Accuracy of θ − Σ_{i≤n} (p_i·θ) p_i for n up to k, by blocks between the n evaluated.

    Args:
        problem: with test examples and a metric "accuracy".
        params: θ_K.
        vectors: eigenvectors by descending eigenvalue, [k, d].
        eigenvalues: [k].
        crossover: λ_cross; the number of eigenvalues above it is one of the n.
        folder: of the network; keeps discard.npz.
    """
    path = folder / "discard.npz"
    if results.exists(path) and results.read_arrays(path)["counts"][-1] == len(vectors):
        return _read(path)
    theta, restore = ravel_pytree(params)
    counts = _counts(len(vectors), int(np.sum(eigenvalues > crossover)))
    evaluate = jax.jit(lambda flat, examples: problem.evaluate(restore(flat), examples)["accuracy"])
    projections = np.zeros(len(vectors), np.float32)
    accuracies, left = [float(evaluate(theta, problem.test))], theta
    for low, high in zip(counts[:-1], counts[1:], strict=True):
        block = jnp.asarray(vectors[low:high])
        part = trajectory.project(block, theta[None])
        projections[low:high] = part[0]
        left = left - trajectory.project(block.T, part)[0]
        accuracies.append(float(evaluate(left, problem.test)))
    deviation = float(jnp.linalg.norm(theta) / theta.size**0.5)
    found = Discarding(counts, np.array(accuracies), projections, deviation)
    results.write_arrays(path, **found._asdict())
    # As the file holds it, types included: a run that goes on from here reads the same.
    return _read(path)


def _read(path: Path) -> Discarding:
    arrays: dict[str, Any] = results.read_arrays(path)
    return Discarding(**arrays)


def _counts(k: int, above: int) -> np.ndarray:
    """Numbers of discarded directions: dense among the first, the marked ones, then even."""
    even = np.linspace(0, k, min(k, EVALUATIONS) + 1).astype(int)
    named = [above, *range(11), *MARKED]
    return np.unique([n for n in [*even, *named] if n <= k])
