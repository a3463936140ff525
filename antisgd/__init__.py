"""How sampling shapes the noise of SGD, and the noise the weights. In reading order:

    theory       what correlated noise does to the weights, in closed form
    sampling     how examples are drawn, as schedules of indices
    heavy_ball   Eq. 1 as an optax transformation, and the scan over a schedule
    injection    white or anti-correlated noise added to gradients
    ensemble     many seeds at once
    objective    mean loss, penalty, accuracy from an apply function
    convolution, models, data      LeNet and ResNet-20 on CIFAR-10 and digits
    pretrained   trained networks that come with the package
    hessian      Hessian-vector products over all the data
    lanczos      a matvec to certified leading eigenpairs
    sources, streaming     examples larger than the device, and the sums and steps over them
    pytorch      a loss written in PyTorch, for all that takes a loss
    trajectory, anchors   weights, velocities and gradient noise along directions; the full
                 gradient from its quadratic model
    statistics   variances, correlation times, autocorrelations, fits
    fluctuations is a window stationary? the fluctuation relation, τ from velocities
    relaxation   the noise-free path to a minimum not yet reached, and what bends beyond it
    renormalisation   curvature and noise averaged over the weights' own fluctuations
    results      run folders
    inputs, weights, averaging     what is accepted: counts, keys and examples; which leaves of a
                 pytree are weights; whether a loss averages
    display      how results print
    plotting     arrays to figures
    devices      one mesh over all devices of all processes
    compilation  what the compiler is told on them
    audit        what a run that is done says of itself, from its recording
    study        all of it on a network of yours, from training to a report

Import the modules: `from antisgd import theory, lanczos`. Importing the package loads none of them.
"""

from typing import Any


def provenance() -> dict[str, Any]:
    """Command, date, versions, device and git commit of this process: what a bug report needs."""
    from antisgd.results import provenance as of_this_process

    return of_this_process()


__all__ = [
    "anchors",
    "audit",
    "averaging",
    "compilation",
    "convolution",
    "data",
    "devices",
    "display",
    "ensemble",
    "fluctuations",
    "heavy_ball",
    "hessian",
    "injection",
    "inputs",
    "lanczos",
    "models",
    "objective",
    "plotting",
    "pretrained",
    "pytorch",
    "relaxation",
    "renormalisation",
    "results",
    "sampling",
    "sources",
    "statistics",
    "streaming",
    "study",
    "theory",
    "trajectory",
    "weights",
]
