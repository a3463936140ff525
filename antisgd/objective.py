"""What is minimised: mean cross-entropy plus an L2 penalty on kernels, from an apply function."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from antisgd import averaging, devices, display, inputs
from antisgd import weights as division

__all__ = [
    "Metrics", "cross_entropy", "evaluate", "full_gradient", "kernel_penalty", "make_loss",
]  # fmt: skip

# `(params, images) -> logits`; wide, because that of a flax module is.
Apply = Callable[..., Any]


class Metrics(NamedTuple):
    """Means over a set of examples: cross-entropy without penalty, fraction correct."""

    loss: jax.Array
    accuracy: jax.Array

    def __repr__(self) -> str:
        return display.described(self)


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """−log p_y of each example, p the softmax of its logits z: log(1 + Σ_{j≠y} exp(z_j − z_y)).

    The usual form has derivatives with p_y − 1, which a trained network cancels: at 1 − p_y = 1e-3
    float32 keeps four digits of a gradient and of a curvature. Here the small 1 − p_y is a sum.

    Args:
        logits: [n, classes], two classes or more; or [n, …, classes], such as of the tokens of n
            sequences.
        labels: int [n] or [n, …], from 0 to classes − 1.

    Returns:
        [n] or [n, …], nats, float32 at least; NaN for a traced label outside the classes.

    Raises:
        ValueError: other shapes, labels that are no integers, or one outside the classes.
    """
    labels = _checked_labels(logits, labels)
    logits = division.widened(logits)
    own = jnp.take_along_axis(logits, labels[..., None], axis=-1)
    places = jax.lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
    is_own = places == labels[..., None]
    others = jnp.where(is_own, -jnp.inf, logits - own)
    return jnp.logaddexp(jax.nn.logsumexp(others, axis=-1), 0)


def _checked_labels(logits: jax.Array, labels: jax.Array) -> jax.Array:
    given, labels = labels, jnp.asarray(labels)
    fits = logits.ndim > 1 and labels.shape == logits.shape[:-1] and labels.dtype.kind in "iu"
    if not fits or logits.shape[-1] < 2:
        raise ValueError(
            "the cross-entropy needs logits [n, classes] of two classes or more and integer "
            f"labels [n], not {list(logits.shape)} and {labels.dtype}{list(labels.shape)}"
        )
    classes = logits.shape[-1]
    if not inputs.traced(given) and labels.size:
        # As an array of NumPy: within a traced function JAX would trace even what is known.
        known = np.asarray(given)
        low, high = int(known.min()), int(known.max())
        if low < 0 or high >= classes:
            raise ValueError(
                f"labels run from {low} to {high}, the logits have {classes} classes: give "
                f"labels from 0 to {classes - 1}, and unused places the weight zero"
            )
    # A negative index would count from the end; beyond the classes it gives NaN.
    labels = labels.astype(jnp.int32)
    return jnp.where(labels < 0, jnp.int32(classes), labels)


def kernel_penalty(params: Any, penalised: Callable[[str], bool] | None = None) -> jax.Array:
    """Σ w² over the kernels: biases are not penalised (App. H).

    Args:
        params: weights.
        penalised: which leaves are meant, by their name such as 'layers/0/weight'; None for those
            called 'kernel', as flax names them.

    Returns:
        A scalar, float32 at least.

    Raises:
        ValueError: no leaf is meant; the message lists the names.
    """
    chosen = _is_kernel if penalised is None else penalised
    try:
        kernels = division.divide(params, chosen)[0]
    except ValueError as error:
        names = str(error).partition("weights: ")[2]
        raise ValueError(
            f"no leaf to penalise among {names or 'the params'}: say which with "
            "penalised=lambda name: ..., or set the weight decay to zero"
        ) from error
    squares = (jnp.sum(jnp.square(division.widened(kernel))) for kernel in kernels)
    return sum(squares, jnp.zeros(()))


def _is_kernel(name: str) -> bool:
    # nnx keeps the array of a variable in its field 'value'.
    return name.removesuffix("/value").rpartition("/")[2] == "kernel"


def make_loss(
    apply: Apply,
    weight_decay: float = 1e-4,
    penalised: Callable[[str], bool] | None = None,
) -> Callable[[Any, Any, jax.Array], jax.Array]:
    """Builds the training loss L(θ) = Σ_n w_n l(θ, x_n) / Σ_n w_n + c Σ_kernels w² (Sec. 2).

    The penalty has no factor ½: c = 1e-4 (the paper's) adds 2e-4 to the curvature of every
    kernel weight.

    Args:
        apply: `apply(params, images) -> logits [n, classes]`.
        weight_decay: c ≥ 0.
        penalised: which leaves are kernels, as for `kernel_penalty`.

    Returns:
        `loss(params, examples, weights)` with examples.images [n, …], examples.labels int [n]
        and weights [n], zero where a place of the batch is unused.

    Raises:
        ValueError: a weight decay that is negative or not finite; from the loss, params without
            a kernel.
    """
    if not (np.isfinite(weight_decay) and weight_decay >= 0):
        raise ValueError(f"the weight decay must not be negative, and finite, got {weight_decay}")

    def loss(params, examples, weights):
        losses = cross_entropy(apply(params, examples.images), examples.labels)
        mean = jnp.sum(weights * losses) / jnp.sum(weights)
        if not weight_decay:
            return mean
        return mean + weight_decay * kernel_penalty(params, penalised)

    return loss


def evaluate(
    apply: Apply,
    params: Any,
    examples: Any,
    *,
    microbatch_size: int = 1000,
    weights: Any = None,
) -> Metrics:
    """Mean cross-entropy (without penalty) and accuracy over all examples, in microbatches.

    Pure: `jit` and `vmap` over params apply. The examples are cut into equal microbatches and
    a ragged rest, so any number of them works.

    Args:
        apply: `apply(params, images) -> logits [n, classes]`.
        params: weights.
        examples: with fields images [N, …] and labels int [N].
        microbatch_size: examples a forward pass.
        weights: of the examples in both means, [N]; None for equal ones.

    Raises:
        ValueError: no microbatch, or arrays of differing numbers of examples.
    """
    num_examples = inputs.number_of_examples(examples)
    size = min(inputs.count("microbatch_size", microbatch_size), num_examples)
    whole = num_examples // size * size
    total: Any = num_examples
    if weights is not None:
        weights = jnp.asarray(inputs.example_weights(weights, num_examples), jnp.float32)
        total = jnp.sum(weights)

    def totals(batch):
        images, labels, shares = batch
        logits = apply(params, images)
        losses = cross_entropy(logits, labels)
        correct = jnp.argmax(logits, -1) == labels
        if shares is None:
            return jnp.sum(losses), jnp.sum(correct)
        return jnp.sum(shares * losses), jnp.sum(jnp.where(correct, shares, 0))

    rows = jax.tree.map(jnp.asarray, (examples.images, examples.labels, weights))
    microbatches = jax.tree.map(lambda a: a[:whole].reshape(-1, size, *a.shape[1:]), rows)
    loss, correct = jax.tree.map(jnp.sum, jax.lax.map(totals, microbatches))
    if whole < num_examples:
        rest_loss, rest_correct = totals(jax.tree.map(lambda a: a[whole:], rows))
        loss, correct = loss + rest_loss, correct + rest_correct
    return Metrics(loss / total, correct / total)


def full_gradient(
    loss: Callable[[Any, Any, jax.Array], jax.Array],
    params: Any,
    examples: Any,
    microbatch_size: int,
    weights: Any = None,
    mesh: Mesh | None = None,
) -> Any:
    """∇L(θ) over all examples, accumulated over equal microbatches, precision 'highest'.

    Pure and cheap in memory: works inside a scan. A ragged end is filled with examples of
    weight zero; a microbatch counts by its weight, so that the penalty counts once.

    Args:
        loss: `loss(params, examples, weights)`, a weighted mean plus penalties; outside `jit` a
            few examples are tried to see that it is one.
        params: θ.
        examples: pytree with a leading example axis [N, …].
        microbatch_size: examples at a time.
        weights: of the examples in the mean, [N], such as a mask; None for equal ones.
        mesh: devices that the microbatches are dealt out to, all of which hold θ and the examples.

    Returns:
        The gradient, a pytree like params with None in the place of what is no weight, float32
        at least.

    Raises:
        ValueError: no microbatch, arrays of differing numbers of examples, or a loss that is no
            weighted mean.
    """
    num_examples = inputs.number_of_examples(examples)
    most = min(inputs.count("microbatch_size", microbatch_size), num_examples)
    averaging.refuse_other_than_mean(loss, params, examples)
    examples = jax.tree.map(jnp.asarray, examples)
    count = devices.filled(-(-num_examples // most), mesh)
    size = -(-num_examples // count)
    indices = jnp.arange(count * size).reshape(count, size)
    if mesh is not None and weights is None:
        # Of more devices than microbatches some have none, which the weights tell.
        weights = jnp.ones(num_examples)

    def summed(indices, params, examples, weights):
        point = division.widened(division.trainable(params))
        add = _added(loss, params, point, examples, _shares(weights, num_examples))
        zeros = jax.tree.map(jnp.zeros_like, point)
        found = jax.lax.scan(add, (zeros, zeros), indices)[0][0]
        return found if mesh is None else jax.lax.psum(found, devices.AXIS)

    takes = devices.DEALT, devices.WHOLE, devices.WHOLE, devices.WHOLE
    return devices.local(mesh, summed, takes, devices.WHOLE)(indices, params, examples, weights)


def _added(loss: Any, params: Any, point: Any, examples: Any, weigh: Any) -> Callable[..., Any]:
    """The step of a scan that adds the gradient of a microbatch, given by its rows."""
    last = jax.tree.leaves(examples)[0].shape[0] - 1

    @jax.default_matmul_precision("highest")
    def add(carry, rows):
        used, share = weigh(rows)
        batch = jax.tree.map(lambda array: array[jnp.minimum(rows, last)], examples)
        gradient = jax.grad(lambda at: loss(division.merged(at, params), batch, used))(point)
        # Kahan's sum: the error does not grow with the number of microbatches.
        total, lost = carry
        terms = jax.tree.map(lambda g, less: share.astype(g.dtype) * g - less, gradient, lost)
        raised = jax.tree.map(jnp.add, total, terms)
        lost = jax.tree.map(lambda r, t, term: (r - t) - term, raised, total, terms)
        return (raised, lost), None

    return add


def _shares(given: Any, num_examples: int) -> Callable[[jax.Array], tuple[jax.Array, jax.Array]]:
    """Of the rows of a microbatch their weights [size], and their share of all examples."""

    def equal(rows):
        used = (rows < num_examples).astype(jnp.float32)
        return used, jnp.sum(used) / num_examples

    if given is None:
        return equal
    given = jnp.asarray(inputs.example_weights(given, num_examples), jnp.float32)

    def weighed(rows):
        used, _ = equal(rows)
        weights = used * given[jnp.minimum(rows, num_examples - 1)]
        mass = jnp.sum(weights)
        # A microbatch of weight zero has a mean over its places, but no share.
        return jnp.where(mass > 0, weights, 1), mass / jnp.sum(given)

    return weighed
