"""A small transformer that predicts the next token of sequences from a Markov chain."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from antisgd import objective

__all__ = ["Transformer", "loss", "sequences"]

VOCABULARY, LENGTH, WIDTH = 7, 9, 16
# c of the penalty c·Σ w² over matrices: with it the minimum lies at finite weights.
PENALTY = 1e-3


class Transformer(nn.Module):
    """One block of causal attention, two heads; without biases in it, which no gradient moves."""

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        x = nn.Embed(VOCABULARY, WIDTH)(tokens) + nn.Embed(LENGTH - 1, WIDTH)(
            jnp.arange(tokens.shape[1])
        )
        attend = nn.MultiHeadDotProductAttention(num_heads=2, use_bias=False)
        x = x + attend(nn.LayerNorm()(x), mask=nn.make_causal_mask(tokens))
        x = x + nn.Dense(WIDTH)(nn.gelu(nn.Dense(2 * WIDTH)(nn.LayerNorm()(x))))
        return nn.Dense(VOCABULARY)(nn.LayerNorm()(x))


def loss(params: Any, tokens: jax.Array, weights: jax.Array) -> jax.Array:
    """Mean cross-entropy of the next token over sequences [n, L] with these weights, penalised."""
    losses = objective.cross_entropy(Transformer().apply(params, tokens[:, :-1]), tokens[:, 1:])
    kernels = (jnp.sum(leaf**2) for leaf in jax.tree.leaves(params) if leaf.ndim > 1)
    return jnp.sum(weights * losses.mean(axis=1)) / jnp.sum(weights) + PENALTY * sum(kernels)


def sequences(key: jax.Array, count: int) -> jax.Array:
    """Tokens of a chain whose rows of transition probabilities are drawn once, int32 [count, L]."""
    chain, first, steps = jax.random.split(key, 3)
    logits = 1.5 * jax.random.normal(chain, (VOCABULARY, VOCABULARY))

    def step(token, key):
        following = jax.random.categorical(key, logits[token])
        return following, token

    start = jax.random.randint(first, (count,), 0, VOCABULARY)
    _, tokens = jax.lax.scan(step, start, jax.random.split(steps, LENGTH))
    return tokens.T
