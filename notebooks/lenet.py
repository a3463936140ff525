# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # A walk through the paper: LeNet
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/antisgd/blob/main/notebooks/lenet.ipynb)
#
# Curvature, noise and fluctuations of a LeNet whose trained weights come with the package, on
# scikit-learn's digits: nothing is trained and nothing downloaded. Under three minutes on a CPU.
# The same on CIFAR-10 is `python -m experiments.lenet` in a clone of the repository, at the paper's
# size, or with `--flagfile=experiments/presets/colab.flags` at one for a GPU of 16 GB.

# %%
import subprocess
import sys

if "google.colab" in sys.modules:
    source = "antisgd @ git+https://github.com/OWNER/antisgd"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", source], check=True)

# %%
from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax.flatten_util import ravel_pytree

from antisgd import (
    data,
    heavy_ball,
    hessian,
    lanczos,
    models,
    objective,
    plotting,
    pretrained,
    sampling,
    statistics,
    theory,
    trajectory,
)

plt.rcParams.update({"figure.dpi": 90, "figure.constrained_layout.use": True})
N = 1500  # training pictures
PAIRS = 240  # leading eigenpairs of the Hessian
EPOCHS = 10  # recorded in each regime

# %% [markdown]
# ## The network
# LeNet at the end of its training, θ_K, and the loss that it was trained with.

# %%
trained = pretrained.load("lenet_digits")
S, eta, beta = trained.settings["batch_size"], trained.learning_rate, trained.settings["momentum"]
M = N // S
pictures, apply = data.load("digits", num_examples=N), models.lenet().apply
loss = objective.make_loss(apply, trained.settings["weight_decay"])
found = objective.evaluate(apply, trained.params, pictures.test)
cross, limit = theory.crossover_eigenvalue(eta, beta, M), theory.max_correlation_time(beta, M)
print(f"test accuracy {found.accuracy:.1%}, when it was trained {trained.test_accuracy:.1%}")
print(f"{M} steps an epoch: lambda_cross = {cross:.2f}, tau_SGD = {limit:.0f} steps")

# %% [markdown]
# ## Curvature (Fig. 5)
# The leading eigenpairs of the Hessian over all training pictures, by block Lanczos. Directions
# below λ_cross forget more slowly than an epoch lasts.

# %%
theta, unravel = ravel_pytree(trained.params)
matvec = hessian.hessian_vector_product(loss, trained.params, pictures.train, microbatch_size=250)
pairs = lanczos.leading_eigenpairs(
    matvec, theta.size, PAIRS, key=jax.random.key(0), tolerance=1e-2, probe_products=0
)
print(f"{theta.size:,} weights, eigenvalues {pairs.values[0]:.1f} ... {pairs.values[-1]:.2f}")
print(f"{np.mean(pairs.values > cross):.0%} of them above the crossover")
fig, axis = plt.subplots(figsize=(5, 3.2))
plotting.spectrum_panel(axis, pairs.values, cross)
plt.show()

# %% [markdown]
# ## What the eigenvectors are good for (Fig. 11)
# The test accuracy without the projection on the leading ones.


# %%
@jax.jit
def accuracy_without(discarded):
    """Test accuracy after θ loses its projection on the given rows."""
    left = theta - (discarded @ theta) @ discarded
    return objective.evaluate(apply, unravel(left), pictures.test).accuracy


for count in (0, 1, 2, 5, 10, 20, 50):
    used = (jnp.arange(len(pairs.vectors)) < count)[:, None]
    print(f"without {count:2d} eigenvectors: {accuracy_without(used * pairs.vectors):.1%}")

# %% [markdown]
# ## Fluctuations
# From θ_K on, some epochs without and some with replacement, recorded along the eigenvectors: the
# updates, the gradients, and the full gradient at every step, whose difference is the noise. The
# first epoch is not used: the velocity starts at zero.

# %%
optimizer = heavy_ball.heavy_ball(eta, beta)


def full_gradient(examples, params):
    """∇L(θ) over all pictures, flat."""
    return ravel_pytree(objective.full_gradient(loss, params, examples, 500))[0]


@trajectory.make_recorder
def run(state, schedule, examples):
    """One schedule of steps, recorded."""
    flat = trajectory.flat_record(partial(full_gradient, examples))
    return heavy_ball.run_schedule(loss, optimizer, state, schedule, examples, record=flat)


def record(scheme):
    """Weights, velocities and noise of EPOCHS epochs along the eigenvectors."""
    state, parts = heavy_ball.init(optimizer, trained.params), []
    for epoch in range(EPOCHS + 1):
        schedule = scheme(jax.random.key(1), epoch, N, S)
        state, projected = run(state, schedule, pictures.train, pairs.vectors)
        parts.append(jax.tree.map(np.asarray, projected))
    gradients, updates, full_gradients, _ = map(np.concatenate, zip(*parts[1:], strict=True))
    return trajectory.assemble(gradients, updates, full_gradients)


recorded = {
    "without replacement": record(sampling.without_replacement),
    "with replacement": record(sampling.with_replacement),
}

# %% [markdown]
# ## Noise (Fig. 1 and 6)
# Its autocorrelation, averaged over the directions: anti-correlated without replacement, along the
# line of Eq. 2, and white with.

# %%
laws = {
    "without replacement": theory.without_replacement(M),
    "with replacement": theory.with_replacement(),
}
lags = np.arange(1, 2 * M + 1)
correlations = {
    name: SimpleNamespace(
        lags=lags,
        autocorrelation=statistics.autocorrelation(one.noise, 2 * M)[1:].mean(axis=1),
        autocorrelation_theory=theory.autocorrelation(laws[name], lags),
    )
    for name, one in recorded.items()
}
independent = statistics.effective_directions(recorded["without replacement"].noise)
band = statistics.independent_noise_band(EPOCHS * M, independent, 2 * M)[1:]
fig, axes = plt.subplots(1, 2, figsize=(8, 3.2), sharey=True)
for axis, (name, one) in zip(axes, correlations.items(), strict=True):
    plotting.autocorrelation_panel(axis, one, band, M)
    axis.set_title(name, pad=14)
axes[0].legend(loc="lower right", fontsize=7)
plt.show()

# %% [markdown]
# ## Correlation times (Fig. 2 and 7)
# τ = 2σ_θ²/σ_v² against curvature. The weights lose the slow motion of the minimum first; hollow
# points are directions where that is most of what they do. The black line is the stationary theory
# (Eq. 6), the dashed one what a window of this length shows, the band where 95 % of the directions
# should lie.

# %%
used = pairs.values > 0
values, start = pairs.values[used], laws["without replacement"]
fig, axes = plt.subplots(1, 2, figsize=(8, 3.6), sharey=True)
for axis, (name, one) in zip(axes, recorded.items(), strict=True):
    weights, velocities = one.weights[:, used], one.velocities[:, used]
    window = (values, eta, beta, laws[name], EPOCHS * M)
    analysis = SimpleNamespace(
        eigenvalues=values,
        measured=statistics.variances(
            *statistics.remove_drift(weights, velocities, "mean_velocity")
        ),
        stationary=SimpleNamespace(
            correlation_time=theory.correlation_time(values, eta, beta, laws[name])
        ),
        window=theory.window_variances(*window, start=start),
        spread=theory.window_spread(*window, start=start, quantiles=(0.025, 0.975)),
        drift_share=statistics.drift_share(weights),
        unconverged=~pairs.converged[used],
        blurred=np.flatnonzero(used) >= pairs.certificate.identifiable,
    )
    plotting.correlation_time_panel(axis, analysis, cross, limit)
    axis.set_title(name, pad=14)
    ratio = analysis.measured.correlation_time / analysis.window.correlation_time
    print(f"{name}: measured over predicted correlation time, median {np.median(ratio):.2f}")
axes[0].legend(loc="lower left", fontsize=7)
plt.show()

# %% [markdown]
# ## What it is worth (Sec. 7)
# The share of the loss fluctuation that the anti-correlations remove, in these directions and for
# noise proportional to the Hessian. The paper finds 62 % in 5,000 directions on CIFAR-10, most of
# which lie far below the crossover; these do not.

# %%
variances = [theory.stationary_variances(values, eta, beta, law).weight for law in laws.values()]
print(f"{theory.loss_fluctuation_reduction(values, *variances):.0%}")
