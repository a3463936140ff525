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
from antisgd.theory.precision import float64_on_host

__all__ = [
    "Comparison",
    "Law",
    "anti_pgd_stream",
    "compare",
    "compare_difference",
    "compare_ratio",
    "examples",
    "isotropic_noise",
    "lagged_products",
    "position_squares",
    "noise_stream",
    "sampled_stream",
    "simulate",
    "squares",
    "window_squares",
]

DEGREES_OF_FREEDOM = 5


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
    """Means over replicas against theory; the first four are arrays of one shape.

    Attributes:
        measured: means over replicas.
        error: their standard errors.
        expected: theory.
        z: (measured − expected)/error.
        mean: mean over all entries of measured/expected, or of measured − expected.
        mean_error: its standard error over replicas.
    """

    measured: np.ndarray
    error: np.ndarray
    expected: np.ndarray
    z: np.ndarray
    mean: float
    mean_error: float


def compare(samples: np.ndarray, expected: np.ndarray) -> Comparison:
    """Compares means over replicas, the first axis, with theory; `mean` is of the ratio."""
    return _compared(samples.mean(axis=0), samples, expected, expected)


def compare_difference(samples: np.ndarray, expected: np.ndarray) -> Comparison:
    """As `compare`, where theory may be zero: `mean` is of the difference."""
    return _compared(samples.mean(axis=0), samples, expected, np.ones(()))


def compare_ratio(above: np.ndarray, below: np.ndarray, expected: np.ndarray) -> Comparison:
    """Compares a ratio of means over replicas with theory; errors to first order."""
    ratio = above.mean(axis=0) / below.mean(axis=0)
    linear = ratio + (above - ratio * below) / below.mean(axis=0)
    return _compared(ratio, linear, expected, expected)


def _compared(
    measured: np.ndarray, samples: np.ndarray, expected: np.ndarray, scale: np.ndarray
) -> Comparison:
    root = np.sqrt(len(samples))
    error = samples.std(axis=0, ddof=1) / root
    shifted = expected if scale.ndim == 0 else 0.0
    overall = ((samples - shifted) / scale).reshape(len(samples), -1).mean(axis=1)
    return Comparison(
        measured, error, expected, (measured - expected) / error,
        float(overall.mean()), float(overall.std(ddof=1) / root),
    )  # fmt: skip


def examples(key: jax.Array, num_examples: int) -> jax.Array:
    """Student-t per-example gradients ε_n, [N], of mean 0 and C₀ = Σε²/(N−1) = 1 exactly."""
    normal = jax.random.normal(key, (DEGREES_OF_FREEDOM + 1, num_examples))
    drawn = normal[0] / jnp.sqrt((normal[1:] ** 2).mean(axis=0))
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


def noise_stream(
    stream: Callable[[jax.Array, int], jax.Array], key: jax.Array, num_steps: int, replicas: int
) -> np.ndarray:
    """Independent runs of a stream of noise, float64 [num_steps, replicas]."""
    return np.asarray(_streams(stream, jax.random.split(key, replicas), num_steps), np.float64)


@partial(jax.jit, static_argnums=(0, 2))
def _streams(stream, keys, num_steps):
    return jax.vmap(lambda one: stream(one, num_steps), out_axes=1)(keys)


def simulate(
    noise: np.ndarray,
    eigenvalues: np.ndarray,
    optimizer: optax.GradientTransformation,
    settle: int,
    average_decay: float = 0.0,
) -> np.ndarray:
    """Weights of SGD on ½λθ² from θ = 0, recorded after `settle` steps, in float64.

    Args:
        noise: gradient noise, [settle + T, replicas].
        eigenvalues: λ, [k].
        optimizer: moves the weights.
        settle: steps before the recording, enough to forget the start.
        average_decay: α of the average m_k = α m_{k−1} + (1−α) θ_k that is recorded; 0: θ itself.

    Returns:
        [T + 1, replicas, k], the first being the weights before the window.
    """
    with float64_on_host():
        arguments = (jnp.asarray(x, jnp.float64) for x in (noise, eigenvalues, average_decay))
        return np.asarray(_simulate(*arguments, optimizer, settle))


@partial(jax.jit, static_argnums=(3, 4))
def _simulate(noise, eigenvalues, average_decay, optimizer, settle):
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
    centred = np.asarray(drawn - drawn.mean(axis=0, keepdims=True))
    gradients = jnp.asarray(np.linalg.qr(centred)[0]) * np.sqrt(num_examples - 1)
    variance = theory.without_replacement(steps_per_epoch, batch_size).variance

    noise = _reshuffled(gradients / np.sqrt(variance), order_key, batch_size, epochs)
    return noise.reshape(-1, dimension)


@partial(jax.jit, static_argnums=(2, 3))
def _reshuffled(gradients, key, batch_size, epochs):
    def epoch_noise(epoch):
        drawn = sampling.without_replacement(key, epoch, len(gradients), batch_size)
        return gradients[drawn.indices].mean(axis=1)

    return jax.lax.map(epoch_noise, jnp.arange(epochs))


def lagged_products(noise: np.ndarray, num_steps: int, max_lag: int) -> np.ndarray:
    """Mean over the first `num_steps` of n_k n_{k+h}, [replicas, max_lag + 1].

    Every lag averages over the same phases, as the theory does where batches are not alike.
    """
    first = noise[:num_steps]
    products = [np.mean(first * noise[h : h + num_steps], axis=0) for h in range(max_lag + 1)]
    return np.stack(products, axis=-1)


def squares(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean θ_k² and (θ_k − θ_{k−1})² over the steps of a window, [replicas, k] each."""
    return np.mean(weights[1:] ** 2, axis=0), np.mean(np.diff(weights, axis=0) ** 2, axis=0)


def window_squares(weights: np.ndarray, drift: str) -> tuple[np.ndarray, np.ndarray]:
    """Sample variances in a window [T + 1, replicas, k] as `theory.window_variances` has them."""
    if drift == "none":
        return np.mean(weights**2, axis=0), np.mean(np.diff(weights, axis=0) ** 2, axis=0)
    time = np.arange(len(weights)) - (len(weights) - 1) / 2
    mean_velocity = (weights[-1] - weights[0]) / (len(weights) - 1)
    fitted = np.tensordot(time, weights, 1) / (time @ time)
    slope = {"mean": 0.0, "mean_velocity": mean_velocity, "line": fitted}[drift]
    rest = weights - time[:, None, None] * slope
    taken = 0.0 if drift == "mean" else mean_velocity
    return rest.var(axis=0), np.mean((np.diff(weights, axis=0) - taken) ** 2, axis=0)


def position_squares(weights: np.ndarray, steps_per_epoch: int) -> tuple[np.ndarray, np.ndarray]:
    """θ_k² and its step's square after each step of an epoch, [replicas, M, k] each.

    Of weights [T + 1, replicas, k] from an epoch's start; mean over the epochs of the window.
    """
    both = weights[1:], np.diff(weights, axis=0)
    shape = (-1, steps_per_epoch, *weights.shape[1:])
    return tuple((one**2).reshape(shape).mean(axis=0).swapaxes(0, 1) for one in both)
