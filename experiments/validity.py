"""Whether the quadratic picture holds: curvature at the period's end, the whole spectrum."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from antisgd import hessian, lanczos, plotting, results, theory
from experiments import training
from experiments.comparison import median_row, row

FLAGS = flags.FLAGS

# Directions whose curvature is taken again at the end: each costs one Hessian-vector product.
DIRECTIONS = 16
# Random vectors and products of each for the density: 200 products.
PROBES, NODES = 4, 50


def end_curvature_rows(
    problem: training.Problem, params: Any, pairs: Any, folder: Path
) -> list[dict[str, Any]]:
    """p_iᵀH(θ_{K+T})p_i over λ_i, along directions spread evenly over those found.

    Args:
        problem: loss and pictures.
        params: weights at the end of the period.
        pairs: eigenpairs at θ_K.
        folder: of the run; keeps validity.npz.
    """
    path, k = folder / "validity.npz", len(pairs.values)
    chosen = np.unique(np.linspace(0, k - 1, min(DIRECTIONS, k)).astype(int))
    if not path.exists() or not np.array_equal(results.read_arrays(path)["index"], chosen):
        matvec = _matvec(problem, params)
        curvature = [_rayleigh(matvec, pairs.vectors[i]) for i in chosen]
        results.write_arrays(path, index=chosen, curvature=np.array(curvature))
    ratio = results.read_arrays(path)["curvature"] / pairs.values[chosen]
    quantity = "curvature along the directions at the period's end over its start, median"
    made = median_row("end_curvature", "Sec. 5", quantity, ratio)
    made["note"] = f"10th to 90th percentile {_range(ratio)}; error over directions, of one run"
    return [made]


def _matvec(problem: training.Problem, params: Any) -> Any:
    return hessian.hessian_vector_product(
        problem.loss, params, problem.dataset.train, microbatch_size=FLAGS.microbatch_size
    )


@jax.jit
def _rayleigh(matvec: Any, vector: jax.Array) -> jax.Array:
    return jnp.vdot(vector, matvec(vector), precision=jax.lax.Precision.HIGHEST)


def _range(values: np.ndarray) -> str:
    low, high = np.percentile(values, [10, 90])
    return f"{low:.3g} to {high:.3g}"


def density(problem: training.Problem, params: Any, folder: Path) -> lanczos.SpectralDensity:
    """The density of all eigenvalues at θ_K = params, kept in the folder's density.npz."""
    path = folder / "density.npz"
    if not path.exists():
        found = lanczos.spectral_density(
            _matvec(problem, params), problem.dimension, key=jax.random.key(FLAGS.seed),
            num_probes=PROBES, num_steps=NODES,
        )  # fmt: skip
        results.write_arrays(path, **found._asdict())
    return lanczos.SpectralDensity(**results.read_arrays(path))


def density_rows(problem: training.Problem, found: lanczos.SpectralDensity) -> list[dict[str, Any]]:
    """Sec. 7's reduction of the loss fluctuation for all directions; eigenvalues above λ_cross."""
    above, above_error = found.mean(lambda x: x > training.crossover(problem))
    reduction, error = _reduction(found, problem.steps_per_epoch)
    d, vectors = problem.dimension, f"{len(found.nodes)} random vectors"
    quantity = "reduction of the loss fluctuation, all directions of positive curvature"
    note = f"by the theory with C = H but for the penalty, which makes no noise; {vectors}"
    count = "eigenvalues above the crossover, by the spectral density"
    return [
        row("loss_fluctuation_reduction_all", "Sec. 7", quantity, reduction, error, n=d, note=note),
        row("density_above_crossover", "Fig. 5", count, d * above, d * above_error, paper=35, n=d,
            note=vectors),
    ]  # fmt: skip


def density_figure(problem: training.Problem, found: lanczos.SpectralDensity, pairs: Any) -> Any:
    """How many eigenvalues lie above each λ: all, by the density, and those found."""
    return plotting.spectrum_count(
        found.nodes, found.weights * problem.dimension, pairs.values, training.crossover(problem)
    )


def _reduction(found: lanczos.SpectralDensity, steps_per_epoch: int) -> tuple[float, float]:
    """1 − Σ λcV/Σ λcV_white over the nodes, and its error by leaving out one random vector.

    c = λ − 2·weight_decay: the penalty's share of the curvature is the same in every batch.
    """
    sums, positive = [], np.clip(found.nodes, 1e-12, None)
    noise = np.clip(found.nodes - 2 * FLAGS.weight_decay, 0, None)
    for law in (theory.without_replacement(steps_per_epoch), theory.with_replacement()):
        V = theory.stationary_variances(
            positive, training.final_learning_rate(), FLAGS.momentum, law
        )
        sums.append(np.sum(found.weights * positive * noise * V.weight, axis=1))
    anti, white = sums
    left_out = 1 - (anti.sum() - anti) / (white.sum() - white)
    error = np.sqrt((len(anti) - 1) * left_out.var())
    return float(1 - anti.sum() / white.sum()), float(error)
