"""The first convolution's own Hessian, and its recorded weights in two bases."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from antisgd import display, hessian, results
from antisgd.study import Problem, Settings
from antisgd.study.conditions import Conditions
from antisgd.study.divergence import stability
from antisgd.study.stages import analysis
from antisgd.study.stages.period import Recording

__all__ = ["LAYER", "SCHEME", "both_bases", "embedded", "layer_hessian"]

LAYER = "params/Conv_0/kernel"
SCHEME = "without_replacement"
# Columns of the layer's Hessian found at a time.
BLOCK = 10


def layer_hessian(problem: Problem, settings: Settings, params: Any, folder: Path) -> np.ndarray:
    """The Hessian of the layer's weights at θ_K, float64 [n, n], column by column; resumable."""
    flat, _ = hessian.ravel_subset(params, LAYER.__eq__)
    matvec = hessian.hessian_vector_product(
        problem.loss, params, problem.train, microbatch_size=settings.microbatch,
        only=LAYER.__eq__,
    )  # fmt: skip
    columns = jax.jit(lambda matvec, block: jax.vmap(matvec)(block))
    path, n = folder / "checkpoints" / "layer_hessian.npz", flat.size
    found = np.zeros((n, n), np.float32)
    found, done = results.read_checkpoint(path, (found, 0))
    bar = display.progress_bar("layer's Hessian", "column", n, int(done))
    for first in range(int(done), n, BLOCK):
        block = jnp.eye(n)[np.minimum(np.arange(first, first + BLOCK), n - 1)]
        found[first : first + BLOCK] = columns(matvec, block)[: n - first]
        if not np.isfinite(found).all():
            words = f"columns {first} to {first + BLOCK} of the layer's Hessian are not finite"
            raise FloatingPointError(f"{words}; {stability(settings.epochs, settings)}")
        bar.update(min(BLOCK, n - first))
        results.write_checkpoint(path, (found, first + BLOCK))
    bar.close()
    return (found + found.T).astype(np.float64) / 2


def embedded(problem: Problem, params: Any, rows: np.ndarray) -> np.ndarray:
    """Directions within the layer as directions among all weights, float32 [n, d]."""
    names = jax.tree_util.tree_map_with_path(
        lambda path, leaf: np.full(
            leaf.shape, jax.tree_util.keystr(path, simple=True, separator="/") == LAYER
        ),
        params,
    )
    inside = np.asarray(ravel_pytree(names)[0]).astype(bool)
    directions = np.zeros((len(rows), problem.dimension), np.float32)
    directions[:, inside] = rows
    return directions


def both_bases(
    recorded: Recording, eigenvalues: np.ndarray, conditions: Conditions
) -> dict[str, analysis.Analysis]:
    """Statistics along the eigenvectors of Σ (drift left in) and of H (drift removed).

    The layer is recorded whole, so its principal components are a rotation of the recording; the
    curvature along them is p·Hp.
    """
    weights = recorded.trajectory.weights
    _, components = np.linalg.eigh(np.cov(weights.T))
    components = components[:, ::-1]
    rotated = recorded._replace(
        trajectory=type(recorded.trajectory)(*(x @ components for x in recorded.trajectory)),
        anchor_gradients=recorded.anchor_gradients @ components,
    )
    curvature = np.einsum("ij,i,ij->j", components, eigenvalues, components)
    return {
        "pca": analysis.analyse(rotated, curvature, SCHEME, conditions, "none"),
        "hessian": analysis.analyse(recorded, eigenvalues, SCHEME, conditions),
    }
