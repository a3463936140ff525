"""SGD on one-dimensional quadratics with really sampled batches, many curvatures and replicas.

Example n has the gradient λθ + ε_n with heavy-tailed ε_n that sum to zero; a step's noise is the
mean of ε over the batch that `antisgd.sampling` drew. Curvatures share the noise of a replica;
replicas are independent, so that the scatter between them is the error of every mean.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from antisgd import sampling, theory

__all__ = [
    "Comparison",
    "Law",
    "anti_pgd_stream",
    "compare",
    "compare_ratio",
    "examples",
    "isotropic_noise",
    "noise_stream",
    "sampled_stream",
    "simulate",
]

DEGREES_OF_FREEDOM = 5.0


class Law(NamedTuple):
    """A way to draw batches and what theory says of it.

    Attributes:
        stream: (key, num_steps) → noise of unit variance, [num_steps].
        noise: `theory.Noise`.
        cycle: steps after which the law repeats, over a multiple of which one has to average.
    """

    stream: Callable[[jax.Array, int], jax.Array]
    noise: theory.Noise
    cycle: int


class Comparison(NamedTuple):
    """Measured means over replicas, their standard errors and theory, arrays of one shape.

    Attributes:
        measured: means over replicas.
        error: their standard errors.
        expected: theory.
        z: (measured − expected)/error.
    """

    measured: np.ndarray
    error: np.ndarray
    expected: np.ndarray
    z: np.ndarray


def compare(samples: np.ndarray, expected: np.ndarray) -> Comparison:
    """Compares means over replicas (the first axis) with theory."""
    mean = samples.mean(axis=0)
    error = samples.std(axis=0, ddof=1) / np.sqrt(len(samples))
    return Comparison(mean, error, expected, (mean - expected) / error)


def compare_ratio(above: np.ndarray, below: np.ndarray, expected: np.ndarray) -> Comparison:
    """Compares a ratio of means over replicas with theory; the error to first order."""
    bottom = below.mean(axis=0)
    ratio = above.mean(axis=0) / bottom
    error = (above - ratio * below).std(axis=0, ddof=1) / bottom / np.sqrt(len(above))
    return Comparison(ratio, error, expected, (ratio - expected) / error)


def examples(key: jax.Array, num_examples: int) -> jax.Array:
    """Student-t per-example gradients ε_n, [N], of mean 0 and C₀ = Σε²/(N−1) = 1 exactly."""
    drawn = jax.random.t(key, DEGREES_OF_FREEDOM, (num_examples,))
    centred = drawn - drawn.mean()
    return centred / centred.std(ddof=1)


def sampled_stream(
    scheme: Callable[..., sampling.Schedule], gradients: jax.Array, batch_size: int, variance: float
) -> Callable[[jax.Array, int], jax.Array]:
    """The noise of a sampling scheme as `Law.stream`, over √variance."""
    num_examples = gradients.size

    def stream(key, num_steps):
        shape = jax.eval_shape(lambda k: scheme(k, 0, num_examples, batch_size), key)
        epochs = jnp.arange(-(-num_steps // shape.indices.shape[0]))
        draw = jax.vmap(lambda epoch: scheme(key, epoch, num_examples, batch_size))
        indices, weights = draw(epochs)
        total = (weights * gradients[indices]).sum(-1) / weights.sum(-1)
        return total.ravel()[:num_steps] / jnp.sqrt(variance)

    return stream


def anti_pgd_stream(gradients: jax.Array) -> Callable[[jax.Array, int], jax.Array]:
    """Injected differences ξ_{k+1} − ξ_k of independent ξ (Orvieto et al. 2022), unit variance."""
    deviation = gradients / gradients.std()

    def stream(key, num_steps):
        xi = deviation[jax.random.randint(key, (num_steps + 1,), 0, gradients.size)]
        return jnp.diff(xi) / jnp.sqrt(2.0)

    return stream


@partial(jax.jit, static_argnums=(0, 2, 3))
def noise_stream(
    stream: Callable[[jax.Array, int], jax.Array], key: jax.Array, num_steps: int, replicas: int
) -> jax.Array:
    """Independent runs of a stream of noise, [num_steps, replicas]."""
    keys = jax.random.split(key, replicas)
    return jax.vmap(lambda one: stream(one, num_steps), out_axes=1)(keys)


@partial(jax.jit, static_argnums=(2, 3))
def simulate(
    noise: jax.Array,
    eigenvalues: jax.Array,
    optimizer: optax.GradientTransformation,
    settle: int,
    average_decay: float = 0.0,
) -> jax.Array:
    """Weights of SGD on ½λθ² from θ = 0, recorded after `settle` steps.

    Args:
        noise: gradient noise, [settle + T, replicas].
        eigenvalues: λ, [k].
        optimizer: moves the weights.
        settle: steps before the recording, enough to forget the start.
        average_decay: α of the average m_k = α m_{k−1} + (1−α) θ_k that is recorded; 0: θ itself.

    Returns:
        [T + 1, replicas, k], the first being the weights before the window.
    """

    def step(carry, n):
        theta, state, average = carry
        gradients = eigenvalues[None] * theta + n[:, None]
        updates, state = optimizer.update(gradients, state, theta)
        theta = optax.apply_updates(theta, updates)
        average = average_decay * average + (1 - average_decay) * theta
        return (theta, state, average), average

    zero = jnp.zeros((noise.shape[1], eigenvalues.size), noise.dtype)
    carry = (zero, optimizer.init(zero), zero)
    carry, _ = jax.lax.scan(lambda c, n: (step(c, n)[0], None), carry, noise[:settle])
    _, recorded = jax.lax.scan(step, carry, noise[settle:])
    return jnp.concatenate([carry[2][None], recorded])


def isotropic_noise(
    key: jax.Array, dimension: int, batch_size: int, steps_per_epoch: int, epochs: int
) -> jax.Array:
    """Noise without replacement of equal variance 1 in all directions, [epochs·M, d] (Fig. 3).

    The per-example gradients are orthonormal columns of mean zero, so that C is exactly isotropic;
    this needs more examples than dimensions.
    """
    num_examples = batch_size * steps_per_epoch
    if num_examples <= dimension:
        raise ValueError(
            f"{num_examples} examples cannot have isotropic noise in {dimension} dimensions: "
            "give a larger batch_size"
        )
    draw_key, order_key = jax.random.split(key)
    drawn = jax.random.normal(draw_key, (num_examples, dimension))
    gradients = jnp.linalg.qr(drawn - drawn.mean(axis=0))[0] * np.sqrt(num_examples - 1)
    variance = theory.without_replacement(steps_per_epoch, batch_size).variance

    def epoch_noise(epoch):
        drawn = sampling.without_replacement(order_key, epoch, num_examples, batch_size)
        return gradients[drawn.indices].mean(axis=1) / np.sqrt(variance)

    return jnp.concatenate([jax.jit(epoch_noise)(epoch) for epoch in range(epochs)])
