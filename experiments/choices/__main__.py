"""What the choices that the paper leaves open do to the curvature (App. J: 35 eigenvalues above
λ_cross).

    python -m experiments.choices --flagfile=experiments/presets/choices_cpu.flags

Trains LeNet once for each choice, all else being the paper's, and counts the Hessian eigenvalues
above λ_cross at the end. Other pixels, another penalty, other initial weights, and other seeds of
the same, whose spread says which differences mean something.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.flatten_util import ravel_pytree
from tqdm import tqdm

from antisgd import data, hessian, lanczos, models, results, sampling
from antisgd.data import cifar10
from experiments import comparison, plan, report, start, training
from experiments import flags as shared
from experiments.comparison import mean_row

FLAGS = flags.FLAGS
shared.define(default_output_dir="runs/choices")
flags.DEFINE_list("choices", None, "Which of the choices to train; all if not given.")
flags.DEFINE_integer(
    "curvature_examples", 10_000, "The first so many training pictures are those of the Hessian.",
    lower_bound=1,
)  # fmt: skip
FLAGS.set_default("eigenpairs", 60)

MICROBATCH = 100


class Choice(NamedTuple):
    """What differs from the run of Fig. 2.

    Attributes:
        words: for the table.
        pixels: raw pictures of both sets, uint8 → float32; None for the usual preprocessing.
        penalty: factor on --weight_decay.
        kernel_scale: [kernel's shape] → factor on the initial Glorot-normal kernel.
    """

    words: str
    pixels: Callable[[np.ndarray], np.ndarray] | None = None
    penalty: float = 1.0
    kernel_scale: Callable[[tuple[int, ...]], float] | None = None


def over_255(pixels: np.ndarray) -> np.ndarray:
    """Pixels in [0, 1]."""
    return (pixels / 255).astype(np.float32)


def whole_set(pixels: np.ndarray) -> np.ndarray:
    """Mean 0 and variance 1 of every channel over all pictures instead of within each."""
    axes = (0, 1, 2)
    mean, deviation = (of(pixels, axis=axes, dtype=np.float64) for of in (np.mean, np.std))
    return ((pixels - mean) / deviation).astype(np.float32)


def fan_in_over_glorot(shape: tuple[int, ...]) -> float:
    """Turns the deviation √(2/(fan in + fan out)) into LeCun's √(1/fan in)."""
    *window, wide, high = shape
    del window
    return float(np.sqrt((wide + high) / (2 * wide)))


CHOICES = {
    "reference": Choice("as in Fig. 2"),
    "over_255": Choice("pixels / 255 only", pixels=over_255),
    "whole_set": Choice("channels standardised over the data set", pixels=whole_set),
    "no_penalty": Choice("no penalty", penalty=0.0),
    "half_penalty": Choice("penalty c/2 Σw²", penalty=0.5),
    "lecun": Choice("LeCun-normal kernels", kernel_scale=fan_in_over_glorot),
}
QUANTITIES = {
    "above_crossover": ("Hessian eigenvalues above the crossover", "App. J"),
    "largest_eigenvalue": ("largest Hessian eigenvalue", "Fig. 5"),
    "train_loss": ("training loss after training", "Fig. 8"),
    "test_accuracy": ("test accuracy after training", "Fig. 8"),
}
PAPER = {"above_crossover": 35, "test_accuracy": 0.63}


def main(argv: Any) -> None:
    """Trains every choice, counts, writes the table."""
    del argv
    names = FLAGS.choices or list(CHOICES)
    unknown = sorted(set(names) - set(CHOICES))
    if unknown:
        raise ValueError(f"--choices knows {', '.join(CHOICES)}, not {', '.join(unknown)}")
    if FLAGS.dataset != "cifar10":
        raise ValueError("the choices are those of CIFAR-10: leave --dataset=cifar10")
    usual, folder = start.start(
        models.lenet(), work=work, may_grow=("eigenpairs",),
        curvature_examples=FLAGS.curvature_examples,
    )  # fmt: skip
    if FLAGS.plan:
        return
    rows = []
    for name in names:
        rows += choice_rows(name, examine(changed(usual, CHOICES[name]), name, folder))
    results.write_json(folder / "summary.json", rows)
    results.write_text(folder / "report.html", report.render(folder))
    print(comparison.table(rows))


def work(problem: training.Problem, folder: Path) -> plan.Work:
    """One eigen-solve at a time; the trainings show how long they take."""
    del problem, folder
    return plan.Work(
        pairs=FLAGS.eigenpairs, directions=0, periods=0, train=1, solves=1, records=0, products=0
    )


def changed(usual: training.Problem, choice: Choice) -> training.Problem:
    """The problem of a choice."""
    problem = usual
    if choice.penalty != 1:
        penalty = choice.penalty * FLAGS.weight_decay
        problem = training.load_problem(models.lenet(), weight_decay=penalty)
    if choice.pixels is not None:
        problem = problem._replace(dataset=_repainted(problem.dataset, choice.pixels))
    if choice.kernel_scale is not None:
        problem = problem._replace(init=_rescaled(problem.init, choice.kernel_scale))
    return problem


def _repainted(dataset: data.Dataset, pixels: Callable[[np.ndarray], np.ndarray]) -> data.Dataset:
    pictures = cifar10.read(FLAGS.data_dir)
    return data.Dataset(
        *(
            data.Examples(jnp.asarray(pixels(raw.images)[: len(kept.labels)]), kept.labels)
            for raw, kept in zip(pictures, dataset, strict=True)
        )
    )


def _rescaled(init: Any, scale: Callable[[tuple[int, ...]], float]) -> Any:
    def rescaled(key: jax.Array) -> Any:
        return jax.tree.map(lambda w: w * scale(w.shape) if w.ndim > 1 else w, init(key))

    return rescaled


def examine(problem: training.Problem, name: str, folder: Path) -> dict[str, np.ndarray]:
    """The quantities of every seed of a choice, [seeds]; kept, and read if they are there."""
    path = folder / f"{name}.npz"
    if path.exists():
        return results.read_arrays(path)
    trained = training.train_networks(
        problem, (sampling.without_replacement,), [training.hyperparameters()],
        folder / "checkpoints" / f"{name}.npz",
    )  # fmt: skip
    leading = [
        _leading(problem, training.network(trained, seed).params, f"{name}, seed {seed}")
        for seed in range(FLAGS.seeds)
    ]
    curves, cross = trained.curves, training.crossover(problem)
    found = {
        "above_crossover": np.array([np.sum(values > cross) for values in leading]),
        "largest_eigenvalue": np.array([values.max() for values in leading]),
        "train_loss": curves["train_loss"][:, -1],
        "test_accuracy": curves["test_accuracy"][:, -1],
    }
    weights = jax.vmap(lambda params: ravel_pytree(params)[0])(trained.states.params)
    results.write_arrays(path, **found, params=np.asarray(weights))
    return results.read_arrays(path)


def _leading(problem: training.Problem, params: Any, words: str) -> np.ndarray:
    """The Hessian's eigenvalues above λ_cross, of the first --curvature_examples pictures.

    The largest one where none is.
    """
    pictures = jax.tree.map(lambda leaf: leaf[: FLAGS.curvature_examples], problem.dataset.train)
    matvec = hessian.hessian_vector_product(
        problem.loss, params, pictures, microbatch_size=MICROBATCH
    )
    bar = tqdm(desc=words, unit="product")

    def callback(state: lanczos.State, progress: lanczos.Progress) -> None:
        del state
        bar.total, bar.n = progress.products + progress.remaining, progress.products
        bar.set_postfix_str(f"{progress.stage}, {progress.converged} converged")

    solve = partial(
        lanczos.leading_eigenpairs, matvec, problem.dimension,
        key=jax.random.key(FLAGS.seed), block_size=4, callback=callback,
    )  # fmt: skip
    values = solve(FLAGS.eigenpairs, threshold=training.crossover(problem)).values
    if not values.size:
        values = solve(1).values
    bar.close()
    return values


def choice_rows(name: str, found: dict[str, np.ndarray]) -> list[dict[str, Any]]:
    """One row a quantity, mean over the seeds."""
    note = f"Hessian of {FLAGS.curvature_examples:,} pictures"
    if found["above_crossover"].max() >= FLAGS.eigenpairs:
        note += f"; no more than {FLAGS.eigenpairs} were sought"
    return [
        mean_row(
            f"{key}_{name}", item, f"{words}, {CHOICES[name].words}", found[key],
            paper=PAPER.get(key), note=note if "eigenvalue" in words else "",
        )
        for key, (words, item) in QUANTITIES.items()
    ]  # fmt: skip


if __name__ == "__main__":
    shared.run(main)
