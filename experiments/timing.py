"""A rough time for a run, from a few timed steps and products before it starts."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags

from antisgd import ensemble, heavy_ball, hessian, lanczos, sampling, trajectory
from experiments import plan, recording, training

FLAGS = flags.FLAGS

# Steps that are timed; a run of fewer than so many is over before its time is known.
TIMED_STEPS, WORTH_TIMING = 5, 1000
# Directions that are projected on to time a projection.
TIMED_DIRECTIONS = 32
# Products of a solve beside those of its basis: the probe for missed pairs and the certificate.
CHECKING_PRODUCTS = 56


def text(problem: training.Problem, needed: plan.Work) -> str:
    """How long what is still to be done will take, in words; empty if that is not worth it.

    Raises:
        MemoryError: what a block of products holds in between exceeds the memory.
    """
    times = rough_times(problem, needed)
    if not times:
        return ""
    parts = ", ".join(f"{name} {_duration(seconds)}" for name, seconds in times.items())
    return f"time: very roughly {_duration(sum(times.values()))} ({parts})\n"


def rough_times(problem: training.Problem, needed: plan.Work) -> dict[str, float]:
    """Seconds of what is still to be done, from a few timed steps and products; no figures."""
    if not (needed.train or needed.solves or needed.records or needed.products):
        return {}
    steps = (FLAGS.epochs + FLAGS.analysis_epochs) * problem.steps_per_epoch
    if steps < WORTH_TIMING and not FLAGS.plan:
        return {}
    step = _timed_step(problem)
    times = {}
    if needed.train and FLAGS.epochs:
        times["training"] = needed.train * step * FLAGS.epochs * problem.steps_per_epoch
    if not needed.pairs and not needed.directions:
        return times
    product, rate = _timed_product(problem, needed), _timed_projection(problem.dimension)
    if needed.solves:
        times["eigenpairs"] = needed.solves * _solve(problem.dimension, needed.pairs, product, rate)
    if needed.records:
        alone = step / (len(training.schemes()) * FLAGS.seeds)
        period = _period(problem, needed.directions, alone, product, rate)
        times["recording"] = needed.records * period
    if needed.products:
        times["other products"] = needed.products * product
    return times


def _solve(dimension: int, pairs: int, product: float, rate: float) -> float:
    """Two Gram-Schmidt passes against a growing basis beside the products, then the vectors."""
    m = lanczos.memory_plan(dimension, pairs).basis_vectors
    operations = (4 * m**2 + 2 * m * pairs) * dimension
    return (m + CHECKING_PRODUCTS) * product + operations / rate


def _period(problem: training.Problem, k: int, step: float, product: float, rate: float) -> float:
    """Steps and their projections, full gradients at the anchors or at every step."""
    steps = FLAGS.analysis_epochs * problem.steps_per_epoch
    exact = FLAGS.full_gradient == "exact"
    # A gradient is about half the work of a product.
    gradients = (FLAGS.analysis_epochs + 1 + steps * exact) * product / 2
    operations = 2 * steps * k * problem.dimension * plan.recorded_arrays()
    return steps * step + gradients + operations / rate


def _timed_step(problem: training.Problem) -> float:
    """Seconds of one step of all networks, side by side."""
    networks = len(training.schemes()) * FLAGS.seeds
    optimizer = heavy_ball.heavy_ball(FLAGS.learning_rate, FLAGS.momentum)
    keys = jax.random.split(jax.random.key(FLAGS.seed), networks)
    states = ensemble.init(problem.init, optimizer, keys)
    count = min(problem.num_examples, TIMED_STEPS * FLAGS.batch_size)
    schedule = sampling.without_replacement(jax.random.key(0), 0, count, FLAGS.batch_size)

    @jax.jit
    def run(states, schedule, examples):
        def one(state):
            return heavy_ball.run_schedule(problem.loss, optimizer, state, schedule, examples)

        return jax.vmap(one)(states)

    arguments = (states, schedule, problem.dataset.train)
    jax.block_until_ready(run(*arguments))
    return _seconds(lambda: run(*arguments)) / len(schedule.indices)


def _timed_product(problem: training.Problem, needed: plan.Work) -> float:
    """Seconds of one Hessian product over all pictures, in blocks as the solve takes them.

    Raises:
        MemoryError: what a block of products holds in between exceeds the memory.
    """
    count = min(problem.num_examples, 2 * FLAGS.microbatch_size)
    few = jax.tree.map(lambda leaf: leaf[:count], problem.dataset.train)
    params = problem.init(jax.random.key(FLAGS.seed))
    matvec = hessian.hessian_vector_product(
        problem.loss, params, few, microbatch_size=FLAGS.microbatch_size
    )
    size = lanczos.memory_plan(problem.dimension, needed.pairs).block_size
    block = jax.random.normal(jax.random.key(0), (size, problem.dimension))
    program = lanczos.lowered(matvec, block).compile()
    held, place = program.memory_analysis(), plan.device()
    free = place.available - plan.beside_products(problem, needed)
    if held is not None and held.temp_size_in_bytes > free:
        raise MemoryError(
            f"a block of {size} Hessian products over --microbatch_size={FLAGS.microbatch_size} "
            f"pictures takes {plan.in_words(held.temp_size_in_bytes)}, {place.name} has "
            f"{plan.in_words(max(free, 0))} beside the rest: lower --microbatch_size"
        )
    jax.block_until_ready(program(matvec, block))
    return _seconds(lambda: program(matvec, block)) / size * problem.num_examples / count


def _timed_projection(dimension: int) -> float:
    """Floating-point operations a second of a projection."""
    directions = jnp.ones((TIMED_DIRECTIONS, dimension))
    vectors = jnp.ones((recording.chunk_steps(), dimension))
    jax.block_until_ready(trajectory.project(directions, vectors))
    operations = 2 * directions.shape[0] * vectors.shape[0] * dimension
    return operations / _seconds(lambda: trajectory.project(directions, vectors))


def _seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def _duration(seconds: float) -> str:
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"
