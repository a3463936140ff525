"""LeNet on CIFAR-10, the paper's main experiment (Fig. 1, 2, 5-8, 11, 13, 14, Sec. 7).

    python -m experiments.lenet                                              the paper's size
    python -m experiments.lenet --flagfile=experiments/presets/cpu.flags     2 cores, 2 hours
    python -m experiments.lenet --flagfile=experiments/presets/demo.flags    digits, minutes

Trains LeNet, finds the leading Hessian eigenpairs at the end θ_K, records from that point one
analysis period without and one with replacement along them, and writes the noise
autocorrelation, variances and correlation times beside the theory. With --seeds above 1 it also
compares the test accuracy of the two ways of drawing examples.
"""

from typing import Any

from antisgd import models
from experiments import flags as shared
from experiments import stages

shared.define(default_output_dir="runs/lenet")


def main(argv: Any) -> None:
    """Runs the stages that --stages names, each going on from what the run folder holds."""
    del argv
    stages.run(models.lenet())


if __name__ == "__main__":
    shared.run(main)
