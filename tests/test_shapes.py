"""Shapes and types of the main functions' arguments and results, as their docstrings say them.

Signatures of jaxtyping, checked by beartype as calls run: an axis of one name is of one length
throughout a call. They stand here and not in the library, which needs neither of the two.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from beartype import beartype
from jaxtyping import Array, Bool, Float, Float32, Float64, Int32, TypeCheckError, jaxtyped

from antisgd import hessian, lanczos, sampling, statistics, theory, trajectory

shaped = jaxtyped(typechecker=beartype)
Host = np.ndarray
RNG = np.random.default_rng(0)
EIGENVALUES = np.array([0.1, 0.5, 1.0], np.float32)
T, K, D, N = 40, 3, 7, 12
WEIGHTS, VELOCITIES = RNG.normal(size=(T + 1, K)), RNG.normal(size=(T, K))
DIRECTIONS = jnp.asarray(np.linalg.qr(RNG.normal(size=(D, K)))[0].T, jnp.float32)
DATA = jnp.asarray(RNG.normal(size=(N, D)), jnp.float32)


# --- theory ---------------------------------------------------------------------------------


@shaped
def stationary(
    eigenvalues: Float[Host, " k"], noise: theory.Noise
) -> tuple[Float64[Host, " k"], Float64[Host, " k"]]:
    return theory.stationary_variances(eigenvalues, 0.1, 0.9, noise)


@shaped
def window(
    eigenvalues: Float[Host, " k"], noise: theory.Noise
) -> tuple[Float64[Host, " k"], Float64[Host, " k"], Float64[Host, " k"]]:
    return theory.window_variances(eigenvalues, 0.1, 0.9, noise, 20)


@pytest.mark.parametrize("law", [theory.without_replacement(5), theory.with_replacement()])
def test_theory_is_float64_along_each_eigenvalue(law):
    stationary(np.array([0.2], np.float32), law)
    stationary(EIGENVALUES, law)
    window(EIGENVALUES, law)


# --- sampling -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scheme",
    [sampling.without_replacement, sampling.with_replacement, sampling.shuffle_once,
     sampling.flip_flop, sampling.spanning_batches, sampling.drop_last],
    ids=lambda scheme: scheme.__name__,
)  # fmt: skip
def test_a_schedule_is_of_steps_and_places(scheme):
    @shaped
    def drawn(
        num_examples: int, batch_size: int
    ) -> tuple[Int32[Array, "steps {batch_size}"], Float32[Array, "steps {batch_size}"]]:
        return scheme(jax.random.key(0), 0, num_examples, batch_size)

    drawn(N, 4)
    drawn(N + 1, 4)


# --- curvature ------------------------------------------------------------------------------


def loss(params, examples, weights):
    return jnp.sum(weights * (examples @ params) ** 4) / jnp.sum(weights)


@shaped
def product(params: Float32[Array, " d"], vector: Float32[Array, " d"]) -> Float32[Array, " d"]:
    return hessian.hessian_vector_product(loss, params, DATA, microbatch_size=5)(vector)


@shaped
def pairs(
    matrix: Float32[Array, "d d"], k: int
) -> tuple[Float64[Host, " {k}"], Float32[Array, "{k} d"], Float[Host, " {k}"], Bool[Host, " {k}"]]:
    found = lanczos.leading_eigenpairs(
        lambda v: matrix @ v, len(matrix), k, key=jax.random.key(0)
    )  # fmt: skip
    return found.values, found.vectors, found.residuals, found.converged


@shaped
def density(
    matrix: Float32[Array, "d d"], probes: int, steps: int
) -> tuple[Float[Host, "{probes} {steps}"], Float[Host, "{probes} {steps}"]]:
    found = lanczos.spectral_density(
        lambda v: matrix @ v, len(matrix), key=jax.random.key(0), num_probes=probes, num_steps=steps
    )
    return found.nodes, found.weights


def test_curvature_is_of_vectors_of_the_weights():
    params = jnp.ones(D)
    product(params, params)
    matrix = DATA.T @ DATA
    pairs(matrix, 2)
    density(matrix, 2, 4)


# --- recording and statistics ---------------------------------------------------------------


@shaped
def projected(
    directions: Float[Array, "k d"], vectors: Float[Array, "n d"]
) -> Float32[Array, "n k"]:
    return trajectory.project(directions, vectors)


@shaped
def each_example(
    directions: Float[Array, "k d"], examples: Float[Array, "n d"]
) -> Float32[Array, "n k"]:
    return trajectory.example_gradients(
        loss, jnp.ones(D), examples, directions, microbatch_size=5
    )  # fmt: skip


@shaped
def velocities(
    gradients: Float[Host, "steps k"], start: Float[Host, " k"]
) -> Float64[Host, "steps k"]:
    return trajectory.heavy_ball_velocities(gradients, 0.1, 0.9, start)


@shaped
def of_window(
    weights: Float[Host, "points k"], velocities: Float[Host, "points-1 k"]
) -> tuple[Float64[Host, " k"], Float64[Host, " k"], Float64[Host, " k"]]:
    return statistics.variances(weights, velocities)


@shaped
def undrifted(
    weights: Float[Host, "points k"], velocities: Float[Host, "points-1 k"], mode: str
) -> tuple[Float64[Host, "points k"], Float64[Host, "points-1 k"]]:
    return statistics.remove_drift(weights, velocities, mode)


@shaped
def correlated(series: Float[Host, "steps k"], lag: int) -> Float64[Host, "{lag}+1 k"]:
    return statistics.autocorrelation(series, lag)


@shaped
def correlated_on_average(
    series: Float[Host, "steps k"], lag: int
) -> tuple[Float64[Host, " {lag}+1"], Float64[Host, " {lag}+1"]]:
    return statistics.mean_autocorrelation(series, lag)


def test_a_recording_is_of_steps_and_directions():
    projected(DIRECTIONS, DATA)
    each_example(DIRECTIONS, DATA)
    velocities(VELOCITIES.astype(np.float32), np.zeros(K))


def test_statistics_are_of_directions():
    of_window(WEIGHTS, VELOCITIES)
    of_window(WEIGHTS.astype(np.float32), VELOCITIES.astype(np.float32))
    for mode in ("none", "mean_velocity", "line"):
        undrifted(WEIGHTS, VELOCITIES, mode)
    correlated(VELOCITIES, 5)
    correlated_on_average(VELOCITIES, 5)


def test_a_shape_that_is_not_as_said_is_found():
    with pytest.raises(TypeCheckError):
        projected(DIRECTIONS, DATA[:, :-1])

    @shaped
    def turned(
        directions: Float[Array, "k d"], vectors: Float[Array, "n d"]
    ) -> Float[Array, "k n"]:
        return trajectory.project(directions, vectors)

    with pytest.raises(TypeCheckError):
        turned(DIRECTIONS, DATA)
