"""What a network does along given directions: projected weights, velocities and gradient noise.

Recording is linear, so it need not slow the steps: a chunk of them leaves its gradients and
updates in a buffer, one matrix product projects them, and the weights along the directions are
the running sum of the projected updates in float64. A product of a vector with the directions
costs as much as a good part of a step, so heavy ball projects its gradients only: Eq. 1 holds
along the directions as well and gives the updates. Memory: chunk·d float32 beside the directions
for the gradients, as much for updates and for exact full gradients where these are recorded.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh
from scipy.signal import lfilter

from antisgd import averaging, devices, display, inputs
from antisgd import weights as division
from antisgd.anchors import FullGradientModel, quadratic_full_gradient

__all__ = [
    "FullGradientModel",
    "Projections",
    "Trajectory",
    "assemble",
    "displacements",
    "example_gradients",
    "flat_record",
    "heavy_ball_velocities",
    "make_recorder",
    "project",
    "quadratic_full_gradient",
]


class Projections(NamedTuple):
    """One chunk of steps along k directions.

    Attributes:
        gradients: P g_k(θ_{k−1}), [steps, k].
        updates: P v_k, [steps, k]; zero columns if left out.
        full_gradients: P ∇L(θ_{k−1}), [steps, k]; zero columns [steps, 0] if not asked for.
        losses: minibatch loss at every step, [steps].
    """

    gradients: jax.Array
    updates: jax.Array
    full_gradients: jax.Array
    losses: jax.Array

    def __repr__(self) -> str:
        return display.described(self)


class Trajectory(NamedTuple):
    """A recording of T steps along k directions.

    Attributes:
        weights: P(θ_k − θ_K) for k = K … K+T, float64 [T + 1, k].
        velocities: P v_k for k = K+1 … K+T, [T, k].
        noise: P δg_k = P(g_k − ∇L)(θ_{k−1}), [T, k].
    """

    weights: np.ndarray
    velocities: np.ndarray
    noise: np.ndarray

    def __repr__(self) -> str:
        return display.described(self)


def project(directions: jax.Array, vectors: jax.Array, mesh: Mesh | None = None) -> jax.Array:
    """P x for rows x: directions [k, d], vectors [n, d] → [n, k], at full float32 precision.

    Over a mesh, within `jit`, every device has its columns of the directions, as
    `devices.columns` deals them out and fills them up; vectors and result are whole on all.

    Raises:
        ValueError: anything but two matrices of rows of one length.
    """
    if mesh is not None:
        # Whole before they are cut: how the steps are computed is not to follow the directions.
        whole = devices.on(mesh, devices.WHOLE, vectors)
        vectors = devices.on(mesh, devices.COLUMNS, devices.fill(whole, directions.shape[1]))
    shapes = np.shape(directions), np.shape(vectors)
    if [len(shape) for shape in shapes] != [2, 2] or shapes[0][1] != shapes[1][1]:
        raise ValueError(
            "a projection needs directions [k, d] and vectors [n, d], not "
            f"{list(shapes[0])} and {list(shapes[1])}"
        )
    found = jnp.matmul(directions, vectors.T, precision=jax.lax.Precision.HIGHEST).T
    return devices.on(mesh, devices.WHOLE, found)


def example_gradients(
    loss: Callable[[Any, Any, jax.Array], jax.Array],
    params: Any,
    examples: Any,
    directions: jax.Array,
    *,
    microbatch_size: int,
    mesh: Mesh | None = None,
    own_step: float | None = None,
) -> jax.Array:
    """P∇l_n(θ) of every example: their covariance is P C₀ Pᵀ, which needs no trajectory (Eq. 108).

    Args:
        loss: `loss(params, examples, weights)`, evaluated for one example at a time; a penalty
            in it adds the same vector to all.
        params: θ.
        examples: pytree with a leading example axis [N, …].
        directions: P, [k, d].
        microbatch_size: examples whose gradients are held at once, d float32 each.
        mesh: devices that the directions are dealt out to, see `project`.
        own_step: s, for P∇l_n(θ + s∇l_n(θ)) instead: what example n has at weights that its own
            step of −s∇l_n has not reached.

    Returns:
        [N, k].

    Raises:
        ValueError: no examples, directions of another length than the weights, or a loss that is
            no weighted mean.
    """
    size = min(
        inputs.count("microbatch_size", microbatch_size), inputs.number_of_examples(examples)
    )
    averaging.refuse_other_than_mean(loss, params, examples)
    chosen, rest, join = division.divide(params)
    dimension = sum(np.size(leaf) for leaf in chosen)
    if np.ndim(directions) != 2 or np.shape(directions)[1] != devices.filled(dimension, mesh):
        raise ValueError(
            f"directions must be [k, {dimension}] for so many weights, not "
            f"{list(np.shape(directions))}"
        )
    point = division.widened(chosen), rest
    return _example_gradients(
        averaging.hashable(loss), join, point, examples, directions, size, mesh, own_step
    )


@partial(jax.jit, static_argnums=(0, 1, 5, 6))
def _example_gradients(
    loss: Any, join: division.Join, point: Any, examples: Any, directions: jax.Array, size: int,
    mesh: Mesh | None, own_step: float | None,
) -> jax.Array:  # fmt: skip
    chosen, rest = point

    @jax.default_matmul_precision("highest")
    def one(example):
        alone = jax.tree.map(lambda leaf: leaf[None], example)
        gradient = jax.grad(lambda at: loss(join(at, rest), alone, jnp.ones(1, jnp.float32)))
        found = gradient(chosen)
        if own_step is not None:
            found = gradient(jax.tree.map(lambda x, g: x + own_step * g, chosen, found))
        return ravel_pytree(found)[0]

    def projected(batch):
        return project(directions, jax.vmap(one)(batch), mesh)

    num_examples = jax.tree.leaves(examples)[0].shape[0]
    whole = num_examples // size * size
    batches = jax.tree.map(lambda a: a[:whole].reshape(-1, size, *a.shape[1:]), examples)
    found = jax.lax.map(projected, batches).reshape(whole, -1)
    if whole == num_examples:
        return found
    return jnp.concatenate([found, projected(jax.tree.map(lambda a: a[whole:], examples))])


def flat_record(
    full_gradient: Callable[[Any], jax.Array] | None = None, *, with_updates: bool = True
) -> Callable[[Any, Any, Any, Any], tuple[Any, ...]]:
    """Builds the record function that hands gradients and updates on as flat vectors.

    Args:
        full_gradient: θ → ∇L(θ), flat [d], evaluated at every step; None leaves it out.
        with_updates: False leaves the updates out; `heavy_ball_velocities` gives them.

    Returns:
        `record(params, gradient, update, value)` for `heavy_ball.run_schedule`.
    """

    def record(params, gradient, update, value):
        full = jnp.zeros(0) if full_gradient is None else full_gradient(params)
        flat_update = ravel_pytree(update)[0] if with_updates else jnp.zeros(0)
        return ravel_pytree(gradient)[0], flat_update, full, value

    return record


def make_recorder(
    advance: Callable[..., tuple[Any, Any]], mesh: Mesh | None = None
) -> Callable[..., tuple[Any, Projections]]:
    """Builds the jitted function that runs one chunk of steps and projects it.

    Args:
        advance: `advance(state, schedule, examples, *swept) -> (state, flat record)`, for example
            `heavy_ball.run_schedule` with `record=flat_record()`; `swept` are arguments that
            should not compile anew, such as η and β.
        mesh: devices that all run the steps and hold each its columns of the directions, see
            `project`.

    Returns:
        `record(state, schedule, examples, directions [k, d], *swept) -> (state, Projections)`.
    """

    @jax.jit
    def record(state, schedule, examples, directions, *swept):
        # The steps are also what is measured: noise of 10 bits is not the network's.
        with jax.default_matmul_precision("highest"):
            state, (*vectors, losses) = advance(state, schedule, examples, *swept)
        projected = (project(directions, x, mesh) if x.shape[1] else x for x in vectors)
        state, losses = devices.on(mesh, devices.WHOLE, (state, losses))
        return state, Projections._make((*projected, losses))

    return record


def assemble(gradients: np.ndarray, updates: np.ndarray, full_gradients: np.ndarray) -> Trajectory:
    """Weights, velocities and noise from projected gradients, updates and full gradients.

    θ_k = θ_K + Σ v, summed in float64; δg_k = g_k − ∇L(θ_{k−1}) (Sec. 2). All arguments [T, k].

    Raises:
        ValueError: arguments of different shapes.
    """
    shapes = [list(np.shape(one)) for one in (gradients, updates, full_gradients)]
    if len(shapes[0]) != 2 or shapes.count(shapes[0]) != 3:
        raise ValueError(
            "gradients, updates and full gradients must all be [T, k], not "
            f"{shapes[0]}, {shapes[1]} and {shapes[2]}"
        )
    return Trajectory(displacements(updates), updates, gradients - full_gradients)


def heavy_ball_velocities(
    gradients: np.ndarray, learning_rate: float, momentum: float, start: np.ndarray
) -> np.ndarray:
    """P v_k = β P v_{k−1} − η P g_k (Eq. 1 along the directions), float64 [T, k].

    Args:
        gradients: P g_k for k = K+1 … K+T, [T, k].
        learning_rate: η, the same at all steps.
        momentum: β.
        start: P v_K, [k].
    """
    gradients = np.asarray(gradients, np.float64)
    carried = momentum * np.asarray(start, np.float64)[None]
    return lfilter([-learning_rate], [1, -momentum], gradients, axis=0, zi=carried)[0]


def displacements(updates: np.ndarray) -> np.ndarray:
    """P(θ_k − θ_K), float64 [T + 1, k], from projected updates [T, k]."""
    start = np.zeros((1, updates.shape[1]))
    return np.concatenate([start, np.cumsum(updates, axis=0, dtype=np.float64)])
