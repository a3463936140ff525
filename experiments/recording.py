"""The analysis stage: one period from θ_K in one regime, recorded along the eigenvectors."""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import flags, logging
from jax.flatten_util import ravel_pytree
from tqdm import tqdm

from antisgd import heavy_ball, objective, results, sampling, trajectory
from experiments import training

FLAGS = flags.FLAGS

# Steps whose gradients are held before they are projected: one buffer of so many times d float32,
# two with exact full gradients. Fewer make the matrix product slower.
CHUNK_STEPS = 250


class Recording(NamedTuple):
    """One analysis period.

    Attributes:
        trajectory: weights, velocities and noise along the k directions.
        anchor_steps: [epochs + 1], epoch boundaries.
        anchor_gradients: exact P∇L there, [epochs + 1, k].
        curves: train and test loss and accuracy at θ_K and after each epoch, [epochs + 1, 4].
        full_gradient_error: what remains of the error of the modelled full gradient, [k];
            zero with exact ones.
        final: weights at the end, a pytree.
    """

    trajectory: trajectory.Trajectory
    anchor_steps: np.ndarray
    anchor_gradients: np.ndarray
    curves: np.ndarray
    full_gradient_error: np.ndarray
    final: Any


def record(
    problem: training.Problem,
    state: heavy_ball.TrainState,
    directions: np.ndarray,
    eigenvalues: np.ndarray,
    *,
    regime: str,
    key: jax.Array,
    folder: Path,
) -> Recording:
    """Runs and records the analysis period, or goes on from the folder's checkpoint.

    Writes weights.npy (float64, relative to θ_K), velocities.npy, noise.npy and anchors.npz.

    Args:
        problem: model, loss and pictures.
        state: where training ended, with its velocity.
        directions: [k, d].
        eigenvalues: [k], for the quadratic full gradient.
        regime: name of the sampling scheme of this period.
        key: the network's stream of examples, carried on from training.
        folder: trajectory folder of this regime.
    """
    steps, k = FLAGS.analysis_epochs * problem.steps_per_epoch, len(directions)
    names = ["gradients"] + ["full_gradients"] * _exact()
    _forget_other_directions(folder, (steps, k))
    files = {name: results.open_recording(folder / f"{name}.npy", (steps, k)) for name in names}
    began = state
    anchors, state = _run(problem, state, jnp.asarray(directions), regime, key, folder, files)
    boundaries = np.arange(FLAGS.analysis_epochs + 1) * problem.steps_per_epoch
    velocities = _velocities(files["gradients"], began, jnp.asarray(directions))
    weights = trajectory.displacements(velocities)
    if _exact():
        full, error = files["full_gradients"], np.zeros(k)
    else:
        model = trajectory.quadratic_full_gradient(
            eigenvalues, weights, boundaries, anchors["gradients"]
        )
        full, error = model.gradients, model.remaining_error
    noise = np.asarray(files["gradients"] - full, np.float32)
    results.write_array(folder / "weights.npy", weights)
    results.write_array(folder / "velocities.npy", velocities)
    results.write_array(folder / "noise.npy", noise)
    results.write_arrays(
        folder / "anchors.npz", steps=boundaries, full_gradient_error=error, **anchors
    )
    path = trajectory.Trajectory(weights, velocities, noise)
    return Recording(path, boundaries, anchors["gradients"], anchors["curves"], error, state.params)


def _forget_other_directions(folder: Path, shape: tuple[int, int]) -> None:
    """More eigenpairs are other directions: a period recorded along fewer is recorded anew."""
    path = folder / "gradients.npy"
    if path.exists() and np.load(path, mmap_mode="r", allow_pickle=False).shape != shape:
        logging.warning("%s is recorded anew, along %d directions", folder.name, shape[1])
        # Without its checkpoint a recording begins at its first step and replaces the arrays.
        (folder / "checkpoint.npz").unlink(missing_ok=True)


def _velocities(
    gradients: np.ndarray, start: heavy_ball.TrainState, directions: jax.Array
) -> np.ndarray:
    """P v at every step by Eq. 1, float32 [T, k], from the state before the first."""
    velocity = ravel_pytree(optax.tree_utils.tree_get(start.opt_state, "trace"))[0]
    projected = trajectory.project(directions, velocity[None])[0]
    first, beta = training.hyperparameters()
    rate = float(training.learning_rate_at(FLAGS.epochs, first))
    found = trajectory.heavy_ball_velocities(gradients, rate, float(beta), np.asarray(projected))
    return found.astype(np.float32)


def _exact() -> bool:
    return FLAGS.full_gradient == "exact"


def _run(
    problem: training.Problem,
    state: heavy_ball.TrainState,
    directions: jax.Array,
    regime: str,
    key: jax.Array,
    folder: Path,
    files: dict[str, np.ndarray],
) -> tuple[dict[str, np.ndarray], heavy_ball.TrainState]:
    epochs, train = FLAGS.analysis_epochs, problem.dataset.train
    anchors = {
        "gradients": np.zeros((epochs + 1, len(directions)), np.float32),
        "curves": np.zeros((epochs + 1, len(training.CURVES))),
    }
    checkpoint = folder / "checkpoint.npz"
    done = -1
    if checkpoint.exists():
        state, anchors, done = results.read_checkpoint(checkpoint, (state, anchors, -1))
        state = jax.tree.map(jnp.asarray, state)
    scheme = getattr(sampling, regime)
    # The key is an argument and no constant, so that all seeds share one program.
    draw = jax.jit(lambda key, epoch: scheme(key, epoch, problem.num_examples, FLAGS.batch_size))
    run_chunk = trajectory.make_recorder(_advance(problem))
    anchor = _anchor(problem, directions)
    bar = tqdm(total=epochs, initial=max(int(done), 0), unit="epoch", desc=f"recording {regime}")
    for epoch in range(int(done) + 1, epochs + 1):
        if epoch > 0:
            rows = (epoch - 1) * problem.steps_per_epoch
            schedule = draw(key, FLAGS.epochs + epoch - 1)
            state = _record_epoch(run_chunk, state, schedule, train, directions, files, rows)
            bar.update()
        anchors["gradients"][epoch], anchors["curves"][epoch] = anchor(state.params)
        results.write_checkpoint(checkpoint, (state, anchors, epoch))
    bar.close()
    return anchors, state


def _advance(problem: training.Problem) -> Any:
    def advance(state, schedule, examples, learning_rate, momentum):
        optimizer = training.optimizer_at(FLAGS.epochs, learning_rate, momentum)
        full = None
        if _exact():
            full = partial(_full_gradient, problem.loss, examples)
        flat = trajectory.flat_record(full, with_updates=False)
        return heavy_ball.run_schedule(
            problem.loss, optimizer, state, schedule, examples, record=flat
        )

    return advance


def _full_gradient(loss: Any, examples: Any, params: Any) -> jax.Array:
    gradient = objective.full_gradient(loss, params, examples, FLAGS.microbatch_size)
    return ravel_pytree(gradient)[0]


def _anchor(problem: training.Problem, directions: jax.Array) -> Any:
    evaluate = training.evaluators(problem)

    @jax.jit
    def projected(params, examples, directions):
        gradient = _full_gradient(problem.loss, examples, params)
        return trajectory.project(directions, gradient[None])[0]

    def anchor(params):
        gradient = projected(params, problem.dataset.train, directions)
        curves = evaluate(jax.tree.map(lambda leaf: leaf[None], params))[0]
        return np.asarray(gradient), curves

    return anchor


def _record_epoch(
    run_chunk: Any,
    state: heavy_ball.TrainState,
    schedule: sampling.Schedule,
    examples: Any,
    directions: jax.Array,
    files: dict[str, np.ndarray],
    rows: int,
) -> heavy_ball.TrainState:
    swept = training.hyperparameters()
    for start in range(0, schedule.indices.shape[0], CHUNK_STEPS):
        chunk = jax.tree.map(lambda leaf, s=start: leaf[s : s + CHUNK_STEPS], schedule)
        state, projected = run_chunk(state, chunk, examples, directions, *swept)
        epoch = rows // schedule.indices.shape[0] + FLAGS.epochs
        losses = np.asarray(projected.losses)[None]
        training.check_finite(losses, epoch, schedule.indices.shape[0], [swept])
        here = slice(rows + start, rows + start + len(projected.losses))
        recorded = (projected.gradients, projected.full_gradients)
        for file, values in zip(files.values(), recorded, strict=False):
            file[here] = values
    for file in files.values():
        file.flush()
    return state
