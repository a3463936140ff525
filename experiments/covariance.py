"""The noise covariance against the Hessian: Fig. 13 and 14, App. L, Eq. 108."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from antisgd import plotting, results, statistics, trajectory
from experiments import training
from experiments.comparison import exponent_row, median_row, row

FLAGS = flags.FLAGS


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
    problem: training.Problem, params: Any, directions: np.ndarray, noise: np.ndarray, folder: Path
) -> Covariances:
    """Both covariances; that of the examples is kept in covariance.npz.

    Args:
        problem: model, loss and pictures.
        params: θ_K.
        directions: eigenvectors, [k, d].
        noise: recorded along them, [T, k].
        folder: of the run.
    """
    path, k = folder / "covariance.npz", len(directions)
    if not path.exists() or len(results.read_arrays(path)["examples"]) < k:
        gradients = trajectory.example_gradients(
            problem.loss,
            params,
            problem.dataset.train,
            jnp.asarray(directions),
            microbatch_size=min(FLAGS.microbatch_size, 100),
        )
        scale = 1 / FLAGS.batch_size - 1 / problem.num_examples
        gradients = np.asarray(jax.device_get(gradients), np.float64)
        gradients -= gradients.mean(axis=0)
        covariance = scale * (gradients.T @ gradients) / (len(gradients) - 1)
        results.write_arrays(path, examples=covariance)
    noise = np.asarray(noise, np.float64)
    recorded = noise.T @ noise / len(noise)
    return Covariances(recorded, results.read_arrays(path)["examples"][:k, :k])


def rows(found: Covariances, eigenvalues: np.ndarray, steps: int) -> list[dict[str, Any]]:
    """Alignment of C with H, the power law of Fig. 14, and Eq. 108."""
    k = len(eigenvalues)
    made = []
    for name, covariance in found._asdict().items():
        aligned = statistics.alignment(covariance, eigenvalues)
        biased = name == "recorded"
        note = f"{steps} steps" if biased else "per-example gradients at theta_K"
        note += f" in {k} of the paper's 5,000 directions" if k < 5000 else ""
        made += _alignment_rows(name, aligned, eigenvalues, note)
    ratio = np.diag(found.recorded) / np.diag(found.examples)
    quantity = "recorded noise variance over (1/S - 1/N) C_0 at theta_K, median"
    changed = median_row("recorded_over_example_noise", "Assumption 2", quantity, ratio)
    changed["note"] = "1 if the noise did not change over the period; error over directions"
    return [*made, changed]


def _alignment_rows(
    name: str, aligned: statistics.Alignment, eigenvalues: np.ndarray, note: str
) -> list[dict[str, Any]]:
    k, recorded = len(eigenvalues), name == "recorded"
    random = statistics.random_cosine_similarity(aligned.own_variances, eigenvalues, k)
    made = [
        row(
            f"cosine_similarity_{name}",
            "App. L",
            "cosine similarity of the noise covariance and the Hessian",
            aligned.cosine,
            paper=0.82 if recorded else None,
            n=k,
            note=f"{note}; the same spectra in random relative orientation {random:.2g}",
        ),
        row(
            f"commutator_{name}",
            "App. L",
            "commutator of the noise covariance and the Hessian, relative Frobenius norm",
            aligned.commutator,
            n=k,
            note=f"{note}; 0 if they commute, at most 1.41",
        ),
    ]
    positive = eigenvalues > 0
    if positive.sum() >= 3:
        law = statistics.fit_power_law(eigenvalues[positive], aligned.hessian_variances[positive])
        paper = {"paper": 1.075, "paper_error": 0.001} if recorded else {}
        quantity = "exponent of the noise variance against the Hessian eigenvalue"
        identifier = f"noise_exponent_{name}"
        made.append(exponent_row(identifier, "Fig. 14", quantity, law, note=f"; {note}", **paper))
    return made


def figures(found: Covariances, eigenvalues: np.ndarray, unconverged: np.ndarray) -> dict[str, Any]:
    """Fig. 13 from both covariances, and Fig. 14 from the recorded one."""
    titles = {"recorded": "recorded noise", "examples": "per-example gradients"}
    alignments = {
        titles[name]: statistics.alignment(covariance, eigenvalues)
        for name, covariance in found._asdict().items()
    }
    panels = {"fig13": plotting.leading_variances(alignments)}
    positive = eigenvalues > 0
    if positive.sum() >= 3:
        x, y = eigenvalues[positive], np.diag(found.recorded)[positive]
        span = np.array([x.min(), x.max()])
        fit = statistics.fit_power_law(x, y)
        panels["fig14"] = plotting.noise_against_curvature(x, y, fit, span, unconverged[positive])
    return panels
