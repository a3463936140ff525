"""Steps recorded with the exact full gradient at every one, to be timed."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from antisgd import data, devices, heavy_ball, models, objective, sampling, trajectory
from experiments.benchmarks.eigensolvers import WEIGHT_DECAY, Problem
from experiments.benchmarks.training import BATCH_SIZE, LEARNING_RATE, MOMENTUM

__all__ = ["exact_steps"]


def exact_steps(problem: Problem, k: int, steps: int, microbatch: int) -> Callable[[], int]:
    """A chunk of a period along k directions over all pictures; a call returns its steps."""
    model, mesh = models.lenet(), devices.mesh()
    examples = data.Examples(jnp.asarray(problem.images), jnp.asarray(problem.labels))
    loss = objective.make_loss(model.apply, WEIGHT_DECAY)
    optimizer = heavy_ball.heavy_ball(LEARNING_RATE, MOMENTUM)
    params = model.init(jax.random.key(2), examples.images[:1])
    params = ravel_pytree(params)[1](jnp.asarray(problem.weights))
    state = devices.whole(heavy_ball.init(optimizer, params), mesh)
    examples, d = devices.whole(examples, mesh), problem.weights.size
    directions = devices.columns(jax.random.normal(jax.random.key(3), (k, d)) / d**0.5, mesh)
    drawn = min(len(problem.labels), steps * BATCH_SIZE)
    schedule = sampling.without_replacement(jax.random.key(4), 0, drawn, BATCH_SIZE)

    def advance(state, schedule, examples):
        def full(params):
            gradient = objective.full_gradient(loss, params, examples, microbatch, mesh=mesh)
            return ravel_pytree(gradient)[0]

        record = trajectory.flat_record(full, with_updates=False)
        return heavy_ball.run_schedule(loss, optimizer, state, schedule, examples, record=record)

    run = trajectory.make_recorder(advance, mesh)

    def call() -> int:
        jax.block_until_ready(run(state, schedule, examples, directions))
        return len(schedule.indices)

    return call
