"""LeNet on CIFAR-10, the paper's main experiment (Fig. 1, 2, 5-8, 11, 13, 14, Sec. 7).

    python -m experiments.lenet                                              the paper's size
    python -m experiments.lenet --flagfile=experiments/presets/cpu.flags     2 cores, 2 hours
    python -m experiments.lenet --flagfile=experiments/presets/demo.flags    digits, minutes

Trains LeNet, finds the leading Hessian eigenpairs at the end θ_K, records from that point one
analysis period without and one with replacement along them, and writes the noise
autocorrelation, variances and correlation times beside the theory. With --seeds above 1 it also
compares the test accuracy of the two ways of drawing examples.
"""

import dataclasses
from dataclasses import dataclass

from antisgd import models, study
from antisgd.study.fields import setting
from experiments import cli, paper, pictures


@dataclass(frozen=True, kw_only=True)
class Network:
    """Which LeNet."""

    smooth: bool = setting(
        False,
        "tanh and mean-pooling in place of ReLU and max-pooling: a loss without kinks. Paper: no.",
    )


OPTIONS = cli.options("lenet", Network())


def main(
    settings: study.Settings, chosen: pictures.Pictures, place: study.Place, network: Network
) -> None:
    """Runs the stages that --stages names, each going on from what the run folder holds."""
    settings.check()
    name = "LeNet, smooth" if network.smooth else "LeNet"
    problem = pictures.problem(models.lenet(smooth=network.smooth), name, chosen, settings)
    if network.smooth:
        problem = dataclasses.replace(problem, description={**problem.description, "smooth": True})
    study.run(
        problem, settings, place.folder, overwrite=place.overwrite, plan=place.plan,
        json=place.json,
        presentation=paper.lenet(settings, chosen, smooth=network.smooth),
    )  # fmt: skip


if __name__ == "__main__":
    cli.run(main, *OPTIONS)
