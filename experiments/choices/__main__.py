"""What the choices that the paper leaves open do to the curvature (App. J: 35 eigenvalues above
λ_cross).

    python -m experiments.choices --flagfile=experiments/presets/choices_cpu.flags

Trains LeNet once for each choice, all else being the paper's, and counts the Hessian eigenvalues
above λ_cross at the end; beside them the largest over the training loss, the accuracy without the
35 leading eigenvectors, and how noise and Hessian align. Other pixels, another penalty, other
initial weights, and other seeds of the same, whose spread says which differences mean something.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.flatten_util import ravel_pytree

from antisgd import display, hessian, lanczos, models, results, statistics, trajectory
from antisgd.study import Place, Problem, Settings, preflight
from antisgd.study.conditions import conditions_of
from antisgd.study.fields import check_bounds, setting
from antisgd.study.findings.rows import Rows, mean_row
from antisgd.study.stages import train
from antisgd.study.stages.covariance import of_examples
from experiments import cli, outcome, paper, pictures
from experiments.choices.variants import CHOICES, changed

MICROBATCH = 100


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Which choices, and how their curvature is counted."""

    choices: tuple[str, ...] = setting(
        (), "Which of the choices to train; all if not given.", decides=False
    )
    curvature_examples: int = setting(
        10_000, "The first so many training pictures are those of the Hessian.", least=1
    )


OPTIONS = cli.options("choices", Chosen(), eigenpairs=60)
QUANTITIES = {
    "above_crossover": ("Hessian eigenvalues above the crossover", "App. J"),
    "largest_eigenvalue": ("largest Hessian eigenvalue", "Fig. 5"),
    "largest_over_loss": ("largest Hessian eigenvalue over the training loss", "Fig. 5"),
    "train_loss": ("training loss after training", "Fig. 8"),
    "test_accuracy": ("test accuracy after training", "Fig. 8"),
    "accuracy_without_35": ("test accuracy without the 35 leading eigenvectors", "Fig. 11"),
    "cosine_similarity": ("cosine similarity of C and H, leading eigenvectors", "App. L"),
}
# Leading eigenvectors that the paper's Fig. 11 discards first.
DISCARDED = 35


def main(settings: Settings, chosen: pictures.Pictures, place: Place, own: Chosen) -> None:
    """Trains every choice, counts, writes the table."""
    settings.check()
    check_bounds(own)
    names = own.choices or tuple(CHOICES)
    unknown = sorted(set(names) - set(CHOICES))
    if unknown:
        raise ValueError(f"--choices knows {', '.join(CHOICES)}, not {', '.join(unknown)}")
    if chosen.dataset != "cifar10":
        raise ValueError("the choices are those of CIFAR-10: leave --dataset=cifar10")
    usual, counted = (
        pictures.problem(models.lenet(), "LeNet", chosen, settings),
        own.curvature_examples,
    )
    opened = preflight.opened(
        usual, settings, place, work=work(settings), may_grow=("eigenpairs",),
        config={"curvature_examples": counted},
    )  # fmt: skip
    with opened as folder:
        if folder is None:
            return
        rows = []
        for name in names:
            problem = changed(usual, CHOICES[name], chosen, settings)
            found = examine(problem, settings, counted, name, folder)
            rows += choice_rows(name, found, counted=counted, sought=settings.eigenpairs)
        outcome.write(folder, paper.beside(rows, paper.CHOICES, settings, chosen), {})


def work(settings: Settings) -> preflight.Work:
    """One eigen-solve at a time; the trainings show how long they take."""
    return preflight.Work(
        pairs=settings.eigenpairs, directions=0, periods=0, train=1, solves=1, records=0,
        products=0,
    )  # fmt: skip


def examine(
    problem: Problem, settings: Settings, counted: int, name: str, folder: Path
) -> dict[str, np.ndarray]:
    """The quantities of every seed of a choice, [seeds]; kept, and read if they are there.

    Args:
        problem: of the choice.
        settings: of the training and of the eigenpairs.
        counted: the first so many training pictures are those of the Hessian.
        name: of the choice.
        folder: of the run.
    """
    path = folder / f"{name}.npz"
    if path.exists():
        return results.read_arrays(path)
    one_scheme = replace(
        settings, sampling=("without_replacement",), seed=settings.seed + CHOICES[name].seed
    )
    trained = train.train_networks(problem, [one_scheme], folder / "checkpoints" / f"{name}.npz")
    few = replace(problem, train=jax.tree.map(lambda leaf: leaf[:counted], problem.train))
    each = [
        _curvature(
            few, settings, train.network(trained, seed).params, f"{name}, seed {seed}",
            conditions_of(problem.num_examples, settings).crossover,
        )
        for seed in range(settings.seeds)
    ]  # fmt: skip
    loss = trained.curves["train_loss"][:, -1]
    found = {key: np.array([one[key] for one in each]) for key in each[0]}
    found |= {"train_loss": loss, "largest_over_loss": found["largest_eigenvalue"] / loss}
    found["test_accuracy"] = trained.curves["test_accuracy"][:, -1]
    weights = jax.vmap(lambda params: ravel_pytree(params)[0])(trained.states.params)
    results.write_arrays(path, **found, params=np.asarray(weights))
    return results.read_arrays(path)


def _curvature(
    problem: Problem, settings: Settings, params: Any, words: str, crossover: float
) -> dict[str, float]:
    """What the leading eigenpairs of the problem's Hessian say, by the names of `QUANTITIES`."""
    values, vectors = _leading(problem, settings, params, words)
    covariance = of_examples(problem, settings, params, vectors)
    found = {
        "above_crossover": np.sum(values > crossover),
        "largest_eigenvalue": values[0],
        "cosine_similarity": statistics.alignment(covariance, values).cosine,
    }
    if len(values) >= DISCARDED:
        theta, restore = ravel_pytree(params)
        leading = vectors[:DISCARDED]
        left = theta - trajectory.project(leading.T, trajectory.project(leading, theta[None]))[0]
        found["accuracy_without_35"] = problem.evaluate(restore(left), problem.test)["accuracy"]
    return {key: float(value) for key, value in found.items()}


def _leading(
    problem: Problem, settings: Settings, params: Any, words: str
) -> tuple[np.ndarray, jax.Array]:
    """The leading eigenvalues and eigenvectors of the Hessian, --eigenpairs of them."""
    matvec = hessian.hessian_vector_product(
        problem.loss, params, problem.train, microbatch_size=MICROBATCH
    )
    with display.progress_bar(words, "product") as bar:

        def callback(state: lanczos.State, progress: lanczos.Progress) -> None:
            del state
            bar.total = progress.products + progress.remaining
            bar.set_postfix_str(f"{progress.stage}, {progress.converged} converged", refresh=False)
            bar.update(progress.products - bar.n)

        pairs = lanczos.leading_eigenpairs(
            matvec, problem.dimension, settings.eigenpairs, key=jax.random.key(settings.seed),
            block_size=4, callback=callback,
        )  # fmt: skip
    return pairs.values, pairs.vectors


def choice_rows(name: str, found: dict[str, np.ndarray], *, counted: int, sought: int) -> Rows:
    """One row a quantity, mean over the seeds."""
    note = f"Hessian of {counted:,} pictures"
    if found["above_crossover"].max() >= sought:
        note += f"; no more than {sought} were sought"
    return [
        mean_row(
            f"{key}_{name}", item, f"{words}, {CHOICES[name].words}", found[key],
            note="" if key in ("train_loss", "test_accuracy") else note,
        )
        for key, (words, item) in QUANTITIES.items()
        if key in found
    ]  # fmt: skip


if __name__ == "__main__":
    cli.run(main, *OPTIONS)
