"""One layer in two bases (Fig. 4, App. E): eigenvectors of H against those of Σ.

    python -m experiments.first_layer                                             the paper's size
    python -m experiments.first_layer --flagfile=experiments/presets/first_layer_demo.flags

Trains LeNet without penalty, records the weights of the first convolution for ten epochs, and
shows variances and correlation times along the principal components of the recorded weights, as
Feng & Tu (2021) analyse them, beside those along the eigenvectors of the layer's whole Hessian.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.flatten_util import ravel_pytree
from tqdm import tqdm

from antisgd import hessian, models, plotting, results, theory
from experiments import analysis, comparison, plan, recording, report, start, training
from experiments import flags as shared
from experiments.comparison import exponent_row, row

FLAGS = flags.FLAGS
shared.define(default_output_dir="runs/first_layer")
FLAGS.set_default("weight_decay", 0.0)
FLAGS.set_default("analysis_epochs", 10)
FLAGS.set_default("sampling", ["without_replacement"])

LAYER = "params/Conv_0/kernel"
REGIME = "without_replacement"
# Columns of the layer's Hessian found at a time.
BLOCK = 10
# Exponents of the weight and the velocity variance with their standard errors (half of 2σ).
PAPER = {"pca": ((1.537, 0.006), (1.134, 0.001)), "hessian": ((1.018, 0.004), (1.017, 0.001))}
TITLES = {"pca": "eigenvectors of Σ", "hessian": "eigenvectors of H"}


def main(argv: Any) -> None:
    """Training, the layer's Hessian, ten recorded epochs, both bases."""
    del argv
    problem, folder = start.start(models.lenet(), work=work, layer=LAYER)
    if FLAGS.plan:
        return
    state = training.network(training.train(problem, folder), 0)
    values, vectors = np.linalg.eigh(layer_hessian(problem, state.params, folder))
    values, vectors = values[::-1], vectors[:, ::-1]
    recorded = recording.record(
        problem, state, _embedded(problem, state.params, vectors.T), values, regime=REGIME,
        key=training.stream_key(0), folder=folder / f"trajectory_{REGIME}",
    )  # fmt: skip
    analyses = both_bases(recorded, values, problem.num_examples)
    _write(folder, problem, analyses, values)


def work(problem: training.Problem, folder: Path) -> plan.Work:
    """The layer's Hessian, column by column, and one period along as many directions."""
    shapes = jax.eval_shape(problem.init, jax.random.key(0))
    columns = shapes["params"]["Conv_0"]["kernel"].size
    unrecorded = plan.missing(folder / f"trajectory_{REGIME}" / "anchors.npz")
    return plan.Work(
        pairs=0,
        directions=columns,
        periods=1,
        train=int(plan.missing(folder / "training.npz")),
        solves=0,
        records=int(unrecorded),
        products=columns * unrecorded,
    )


def layer_hessian(problem: training.Problem, params: Any, folder: Path) -> np.ndarray:
    """The Hessian of the layer's weights at θ_K, float64 [n, n], column by column; resumable."""
    flat, _ = hessian.ravel_subset(params, LAYER.__eq__)
    matvec = hessian.hessian_vector_product(
        problem.loss, params, problem.dataset.train, microbatch_size=FLAGS.microbatch_size,
        only=LAYER.__eq__,
    )  # fmt: skip
    columns = jax.jit(lambda matvec, block: jax.vmap(matvec)(block))
    path, n = folder / "checkpoints" / "layer_hessian.npz", flat.size
    found = np.zeros((n, n), np.float32)
    found, done = results.read_checkpoint(path, (found, 0))
    bar = tqdm(total=n, initial=int(done), desc="layer's Hessian", unit="column")
    for first in range(int(done), n, BLOCK):
        block = jnp.eye(n)[np.minimum(np.arange(first, first + BLOCK), n - 1)]
        found[first : first + BLOCK] = columns(matvec, block)[: n - first]
        if not np.isfinite(found).all():
            words = f"columns {first} to {first + BLOCK} of the layer's Hessian are not finite"
            bound = training.stability(FLAGS.epochs, *training.hyperparameters())
            raise FloatingPointError(f"{words}; {bound}")
        bar.update(min(BLOCK, n - first))
        results.write_checkpoint(path, (found, first + BLOCK))
    bar.close()
    return (found + found.T).astype(np.float64) / 2


def _embedded(problem: training.Problem, params: Any, rows: np.ndarray) -> np.ndarray:
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
    recorded: recording.Recording, eigenvalues: np.ndarray, num_examples: int
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
    rate = training.final_learning_rate()
    return {
        "pca": analysis.analyse(rotated, curvature, REGIME, num_examples, rate, "none"),
        "hessian": analysis.analyse(recorded, eigenvalues, REGIME, num_examples, rate),
    }


def rows(
    problem: training.Problem, analyses: dict[str, analysis.Analysis], values: np.ndarray
) -> list[dict[str, Any]]:
    """Exponents in both bases, the drift mode, and whether all curvatures lie below λ_cross."""
    made = []
    for basis, one in analyses.items():
        for (name, law), (paper, error) in zip(one.fits.items(), PAPER[basis], strict=True):
            quantity = f"exponent of the {name} variance, {TITLES[basis]}"
            errors = {"paper": paper, "paper_error": error}
            made.append(exponent_row(f"{name}_exponent_{basis}", "Fig. 4", quantity, law, **errors))
    time = analyses["pca"].measured.correlation_time
    cross = training.crossover(problem)
    quantity = "correlation time of the drift mode over the median, eigenvectors of Σ"
    made.append(row("drift_mode", "Fig. 4", quantity, time[0] / np.median(time), n=time.size))
    quantity = "largest eigenvalue of the layer's Hessian over the crossover"
    note = "the paper finds all below it"
    made.append(row("largest_over_crossover", "Fig. 4", quantity, values[0] / cross, note=note))
    negative = np.sum(values <= 0)
    quantity = "eigenvalues of the layer's Hessian that are not positive"
    made.append(row("not_positive", "Fig. 4", quantity, negative, n=values.size))
    return made


def _write(folder: Path, problem: training.Problem, analyses: Any, values: np.ndarray) -> None:
    figure = plotting.variances_figure(
        {TITLES[basis]: one for basis, one in analyses.items()},
        training.crossover(problem),
        theory.max_correlation_time(FLAGS.momentum, problem.steps_per_epoch),
    )
    results.write_figure(folder / "figures" / "fig04", figure)
    made = comparison.for_data(rows(problem, analyses, values), training.on_the_papers_pictures())
    results.write_json(folder / "summary.json", made)
    results.write_text(folder / "report.html", report.render(folder))
    print(comparison.table(made))


if __name__ == "__main__":
    shared.run(main)
