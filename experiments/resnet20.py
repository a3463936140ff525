"""ResNet-20 without batch normalisation (Fig. 12, App. K): the same laws in a deeper network.

    python -m experiments.resnet20                                              the paper's size
    python -m experiments.resnet20 --flagfile=experiments/presets/resnet20_cpu.flags    2 cores
    python -m experiments.resnet20 --flagfile=experiments/presets/resnet20_demo.flags   digits

The stages of `experiments.lenet` with another network and 400 directions, recorded without
replacement. A step costs some thirty times LeNet's: the paper's size wants an accelerator. The
exponents are fitted in the regions of Fig. 2, the weight variance below λ_cross and the velocity
variance everywhere; which regions Fig. 12 shows its text does not say.
"""

from typing import Any

from absl import flags

from antisgd import models
from experiments import flags as shared
from experiments import stages

FLAGS = flags.FLAGS
shared.define(default_output_dir="runs/resnet20")
FLAGS.set_default("eigenpairs", 400)
FLAGS.set_default("microbatch_size", 100)
FLAGS.set_default("sampling", ["without_replacement"])
# Fig. 12 shows weights and velocities: the noise beside them is not worth three hours of exact full
# gradients on an accelerator.
FLAGS.set_default("full_gradient", "quadratic")
FLAGS.set_default("stages", ["train", "eigenpairs", "analysis", "figures"])

# The paper's values with their standard errors (half of 2σ).
PAPER = {
    "train_accuracy": (1.0, None),
    "test_accuracy": (0.73, None),
    "weight_exponent_without_replacement": (0.820, 0.0495),
    "velocity_exponent_without_replacement": (0.965, 0.0025),
}
# What the stages number as LeNet's figures.
FIGURES = {
    "fig01": "noise_autocorrelation",
    "fig02": "fig12",
    "fig05": "eigenvalue_density",
    "fig08": "training_curves",
}
# Rows that make sense beside the paper's LeNet only.
LENETS = ("best_test_accuracy", "loss_fluctuation_reduction")


def main(argv: Any) -> None:
    """Runs the stages that --stages names, each going on from what the run folder holds."""
    del argv
    stages.run(models.resnet20(), present)


def present(rows: stages.Rows, panels: stages.Panels) -> tuple[stages.Rows, stages.Panels]:
    """Rows and figures of the stages under the names and with the values of App. K."""
    made = []
    for one in rows:
        paper, error = PAPER.get(one["id"], (None, None))
        item = one["paper_item"]
        if item.startswith(("Fig.", "App.")):
            item = "Fig. 12" if item == "Fig. 2" else "App. K"
        if one["id"] not in LENETS:
            made.append(one | {"paper_item": item, "paper": paper, "paper_error": error})
    return made, {FIGURES.get(name, name): panel for name, panel in panels.items()}


if __name__ == "__main__":
    shared.run(main)
