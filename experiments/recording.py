"""The analysis stage: one period from θ_K in one regime, recorded along the eigenvectors."""

import time
from collections.abc import Callable
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
from experiments import interruption, training

FLAGS = flags.FLAGS

# Steps whose gradients are held before they are projected: one buffer of so many times d float32,
# two with exact full gradients. Fewer make the matrix product slower; but no stop is heard within
# a chunk, and exact full gradients take their time.
CHUNK_STEPS, EXACT_CHUNK_STEPS = 250, 25
# An epoch with exact full gradients can take an hour: checkpoints are written within it as well.
CHECKPOINT_SECONDS = 60.0


class Period(NamedTuple):
    """What is recorded and where to.

    Attributes:
        problem: model, loss and pictures.
        directions: [k, d].
        regime: name of the sampling scheme.
        key: the network's stream of examples, carried on from training.
        seed: of the network, for messages.
        folder: trajectory folder of the regime.
        files: name → memory-mapped projections [steps, k], which the steps fill.
    """

    problem: training.Problem
    directions: jax.Array
    regime: str
    key: jax.Array
    seed: int
    folder: Path
    files: dict[str, np.ndarray]

    @property
    def steps_per_epoch(self) -> int:
        """M."""
        return self.problem.steps_per_epoch


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
    seed: int = 0,
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
        seed: of the network, for messages.
    """
    steps, k = FLAGS.analysis_epochs * problem.steps_per_epoch, len(directions)
    names = ["gradients"] + ["full_gradients"] * _exact()
    files = _open(folder, names, (steps, k))
    period = Period(problem, jnp.asarray(directions), regime, key, seed, folder, files)
    began = state
    anchors, state = _run(period, state)
    boundaries = np.arange(FLAGS.analysis_epochs + 1) * problem.steps_per_epoch
    velocities = _velocities(files["gradients"], began, period.directions)
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


def chunk_steps() -> int:
    """Steps of a chunk of this run."""
    return EXACT_CHUNK_STEPS if _exact() else CHUNK_STEPS


def _open(folder: Path, names: list[str], shape: tuple[int, int]) -> dict[str, np.ndarray]:
    """The files to fill. Where one is missing or of other directions, the period starts anew."""
    paths = {name: folder / f"{name}.npy" for name in names}
    if not all(results.holds(path, shape) for path in paths.values()):
        if (folder / "checkpoint.npz").exists():
            logging.warning("%s is recorded anew, along %d directions", folder.name, shape[1])
        for name in ("checkpoint.npz", "checkpoint_within.npz"):
            (folder / name).unlink(missing_ok=True)
    return {name: results.open_recording(path, shape) for name, path in paths.items()}


def _run(
    period: Period, state: heavy_ball.TrainState
) -> tuple[dict[str, np.ndarray], heavy_ball.TrainState]:
    epochs, k = FLAGS.analysis_epochs, len(period.directions)
    anchors = {
        "gradients": np.zeros((epochs + 1, k), np.float32),
        "curves": np.zeros((epochs + 1, len(training.CURVES))),
    }
    checkpoint = period.folder / "checkpoint.npz"
    state, anchors, done = results.read_checkpoint(checkpoint, (state, anchors, -1))
    state = jax.tree.map(jnp.asarray, state)
    record_epoch, anchor = _record_epoch(period), _anchor(period.problem, period.directions)
    words = f"recording {period.regime}"
    bar = tqdm(total=epochs, initial=max(int(done), 0), unit="epoch", desc=words)
    with interruption.postponed() as asked:
        for epoch in range(int(done) + 1, epochs + 1):
            if epoch > 0:
                state = record_epoch(state, epoch, asked)
                bar.update()
            anchors["gradients"][epoch], anchors["curves"][epoch] = anchor(state.params)
            # The last update shows in the loss after it.
            after = np.atleast_2d(anchors["curves"][epoch, 0])
            _check_finite(period, after, epoch * period.steps_per_epoch)
            results.write_checkpoint(checkpoint, (state, anchors, epoch))
            if asked():
                break
    bar.close()
    return anchors, state


def _check_finite(period: Period, losses: np.ndarray, step: int) -> None:
    """Losses [1, steps] from so many steps after θ_K on."""
    epoch, place = divmod(step, period.steps_per_epoch)
    training.check_finite(
        losses, FLAGS.epochs + epoch, period.steps_per_epoch, first=place, seed=period.seed
    )


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


def _record_epoch(period: Period) -> Callable[[Any, int, Any], heavy_ball.TrainState]:
    """Builds the function that runs and records one epoch of the period, numbered from 1."""
    scheme, train = getattr(sampling, period.regime), period.problem.dataset.train
    count, M, size = period.problem.num_examples, period.steps_per_epoch, chunk_steps()
    # The key is an argument and no constant, so that all seeds share one program.
    draw = jax.jit(lambda key, epoch: scheme(key, epoch, count, FLAGS.batch_size))
    run_chunk, swept = (
        trajectory.make_recorder(_advance(period.problem)),
        training.hyperparameters(),
    )
    checkpoint = period.folder / "checkpoint_within.npz"

    def record_epoch(state, epoch, asked):
        schedule, rows = draw(period.key, FLAGS.epochs + epoch - 1), (epoch - 1) * M
        held, done = results.read_checkpoint(checkpoint, (state, 0))
        within = rows < int(done) <= rows + M
        state = jax.tree.map(jnp.asarray, held) if within else state
        saved = time.monotonic()
        for row in range(int(done) if within else rows, rows + M, size):
            here = slice(row - rows, row - rows + size)
            chunk = jax.tree.map(lambda leaf, here=here: leaf[here], schedule)
            state, projected = run_chunk(state, chunk, train, period.directions, *swept)
            _check_finite(period, np.asarray(projected.losses)[None], row)
            _keep(period.files, projected, row)
            stop = asked()
            if stop or time.monotonic() - saved > CHECKPOINT_SECONDS:
                _flush(period.files)
                results.write_checkpoint(checkpoint, (state, row + len(projected.losses)))
                saved = time.monotonic()
            if stop:
                raise KeyboardInterrupt
        _flush(period.files)
        return state

    return record_epoch


def _keep(files: dict[str, np.ndarray], projected: trajectory.Projections, row: int) -> None:
    """Writes a chunk's projections into the files from a row on."""
    recorded = (projected.gradients, projected.full_gradients)
    for file, values in zip(files.values(), recorded, strict=False):
        file[row : row + len(values)] = values


def _flush(files: dict[str, np.ndarray]) -> None:
    """To disk, before a checkpoint says that the rows are there."""
    for file in files.values():
        file.flush()
