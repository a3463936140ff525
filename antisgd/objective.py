"""What is minimised: mean cross-entropy plus an L2 penalty on kernels, from an apply function."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

__all__ = [
    "Metrics", "cross_entropy", "evaluate", "full_gradient", "kernel_penalty", "make_loss",
]  # fmt: skip

# `(params, images) -> logits`; wide, because that of a flax module is.
Apply = Callable[..., Any]


class Metrics(NamedTuple):
    """Means over a set of examples: cross-entropy without penalty, fraction correct."""

    loss: jax.Array
    accuracy: jax.Array


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """−log p_y of each example, p the softmax of its logits z: log(1 + Σ_{j≠y} exp(z_j − z_y)).

    The usual form has derivatives with p_y − 1, which a trained network cancels: at 1 − p_y = 1e-3
    float32 keeps four digits of a gradient and of a curvature. Here the small 1 − p_y is a sum.

    Args:
        logits: [n, classes], two classes or more.
        labels: int [n].

    Returns:
        [n], nats.
    """
    own = jnp.take_along_axis(logits, labels[:, None], axis=-1)
    is_own = jnp.arange(logits.shape[-1])[None] == labels[:, None]
    others = jnp.where(is_own, -jnp.inf, logits - own)
    return jnp.logaddexp(jax.nn.logsumexp(others, axis=-1), 0)


def kernel_penalty(params: Any) -> jax.Array:
    """Σ w² over all leaves named 'kernel': biases are not penalised (App. H)."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    kernels = [leaf for path, leaf in leaves if path and getattr(path[-1], "key", "") == "kernel"]
    return sum((jnp.sum(jnp.square(kernel)) for kernel in kernels), jnp.zeros(()))


def make_loss(
    apply: Apply, weight_decay: float = 1e-4
) -> Callable[[Any, Any, jax.Array], jax.Array]:
    """Builds the training loss L(θ) = Σ_n w_n l(θ, x_n) / Σ_n w_n + c Σ_kernels w² (Sec. 2).

    The penalty has no factor ½: c = 1e-4 (the paper's) adds 2e-4 to the curvature of every
    kernel weight.

    Args:
        apply: `apply(params, images) -> logits [n, classes]`.
        weight_decay: c ≥ 0.

    Returns:
        `loss(params, examples, weights)` with examples.images [n, …], examples.labels int [n]
        and weights [n], zero where a place of the batch is unused.

    Raises:
        ValueError: a negative weight decay.
    """
    if weight_decay < 0:
        raise ValueError(f"the weight decay must not be negative, got {weight_decay}")

    def loss(params, examples, weights):
        losses = cross_entropy(apply(params, examples.images), examples.labels)
        mean = jnp.sum(weights * losses) / jnp.sum(weights)
        return mean + weight_decay * kernel_penalty(params)

    return loss


def evaluate(apply: Apply, params: Any, examples: Any, *, microbatch_size: int = 1000) -> Metrics:
    """Mean cross-entropy (without penalty) and accuracy over all examples, in microbatches.

    Pure: `jit` and `vmap` over params apply. The examples are cut into equal microbatches and
    a ragged rest, so any number of them works.

    Args:
        apply: `apply(params, images) -> logits [n, classes]`.
        params: weights.
        examples: with fields images [N, …] and labels int [N].
        microbatch_size: examples a forward pass.

    Raises:
        ValueError: no microbatch, or arrays of differing numbers of examples.
    """
    num_examples = _count(examples, microbatch_size)
    size = min(microbatch_size, num_examples)
    whole = num_examples // size * size

    def totals(batch):
        logits = apply(params, batch.images)
        losses = cross_entropy(logits, batch.labels)
        return jnp.sum(losses), jnp.sum(jnp.argmax(logits, -1) == batch.labels)

    microbatches = jax.tree.map(lambda a: a[:whole].reshape(-1, size, *a.shape[1:]), examples)
    loss, correct = jax.tree.map(jnp.sum, jax.lax.map(totals, microbatches))
    if whole < num_examples:
        rest_loss, rest_correct = totals(jax.tree.map(lambda a: a[whole:], examples))
        loss, correct = loss + rest_loss, correct + rest_correct
    return Metrics(loss / num_examples, correct / num_examples)


def full_gradient(
    loss: Callable[[Any, Any, jax.Array], jax.Array],
    params: Any,
    examples: Any,
    microbatch_size: int,
) -> Any:
    """∇L(θ) over all examples, accumulated over equal microbatches, precision 'highest'.

    Pure and cheap in memory: works inside a scan. A ragged end is filled with examples of
    weight zero; a microbatch counts by its weight, so that the penalty counts once.

    Args:
        loss: `loss(params, examples, weights)`, a weighted mean plus penalties.
        params: θ.
        examples: pytree with a leading example axis [N, …].
        microbatch_size: examples at a time.

    Returns:
        The gradient, a pytree like params.

    Raises:
        ValueError: no microbatch, or arrays of differing numbers of examples.
    """
    num_examples = _count(examples, microbatch_size)
    count = -(-num_examples // min(microbatch_size, num_examples))
    size = -(-num_examples // count)
    indices = jnp.arange(count * size).reshape(count, size)

    @jax.default_matmul_precision("highest")
    def add(carry, rows):
        weights = (rows < num_examples).astype(jnp.float32)
        batch = jax.tree.map(lambda array: array[jnp.minimum(rows, num_examples - 1)], examples)
        gradient = jax.grad(loss)(params, batch, weights)
        share = jnp.sum(weights) / num_examples
        # Kahan's sum: the error does not grow with the number of microbatches.
        total, lost = carry
        terms = jax.tree.map(lambda g, less: share * g - less, gradient, lost)
        raised = jax.tree.map(jnp.add, total, terms)
        lost = jax.tree.map(lambda r, t, term: (r - t) - term, raised, total, terms)
        return (raised, lost), None

    zeros = jax.tree.map(jnp.zeros_like, params)
    return jax.lax.scan(add, (zeros, zeros), indices)[0][0]


def _count(examples: Any, microbatch_size: int) -> int:
    counts = {leaf.shape[0] for leaf in jax.tree.leaves(examples)}
    if microbatch_size < 1 or len(counts) != 1:
        raise ValueError(
            "full sums need microbatches of one or more examples and arrays of as many examples, "
            f"got microbatch_size={microbatch_size} and {sorted(counts)} examples"
        )
    return counts.pop()
