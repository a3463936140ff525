"""LeNet on CIFAR-10, the paper's main experiment (Fig. 1, 2, 5, 6, 7, 8, Sec. 7).

    python -m experiments.lenet                                          the paper's size
    python -m experiments.lenet --flagfile=experiments/presets/cpu.flags      2 cores, 2 hours
    python -m experiments.lenet --flagfile=experiments/presets/demo.flags     digits, minutes

Trains LeNet, finds the leading Hessian eigenpairs at the end θ_K, records from that point one
analysis period without and one with replacement along them, and writes the noise
autocorrelation, variances and correlation times beside the theory.
"""
