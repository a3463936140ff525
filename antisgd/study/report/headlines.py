"""The rows that a report shows large at its top."""

__all__ = ["HEADLINES"]

# Rows shown large at the top where the run has them: id → short name and what is expected beside
# it where neither the paper nor the row's note gives a value. None: shown only beside the paper's.
HEADLINES: dict[str, tuple[str, str | None]] = {
    "test_accuracy": ("test accuracy after training", "fraction of the test pictures"),
    "best_accuracy_difference": ("accuracy without minus with replacement", None),
    "noise_autocorrelation_near_without_replacement": ("noise autocorrelation at short lags", None),
    "weight_exponent_without_replacement": ("exponent of the weight variance", None),
    "velocity_exponent_without_replacement": ("exponent of the velocity variance", None),
    "tau_over_theory_window_without_replacement": (
        "correlation time over theory, without replacement", None),
    "tau_over_theory_window_with_replacement": (
        "correlation time over theory, with replacement", None),
    "correlation_time_within_band_window_without_replacement": (
        "share of directions inside the theory's 95 % band", None),
    "regime_ratio": ("correlation time below λ_cross, with over without replacement", ""),
    "loss_fluctuation_reduction": ("of the loss fluctuation removed by anti-correlations", ""),
}  # fmt: skip
