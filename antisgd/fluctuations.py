"""Is a recorded window stationary? The fluctuation relation, and τ from velocities alone.

float64 on the host, along any directions, from what a recording holds: no full gradient, no
curvature.
"""

from typing import NamedTuple

import numpy as np
from scipy import fft

__all__ = ["Balance", "fluctuation_balance", "velocity_correlation_time", "velocity_sums"]


class Balance(NamedTuple):
    """The fluctuation relation in a window, [k] each; all but the last three in units of θ².

    Attributes:
        work: η⟨θ_{k−1}g_k⟩ about the window's mean weight.
        motion: ½(1+β)⟨v_k²⟩.
        boundary: what the ends of the window make of the difference, exactly.
        residual: work/motion − 1, zero in expectation if the window is stationary.
        error: one standard error of it if the window is stationary.
        closure: |work − motion − boundary|/motion, rounding if η, β and Eq. 1 are right.
    """

    work: np.ndarray
    motion: np.ndarray
    boundary: np.ndarray
    residual: np.ndarray
    error: np.ndarray
    closure: np.ndarray


def fluctuation_balance(
    weights: np.ndarray,
    velocities: np.ndarray,
    gradients: np.ndarray,
    learning_rate: float,
    momentum: float,
    *,
    num_blocks: int = 1,
    steps_per_epoch: int = 1,
) -> Balance:
    """The test of stationarity: η E[θ_{k−1}g_k] = ½(1+β)E[v²], for any loss and any noise.

    Beyond the paper. With F = ½(1−β)θ² + βθv Eq. 1 makes over any stretch of steps, exactly,

        η Σ θ_{k−1} g_k = ½(1+β) Σ v_k² − [F_end − F_begin],

    so what is left of the relation are the ends of the window and nothing else: the residual says
    whether θ² and θv are where they were, and **nothing about curvature**. A pure quartic passes.
    Blocks have power against motion that a whole window hides: along a straight line θ² falls in
    the first half as it rises in the second. Weights are taken about the mean of the window.

    Args:
        weights: θ_k, [T + 1, k].
        velocities: v_k for k = 1 … T, [T, k].
        gradients: minibatch gradients g_k(θ_{k−1}), [T, k]; no full gradient is needed.
        learning_rate: η.
        momentum: β.
        num_blocks: B stretches of equal length; what is left over at the end is unused, as is
            the first step, before which no velocity is recorded.
        steps_per_epoch: M if epochs are reshuffled: blocks are then whole epochs. Var θ depends on
            the position within the epoch, and ends at different positions never balance.

    Returns:
        Arrays [B, k]. The error is √2·std(F) over the steps at the same position: F at both ends,
        independent if a block is longer than τ, and too large otherwise, so that the test errs
        towards passing.

    Raises:
        ValueError: shapes that do not belong together, or fewer than two steps or one epoch a
            block.
    """
    theta, v, g = (np.asarray(x, np.float64) for x in (weights, velocities, gradients))
    if v.shape != g.shape or theta.shape != (len(v) + 1, *v.shape[1:]):
        raise ValueError(
            f"weights [T + 1, k], velocities and gradients [T, k] are needed, not {theta.shape}, "
            f"{v.shape} and {g.shape}"
        )
    length = (len(v) - 1) // num_blocks if num_blocks > 0 else 0
    length -= length % steps_per_epoch
    if length < 2:
        raise ValueError(f"{len(v)} steps are too few for num_blocks={num_blocks}")
    theta = theta - theta.mean(axis=0)
    F = (1 - momentum) / 2 * theta[1:] ** 2 + momentum * theta[1:] * v
    ends = F[: num_blocks * length + 1 : length]
    stretches = (num_blocks, length, *v.shape[1:])
    used = slice(1, num_blocks * length + 1)
    work = learning_rate * (theta[:-1] * g)[used].reshape(stretches).mean(axis=1)
    motion = (1 + momentum) / 2 * (v[used] ** 2).reshape(stretches).mean(axis=1)
    boundary = -np.diff(ends, axis=0) / length
    error = np.sqrt(2) * F[::steps_per_epoch].std(axis=0) / length / motion
    closure = np.abs(work - motion - boundary) / motion
    return Balance(work, motion, boundary, work / motion - 1, error, closure)


def velocity_correlation_time(
    velocities: np.ndarray, max_lag: int
) -> tuple[np.ndarray, np.ndarray]:
    """τ_L = Σ_{h=1}^L h·c(h)/Σ_{h=1}^L c(h) of the velocities, the definition in Eq. 3.

    Its limit is 2σ_θ²/σ_v², the ratio that the figures use. Cut off at L it is, with γ the
    variogram of the weights, [L γ(L+1) − (L+1) γ(L)]/[γ(L+1) − γ(L) − σ_v²/2]: the sum converges
    slowly and noisily, for L between τ and T/10 at best.

    Args:
        velocities: [T, k], drift removed.
        max_lag: L, update steps, below T.

    Returns:
        τ_L and its standard error by leaving out one of 10 blocks of time, [k] each.

    Raises:
        ValueError: fewer than 20·L steps.
    """
    v = np.asarray(velocities, np.float64)
    if max_lag < 1 or len(v) < 20 * max_lag:
        raise ValueError(f"{len(v)} steps are too few for max_lag={max_lag}: give 20 times as many")
    length = len(v) // 10
    parts = np.array([_lagged(v, b * length, length, max_lag) for b in range(10)])
    lags = np.arange(1, max_lag + 1)
    whole, without = parts.sum(axis=0), parts.sum(axis=0) - parts
    tau = lags @ whole / whole.sum(axis=0)
    left_out = np.einsum("h,bhk->bk", lags, without) / without.sum(axis=1)
    return tau, np.sqrt(9) * left_out.std(axis=0)


def velocity_sums(velocities: np.ndarray, max_lag: int) -> np.ndarray:
    """Σ_{h=1}^L c(h) and Σ_{h=1}^L h·c(h) of the velocities, [2, k], the two sums in Eq. 3.

    Their ratio along one direction scatters by far more than itself unless the series is very
    long: add them up over directions, or repetitions, first.

    Args:
        velocities: [T, k], drift removed.
        max_lag: L, update steps.

    Raises:
        ValueError: fewer than L + 1 steps.
    """
    v = np.asarray(velocities, np.float64)
    if not 1 <= max_lag < len(v):
        raise ValueError(f"{len(v)} steps hold no correlation at max_lag={max_lag}")
    c = _lagged(v, 0, len(v), max_lag)
    return np.array([c.sum(axis=0), np.arange(1, max_lag + 1) @ c])


def _lagged(v: np.ndarray, begin: int, length: int, max_lag: int) -> np.ndarray:
    """Σ_k v_k v_{k+h} for k in a stretch and k + h in the series, over k's number, [L, k]."""
    ahead = v[begin : begin + length + max_lag]
    size = fft.next_fast_len(length + 2 * max_lag, real=True)
    here = fft.rfft(v[begin : begin + length], size, axis=0)
    products = fft.irfft(np.conj(here) * fft.rfft(ahead, size, axis=0), size, axis=0)
    lags = np.arange(1, max_lag + 1)
    counts = np.minimum(length, len(v) - lags - begin)
    return products[1 : max_lag + 1] / counts[:, None]
