"""ResNet-20 without batch normalisation (Fig. 12, App. K): the same laws in a deeper network.

    python -m experiments.resnet20                                              the paper's size
    python -m experiments.resnet20 --flagfile=experiments/presets/resnet20_cpu.flags    2 cores
    python -m experiments.resnet20 --flagfile=experiments/presets/resnet20_demo.flags   digits
    python -m experiments.resnet20 --flagfile=experiments/presets/resnet20_seeds.flags  5 networks

The stages of `experiments.lenet` with another network and 400 directions, recorded without
replacement. A step costs some thirty times LeNet's: the paper's size wants an accelerator. The
exponents are fitted in the regions of Fig. 2, the weight variance below λ_cross and the velocity
variance everywhere; which regions Fig. 12 shows its text does not say.
"""

from antisgd import models, study
from experiments import cli, paper, pictures

# Fig. 12 shows weights and velocities: the noise beside them is not worth three hours of exact full
# gradients on an accelerator.
OPTIONS = cli.options(
    "resnet20", eigenpairs=400, microbatch_size=100, sampling=("without_replacement",),
    full_gradient="quadratic", stages=("train", "eigenpairs", "analysis", "figures"),
)  # fmt: skip


def main(settings: study.Settings, chosen: pictures.Pictures, place: study.Place) -> None:
    """Runs the stages that --stages names, each going on from what the run folder holds."""
    settings.check()
    problem = pictures.problem(models.resnet20(), "ResNet-20", chosen, settings)
    study.run(
        problem, settings, place.folder, overwrite=place.overwrite, plan=place.plan,
        json=place.json,
        presentation=paper.resnet20(settings, chosen),
    )  # fmt: skip


if __name__ == "__main__":
    cli.run(main, *OPTIONS)
