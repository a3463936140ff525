"""A rough time for a run, from a few timed steps and products before it starts."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from antisgd import ensemble, heavy_ball, lanczos, sampling, sources, trajectory
from antisgd.study.preflight import plan, sizes
from antisgd.study.problem import Problem
from antisgd.study.settings import Settings
from antisgd.study.stages import record, track

__all__ = ["rough_times", "text"]

# Steps that are timed; a run of fewer than so many is over before its time is known.
TIMED_STEPS, WORTH_TIMING = 5, 1000
# Directions that are projected on to time a projection.
TIMED_DIRECTIONS = 32
# Programs of a run that are about as large as that of a step, and as that of a block of products:
# epoch, recorder, metrics, full gradient; products one by one and in blocks.
LIKE_A_STEP, LIKE_A_PRODUCT = 4, 2
# The theory beside every direction, and some fifteen figures.
FIGURES_SECONDS = 20.0
# Products of a solve beside those of its basis: the probe for missed pairs and the certificate.
CHECKING_PRODUCTS = 56


def text(times: Mapping[str, float]) -> str:
    """Rough times in words; empty if there are none."""
    if not times:
        return ""
    parts = ", ".join(f"{name} {_duration(seconds)}" for name, seconds in times.items())
    return f"time: very roughly {_duration(sum(times.values()))} ({parts})\n"


def rough_times(
    problem: Problem, settings: Settings, needed: plan.Work, *, planning: bool
) -> dict[str, float]:
    """Seconds of what is still to be done, by part, from a few timed steps and products.

    Empty where timing takes longer than the run, unless a plan is all that is wanted. Programs
    that a cache of compiled ones holds compile in no time, here as in the run.

    Raises:
        MemoryError: what a block of products holds in between exceeds the memory.
    """
    left = needed.train, needed.solves, needed.records, needed.products, needed.tracked
    if not any(left):
        return {}
    M = -(-problem.num_examples // settings.batch_size)
    if (settings.epochs + settings.analysis_epochs) * M < WORTH_TIMING and not planning:
        return {}
    step, compiling = _timed_step(problem, settings)
    compiling *= LIKE_A_STEP
    times = {}
    if needed.train and settings.epochs:
        times["training"] = needed.train * step * settings.epochs * M
    if not needed.pairs and not needed.directions and not needed.tracked:
        return times | _rest(settings, compiling)
    product, longer = _timed_product(problem, settings, needed)
    rate = _timed_projection(problem.dimension, record.chunk_steps(settings))
    if needed.solves:
        times["eigenpairs"] = needed.solves * _solve(problem.dimension, needed.pairs, product, rate)
    if needed.records:
        alone = step / settings.networks
        period = _period(problem, settings, needed.directions, alone, product, rate)
        times["recording"] = needed.records * period
    if needed.tracked:
        pairs = track.num_pairs(settings)
        solve = _solve(problem.dimension, pairs, product, rate)
        times["tracking"] = needed.tracked * solve
    if needed.products:
        times["other products"] = needed.products * product
    return times | _rest(settings, compiling + LIKE_A_PRODUCT * longer)


def _rest(settings: Settings, compiling: float) -> dict[str, float]:
    """What is no training and no measurement."""
    drawing = {"figures": FIGURES_SECONDS} if "figures" in settings.stages else {}
    return {"compilation": compiling} | drawing


def _solve(dimension: int, pairs: int, product: float, rate: float) -> float:
    """Two Gram-Schmidt passes against a growing basis beside the products, then the vectors."""
    m = lanczos.memory_plan(dimension, pairs).basis_vectors
    operations = (4 * m**2 + 2 * m * pairs) * dimension
    return (m + CHECKING_PRODUCTS) * product + operations / rate


def _period(
    problem: Problem, settings: Settings, k: int, step: float, product: float, rate: float
) -> float:
    """Steps and their projections, full gradients at the anchors or at every step."""
    steps = settings.analysis_epochs * -(-problem.num_examples // settings.batch_size)
    # A gradient is about half the work of a product.
    gradients = (settings.analysis_epochs + 1 + steps * settings.exact) * product / 2
    operations = 2 * steps * k * problem.dimension * plan.recorded_arrays(problem, settings)
    return steps * step + gradients + operations / rate


def _timed_step(problem: Problem, settings: Settings) -> tuple[float, float]:
    """Seconds of one step of all networks, side by side, and of compiling it."""
    make = problem.optimizer or partial(heavy_ball.heavy_ball, momentum=settings.momentum)
    optimizer = make(settings.learning_rate)
    keys = jax.random.split(jax.random.key(settings.seed), settings.networks)
    states = ensemble.init(problem.init, optimizer, keys, problem.init_state)
    count = min(problem.num_examples, TIMED_STEPS * settings.batch_size)
    schedule = sampling.without_replacement(jax.random.key(0), 0, count, settings.batch_size)

    @jax.jit
    def run(states, schedule, examples):
        def one(state):
            return heavy_ball.run_schedule(
                problem.trained_loss, optimizer, state, schedule, examples, key=jax.random.key(0)
            )

        return jax.vmap(one)(states)

    on_disk = sources.streamed(problem.train)
    examples = sources.first(problem.train, count) if on_disk else problem.train
    arguments = (states, schedule, examples)
    first, again = _seconds(lambda: run(*arguments)), _seconds(lambda: run(*arguments))
    return again / len(schedule.indices), max(0.0, first - again)


def _timed_product(problem: Problem, settings: Settings, needed: plan.Work) -> tuple[float, float]:
    """Seconds of one Hessian product over all pictures, in blocks as the solve takes them, and of
    compiling it.

    Raises:
        MemoryError: what a block of products holds in between exceeds the memory.
    """
    block = sizes.block_size(problem, settings, needed.pairs or track.num_pairs(settings))
    start = time.perf_counter()
    program, arguments, count = sizes.compiled(problem, settings, settings.microbatch, block)
    compiling = time.perf_counter() - start
    sizes.check(program, problem, settings, needed)
    jax.block_until_ready(program(*arguments))
    seconds = _seconds(lambda: program(*arguments)) / block * problem.num_examples / count
    return seconds, compiling


def _timed_projection(dimension: int, chunk_steps: int) -> float:
    """Floating-point operations a second of a projection."""
    directions = jnp.ones((TIMED_DIRECTIONS, dimension))
    vectors = jnp.ones((chunk_steps, dimension))
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
