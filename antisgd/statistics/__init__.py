"""Statistics of recorded trajectories, float64 on the host: what the paper's figures plot."""

from antisgd.statistics.comparison import (
    Alignment,
    PowerLaw,
    alignment,
    cosine_similarity,
    fit_power_law,
    random_cosine_similarity,
)
from antisgd.statistics.correlations import (
    autocorrelation,
    autocovariance,
    effective_directions,
    independent_noise_band,
    mean_autocorrelation,
)
from antisgd.statistics.fluctuations import (
    Fluctuations,
    block_errors,
    drift_share,
    remove_drift,
    restoring_slope,
    variances,
)
from antisgd.statistics.resampling import Carriers, carriers, resampled_windows

__all__ = [
    "Alignment",
    "Carriers",
    "Fluctuations",
    "PowerLaw",
    "alignment",
    "autocorrelation",
    "autocovariance",
    "block_errors",
    "carriers",
    "cosine_similarity",
    "drift_share",
    "restoring_slope",
    "effective_directions",
    "fit_power_law",
    "independent_noise_band",
    "mean_autocorrelation",
    "random_cosine_similarity",
    "remove_drift",
    "resampled_windows",
    "variances",
]
