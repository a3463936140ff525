"""One analysis period from θ_K with one sampling scheme, recorded along the eigenvectors."""

import dataclasses
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from antisgd import (
    devices,
    display,
    ensemble,
    heavy_ball,
    objective,
    results,
    sampling,
    sources,
    streaming,
    trajectory,
)
from antisgd.study import interruption
from antisgd.study.divergence import check_finite
from antisgd.study.problem import Problem
from antisgd.study.settings import Settings
from antisgd.study.stages import train
from antisgd.study.stages.period import (
    Period,
    Recording,
    flush,
    keep,
    keep_weights,
    kept_epochs,
    open_files,
)

__all__ = ["chunk_steps", "record"]

# Steps whose gradients are held before they are projected: one buffer of so many times d float32,
# two with exact full gradients. Fewer make the matrix product slower; but no stop is heard within
# a chunk, and exact full gradients take their time.
CHUNK_STEPS, EXACT_CHUNK_STEPS = 250, 25
# An epoch with exact full gradients can take an hour: checkpoints are written within it as well.
CHECKPOINT_SECONDS = 60.0


def record(
    problem: Problem,
    settings: Settings,
    state: heavy_ball.TrainState,
    directions: np.ndarray,
    eigenvalues: np.ndarray,
    *,
    scheme: str,
    folder: Path,
    seed: int = 0,
    number: int = 0,
) -> Recording:
    """Runs and records the analysis period, or goes on from the folder's checkpoint.

    Writes weights.npy (float64, relative to θ_K), velocities.npy, noise.npy and anchors.npz; of
    another optimiser than heavy ball velocities are the updates θ_k − θ_{k−1}, of updates.npy.

    Args:
        problem: network, loss and examples.
        settings: of the study.
        state: where training ended, with its velocity.
        directions: [k, d], on the host.
        eigenvalues: [k], for the quadratic full gradient.
        scheme: name of the sampling scheme of this period.
        folder: trajectory folder of this scheme.
        seed: of the network: its stream of examples is carried on from training.
        number: of the period: others than the first, 0, have a stream of examples of their own.
    """
    M, k = -(-problem.num_examples // settings.batch_size), len(directions)
    names = _recorded(problem, settings)
    files = open_files(folder, names, (settings.analysis_epochs * M, k))
    places = len(kept_epochs(settings.analysis_epochs)), problem.dimension
    kept = results.open_recording(folder / "kept_weights.npy", places)
    mesh = devices.mesh()
    placed = dataclasses.replace(problem, train=ensemble.on_all_devices(problem.train))
    rows, key = devices.columns(directions, mesh), train.stream_key(settings, seed, number)
    period = Period(placed, settings, rows, scheme, key, seed, folder, files, kept)
    began = devices.whole(state, mesh)
    anchors, state = _run(period, began)
    # What process 0 wrote into them may be news to the others.
    period = period._replace(files=open_files(folder, names, (settings.analysis_epochs * M, k)))
    boundaries = np.arange(settings.analysis_epochs + 1) * M
    velocities = _velocities(period, began)
    weights = trajectory.displacements(velocities)
    noise, error = _noise(period, eigenvalues, weights, anchors["gradients"])
    results.write_array(folder / "weights.npy", weights)
    results.write_array(folder / "velocities.npy", velocities)
    results.write_array(folder / "noise.npy", noise)
    results.write_arrays(
        folder / "anchors.npz", steps=boundaries, full_gradient_error=error, **anchors
    )
    path = trajectory.Trajectory(weights, velocities, noise)
    kept = results.open_recording(folder / "kept_weights.npy", places)
    final = jax.tree.map(jnp.asarray, devices.fetched(state.params))
    return Recording(path, boundaries, anchors["gradients"], anchors["curves"], error, kept, final)


def _recorded(problem: Problem, settings: Settings) -> list[str]:
    """What the steps leave in files: heavy ball's updates follow from the gradients by Eq. 1."""
    names = ["gradients"] + ["full_gradients"] * settings.exact
    return names + ["updates"] * (problem.optimizer is not None)


def _noise(
    period: Period, eigenvalues: np.ndarray, weights: np.ndarray, anchors: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Minibatch gradients less full ones, float32 [T, k], and the error of these, [k]."""
    gradients = period.files["gradients"]
    if period.settings.exact:
        exact = gradients - period.files["full_gradients"]
        return np.asarray(exact, np.float32), np.zeros(gradients.shape[1])
    steps = np.arange(len(anchors)) * period.steps_per_epoch
    model = trajectory.quadratic_full_gradient(eigenvalues, weights, steps, anchors)
    return np.asarray(gradients - model.gradients, np.float32), model.remaining_error


def _velocities(period: Period, start: heavy_ball.TrainState) -> np.ndarray:
    """P v at every step, float32 [T, k]: by Eq. 1 from the state before the first, or recorded."""
    if "updates" in period.files:
        return np.array(period.files["updates"], np.float32)
    settings, gradients, directions = period.settings, period.files["gradients"], period.directions
    velocity = ravel_pytree(optax.tree_utils.tree_get(start.opt_state, "trace"))[0]
    projected = trajectory.project(directions, velocity[None], devices.mesh())[0]
    first, beta = train.hyperparameters(settings)
    rate = float(train.learning_rate_at(settings, settings.epochs, first))
    found = trajectory.heavy_ball_velocities(gradients, rate, float(beta), np.asarray(projected))
    return found.astype(np.float32)


def chunk_steps(settings: Settings) -> int:
    """Steps of a chunk of a recording."""
    return EXACT_CHUNK_STEPS if settings.exact else CHUNK_STEPS


def _run(
    period: Period, state: heavy_ball.TrainState
) -> tuple[dict[str, np.ndarray], heavy_ball.TrainState]:
    settings, k = period.settings, len(period.directions)
    epochs = settings.analysis_epochs
    anchors = {
        "gradients": np.zeros((epochs + 1, k), np.float32),
        "curves": np.zeros((epochs + 1, len(period.problem.curve_names))),
    }
    checkpoint = period.folder / "checkpoint.npz"
    state, anchors, done = results.read_checkpoint(checkpoint, (state, anchors, -1))
    state = devices.whole(jax.tree.map(jnp.asarray, state), devices.mesh())
    record_epoch, anchor = _record_epoch(period), _anchor(period)
    words = f"recording {period.scheme}"
    bar = display.progress_bar(words, "epoch", epochs, max(int(done), 0), shown=devices.first())
    with interruption.postponed() as asked:
        for epoch in range(int(done) + 1, epochs + 1):
            if epoch > 0:
                state = record_epoch(state, epoch, asked)
                bar.update()
            anchors["gradients"][epoch], anchors["curves"][epoch] = anchor(state.params)
            # The last update shows in the loss after it.
            after = np.atleast_2d(anchors["curves"][epoch, 0])
            _check_finite(period, after, epoch * period.steps_per_epoch)
            keep_weights(period, state.params, epoch)
            results.write_checkpoint(checkpoint, (state, anchors, epoch))
            if asked():
                break
    bar.close()
    return anchors, state


def _check_finite(period: Period, losses: np.ndarray, step: int) -> None:
    """Losses [1, steps] from so many steps after θ_K on."""
    epoch, place = divmod(step, period.steps_per_epoch)
    settings = period.settings
    networks = [(period.seed, settings)]
    check_finite(
        losses, settings.epochs + epoch, period.steps_per_epoch, networks, first=place,
        optimizer=period.problem.optimizer,
    )  # fmt: skip


def _advance(problem: Problem, settings: Settings) -> Any:
    def advance(state, schedule, examples, learning_rate, momentum):
        optimizer = train.optimizer_at(
            settings, settings.epochs, learning_rate, momentum, problem.optimizer
        )
        full = None
        if settings.exact:
            full = partial(_full_gradient, problem.loss, settings.microbatch, examples)
        flat = trajectory.flat_record(full, with_updates=problem.optimizer is not None)
        return heavy_ball.run_schedule(
            problem.loss, optimizer, state, schedule, examples, record=flat
        )

    return advance


def _full_gradient(loss: Any, microbatch_size: int, examples: Any, params: Any) -> jax.Array:
    mesh = devices.mesh()
    gradient = objective.full_gradient(loss, params, examples, microbatch_size, mesh=mesh)
    return ravel_pytree(gradient)[0]


def _anchor(period: Period) -> Any:
    problem, settings = period.problem, period.settings
    evaluate = train.evaluators(problem, settings)

    @jax.jit
    def projected(params, examples, directions):
        gradient = _full_gradient(problem.loss, settings.microbatch, examples, params)
        return trajectory.project(directions, gradient[None], devices.mesh())[0]

    def of_all(params):
        if not sources.streamed(problem.train):
            return projected(params, problem.train, period.directions)
        gradient = streaming.full_gradient(problem.loss, params, problem.train, settings.microbatch)
        return trajectory.project(period.directions, ravel_pytree(gradient)[0][None])[0]

    def anchor(params):
        gradient = of_all(params)
        curves = evaluate(jax.tree.map(lambda leaf: leaf[None], params))[0]
        return np.asarray(gradient), curves

    return anchor


def _record_epoch(period: Period) -> Callable[[Any, int, Any], heavy_ball.TrainState]:
    """Builds the function that runs and records one epoch of the period, numbered from 1."""
    problem, settings = period.problem, period.settings
    draw, M, most = _drawn(period), period.steps_per_epoch, chunk_steps(settings)
    size = sources.steps_at_once(problem.train, settings.batch_size, most)
    run_chunk = trajectory.make_recorder(_advance(problem, settings), devices.mesh())
    swept = train.hyperparameters(settings)
    checkpoint = period.folder / "checkpoint_within.npz"

    def record_epoch(state, epoch, asked):
        schedule, rows = draw(period.key, settings.epochs + epoch - 1), (epoch - 1) * M
        held, done = results.read_checkpoint(checkpoint, (state, 0))
        within = rows < int(done) <= rows + M
        if within:
            state = devices.whole(jax.tree.map(jnp.asarray, held), devices.mesh())
        saved = time.monotonic()
        places = range(int(done) if within else rows, rows + M, size)
        heres = [slice(row - rows, row - rows + size) for row in places]
        chunks = [jax.tree.map(lambda leaf, here=here: leaf[here], schedule) for here in heres]
        for row, (examples, chunk) in zip(places, sources.fed(problem.train, chunks), strict=True):
            state, projected = run_chunk(state, chunk, examples, period.directions, *swept)
            _check_finite(period, np.asarray(projected.losses)[None], row)
            keep(period.files, projected, row)
            stop = asked()
            if stop or devices.anywhere(time.monotonic() - saved > CHECKPOINT_SECONDS):
                flush(period.files)
                results.write_checkpoint(checkpoint, (state, row + len(projected.losses)))
                saved = time.monotonic()
            if stop:
                raise KeyboardInterrupt
        flush(period.files)
        return state

    return record_epoch


def _drawn(period: Period) -> Any:
    """(key, epoch) → the schedule of an epoch; the key is an argument, so that seeds share it."""
    scheme, count = getattr(sampling, period.scheme), period.problem.num_examples
    return jax.jit(lambda key, epoch: scheme(key, epoch, count, period.settings.batch_size))
