"""Variances by the position within the epoch (beyond the paper).

The noise of a reshuffled epoch is not stationary: it sums to zero. Eq. 6 is the average over the
position; at the end of an epoch a flat direction has almost no variance, and in its middle 1.5
times the average. So weights recorded once an epoch do not follow Eq. 6.

To second order the noise of an epoch is a Markov chain (`epoch_chain`), exactly.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from antisgd import inputs
from antisgd.theory.chain import epoch_chain
from antisgd.theory.noise import Noise
from antisgd.theory.precision import float64_on_host
from antisgd.theory.variances import Variances, edge_distance

__all__ = ["own_step_share", "phase_variances"]


class _Chain(NamedTuple):
    """δg_m = −pull·c + ε, c ← keep·c + ε, var ε = innovation per unit noise variance; [M] each."""

    pull: np.ndarray
    keep: np.ndarray
    innovation: np.ndarray


def _chain(noise: Noise) -> _Chain:
    chain = epoch_chain(noise)
    if np.any(chain.weight != 1) or noise.correlations is not None:
        raise ValueError(
            "the position within the epoch is treated for whole batches, reshuffled or "
            "independent: pass for example without_replacement(steps_per_epoch)"
        )
    return _Chain(chain.pull, chain.keep, chain.innovation)


def _stable_product(
    eigenvalues: Any, learning_rate: float, momentum: float
) -> tuple[np.ndarray, float]:
    """ηλ in float64, checked to lie inside the stable region, and β.

    Raises:
        ValueError: β outside [0, 1) or ηλ outside (0, 2(1+β)).
    """
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must lie in [0, 1), not {momentum}")
    learning_rate = inputs.number("learning_rate", learning_rate, above=0)
    a = learning_rate * np.asarray(inputs.finite("eigenvalues", eigenvalues), np.float64)
    if not np.all((a > 0) & (edge_distance(a, momentum) > 0)):
        raise ValueError(
            "the variances by position need 0 < eta*lambda < 2(1 + beta) in every direction, and "
            f"eta*lambda runs from {np.min(a):.3g} to {np.max(a):.3g}: leave the others out"
        )
    return a, float(momentum)


def phase_variances(
    eigenvalues: Any, learning_rate: float, momentum: float, noise: Noise
) -> Variances:
    """Variances after each step of an epoch, per unit noise variance σ_δg² (beyond the paper).

    The last row is the end of an epoch, V_θ/V_white ≈ 1 − tanh(z/2)/(z/2) with z = 3λ/λ_cross for
    M(1−β) ≫ 1; the mean over the rows is Eq. 6, `stationary_variances`.

    Args:
        eigenvalues: λ > 0, any shape.
        learning_rate: η.
        momentum: β.
        noise: `without_replacement`, or a white law (one row).

    Returns:
        Weight and velocity variances, float64 [M, *shape].

    Raises:
        ValueError: ηλ outside (0, 2(1+β)), or another law.
    """
    a, beta = _stable_product(eigenvalues, learning_rate, momentum)
    flat = a.ravel()
    weight, cross, velocity = _boundary_covariance(flat, beta, noise)
    first = np.zeros((3, 3, flat.size))
    first[0, 0], first[1, 1], first[0, 1], first[1, 0] = weight, velocity, cross, cross
    first = _changed(first, np.ones_like(flat), beta * _frame(flat, beta).shift, 0 * flat)
    _, visited = _through_epoch(flat, beta, _chain(noise), first)
    shape = (-1, *a.shape)
    return Variances(*(learning_rate**2 * part.reshape(shape) for part in visited))


def _boundary_covariance(
    a: np.ndarray, beta: float, noise: Noise
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Stationary var θ, cov(θ, v) and var v at the end of an epoch, in units of η²σ_δg².

    Solves P = B P Bᵀ + Q over one epoch in the coordinates of `_advance`, where neither 1 − B nor
    Q loses digits in flat directions (beyond the paper).

    Args:
        a: ηλ > 0, [k].
        beta: β.
        noise: reshuffled or white.
    """
    law, frame = _chain(noise), _frame(a, beta)
    gathered, _ = _through_epoch(a, beta, law, np.zeros((3, 3, a.size)))
    gathered = _changed(gathered, np.ones_like(a), 0 * a, -frame.shift)[:2, :2].transpose(2, 0, 1)
    N = _forgotten(a, beta, len(law.pull)).transpose(2, 0, 1)
    entries = np.array([[[1, 0], [0, 0]], [[0, 1], [1, 0]], [[0, 0], [0, 1]]], np.float64)
    transposed = N.transpose(0, 2, 1)
    lost = [N @ E + E @ transposed - N @ E @ transposed for E in entries]
    upper = np.array([0, 0, 1]), np.array([0, 1, 1])
    matrix = np.stack([part[:, *upper] for part in lost], -1)
    ww, wv, vv = np.linalg.solve(matrix, gathered[:, *upper][..., None])[..., 0].T
    ratio = beta * frame.shift
    return ww - 2 * ratio * wv + ratio**2 * vv, wv - ratio * vv, vv


class _Frame(NamedTuple):
    """w = θ + shift·(βv + c): shift 1/(1−β) and rest 0 in flat directions, else 0 and 1."""

    shift: np.ndarray
    rest: np.ndarray


def _frame(a: np.ndarray, beta: float) -> _Frame:
    flat = a < (1 - beta) ** 2
    return _Frame(np.where(flat, 1 / (1 - beta), 0.0), np.where(flat, 0.0, 1.0))


def _changed(covariance: np.ndarray, one: np.ndarray, v: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Covariance after w ← w + v-share·v + c-share·c, for all directions, [3, 3, k]."""
    zero = np.zeros_like(one)
    T = np.array([[one, v, c], [zero, one, zero], [zero, zero, one]])
    return np.einsum("ijk,jlk,mlk->imk", T, covariance, T)


def _advance(rows: jax.Array, a: jax.Array, beta: float, frame: _Frame, chain: _Chain):
    """One step of (w, v, c) without ε; in flat directions w moves by terms of order ηλ only."""
    w, v, c = rows
    push = a * (w - frame.shift * (beta * v + c))
    n = -chain.pull * c
    w = w + frame.rest * beta * v - (frame.shift + frame.rest) * push
    w = w - frame.rest * n
    return jnp.stack([w, beta * v - push - n, chain.keep * c])


@jax.jit
def _scan_epoch(a, beta, frame, chain, covariance):
    ones = jnp.ones_like(a)
    read = jnp.stack([ones, -beta * frame.shift, -frame.shift])
    row, row_frame = a[None], _Frame(frame.shift[None], frame.rest[None])

    def step(covariance, chain):
        half = _advance(covariance, row, beta, row_frame, chain)
        covariance = _advance(half.swapaxes(0, 1), row, beta, row_frame, chain)
        b = jnp.stack([-frame.rest, -ones, ones])
        covariance = covariance + chain.innovation * b[:, None] * b[None, :]
        weight = (read[:, None] * read[None, :] * covariance).sum((0, 1))
        return covariance, (weight, covariance[1, 1])

    return jax.lax.scan(step, covariance, chain)


def _through_epoch(a, beta, chain, covariance):
    """Covariance [3, 3, k] after an epoch, and var θ and var v [M, k] after each of its steps."""
    with float64_on_host():
        found = _scan_epoch(a, np.float64(beta), _frame(a, beta), chain, covariance)
        return jax.tree.map(np.asarray, found)


def _forgotten(a: np.ndarray, beta: float, steps: int) -> np.ndarray:
    """1 − B for the noiseless map B of (w, v) over an epoch, summed up and not subtracted."""
    frame = _frame(a, beta)
    moved = np.zeros((2, a.size))
    v = np.stack([np.zeros_like(a), np.ones_like(a)])
    start = np.array([[1.0], [0.0]])
    for _ in range(steps):
        push = a * (start + moved - frame.shift * beta * v)
        moved = moved + frame.rest * beta * v - (frame.shift + frame.rest) * push
        v = beta * v - push
    return np.stack([-moved, np.array([[0.0], [1.0]]) - v])


def own_step_share(steps_per_epoch: int, momentum: float) -> np.ndarray:
    """Of ηg_n/(1−β)S, what the weights lack when example n is drawn at a place of the epoch, [M].

    Where every example comes once an epoch, one drawn at step m has not yet moved the weights and
    m batches have, f(m) = (m − Σ_{h≤m}β^h)/M of all on average. The steps of an epoch add up to
    nothing, so that to example n the weights lie at θ + f(m)·ηg_n/((1−β)S) in the mean: uphill in
    its own loss, where its gradient is larger than at the end of an epoch. Forces are left out:
    exact in directions flat within an epoch. With replacement there is no such share.
    """
    m = np.arange(steps_per_epoch)
    return (m - np.cumsum(np.where(m > 0, momentum**m, 0.0))) / steps_per_epoch
