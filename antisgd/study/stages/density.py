"""The density of all eigenvalues at θ_K, by stochastic Lanczos quadrature, resumable."""

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import numpy as np

from antisgd import devices, display, lanczos, results, streaming
from antisgd.study import interruption
from antisgd.study.problem import Problem
from antisgd.study.settings import Settings
from antisgd.study.stages.solve_checkpoint import Checkpoint

__all__ = ["NODES", "PROBES", "density"]

CHECKPOINT_SECONDS = 30.0
# Random vectors and products of each: 200 products.
PROBES, NODES = 4, 50


def density(
    problem: Problem, settings: Settings, params: Any, folder: Path
) -> lanczos.SpectralDensity:
    """The density of all eigenvalues at θ_K = params, kept in the folder's density.npz.

    `lanczos.spectral_density` to the bit, of PROBES random vectors with NODES products each, that
    goes on from the last product after a stop.

    Raises:
        FloatingPointError: a product is not finite.
    """
    path = folder / "density.npz"
    if not results.exists(path):
        operator = streaming.products(problem.loss, params, problem.train, settings.microbatch)
        checkpoints = [Checkpoint(folder / "checkpoints", f"density_{i}_") for i in range(PROBES)]
        total = PROBES * min(NODES, problem.dimension)
        bar = display.progress_bar("density", "product", total, shown=devices.first())
        with interruption.postponed() as asked, closing(bar):
            states = _begun(operator, problem.dimension, settings.seed, checkpoints)
            states = _finished(operator, states, checkpoints, asked, bar)
        nodes, weights = zip(*map(lanczos.quadrature_rule, states), strict=True)
        results.write_arrays(path, nodes=np.stack(nodes), weights=np.stack(weights))
        for checkpoint in checkpoints:
            checkpoint.remove()
    return lanczos.SpectralDensity(**results.read_arrays(path))


def _begun(
    operator: dict[str, Any], dimension: int, seed: int, checkpoints: list[Checkpoint]
) -> list[lanczos.State]:
    """The solves of all random vectors, each as far as it lies on disk."""
    keys = jax.random.split(jax.random.key(seed), len(checkpoints))
    given: dict[str, Any] = {"block_size": 1, "mesh": devices.mesh()}
    held = [checkpoint.read(dimension) for checkpoint in checkpoints]
    return [
        lanczos.init(operator.get("matvec"), dimension, key=key, **given) if one is None else one
        for key, one in zip(keys, held, strict=True)
    ]


def _finished(
    operator: dict[str, Any],
    states: list[lanczos.State],
    checkpoints: list[Checkpoint],
    asked: Callable[[], bool],
    bar: Any,
) -> list[lanczos.State]:
    saved = time.monotonic()
    while sum(int(one.products) for one in states) < bar.total:
        states = _moved(operator, states)
        bar.update(sum(int(one.products) for one in states) - bar.n)
        stop = asked()
        if stop or devices.anywhere(time.monotonic() - saved > CHECKPOINT_SECONDS):
            for checkpoint, state in zip(checkpoints, states, strict=True):
                checkpoint.write(state)
            saved = time.monotonic()
        if stop:
            raise KeyboardInterrupt
    return states


def _moved(operator: dict[str, Any], states: list[lanczos.State]) -> list[lanczos.State]:
    """All a step further; after a kill between two writes those that were left behind."""
    least = min(one.products for one in states)
    now = [i for i, one in enumerate(states) if one.products == least]
    further = lanczos.extend_together(
        operator.get("matvec"), [states[i] for i in now], product=operator.get("product")
    )
    found = dict(zip(now, further, strict=True))
    return [found.get(i, one) for i, one in enumerate(states)]
