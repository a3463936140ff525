"""What the minima are like, and how injected noise shakes the weights in them."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from antisgd import (
    display,
    heavy_ball,
    hessian,
    objective,
    results,
    statistics,
    theory,
    trajectory,
)
from antisgd.study import Problem, Settings
from antisgd.study.divergence import check_finite
from antisgd.study.stages import eigenpairs
from antisgd.study.stages import train as training
from experiments.anti_pgd import descents as ways

# Random vectors for the trace outside of the eigenvectors found, a Hessian product each.
PROBES = 16
LAWS = {
    "white_noise": theory.with_replacement(),
    "anti_correlated_noise": theory.anti_pgd(),
    "strong_noise": theory.anti_pgd(),
}


class Minima(NamedTuple):
    """One method's networks at their minima.

    Attributes:
        curves: metrics as the problem names its curves, [seeds, curves].
        eigenvalues: of the Hessian of the training loss, largest first, [seeds, k].
        trace: of that Hessian without the penalty's constant part, [seeds].
        trace_error: standard error of the trace by its random vectors, [seeds].
        gradient: norm of the full gradient, [seeds].
    """

    curves: np.ndarray
    eigenvalues: np.ndarray
    trace: np.ndarray
    trace_error: np.ndarray
    gradient: np.ndarray


class Window(NamedTuple):
    """Variances along k eigenvectors while noise is injected, per noise variance σ².

    Attributes:
        eigenvalues: λ at the minimum, [k].
        measured: with the mean velocity removed, [k] each.
        expected: the finite-window theory of the noise's law, [k] each.
        white: that of white noise, [k] each.
    """

    eigenvalues: np.ndarray
    measured: statistics.Fluctuations
    expected: theory.WindowVariances
    white: theory.WindowVariances


def examine(problem: Problem, settings: Settings, params: Any, folder: Path, name: str) -> Minima:
    """Accuracy, leading eigenpairs and trace of the Hessian of all seeds' minima; resumable."""
    curves = training.evaluators(problem, settings)(params)
    found = []
    for seed in range(settings.seeds):
        place, one = folder / f"{name}_{seed}", jax.tree.map(lambda leaf, i=seed: leaf[i], params)
        pairs = eigenpairs.find(problem, settings, one, place)
        if not (place / "trace.npz").exists():
            results.write_arrays(place / "trace.npz", **_trace(problem, settings, one, pairs, seed))
        found.append({"eigenvalues": pairs.values} | results.read_arrays(place / "trace.npz"))
    return Minima(curves, **{key: np.stack([one[key] for one in found]) for key in found[0]})


def _trace(
    problem: Problem, settings: Settings, params: Any, pairs: Any, seed: int
) -> dict[str, np.ndarray]:
    """tr H = Σ λ_i + E z'PHPz with random signs z and P off the eigenvectors found.

    The penalty adds 2c for every kernel weight, whatever the network: that part is left out. All
    methods of a seed share the vectors, so that some of their error cancels in the differences.
    """
    matvec = hessian.hessian_vector_product(
        problem.loss, params, problem.train, microbatch_size=settings.microbatch
    )
    V, key = jnp.asarray(pairs.vectors), jax.random.fold_in(jax.random.key(settings.seed), seed)
    z = jax.random.rademacher(key, (PROBES, problem.dimension), jnp.float32)
    z = z - trajectory.project(V.T, trajectory.project(V, z))
    rest = np.asarray(_quadratic_forms(matvec, z), np.float64)
    leaves = jax.tree_util.tree_leaves_with_path(params)
    kernels = sum(leaf.size for path, leaf in leaves if path[-1].key == "kernel")
    gradient = objective.full_gradient(problem.loss, params, problem.train, settings.microbatch)
    return {
        "trace": pairs.values.sum() + rest.mean() - problem.noiseless_curvature * kernels,
        "trace_error": rest.std(ddof=1) / np.sqrt(PROBES),
        "gradient": np.sqrt(sum(jnp.vdot(leaf, leaf) for leaf in jax.tree.leaves(gradient))),
    }


@jax.jit
def _quadratic_forms(matvec: Any, z: jax.Array) -> jax.Array:
    """z'Hz of every row."""
    return jax.lax.map(lambda one: jnp.vdot(one, matvec(one)), z, batch_size=4)


def windows(
    problem: Problem,
    settings: Settings,
    injected: ways.Injected,
    params: Any,
    deviations: np.ndarray,
    folder: Path,
    name: str,
) -> list[Window]:
    """Injects noise at the minima and records --analysis_epochs along the eigenvectors.

    The noise is on for --settle_epochs before, so that the recorded directions are stationary.

    Args:
        problem: network, loss and pictures.
        settings: of the experiment.
        injected: for the epochs before.
        params: the minima, every leaf [seeds, …].
        deviations: σ, [seeds].
        folder: of the run.
        name: of the noise.
    """
    levels = np.repeat(deviations[:, None], injected.settle_epochs, axis=1)
    checkpoint = folder / "checkpoints" / f"shake_{name}.npz"
    states = ways.descend(problem, settings, name, params, levels, checkpoint, phase=2).states
    record = trajectory.make_recorder(_advance(problem, settings, name))
    found = []
    for seed in range(settings.seeds):
        place, sigma = folder / f"{name}_{seed}", float(deviations[seed])
        pairs, path = eigenpairs.load(place, settings), place / "velocities.npy"
        if not path.exists():
            state = jax.tree.map(lambda leaf, i=seed: leaf[i], states)
            noise = (ways.noise_keys(settings, 2)[seed], jnp.float32(sigma))
            velocities = _record(
                problem, (seed, settings), record, state, noise, jnp.asarray(pairs.vectors)
            )
            results.write_array(path, velocities)
        found.append(compare(pairs.values, np.load(path), sigma, LAWS[name], settings))
    return found


def _advance(problem: Problem, settings: Settings, name: str) -> Any:
    def advance(state: heavy_ball.TrainState, schedule: Any, examples: Any):
        pictures, key, deviation = examples
        noise = ways.METHODS[name].noise
        optimizer = ways.optimizer_of(settings, noise, settings.epochs, key, deviation)
        flat = trajectory.flat_record()
        return heavy_ball.run_schedule(
            problem.loss, optimizer, state, schedule, pictures, record=flat
        )

    return advance


def _record(
    problem: Problem,
    network: tuple[int, Settings],
    record: Any,
    state: Any,
    noise: Any,
    directions: jax.Array,
) -> np.ndarray:
    """Velocities along the directions, float32 [T, k], one epoch of steps at a time."""
    schedule = ways.full_batches(None, 0, problem.num_examples, network[1].batch_size)
    velocities = []
    bar = display.progress_bar("recording", "epoch", network[1].analysis_epochs)
    for epoch in range(network[1].analysis_epochs):
        state, projected = record(state, schedule, (problem.train, *noise), directions)
        losses, steps = np.asarray(projected.losses)[None], len(schedule.indices)
        check_finite(losses, network[1].epochs + epoch, steps, [network])
        velocities.append(np.asarray(projected.updates))
        bar.update()
    bar.close()
    return np.concatenate(velocities)


def compare(
    eigenvalues: np.ndarray,
    velocities: np.ndarray,
    deviation: float,
    law: theory.Noise,
    settings: Settings,
) -> Window:
    """Measured variances of a window beside theory, per noise variance σ²; drops λ ≤ 0."""
    positive = eigenvalues > 0
    eigenvalues, velocities = eigenvalues[positive], velocities[:, positive]
    weights = trajectory.displacements(velocities)
    weight, velocity, time = statistics.variances(
        *statistics.remove_drift(weights, velocities, "mean_velocity")
    )
    measured = statistics.Fluctuations(weight / deviation**2, velocity / deviation**2, time)
    expected, white = (
        theory.window_variances(
            eigenvalues, settings.final_learning_rate, settings.momentum, one, len(velocities),
            aligned=False,
        )
        for one in (law, theory.with_replacement())
    )  # fmt: skip
    return Window(eigenvalues, measured, expected, white)
