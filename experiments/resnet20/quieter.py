"""The networks of a finished run analysed anew at a fraction of their last learning rate.

    python -m experiments.resnet20.quieter --flagfile=experiments/presets/resnet20_seeds.flags \\
        --full_gradient=quadratic --run=runs/resnet20_seeds --output_dir=runs/resnet20_quieter

Weights, Hessian and eigenvectors stay what they were, while the fluctuations shrink with η: what
of a deviation from the theory remains is not the fluctuations'. λ_cross moves up by 1/fraction.
"""

import dataclasses
import itertools
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from antisgd import ensemble, models, results, study
from antisgd.study.fields import setting
from experiments import cli, paper, pictures
from experiments.resnet20 import __main__ as resnet20

SOLVED = ("eigenpairs.npz", "eigenvectors.npy")


@dataclasses.dataclass(frozen=True)
class Source:
    """Whose networks.

    Attributes:
        run: run folder of `experiments.resnet20` with eigenpairs of every network, made with the
            same settings.
        fraction: of the learning rate at the end of that run's training.
    """

    run: str = setting("runs/resnet20", "Run folder of the networks and eigenpairs.")
    fraction: float = setting(0.1, "Of the learning rate at the end of training.", least=0.0)


SETTINGS, PICTURES, _ = resnet20.OPTIONS
OPTIONS = (SETTINGS, PICTURES, study.Place(output_dir="runs/resnet20_quieter"), Source())


def trained(problem: study.Problem, settings: study.Settings, run: Path) -> study.Problem:
    """The problem with the networks of a run where it would draw initial weights.

    Raises:
        ValueError: the run has not as many networks.
    """
    flat = results.read_arrays(run / "training.npz")["params"]
    if len(flat) != settings.seeds:
        raise ValueError(f"{run} has {len(flat)} networks, --seeds={settings.seeds}")
    _, as_params = ravel_pytree(problem.init(jax.random.key(0)))
    keys = jax.random.key_data(ensemble.network_keys(settings.seed, settings.seeds)[0])

    def init(key: jax.Array) -> jax.Array:
        seed = jnp.argmax(jnp.all(jax.random.key_data(key) == keys, axis=-1))
        return as_params(jnp.asarray(flat)[seed])

    return dataclasses.replace(problem, init=init)


def copy(run: Path, folder: Path, networks: int) -> None:
    """Copies the eigenpairs of every network that are not there yet.

    Raises:
        ValueError: the run has none of a network.
    """
    for seed, name in itertools.product(range(networks), SOLVED):
        inside = Path(f"seed_{seed}" if seed else "", name)
        if not (run / inside).exists():
            raise ValueError(f"{run} has no {inside}: let its eigenpairs be solved first")
        if not results.exists(folder / inside):
            shutil.copyfile(run / inside, folder / inside)


def main(
    settings: study.Settings, chosen: pictures.Pictures, place: study.Place, source: Source
) -> None:
    """Copies networks and eigenpairs, then records and compares as every run does."""
    settings.check()
    run, last = Path(source.run), settings.learning_rate_decay**settings.epochs
    settings = dataclasses.replace(
        settings, epochs=0, learning_rate=source.fraction * settings.learning_rate * last,
        learning_rate_decay=1.0,
    )  # fmt: skip
    problem = pictures.problem(models.resnet20(), "ResNet-20", chosen, settings)
    problem, shown = trained(problem, settings, run), paper.resnet20(settings, chosen)
    begun = settings if place.plan else dataclasses.replace(settings, stages=("train",))
    study.run(
        problem, begun, place.folder, overwrite=place.overwrite, plan=place.plan,
        json=place.json, presentation=shown,
    )  # fmt: skip
    if not place.plan:
        copy(run, place.folder, settings.analysis_seeds)
        study.run(problem, settings, place.folder, presentation=shown)


if __name__ == "__main__":
    cli.run(main, *OPTIONS)
