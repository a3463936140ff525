"""Statistics of recorded trajectories, float64 on the host: what the paper's figures plot."""

from typing import NamedTuple

import numpy as np
from scipy import fft

__all__ = [
    "Alignment",
    "Fluctuations",
    "PowerLaw",
    "alignment",
    "autocorrelation",
    "autocovariance",
    "block_errors",
    "cosine_similarity",
    "drift_share",
    "effective_directions",
    "fit_power_law",
    "independent_noise_band",
    "mean_autocorrelation",
    "random_cosine_similarity",
    "remove_drift",
    "restoring_slope",
    "variances",
]

DRIFTS = ("none", "mean_velocity", "line")

# Series transformed at once: enough to amortise the call, few enough for tens of megabytes.
FFT_COLUMNS = 64


class Fluctuations(NamedTuple):
    """Variances over a window, [k] each, and τ = 2σ_θ²/σ_v² in update steps (Eq. 3)."""

    weight: np.ndarray
    velocity: np.ndarray
    correlation_time: np.ndarray


class PowerLaw(NamedTuple):
    """y = prefactor·x^exponent, with one standard error of the exponent (the paper quotes two).

    Attributes:
        exponent: slope in the log–log plot.
        exponent_error: of ordinary least squares, the paper's way: equal independent scatter.
        robust_error: one that honours unequal scatter of the points (HC3).
        prefactor: y at x = 1.
        num_points: points fitted.
    """

    exponent: float
    exponent_error: float
    robust_error: float
    prefactor: float
    num_points: int


class Alignment(NamedTuple):
    """How far a covariance C and the Hessian share their eigenbasis (Fig. 13, App. L).

    Attributes:
        own_variances: eigenvalues of C, descending, [k].
        hessian_variances: p_iᵀCp_i along the Hessian's eigenvectors, [k].
        cosine: ⟨C, Λ⟩_F/(‖C‖_F ‖Λ‖_F).
        commutator: ‖CΛ − ΛC‖_F/(‖C‖_F ‖Λ‖_F), zero if they commute, at most √2.
    """

    own_variances: np.ndarray
    hessian_variances: np.ndarray
    cosine: float
    commutator: float


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
        ValueError: max_lag not below T, or a series that is no matrix.
    """
    if np.ndim(series) != 2:
        raise ValueError(f"the series must be [steps, k], not of shape {np.shape(series)}")
    num_steps, k = series.shape
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
    """
    num_steps, k = series.shape
    x = np.asarray(series, np.float64)
    x = x / np.sqrt(np.sum(x**2, axis=0))
    off_diagonal = np.sum(np.square(x.T @ x)) - k
    unbiased = (num_steps * off_diagonal - k * (k - 1)) / (num_steps - 1)
    return float(k**2 / (k + max(unbiased, 0.0)))


def independent_noise_band(num_steps: int, num_directions: float, max_lag: int) -> np.ndarray:
    """Standard deviation of the mean autocorrelation of independent noise, [max_lag + 1].

    1/√(k(T−h)) for h ≥ 1 and zero at h = 0; the paper's band in Fig. 1 is twice this. Where
    directions are correlated, k is what `effective_directions` makes of them.
    """
    lags = np.arange(max_lag + 1)
    return np.where(lags == 0, 0.0, 1 / np.sqrt(num_directions * (num_steps - lags)))


def remove_drift(
    weights: np.ndarray, velocities: np.ndarray, mode: str
) -> tuple[np.ndarray, np.ndarray]:
    """Weights and velocities without the slow motion of the minimum (Sec. 5.3).

    Args:
        weights: θ_k, [T + 1, k], beside velocities v_k, [T, k].
        mode: "none"; "mean_velocity", the paper's θ_k − v̄·k and v_k − v̄ with
            v̄ = (θ_T − θ_0)/T; or "line", the same with the least-squares slope.

    Raises:
        ValueError: an unknown mode, or weights that are not one point longer.
    """
    if mode not in DRIFTS:
        raise ValueError(f"mode must be one of {', '.join(DRIFTS)}, got {mode!r}")
    weights, velocities = np.asarray(weights, np.float64), np.asarray(velocities, np.float64)
    num_steps = len(velocities)
    if len(weights) != num_steps + 1:
        raise ValueError(f"{num_steps} velocities need {num_steps + 1} weights, not {len(weights)}")
    if mode == "none":
        return weights, velocities
    time = np.arange(num_steps + 1.0)
    if mode == "mean_velocity":
        slope = (weights[-1] - weights[0]) / num_steps
    else:
        centred = time - num_steps / 2
        slope = centred @ weights / (centred @ centred)
    return weights - time[:, None] * slope, velocities - slope


def variances(weights: np.ndarray, velocities: np.ndarray) -> Fluctuations:
    """Variances about the mean over the window, and τ = 2σ_θ²/σ_v² (Eq. 3).

    Of weights [T + 1, k] and velocities [T, k], normalised by the number of points, as the
    finite-window theory is.
    """
    weight = np.var(weights, axis=0, dtype=np.float64)
    velocity = np.var(velocities, axis=0, dtype=np.float64)
    return Fluctuations(weight, velocity, 2 * weight / velocity)


def block_errors(weights: np.ndarray, velocities: np.ndarray, num_blocks: int = 20) -> Fluctuations:
    """Standard errors of `variances` by leaving out one block of time after the other.

    Block jackknife: se² = (B−1)/B Σ_b (x_(b) − mean)². It holds where blocks are much longer
    than the correlation time; in flatter directions it is a lower bound, and the sampling
    spread of the finite-window theory is the one to use. Steps beyond a multiple of B are unused.

    Raises:
        ValueError: B = num_blocks is not between 2 and T.
    """
    if not 2 <= num_blocks <= len(velocities):
        raise ValueError(f"num_blocks={num_blocks} must be 2 to {len(velocities)}, the steps")
    weight = _left_out_variances(weights, num_blocks)
    velocity = _left_out_variances(velocities, num_blocks)
    replicates = Fluctuations(weight, velocity, 2 * weight / velocity)
    return Fluctuations(*(np.sqrt(num_blocks - 1) * x.std(axis=0) for x in replicates))


def _left_out_variances(series: np.ndarray, num_blocks: int) -> np.ndarray:
    length = len(series) // num_blocks
    used = np.asarray(series[: length * num_blocks], np.float64)
    blocks = (used - used.mean(axis=0)).reshape(num_blocks, length, -1)
    first, second = blocks.sum(axis=1), np.sum(blocks**2, axis=1)
    kept = length * (num_blocks - 1)
    mean = (first.sum(axis=0) - first) / kept
    return (second.sum(axis=0) - second) / kept - mean**2


def drift_share(weights: np.ndarray) -> np.ndarray:
    """Share of the raw weight variance that the straight line from first to last point makes.

    (θ_T − θ_0)²/12 over the variance about the mean; may exceed 1. Near 0: fluctuation only.
    """
    weights = np.asarray(weights, np.float64)
    return (weights[-1] - weights[0]) ** 2 / 12 / np.var(weights, axis=0)


def fit_power_law(x: np.ndarray, y: np.ndarray, errors: np.ndarray | None = None) -> PowerLaw:
    """Straight line in the log–log plot by least squares (Fig. 2).

    The n points are weighed by the standard errors of y, known up to a common factor, or alike.

    Raises:
        ValueError: fewer than three points, equal x, or a value that is not positive.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    w = np.ones_like(y) if errors is None else (y / np.asarray(errors, np.float64)) ** 2
    if x.size < 3 or np.any(x <= 0) or np.any(y <= 0) or np.ptp(x) == 0:
        raise ValueError(
            f"a power law needs three or more positive points at differing x, got {x.size}"
        )
    log_x, log_y = np.log(x), np.log(y)
    mean_x, mean_y = w @ log_x / w.sum(), w @ log_y / w.sum()
    centred = log_x - mean_x
    spread = w @ centred**2
    slope = w @ (centred * log_y) / spread
    residuals = log_y - mean_y - slope * centred
    error = np.sqrt(w @ residuals**2 / (x.size - 2) / spread)
    leverage = w * (1 / w.sum() + centred**2 / spread)
    robust = np.sqrt(np.sum((w * centred * residuals / (1 - leverage)) ** 2)) / spread
    prefactor = np.exp(mean_y - slope * mean_x)
    return PowerLaw(float(slope), float(error), float(robust), float(prefactor), x.size)


def restoring_slope(weights: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Slope s of exact full gradients against displacements along each direction, [k].

    A test of stationarity, not a curvature: in a stationary state under white noise
    2σ_θ²/σ_v² = (1+β)/(ηs) whatever the loss is, a pure quartic included. Displacements and
    gradients at n anchors, [n, k] each.
    """
    centred = weights - np.mean(weights, axis=0)
    return np.sum(centred * gradients, axis=0) / np.sum(centred**2, axis=0)


def cosine_similarity(first: np.ndarray, second: np.ndarray) -> float:
    """⟨A, B⟩_F/(‖A‖_F ‖B‖_F) of two matrices of one shape (App. L)."""
    return float(np.sum(first * second) / (np.linalg.norm(first) * np.linalg.norm(second)))


def random_cosine_similarity(first: np.ndarray, second: np.ndarray, dimension: int) -> float:
    """Mean cosine similarity of two matrices of given spectra in random relative orientation.

    tr A·tr B/(d ‖A‖_F ‖B‖_F) from their non-zero eigenvalues, the mean over rotations of the
    d-dimensional space they lie in: what two random low-rank matrices have.
    """
    norms = np.linalg.norm(first) * np.linalg.norm(second)
    return float(np.sum(first) * np.sum(second) / (dimension * norms))


def alignment(covariance: np.ndarray, eigenvalues: np.ndarray) -> Alignment:
    """Compares a covariance [k, k] in the Hessian's eigenbasis with its eigenvalues [k] (App. L).

    [C, Λ]_ij = C_ij(λ_j − λ_i). A covariance recorded over T steps is biased once k nears T:
    its own eigenvalues spread too far and its cosine is too small.
    """
    C = np.asarray(covariance, np.float64)
    norms = np.linalg.norm(C) * np.linalg.norm(eigenvalues)
    commutator = np.linalg.norm(C * (eigenvalues - eigenvalues[:, None])) / norms
    own = np.linalg.eigvalsh(C)[::-1]
    return Alignment(own, np.diag(C), cosine_similarity(C, np.diag(eigenvalues)), float(commutator))
