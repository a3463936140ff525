"""Correlations in time and between directions of recorded series."""

import numpy as np
from scipy import fft

from antisgd import inputs

__all__ = [
    "autocorrelation",
    "autocovariance",
    "effective_directions",
    "independent_noise_band",
    "mean_autocorrelation",
]

# Series transformed at once: enough to amortise the call, few enough for tens of megabytes.
FFT_COLUMNS = 64


def autocovariance(series: np.ndarray, max_lag: int, *, remove_mean: bool = False) -> np.ndarray:
    """c(h) = Σ_k x_k x_{k+h}/(T−h), the unbiased convention, by FFT; h = 0 … max_lag.

    The mean is not removed by default: gradient noise has mean zero by construction, and
    removing the sample mean would add about −c(0)/T to every lag. (The biased convention
    divides by T; it tilts c(h) by 1 − h/T.)

    Args:
        series: [T, k], k series.
        max_lag: largest lag, update steps, below T.
        remove_mean: subtracts each series' own mean first.

    Returns:
        [max_lag + 1, k].

    Raises:
        ValueError: max_lag not below T, a series that is no matrix, or one that is not finite.
    """
    series = inputs.finite("series", series, ndim=2)
    num_steps, k = series.shape
    max_lag = inputs.count("max_lag", max_lag, 0)
    if not 0 <= max_lag < num_steps:
        raise ValueError(f"max_lag={max_lag} must lie below the {num_steps} recorded steps")
    size = fft.next_fast_len(num_steps + max_lag, real=True)
    products = np.empty((max_lag + 1, k))
    for start in range(0, k, FFT_COLUMNS):
        x = np.asarray(series[:, start : start + FFT_COLUMNS], np.float64)
        x = x - x.mean(axis=0) if remove_mean else x
        power = np.abs(fft.rfft(x, size, axis=0)) ** 2
        products[:, start : start + FFT_COLUMNS] = fft.irfft(power, size, axis=0)[: max_lag + 1]
    return products / (num_steps - np.arange(max_lag + 1))[:, None]


def autocorrelation(series: np.ndarray, max_lag: int) -> np.ndarray:
    """r(h) = c(h)/c(0) of each series [T, k] about its known mean 0, [max_lag + 1, k] (Sec. 5.2).

    Raises:
        ValueError: max_lag (update steps) not below T, or a series that is zero throughout.
    """
    covariance = autocovariance(series, max_lag)
    if np.any(covariance[0] <= 0):
        raise ValueError("a series without any variation has no autocorrelation")
    return covariance / covariance[0]


def mean_autocorrelation(series: np.ndarray, max_lag: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean over directions of the autocorrelation and its standard error over them (Fig. 1).

    The error is empirical, from the spread over directions, which it takes as independent of
    each other; `effective_directions` says how many independent ones they are worth.

    Of a series [T, k]: two arrays [max_lag + 1]; the error is nan for one direction.
    """
    r = autocorrelation(series, max_lag)
    if r.shape[1] == 1:
        return r[:, 0], np.full(max_lag + 1, np.nan)
    return r.mean(axis=1), r.std(axis=1, ddof=1) / np.sqrt(r.shape[1])


def effective_directions(series: np.ndarray) -> float:
    """k²/Σ_ij ρ_ij²: how many independent directions the mean autocorrelation of [T, k] is worth.

    For Gaussian noise independent in time cov(r_i(h), r_j(h)) = ρ_ij²/(T − h), with ρ the
    correlation of two directions at equal times. Each squared sample correlation is freed of
    its bias 1/T, which would pass k independent directions off as k/(1 + k/T). Beyond the paper.

    Raises:
        ValueError: a series that is no matrix, is not finite or is zero throughout.
    """
    num_steps, k = inputs.finite("series", series, ndim=2).shape
    x = np.asarray(series, np.float64)
    if num_steps < 2 or np.any(np.all(x == 0, axis=0)):
        raise ValueError("correlations need two steps or more, and a series that is not all zeros")
    x = x / np.sqrt(np.sum(x**2, axis=0))
    off_diagonal = np.sum(np.square(x.T @ x)) - k
    unbiased = (num_steps * off_diagonal - k * (k - 1)) / (num_steps - 1)
    return float(k**2 / (k + max(unbiased, 0.0)))


def independent_noise_band(num_steps: int, num_directions: float, max_lag: int) -> np.ndarray:
    """Standard deviation of the mean autocorrelation of independent noise, [max_lag + 1].

    1/√(k(T−h)) for h ≥ 1 and zero at h = 0; the paper's band in Fig. 1 is twice this. Where
    directions are correlated, k is what `effective_directions` makes of them.

    Raises:
        ValueError: max_lag not below T, or no directions.
    """
    num_steps, max_lag = inputs.count("num_steps", num_steps), inputs.count("max_lag", max_lag, 0)
    num_directions = inputs.number("num_directions", num_directions, above=0)
    if max_lag >= num_steps:
        raise ValueError(f"max_lag={max_lag} must lie below the {num_steps} recorded steps")
    lags = np.arange(max_lag + 1)
    return np.where(lags == 0, 0.0, 1 / np.sqrt(num_directions * (num_steps - lags)))
