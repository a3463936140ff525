"""How much one direction's window statistics scatter, for Gaussian noise (beyond the paper)."""

from collections import deque
from collections.abc import Iterable
from itertools import cycle, islice
from typing import Any, NamedTuple

import numpy as np

from antisgd import display, inputs
from antisgd.theory.chain import epoch_chain
from antisgd.theory.linear import LinearOptimizer
from antisgd.theory.noise import Noise, without_replacement
from antisgd.theory.pairs import is_paired
from antisgd.theory.windows import window_arguments

__all__ = ["WindowSpread", "linear_window_spread", "window_spread"]

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
    num_windows = _checked(num_windows, quantiles)
    grid = np.geomspace(a.min(), a.max(), min(_CURVATURES, a.size))
    rng = np.random.default_rng(seed)
    wide = np.repeat(grid, num_windows)
    before = noise if start is None else start
    stream = _innovations(before, wide.size, rng)
    state = _settle(wide, momentum, before, stream)
    if not noise.periodic:
        stream = _innovations(noise, wide.size, rng)
    path = _heavy_ball_path(wide, momentum, state, stream)
    sums = _window_statistics(num_steps, state[0], path)
    return _summary(a, grid, sums, quantiles)


def linear_window_spread(
    eigenvalues: np.ndarray,
    optimizer: LinearOptimizer,
    noise: Noise,
    num_steps: int,
    *,
    start: Noise | None = None,
    quantiles: tuple[float, ...] = (0.025, 0.16, 0.5, 0.84, 0.975),
    num_windows: int = 200,
    seed: int = 0,
) -> WindowSpread:
    """`window_spread` of any linear optimiser, about `linear_window_variances`.

    The same simulation of x_k = A(λ)x_{k−1} + b n_k in the place of heavy ball's, of the variances
    of θ and of θ_k − θ_{k−1}.

    Args:
        eigenvalues: λ > 0, [k].
        optimizer: A and b, with the learning rate in them.
        noise: law of the window, white or of independent epochs, which needs positions.
        num_steps: T.
        start: law before the window; None: the window's own.
        quantiles: probabilities.
        num_windows: simulated at each curvature.
        seed: of the simulation.

    Raises:
        ValueError: no positive curvature, an unstable direction, fewer than two steps or windows,
            quantiles outside [0, 1], or one order for all epochs.
    """
    lam = np.asarray(inputs.finite("eigenvalues", eigenvalues, 1), np.float64)
    num_steps = inputs.count("num_steps", num_steps, 2)
    num_windows = _checked(num_windows, quantiles)
    if noise.periodic or not np.all(lam > 0):
        raise ValueError("the spread needs positive eigenvalues and epochs that are drawn anew")
    A = optimizer.free + lam[:, None, None] * optimizer.curved
    if not np.abs(np.linalg.eigvals(A)).max() < 1:
        raise ValueError("the optimiser is not stable at every eigenvalue: leave out the others")
    grid = np.geomspace(lam.min(), lam.max(), min(_CURVATURES, lam.size))
    rng, wide = np.random.default_rng(seed), np.repeat(grid, num_windows)
    before = noise if start is None else start
    state = np.zeros((len(optimizer.response), wide.size))
    steps = _settling(before, abs(optimizer.response[0]) * wide)
    stream = _innovations(before, wide.size, rng)
    state, _ = _last(_path(wide, optimizer, state, stream), steps)
    path = _path(wide, optimizer, state, _innovations(noise, wide.size, rng))
    sums = _window_statistics(num_steps, state[0], ((x[0], v) for x, v in path))
    return _summary(lam, grid, sums, quantiles)


def _path(lam: np.ndarray, optimizer: LinearOptimizer, x: np.ndarray, stream):
    """The state [n, k] after every step, and the update."""
    change, b = optimizer.free - np.eye(len(x)), optimizer.response[:, None]
    for n in stream:
        moved = change @ x + lam * (optimizer.curved @ x) + b * n
        x = x + moved
        yield x, moved[0]


def _checked(num_windows: int, quantiles: tuple[float, ...]) -> int:
    if np.any(np.abs(inputs.finite("quantiles", quantiles, 1) - 0.5) > 0.5):
        raise ValueError(f"quantiles are probabilities in [0, 1], not {quantiles}")
    return inputs.count("num_windows", num_windows, 2)


def _summary(a, grid, sums, quantiles) -> WindowSpread:
    """Quantiles over the windows of each curvature of the grid, interpolated at those asked for."""
    weight, velocity = (x.reshape(len(grid), -1) for x in sums)
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
    steps = noise.period if noise.periodic else _settling(noise, a)
    path = _heavy_ball_path(a, beta, (theta, v), stream)
    theta, v = _last(path, steps)
    if not noise.periodic:
        return theta, v
    one = np.ones_like(a)
    A = np.stack([np.stack([1 - a, beta * one], -1), np.stack([-a, beta * one], -1)], -2)
    left = np.eye(2) - np.linalg.matrix_power(A, steps)
    steady = np.linalg.solve(left, np.stack([theta, v], -1)[..., None])[..., 0]
    return steady[:, 0], steady[:, 1]


def _last(path: Iterable[Any], steps: int) -> Any:
    return deque(islice(path, steps), maxlen=1).pop()


def _settling(noise: Noise, a: np.ndarray) -> int:
    return 3 * _pattern(noise) if _pattern(noise) else int(min(20 / a.min(), 20_000))


def _pattern(noise: Noise) -> int:
    """Steps until the law begins anew; 0 for white noise."""
    if noise.correlations is not None and noise.batches is not None:
        return len(noise.batches)
    return noise.period * (1 + is_paired(noise))


def _heavy_ball_path(a, beta, state, stream):
    theta, v = state
    for n in stream:
        v = beta * v - a * theta - n
        theta = theta + v
        yield theta, v


def _window_statistics(num_steps, first, path):
    total, squares, moment, v_squares = (np.zeros_like(first) for _ in range(4))
    for k, (theta, v) in zip(range(1, num_steps + 1), path, strict=False):
        x = theta - first
        total += x
        squares += x * x
        moment += k * x
        v_squares += v * v
    T, P, x = num_steps, num_steps + 1, theta - first
    square_sum = squares - 2 * x / T * moment + x**2 * P * (2 * T + 1) / (6 * T)
    mean = (total - x * P / 2) / P
    return square_sum / P - mean**2, v_squares / T - (x / T) ** 2
