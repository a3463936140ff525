"""How much one direction's window statistics scatter, for Gaussian noise (beyond the paper)."""

from itertools import cycle
from typing import NamedTuple

import numpy as np

from antisgd import display, inputs
from antisgd.theory.chain import epoch_chain
from antisgd.theory.noise import Noise, without_replacement
from antisgd.theory.pairs import is_paired
from antisgd.theory.windows import window_arguments

__all__ = ["WindowSpread", "window_spread"]

_CURVATURES = 24


class WindowSpread(NamedTuple):
    """Scatter of statistic/expectation over windows with the mean velocity removed.

    Attributes:
        quantiles: probabilities, [q].
        weight: quantiles of σ_θ², [k, q].
        velocity: of σ_v², [k, q].
        correlation_time: of τ over the ratio of expectations, [k, q].
        relative_std: standard deviation of the three, [3, k].
    """

    quantiles: np.ndarray
    weight: np.ndarray
    velocity: np.ndarray
    correlation_time: np.ndarray
    relative_std: np.ndarray

    def __repr__(self) -> str:
        return display.described(self)


def window_spread(
    eigenvalues: np.ndarray,
    learning_rate: float,
    momentum: float,
    noise: Noise,
    num_steps: int,
    *,
    start: Noise | None = None,
    quantiles: tuple[float, ...] = (0.025, 0.16, 0.5, 0.84, 0.975),
    num_windows: int = 200,
    seed: int = 0,
) -> WindowSpread:
    """Sampling spread of one direction's variances, by simulation of Gaussian noise of the law.

    Windows at 24 curvatures spread over the range, interpolated in log λ; with 200 of them the
    quantiles are good to a few per cent. Windows start at an epoch boundary.

    Args:
        eigenvalues: λ > 0, [k].
        learning_rate: η.
        momentum: β.
        noise: law of the window: white, of independent epochs or pairs of them, or one order for
            all, whose spread is that over orders.
        num_steps: T.
        start: law before the window; None: the window's own, as it must be with one order for all.
        quantiles: probabilities.
        num_windows: simulated at each curvature.
        seed: of the simulation.

    Raises:
        ValueError: a curvature, η or β out of range, fewer than two steps or windows, quantiles
            outside [0, 1], a law without positions in an epoch, or one order for all after another
            law.
    """
    if noise.periodic and start is not None:
        raise ValueError("one order for all epochs has no other law before it: leave out start")
    a, num_steps = window_arguments(eigenvalues, learning_rate, momentum, num_steps)
    num_windows = inputs.count("num_windows", num_windows, 2)
    if np.any(np.abs(inputs.finite("quantiles", quantiles, 1) - 0.5) > 0.5):
        raise ValueError(f"quantiles are probabilities in [0, 1], not {quantiles}")
    grid = np.geomspace(a.min(), a.max(), min(_CURVATURES, a.size))
    rng = np.random.default_rng(seed)
    wide = np.repeat(grid, num_windows)
    before = noise if start is None else start
    stream = _innovations(before, wide.size, rng)
    state = _settle(wide, momentum, before, stream)
    if not noise.periodic:
        stream = _innovations(noise, wide.size, rng)
    weight, velocity = _window_statistics(wide, momentum, num_steps, state, stream)
    weight, velocity = (x.reshape(len(grid), num_windows) for x in (weight, velocity))
    weight, velocity = (x / x.mean(axis=1, keepdims=True) for x in (weight, velocity))
    tables, deviations = [], []
    for values in (weight, velocity, weight / velocity):
        rows = [*np.quantile(values, quantiles, axis=1), values.std(axis=1, ddof=1)]
        *rows, deviation = (np.interp(np.log(a), np.log(grid), row) for row in rows)
        tables.append(np.stack(rows, -1))
        deviations.append(deviation)
    weight, velocity, time = tables
    return WindowSpread(np.array(quantiles), weight, velocity, time, np.array(deviations))


def _innovations(noise: Noise, shape: int, rng: np.random.Generator):
    """Endless noise of the law, one value a direction at a time, from an epoch's start."""
    if noise.periodic:
        yield from cycle(list(_epoch(without_replacement(noise.period), shape, rng)))
    while is_paired(noise):
        epoch = list(_epoch(without_replacement(noise.period), shape, rng))
        yield from epoch + epoch[::-1]
    while True:
        yield from _epoch(noise, shape, rng)


def _epoch(noise: Noise, shape: int, rng: np.random.Generator):
    c = np.zeros(shape)
    for pull, keep, weight, innovation in zip(*epoch_chain(noise), strict=True):
        fresh = np.sqrt(innovation) * rng.standard_normal(shape)
        yield fresh - pull * c
        c = keep * c + weight * fresh


def _settle(a: np.ndarray, beta: float, noise: Noise, stream):
    """Weights and velocities at an epoch boundary in the stationary regime: zero weights suffice.

    Only differences within a window count, and what the start leaves in a direction fades like
    θ_0(1 − a/(1−β))^k: it is simulated over three epochs of reshuffling, which forgets at once in
    steep directions and never drifts in flat ones. One order for all epochs forgets nothing: its
    steady state s = A^M s + s_1 follows from one epoch from rest, s_1.
    """
    theta, v = np.zeros_like(a), np.zeros_like(a)
    steps = 3 * _pattern(noise) if _pattern(noise) else int(min(20 / a.min(), 20_000))
    steps = noise.period if noise.periodic else steps
    for _, n in zip(range(steps), stream, strict=False):
        v = beta * v - a * theta - n
        theta = theta + v
    if not noise.periodic:
        return theta, v
    one = np.ones_like(a)
    A = np.stack([np.stack([1 - a, beta * one], -1), np.stack([-a, beta * one], -1)], -2)
    left = np.eye(2) - np.linalg.matrix_power(A, steps)
    steady = np.linalg.solve(left, np.stack([theta, v], -1)[..., None])[..., 0]
    return steady[:, 0], steady[:, 1]


def _pattern(noise: Noise) -> int:
    """Steps until the law begins anew; 0 for white noise."""
    if noise.correlations is not None and noise.batches is not None:
        return len(noise.batches)
    return noise.period * (1 + is_paired(noise))


def _window_statistics(a, beta, num_steps, state, stream):
    theta, v = state
    first = theta
    total, squares, moment, v_squares = (np.zeros_like(a) for _ in range(4))
    for k, n in zip(range(1, num_steps + 1), stream, strict=False):
        v = beta * v - a * theta - n
        theta = theta + v
        x = theta - first
        total += x
        squares += x * x
        moment += k * x
        v_squares += v * v
    T, P, x = num_steps, num_steps + 1, theta - first
    square_sum = squares - 2 * x / T * moment + x**2 * P * (2 * T + 1) / (6 * T)
    mean = (total - x * P / 2) / P
    return square_sum / P - mean**2, v_squares / T - (x / T) ** 2
