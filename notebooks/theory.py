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
# # What anti-correlated noise does to the weights: the theory
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/antisgd/blob/main/notebooks/theory.ipynb)
#
# SGD that draws its examples without replacement uses every example once an epoch. So the noise of
# its gradients sums to zero over an epoch: it is anti-correlated. This notebook shows with formulas
# alone, in a minute on a CPU, what follows for the weights.

# %%
import subprocess
import sys

if "google.colab" in sys.modules:
    source = "antisgd @ git+https://github.com/OWNER/antisgd"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", source], check=True)

# %%
import matplotlib.pyplot as plt
import numpy as np
import optax

from antisgd import theory

plt.rcParams.update({"figure.figsize": (6.5, 3.6), "figure.dpi": 90, "legend.frameon": False})
plt.rcParams["figure.constrained_layout.use"] = True

M = 1000  # update steps an epoch: N/S = 50,000/50
ETA, BETA = 6.63e-4, 0.9  # learning rate and momentum of the paper's analysis period
EPOCHS = 20  # recorded in the analysis period

# %% [markdown]
# ## The noise
# Two minibatches of one epoch share no example, so one that is high makes the others low: the
# autocorrelation is −1/(M−1) at lag one and rises linearly to zero at lag M (Eq. 2). Other ways to
# draw the examples have other laws; each is a value in `antisgd.theory`.

# %%
steps, lags = 20, np.arange(1, 50)
schemes = {
    "without replacement": theory.without_replacement(steps),
    "flip-flop: the order, then reversed": theory.flip_flop(steps),
    "partial last batch": theory.partial_last(10 * steps - 7, 10),
    "with replacement": theory.with_replacement(),
}
for name, noise in schemes.items():
    plt.plot(lags, theory.autocorrelation(noise, lags), ".-", label=name)
plt.xlabel("lag (update steps)")
plt.ylabel("noise autocorrelation")
plt.title(f"{steps} steps an epoch")
plt.legend()
plt.show()

# %% [markdown]
# ## The crossover
# A weight in a direction of curvature λ forgets the noise in about (1+β)/(ηλ) steps. Where that is
# longer than an epoch, the anti-correlation is felt: below λ_cross the correlation time stops
# growing at τ_SGD, and the weight variance is proportional to λ instead of constant.

# %%
cross = theory.crossover_eigenvalue(ETA, BETA, M)
limit = theory.max_correlation_time(BETA, M)
print(f"lambda_cross = {cross:.3g}, tau_SGD = {limit:.0f} steps = {limit / M:.1f} epochs")

curvatures = np.geomspace(1e-3 * cross, 1e3 * cross, 200)
anti, white = theory.without_replacement(M), theory.with_replacement()
for noise, name in ((white, "with replacement"), (anti, "without replacement")):
    plt.loglog(curvatures, theory.correlation_time(curvatures, ETA, BETA, noise), label=name)
plt.axvline(cross, color="grey", linestyle=":", label="λ_cross")
plt.axhline(limit, color="grey", linestyle="--", label="τ_SGD")
plt.xlabel("Hessian eigenvalue λ")
plt.ylabel("correlation time (update steps)")
plt.legend()
plt.show()

# %% [markdown]
# How both numbers move with the hyperparameters (Eq. 109): a loop does for a slider.

# %%
print("  eta  beta     M | lambda_cross  tau_SGD")
for eta, beta, steps in (
    (ETA, 0.9, 1000),
    (2 * ETA, 0.9, 1000),
    (ETA, 0.95, 1000),
    (ETA, 0.9, 500),
):
    numbers = (
        theory.crossover_eigenvalue(eta, beta, steps),
        theory.max_correlation_time(beta, steps),
    )
    print(f"{eta:.5f} {beta:.2f} {steps:5d} | {numbers[0]:12.3f} {numbers[1]:8.0f}")

# %% [markdown]
# ## A finite window
# A recording of T steps cannot show correlation times much longer than T. `window_variances` gives
# what it shows on average, with the mean velocity removed as in the paper, and `window_spread` how
# far one direction scatters about it.

# %%
window = theory.window_variances(curvatures, ETA, BETA, white, EPOCHS * M, start=anti)
spread = theory.window_spread(
    curvatures, ETA, BETA, white, EPOCHS * M, start=anti, quantiles=(0.025, 0.975), num_windows=50
)
low, high = spread.correlation_time.T * window.correlation_time
plt.loglog(curvatures, theory.correlation_time(curvatures, ETA, BETA, white), label="for ever")
plt.loglog(curvatures, window.correlation_time, "--", label=f"in a window of {EPOCHS} epochs")
plt.fill_between(curvatures, low, high, alpha=0.2, color="C1", label="95 % of directions")
plt.title("with replacement")
plt.xlabel("Hessian eigenvalue λ")
plt.ylabel("correlation time (update steps)")
plt.legend()
plt.show()

# %% [markdown]
# ## Sampling schemes
# The weight variance over that with replacement. A partial last batch leaves a little white noise,
# which shows in the flattest directions; flip-flop ends where fresh orders do; one order for ever
# halves the variance there.

# %%
N, S = 50 * M - 20, 50
schemes = {
    "without replacement": theory.without_replacement(M),
    "partial last batch": theory.partial_last(N, S),
    "flip-flop": theory.flip_flop(M),
    "one order for ever": theory.shuffle_once(M),
}
unit = theory.stationary_variances(curvatures, ETA, BETA, white).weight
for name, noise in schemes.items():
    ratio = theory.stationary_variances(curvatures, ETA, BETA, noise).weight / unit
    plt.loglog(curvatures / cross, ratio, label=name)
plt.xlabel("λ / λ_cross")
plt.ylabel("weight variance over that\nwith replacement")
plt.legend()
plt.show()

# %% [markdown]
# ## Optimisers
# `from_optax` reads any linear optimiser off its update. The curves are stationary weight variances
# without replacement; the averaged weights are the last component of the state. At equal η/(1−β)
# momentum hardly matters; averaging the weights does.

# %%
heavy_ball = theory.from_optax(optax.sgd(ETA, momentum=BETA))
systems = {
    "SGD with the same 1/(1−β)": (theory.from_optax(optax.sgd(ETA / (1 - BETA))), 0),
    "heavy ball": (heavy_ball, 0),
    "Nesterov": (theory.from_optax(optax.sgd(ETA, momentum=BETA, nesterov=True)), 0),
    "heavy ball, average of ten epochs": (
        theory.with_weight_average(heavy_ball, 1 - 1 / (10 * M)), -1),
}  # fmt: skip
seen = curvatures[(curvatures > 0.01 * cross) & (curvatures < 100 * cross)]
for name, (system, component) in systems.items():
    covariance, _ = theory.stationary_covariance(seen, system, anti)
    plt.loglog(seen / cross, covariance[:, component, component], label=name)
plt.xlabel("λ / λ_cross")
plt.ylabel("weight variance\nper unit noise variance")
plt.legend()
plt.show()

# %% [markdown]
# An optimiser that is not linear has no such matrices, and says so:

# %%
try:
    theory.from_optax(optax.adam(1e-3))
except ValueError as error:
    print(error)

# %% [markdown]
# ## What it is worth
# The share of the loss fluctuation ½ Σ λσ² that the anti-correlations remove, for a spectrum that
# falls off like 1/i and noise proportional to the Hessian (Sec. 7; the paper finds 62 % for LeNet).

# %%
spectrum = 40 / np.arange(1, 5001)
weights = [
    theory.stationary_variances(spectrum, ETA, BETA, noise).weight for noise in (anti, white)
]
reduction = theory.loss_fluctuation_reduction(spectrum, *weights)
print(f"{reduction:.0%} of the loss fluctuation is removed")
