"""The noise covariance along the eigenvectors, from the recording and from single gradients."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from antisgd import devices, results, statistics, streaming
from antisgd.study.conditions import conditions_of
from antisgd.study.problem import Problem
from antisgd.study.settings import Settings
from antisgd.study.stages import tails
from antisgd.study.stages.eigenpairs import Curvature

__all__ = ["Covariances", "find", "of_examples"]

# Per-example gradients are held so many at a time.
MOST_GRADIENTS = 100


class Covariances(NamedTuple):
    """The covariance of the noise along the k eigenvectors, [k, k], found in two ways.

    Attributes:
        recorded: of the noise of the analysis period without replacement, as in App. L.
        examples: (1/S − 1/N) C₀ of the per-example gradients at θ_K (Eq. 108): no trajectory,
            no bias from a few steps in many dimensions.
        tails: how few examples carry the noise, and bands that know it.
    """

    recorded: np.ndarray
    examples: np.ndarray
    tails: tails.Tails


def find(
    problem: Problem,
    settings: Settings,
    params: Any,
    pairs: Curvature,
    noise: np.ndarray,
    folder: Path,
) -> Covariances:
    """Both covariances; what is made of single gradients is kept in covariance.npz.

    Args:
        problem: loss and examples.
        settings: for S and the schemes.
        params: θ_K.
        pairs: eigenvectors, [k, d].
        noise: recorded along them, [T, k].
        folder: of the network.
    """
    path, k = folder / "covariance.npz", len(pairs.values)
    if not _holds(path, k, settings):
        results.write_arrays(path, **_of_gradients(problem, settings, params, pairs))
    noise = np.asarray(noise, np.float64)
    recorded, kept = noise.T @ noise / len(noise), results.read_arrays(path)
    bands = {name: kept[f"band_{name}"] for name in settings.sampling if f"band_{name}" in kept}
    carriers = statistics.Carriers(*(kept[name][:k] for name in statistics.Carriers._fields))
    own = tails.Tails(carriers, kept["places"], bands)
    return Covariances(recorded, kept["examples"][:k, :k], own)


def _holds(path: Path, k: int, settings: Settings) -> bool:
    """Whether it was made along these directions, for windows of this length and these schemes."""
    if not results.exists(path):
        return False
    kept = results.read_arrays(path)
    if "leading" not in kept or len(kept["examples"]) != k:
        return False
    if int(kept.get("epochs", 0)) != settings.analysis_epochs:
        return False
    return not kept["places"].size or all(f"band_{name}" in kept for name in settings.sampling)


def _of_gradients(
    problem: Problem, settings: Settings, params: Any, pairs: Curvature
) -> dict[str, np.ndarray]:
    g = _gradients(problem, settings, params, pairs.vectors)
    conditions = conditions_of(problem.num_examples, settings, problem.optimizer)
    found = tails.find(g, pairs.values, conditions, settings.sampling, settings.seed)
    bands = {f"band_{name}": band for name, band in found.bands.items()}
    made = {
        "examples": _covariance(g, settings.batch_size),
        "epochs": np.array(settings.analysis_epochs),
        "places": found.places,
    }
    return made | found.carriers._asdict() | bands


def of_examples(
    problem: Problem, settings: Settings, params: Any, directions: np.ndarray
) -> np.ndarray:
    """(1/S − 1/N) C₀ along the directions [k, d] from per-example gradients (Eq. 108), [k, k]."""
    return _covariance(_gradients(problem, settings, params, directions), settings.batch_size)


def _gradients(
    problem: Problem, settings: Settings, params: Any, directions: np.ndarray
) -> np.ndarray:
    mesh = devices.mesh()
    gradients = streaming.example_gradients(
        problem.loss,
        params,
        problem.train,
        devices.columns(directions, mesh),
        microbatch_size=min(settings.microbatch, MOST_GRADIENTS),
        mesh=mesh,
    )
    return np.array(devices.fetched(gradients), np.float64)


def _covariance(each: np.ndarray, batch_size: int) -> np.ndarray:
    """Of the gradients [N, k], which are centred in place: another copy may not fit."""
    each -= each.mean(axis=0)
    scale = 1 / batch_size - 1 / len(each)
    return scale * (each.T @ each) / (len(each) - 1)
