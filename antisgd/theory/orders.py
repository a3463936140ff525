"""Data orders made for a purpose: every example once an epoch, correlated from epoch to epoch.

An order is drawn at random, so its batches are exchangeable; what is left to choose is where each
of them stands in the next epochs. Reshuffling, flip-flop and one order for all are such choices.
"""

import math
from typing import NamedTuple

import numpy as np

from antisgd import display, inputs
from antisgd.theory.noise import Noise

__all__ = ["OrderDesign", "best_order", "order_law"]

# Sweeps of the search over the epochs, at most.
_SWEEPS = 50


class OrderDesign(NamedTuple):
    """Where the batches of an order stand in the epochs until a new one is drawn.

    Attributes:
        positions: of batch m in epoch e, int [E, M]; `sampling.designed` draws such orders.
        change: Σ_h r(h)·slope(h), what its correlations add to the value under white noise.
        bound: no design of E epochs changes it to less than this; equal to `change` where the
            design is proven to be the best.
    """

    positions: np.ndarray
    change: float
    bound: float

    def __repr__(self) -> str:
        return display.described(self)


def order_law(positions: np.ndarray, batch_size: int = 0) -> Noise:
    """The noise of an order that is drawn, run for E epochs as designed, and drawn anew.

    R(h) = (C₀/SEM)[#{batches found again h steps later} − (EM − h)/M], 1 ≤ h < EM, averaged over
    the position in the cycle of E epochs (beyond the paper). One row is reshuffling, a second one
    that runs backwards flip-flop; many equal ones approach `shuffle_once`.

    Args:
        positions: where batch m of the order stands in each epoch, int [E, M].
        batch_size: S, to give the variance R(0) = (1/S)(1 − 1/M) C₀.

    Raises:
        ValueError: rows that are no permutations, or fewer than two batches.
    """
    standing = _checked(positions)
    epochs, steps = standing.shape
    times = np.sort(standing + steps * np.arange(epochs)[:, None], axis=0)
    again = np.zeros(epochs * steps)
    for apart in range(1, epochs):
        lags = times[apart:] - times[:-apart]
        again += np.bincount(lags.ravel(), minlength=epochs * steps)
    h = np.arange(1, epochs * steps)
    r = (again[1:] - (epochs * steps - h) / steps) / (epochs * steps) / (1 - 1 / steps)
    variance = (1 - 1 / steps) / batch_size if batch_size else math.nan
    return Noise(0.0, 0, correlations=r, variance=variance)


def best_order(
    slope: np.ndarray, steps_per_epoch: int, epochs: int, *, seed: int = 0
) -> OrderDesign:
    """The design of E epochs that lowers a quantity most, given its slope in each correlation.

    Σ_{e<e'} Σ_m slope((e'−e)M + p_{e'}(m) − p_e(m)) over permutations p_e, one epoch after another
    by an exact assignment until none improves. The sum over single pairs of epochs, each at its own
    best assignment, is the bound. **Where the slope is convex in the lag one order for all epochs
    attains it** (Jensen: the mean shift of a permutation is zero), and is the best that any blind
    design can do: without momentum for every ηλ < 1. With momentum overdamped directions are convex
    beyond some 1/(1−β) steps; what shorter lags are worth, the bound tells.

    Args:
        slope: at the lags 1 … L, L ≥ EM − 1: of `loss_fluctuation_slope`, or a column of
            `correlation_response` or `average_response`.
        steps_per_epoch: M.
        epochs: E.
        seed: of the random beginning beside those of one order and of flip-flop.

    Returns:
        An `OrderDesign`; the first epoch's positions are 0 … M−1.

    Raises:
        ValueError: a slope at fewer lags, or M below two.
    """
    M = inputs.count("steps_per_epoch", steps_per_epoch, 2)
    E = inputs.count("epochs", epochs)
    w = np.asarray(inputs.finite("slope", slope, 1), np.float64)
    if len(w) < E * M - 1:
        raise ValueError(
            f"{E} epochs of {M} steps need the slope at {E * M - 1} lags, not {len(w)}"
        )
    w = np.concatenate([[0.0], w])[: E * M]
    random, here = np.random.default_rng(seed), np.arange(M)
    starts = [np.tile(here, (E, 1)), np.stack([here[:: (-1) ** e] for e in range(E)])]
    starts.append(np.stack([here, *(random.permutation(M) for _ in range(E - 1))]))
    found = [_improved(w, start.copy()) for start in starts]
    positions = min(found, key=lambda p: _change(w, p))
    bound = math.fsum((E - D) * _lowest(w, M, D) for D in range(1, E))
    blind = float(-(np.arange(E * M, 0, -1)[1:] / M) @ w[1:])
    scale = E * M * (1 - 1 / M)
    return OrderDesign(positions, _change(w, positions), (bound + blind) / scale)


def _change(w: np.ndarray, positions: np.ndarray) -> float:
    return float(order_law(positions).correlations @ w[1:])


def _pairs(w: np.ndarray, steps: int, epochs_apart: int) -> np.ndarray:
    """Slope between a batch at q and itself at q' so many epochs later, [q, q']."""
    here = np.arange(steps)
    return w[np.abs(epochs_apart) * steps + np.sign(epochs_apart) * (here[None] - here[:, None])]


def _lowest(w: np.ndarray, steps: int, epochs_apart: int) -> float:
    from scipy.optimize import linear_sum_assignment

    pairs = _pairs(w, steps, epochs_apart)
    return float(pairs[linear_sum_assignment(pairs)].sum())


def _improved(w: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """No epoch after the first can be rearranged alone to lower the sum."""
    from scipy.optimize import linear_sum_assignment

    epochs, steps = positions.shape
    value = _change(w, positions)
    for _ in range(_SWEEPS if epochs > 1 else 0):
        for e in range(1, epochs):
            others = [other for other in range(epochs) if other != e]
            cost = sum(_pairs(w, steps, e - other)[positions[other]] for other in others)
            positions[e] = linear_sum_assignment(cost)[1]
        before, value = value, _change(w, positions)
        if value >= before - 1e-12 * np.abs(w).max():
            break
    return positions


def _checked(positions: np.ndarray) -> np.ndarray:
    standing = inputs.permutations("positions", positions)
    if standing.shape[1] < 2:
        raise ValueError("one batch an epoch is gradient descent without noise: give two or more")
    return standing
