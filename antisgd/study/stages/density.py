"""The density of all eigenvalues at θ_K, by stochastic Lanczos quadrature."""

from pathlib import Path
from typing import Any

import jax

from antisgd import devices, lanczos, results, streaming
from antisgd.study.problem import Problem
from antisgd.study.settings import Settings

__all__ = ["NODES", "PROBES", "density"]

# Random vectors and products of each: 200 products.
PROBES, NODES = 4, 50


def density(
    problem: Problem, settings: Settings, params: Any, folder: Path
) -> lanczos.SpectralDensity:
    """The density of all eigenvalues at θ_K = params, kept in the folder's density.npz."""
    path = folder / "density.npz"
    if not results.exists(path):
        operator = streaming.products(problem.loss, params, problem.train, settings.microbatch)
        found = lanczos.spectral_density(
            **operator, dimension=problem.dimension, key=jax.random.key(settings.seed),
            num_probes=PROBES, num_steps=NODES, mesh=devices.mesh(),
        )  # fmt: skip
        results.write_arrays(path, **found._asdict())
    return lanczos.SpectralDensity(**results.read_arrays(path))
