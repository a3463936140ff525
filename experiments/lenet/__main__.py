"""LeNet on CIFAR-10, the paper's main experiment (Fig. 1, 2, 5-8, 11, 13, 14, Sec. 7).

    python -m experiments.lenet                                              the paper's size
    python -m experiments.lenet --flagfile=experiments/presets/cpu.flags     2 cores, 2 hours
    python -m experiments.lenet --flagfile=experiments/presets/demo.flags    digits, minutes

Trains LeNet, finds the leading Hessian eigenpairs at the end θ_K, records from that point one
analysis period without and one with replacement along them, and writes the noise
autocorrelation, variances and correlation times beside the theory. With --seeds above 1 it also
compares the test accuracy of the two ways of drawing examples.
"""

from antisgd import models, study
from experiments import cli, paper, pictures

OPTIONS = cli.options("lenet")


def main(settings: study.Settings, chosen: pictures.Pictures, place: study.Place) -> None:
    """Runs the stages that --stages names, each going on from what the run folder holds."""
    settings.check()
    problem = pictures.problem(models.lenet(), "LeNet", chosen, settings)
    study.run(
        problem, settings, place.folder, overwrite=place.overwrite, plan=place.plan,
        json=place.json,
        presentation=paper.lenet(settings, chosen),
    )  # fmt: skip


if __name__ == "__main__":
    cli.run(main, *OPTIONS)
