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
        steps = min(NODES, problem.dimension)
        bar = display.progress_bar("density", "product", PROBES * steps, shown=devices.first())
        solves = [Checkpoint(folder / "checkpoints", f"density_{i}_") for i in range(PROBES)]
        keys = jax.random.split(jax.random.key(settings.seed), PROBES)
        with interruption.postponed() as asked, closing(bar):
            rules = [
                _rule(operator, problem.dimension, key, steps, solve, asked, bar)
                for key, solve in zip(keys, solves, strict=True)
            ]
        nodes, weights = (np.stack(part) for part in zip(*rules, strict=True))
        results.write_arrays(path, nodes=nodes, weights=weights)
        for solve in solves:
            solve.remove()
    return lanczos.SpectralDensity(**results.read_arrays(path))


def _rule(
    operator: dict[str, Any],
    dimension: int,
    key: jax.Array,
    steps: int,
    checkpoint: Checkpoint,
    asked: Callable[[], bool],
    bar: Any,
) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of one random vector, of its solve as far as it lies on disk."""
    matvec, saved = operator.get("matvec"), time.monotonic()
    state = checkpoint.read(dimension)
    if state is None:
        state = lanczos.init(matvec, dimension, key=key, block_size=1, mesh=devices.mesh())
    bar.update(state.products)
    while state.products < steps:
        state = lanczos.extend(matvec, state, product=operator.get("product"))
        bar.update()
        stop, last = asked(), state.products == steps
        if stop or last or devices.anywhere(time.monotonic() - saved > CHECKPOINT_SECONDS):
            checkpoint.write(state)
            saved = time.monotonic()
        if stop:
            raise KeyboardInterrupt
    return lanczos.quadrature_rule(state)
