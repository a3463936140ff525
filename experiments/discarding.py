"""Fig. 11 and App. J: what is left of the network without its leading Hessian directions."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.flatten_util import ravel_pytree

from antisgd import objective, plotting, results, trajectory
from experiments import training
from experiments.comparison import row

FLAGS = flags.FLAGS

# Numbers of discarded directions at which the accuracy is evaluated, besides λ_cross and all.
EVALUATIONS = 40
# The paper's accuracies at 0, 35 (those above λ_cross), 5,000 and 7,000 directions.
PAPER = {0: 0.63, 35: 0.54, 5000: 0.44, 7000: 0.10}


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
    problem: training.Problem,
    params: Any,
    vectors: np.ndarray,
    eigenvalues: np.ndarray,
    folder: Path,
) -> Discarding:
    """Accuracy of θ − Σ_{i≤n} (p_i·θ) p_i for n up to k, by blocks between the n evaluated.

    Args:
        problem: model and pictures.
        params: θ_K.
        vectors: eigenvectors by descending eigenvalue, [k, d].
        eigenvalues: [k].
        folder: of the run; keeps discard.npz.
    """
    path = folder / "discard.npz"
    if path.exists() and results.read_arrays(path)["counts"][-1] == len(vectors):
        return Discarding(**results.read_arrays(path))
    theta, restore = ravel_pytree(params)
    above = int(np.sum(eigenvalues > training.crossover(problem)))
    counts = _counts(len(vectors), above)
    test = problem.dataset.test
    evaluate = jax.jit(
        lambda flat, examples: objective.evaluate(problem.apply, restore(flat), examples)
    )
    projections = np.zeros(len(vectors), np.float32)
    accuracies, left = [float(evaluate(theta, test).accuracy)], theta
    for low, high in zip(counts[:-1], counts[1:], strict=True):
        block = jnp.asarray(vectors[low:high])
        part = trajectory.project(block, theta[None])
        projections[low:high] = part[0]
        left = left - trajectory.project(block.T, part)[0]
        accuracies.append(float(evaluate(left, test).accuracy))
    deviation = float(jnp.linalg.norm(theta) / theta.size**0.5)
    found = Discarding(counts, np.array(accuracies), projections, deviation)
    results.write_arrays(path, **found._asdict())
    # As the file holds it, types included: a run that goes on from here reads the same.
    return Discarding(**results.read_arrays(path))


def _counts(k: int, above: int) -> np.ndarray:
    """Numbers of discarded directions: dense among the first, the paper's, then even."""
    even = np.linspace(0, k, min(k, EVALUATIONS) + 1).astype(int)
    named = [above, *range(11), *PAPER]
    return np.unique([n for n in [*even, *named] if n <= k])


def rows(problem: training.Problem, found: Discarding, eigenvalues: np.ndarray):
    """Accuracy at the paper's numbers of directions, at λ_cross and at the end."""
    n_test = problem.dataset.test.labels.shape[0]
    above = int(np.sum(eigenvalues > training.crossover(problem)))
    wanted = dict.fromkeys([0, above, *PAPER, int(found.counts[-1])])
    made = []
    for n in sorted(wanted):
        place = np.flatnonzero(found.counts == n)
        if not place.size:
            continue
        accuracy = found.accuracies[place[0]]
        made.append(
            row(
                f"accuracy_without_{n}",
                "Fig. 11",
                f"test accuracy without the {n} leading eigenvectors",
                accuracy,
                np.sqrt(accuracy * (1 - accuracy) / n_test),
                paper=PAPER.get(n),
                n=n_test,
                note="all above the crossover" if n == above < len(eigenvalues) else "",
            )
        )
    largest = np.abs(found.projections).max() / found.deviation
    quantity = "largest |p_i theta| over the standard deviation of a random vector's"
    made.append(row("largest_projection", "Fig. 11", quantity, largest, n=len(found.projections)))
    return made


def figure(
    problem: training.Problem, found: Discarding, eigenvalues: np.ndarray, unconverged: np.ndarray
):
    """Fig. 11."""
    return plotting.discarded_directions(
        found.counts, found.accuracies, eigenvalues, found.projections, training.crossover(problem),
        found.deviation, unconverged=unconverged,
    )  # fmt: skip
