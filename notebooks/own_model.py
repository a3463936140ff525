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
# # Your own model
#
# [![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)](https://colab.research.google.com/github/OWNER/antisgd/blob/main/notebooks/own_model.ipynb)
#
# From a loss to measured and predicted correlation times, for a model written in flax, in plain
# JAX, and as a callable pytree like equinox's, and for a small transformer; then the curvature of
# networks with batch normalisation and dropout, in flax.linen and flax.nnx, and of batches that
# are dictionaries. `antisgd` asks one thing of a model: `loss(params, examples, weights)`, a
# weighted mean over the examples, with params any pytree. Under three minutes on a CPU.

# %%
import subprocess
import sys

if "google.colab" in sys.modules:
    source = "antisgd @ git+https://github.com/OWNER/antisgd"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", source], check=True)

# %%
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from flax import nnx

from antisgd import (
    heavy_ball,
    hessian,
    lanczos,
    objective,
    sampling,
    statistics,
    theory,
    trajectory,
)

plt.rcParams.update({"figure.figsize": (6.5, 3.6), "figure.dpi": 90, "legend.frameon": False})
plt.rcParams["figure.constrained_layout.use"] = True

N, S = 2000, 40  # examples, and examples a step
ETA, BETA = 0.03, 0.9  # learning rate and momentum
TRAIN_EPOCHS, RECORDED_EPOCHS = 800, 300
PAIRS = 20  # leading eigenpairs of the Hessian

# %% [markdown]
# ## Three models
# Eight inputs, one hidden layer of four tanh units, one output; the targets come from a network of
# this kind, too, with noise.

# %%
keys = jax.random.split(jax.random.key(0), 6)
inputs = jax.random.normal(keys[0], (N, 8)) * jnp.geomspace(1, 0.2, 8)
units = jnp.tanh(inputs @ jax.random.normal(keys[1], (8, 4)) + jnp.array([0.5, -0.5, 0, 1]))
targets = units @ jnp.array([1.0, -1.0, 1.0, -1.0]) + 0.2 * jax.random.normal(keys[2], (N,))
examples = (inputs, targets)


class FlaxModel(nn.Module):
    """A flax module."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(1)(jnp.tanh(nn.Dense(4)(x)))[:, 0]


def plain_model(params, x):
    """A plain JAX function of a dict of arrays."""
    return jnp.tanh(x @ params["hidden"] + params["bias"]) @ params["output"]


@jax.tree_util.register_dataclass
@dataclass
class CallableModel:
    """A model that is its own pytree of weights, as an `equinox.Module` is."""

    hidden: jax.Array
    bias: jax.Array
    output: jax.Array

    def __call__(self, x):
        return jnp.tanh(x @ self.hidden + self.bias) @ self.output


hidden, output = jax.random.normal(keys[3], (8, 4)), jax.random.normal(keys[4], (4,))
models = {
    "flax": (FlaxModel().apply, FlaxModel().init(keys[5], inputs)),
    "plain JAX": (plain_model, {"hidden": hidden, "bias": jnp.zeros(4), "output": output}),
    "callable pytree": (
        lambda model, x: model(x),
        CallableModel(-hidden, jnp.ones(4), 2 * output),
    ),
}


def make_loss(predict):
    """Mean squared error with a small penalty, so that every direction is curved upwards."""

    def loss(params, examples, weights):
        x, y = examples
        error = 0.5 * jnp.sum(weights * (predict(params, x) - y) ** 2) / jnp.sum(weights)
        return error + 5e-3 * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))

    return loss


tasks = {name: (make_loss(predict), params, examples) for name, (predict, params) in models.items()}

# %% [markdown]
# ## A transformer
# Sequences of six symbols out of five; the label is the first symbol, or in one case out of five
# any. One head attends from the last place; embeddings, attention and output are a dict of arrays.

# %%
LENGTH, SYMBOLS, WIDTH = 6, 5, 8
keys = jax.random.split(jax.random.key(7), 10)
tokens = jax.random.randint(keys[0], (N, LENGTH), 0, SYMBOLS)
kept, others = (
    jax.random.bernoulli(keys[1], 0.8, (N,)),
    jax.random.randint(keys[2], (N,), 0, SYMBOLS),
)
sequences = (tokens, jnp.where(kept, tokens[:, 0], others))
shapes = {
    "token": (SYMBOLS, WIDTH), "place": (LENGTH, WIDTH), "query": (WIDTH, WIDTH),
    "key": (WIDTH, WIDTH), "value": (WIDTH, WIDTH), "output": (WIDTH, SYMBOLS),
}  # fmt: skip
attention = {
    name: 0.5 * jax.random.normal(key, shape)
    for key, (name, shape) in zip(keys[3:], shapes.items(), strict=False)
}


def transformer(params, tokens):
    """Logits of the label, [n, SYMBOLS]."""
    x = params["token"][tokens] + params["place"]
    last = x[:, -1]
    scores = jnp.einsum("nd,nld->nl", last @ params["query"], x @ params["key"]) / WIDTH**0.5
    read = jnp.einsum("nl,nld->nd", jax.nn.softmax(scores), x @ params["value"])
    return (last + read) @ params["output"]


def sequence_loss(params, examples, weights):
    """Mean cross-entropy with a small penalty."""
    tokens, labels = examples
    losses = objective.cross_entropy(transformer(params, tokens), labels)
    penalty = 5e-3 * sum(jnp.sum(leaf**2) for leaf in params.values())
    return jnp.sum(weights * losses) / jnp.sum(weights) + penalty


tasks["transformer"] = (sequence_loss, attention, sequences)

# %% [markdown]
# ## Training
# An epoch is a schedule of indices, and a training a scan over schedules. The learning rate stays
# what it is when the fluctuations are recorded, so that they are stationary.

# %%
optimizer, key = heavy_ball.heavy_ball(ETA, BETA), jax.random.key(5)


def train(loss, params, examples):
    """The state after TRAIN_EPOCHS epochs."""

    def one_epoch(state, epoch):
        schedule = sampling.without_replacement(key, epoch, N, S)
        state, values = heavy_ball.run_schedule(loss, optimizer, state, schedule, examples)
        return state, jnp.mean(values)

    state = heavy_ball.init(optimizer, params)
    return jax.jit(lambda state: jax.lax.scan(one_epoch, state, jnp.arange(TRAIN_EPOCHS)))(state)


states = {}
for name, task in tasks.items():
    states[name], epoch_losses = train(*task)
    print(f"{name:16} loss {epoch_losses[0]:.3f} -> {epoch_losses[-1]:.3f}")

# %% [markdown]
# ## Curvature
# Leading eigenpairs of the Hessian over all examples, each with its true residual.

# %%
pairs = {}
for name, state in states.items():
    loss, _, data = tasks[name]
    matvec = hessian.hessian_vector_product(loss, state.params, data, microbatch_size=N)
    size = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    pairs[name] = lanczos.leading_eigenpairs(matvec, size, PAIRS, key=jax.random.key(6))
    values = pairs[name].values
    print(f"{name:16} {size} weights, eigenvalues {values[0]:.3g} ... {values[-1]:.3g}")

# %% [markdown]
# ## Fluctuations
# The updates of every step, projected on the eigenvectors, epoch by epoch.


# %%
def record(loss, examples, state, directions):
    """Projected updates, [steps, directions]."""

    def advance(state, schedule, examples):
        flat = trajectory.flat_record()
        return heavy_ball.run_schedule(loss, optimizer, state, schedule, examples, record=flat)

    run, updates = trajectory.make_recorder(advance), []
    for epoch in range(TRAIN_EPOCHS, TRAIN_EPOCHS + RECORDED_EPOCHS):
        schedule = sampling.without_replacement(key, epoch, N, S)
        state, recorded = run(state, schedule, examples, directions)
        updates.append(np.asarray(recorded.updates))
    return np.concatenate(updates)


velocities = {}
for name, state in states.items():
    loss, _, data = tasks[name]
    velocities[name] = record(loss, data, state, pairs[name].vectors)

# %% [markdown]
# ## Measured and predicted
# Correlation times τ = 2σ_θ²/σ_v² against curvature, with the mean velocity removed, beside the
# theory of the same window. The theory takes the noise for independent of the weights. Batches of
# S = 8 of N = 400 examples are too small for that here: with them the flat directions come out a
# fifth to a third longer than predicted. (The second and the third model end in the same minimum:
# their points coincide.)

# %%
M, T = N // S, RECORDED_EPOCHS * (N // S)
law = theory.without_replacement(M)
for name, velocity in velocities.items():
    curvature, weights = pairs[name].values, trajectory.displacements(velocity)
    still = statistics.remove_drift(weights, velocity, "mean_velocity")
    measured = statistics.variances(*still).correlation_time
    expected = theory.window_variances(curvature, ETA, BETA, law, T).correlation_time
    print(f"{name:16} measured over predicted, median {np.median(measured / expected):.2f}")
    plt.loglog(curvature, measured, "o", markersize=4, alpha=0.7, label=name)
span = np.geomspace(*plt.xlim(), 100)
window = theory.window_variances(span, ETA, BETA, law, T).correlation_time
white = theory.correlation_time(span, ETA, BETA, theory.with_replacement())
plt.loglog(span, window, "k-", label="theory of the window")
plt.loglog(span, white, "k:", label="theory with replacement")
plt.axvline(theory.crossover_eigenvalue(ETA, BETA, M), color="grey", linestyle="--")
plt.xlabel("Hessian eigenvalue λ (dashed: λ_cross)")
plt.ylabel("correlation time (update steps)")
plt.legend()
plt.show()

# %% [markdown]
# ## Batch normalisation and dropout, in flax.linen
# The Hessian is of the function that the network computes when it predicts: statistics frozen,
# dropout off. `batch_stats` beside `params` are no directions. A loss in training mode depends on
# which examples come together; it is no mean over examples and is refused.


# %%
def leading(loss, params, data, weights=None):
    """The ten largest Hessian eigenvalues, certified."""
    matvec = hessian.hessian_vector_product(
        loss, params, data, microbatch_size=500, weights=weights
    )
    size = hessian.ravel_subset(params)[0].size
    found = lanczos.leading_eigenpairs(matvec, size, 10, key=jax.random.key(8))
    print(f"{found.certificate.converged} of 10 converged among {size} weights:")
    return np.round(found.values, 4)


class Normalised(nn.Module):
    """Batch normalisation and dropout."""

    @nn.compact
    def __call__(self, x, training=False):
        x = nn.BatchNorm(use_running_average=not training)(nn.Dense(8)(x))
        x = nn.Dropout(0.2, deterministic=not training)(nn.tanh(x))
        return nn.Dense(1)(x)[:, 0]


variables = Normalised().init(jax.random.key(9), inputs)
print(leading(make_loss(Normalised().apply), variables, examples))


# %%
def while_training(variables, x):
    """Statistics of the batch, and dropout."""
    keys = {"dropout": jax.random.key(0)}
    return Normalised().apply(variables, x, training=True, mutable=["batch_stats"], rngs=keys)[0]


try:
    leading(make_loss(while_training), variables, examples)
except ValueError as refused:
    print(refused)

# %% [markdown]
# ## The same in flax.nnx
# `eval()` freezes and switches off; `nnx.split` sets the weights apart from statistics and keys.


# %%
class Module(nnx.Module):
    """Batch normalisation and dropout."""

    def __init__(self, rngs):
        self.first, self.last = nnx.Linear(8, 8, rngs=rngs), nnx.Linear(8, 1, rngs=rngs)
        self.norm, self.dropout = nnx.BatchNorm(8, rngs=rngs), nnx.Dropout(0.2, rngs=rngs)

    def __call__(self, x):
        return self.last(self.dropout(nnx.tanh(self.norm(self.first(x)))))[:, 0]


module = Module(nnx.Rngs(0))
module.eval()
graph, params, rest = nnx.split(module, nnx.Param, ...)
print(leading(make_loss(lambda params, x: nnx.merge(graph, params, rest)(x)), params, examples))

# %% [markdown]
# ## Batches that are dictionaries, and a transformer in flax
# Sequences of different lengths, padded, as a tokenizer gives them. The mean over all tokens of a
# batch is no mean over examples, since a sequence's share depends on the others' lengths; the mean
# over its own tokens is, and `weights=` lets it count by their number.


# %%
class Transformer(nn.Module):
    """One block: the attention leaves padded places out."""

    @nn.compact
    def __call__(self, input_ids, attention_mask):
        x = nn.Embed(SYMBOLS, WIDTH)(input_ids) + nn.Embed(LENGTH, WIDTH)(jnp.arange(LENGTH))
        mask = nn.make_attention_mask(jnp.ones_like(attention_mask), attention_mask)
        x = x + nn.MultiHeadDotProductAttention(num_heads=2)(nn.LayerNorm()(x), mask=mask)
        return nn.Dense(SYMBOLS)(nn.gelu(nn.Dense(2 * WIDTH)(nn.LayerNorm()(x))))


def token_loss(params, batch, weights):
    """Mean over sequences of the mean over each one's tokens; a label of -100 is none."""
    used = batch["labels"] != -100
    logits = Transformer().apply(params, batch["input_ids"], batch["attention_mask"])
    losses = objective.cross_entropy(logits, jnp.where(used, batch["labels"], 0)) * used
    return jnp.sum(weights * losses.sum(1) / used.sum(1)) / jnp.sum(weights)


lengths = jax.random.randint(jax.random.key(10), (N, 1), 2, LENGTH + 1)
mask = (jnp.arange(LENGTH) < lengths).astype(jnp.int32)
labels = jnp.where(mask == 1, (tokens + tokens[:, :1]) % SYMBOLS, -100)
batch = {"input_ids": tokens, "attention_mask": mask, "labels": labels}
weights = Transformer().init(jax.random.key(11), tokens, mask)
print(leading(token_loss, weights, batch, weights=mask.sum(1)))

# %% [markdown]
# ## Elsewhere
# Pages with at most 25 lines each: [Equinox](../docs/howto/equinox.md),
# [Haiku](../docs/howto/haiku.md), [PyTorch, 50 certified pairs](../docs/howto/torch_eigenpairs.md),
# [PyTorch, the whole report](../docs/howto/torch_report.md), and
# [SciPy's LinearOperator, in and out](../docs/howto/scipy.md).
