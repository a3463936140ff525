"""What the report says in words: its headlines, and what to notice in each figure."""

from typing import NamedTuple

__all__ = ["CAPTIONS", "HEADLINES", "Caption", "caption"]

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
    "weight_exponent_pca": ("exponent of the weight variance, eigenvectors of Σ", ""),
    "weight_exponent_hessian": ("exponent of the weight variance, eigenvectors of H", ""),
    "largest_z": ("largest deviation from theory, in standard errors", ""),
}  # fmt: skip


class Caption(NamedTuple):
    """Title of a figure, and what a reader should notice in it."""

    title: str
    notice: str


CAPTIONS = {
    "fig01": Caption(
        "Fig. 1: autocorrelation of the gradient noise",
        "Within one epoch the noise should be anti-correlated and rise from −1/(M−1) to zero along "
        "the black line (Eq. 2); beyond an epoch nothing should be left. If the directions were "
        "independent, 95 % of the points would lie in the grey band.",
    ),
    "fig02": Caption(
        "Fig. 2: variances and correlation time against curvature",
        "Left: the theory has the weight variance bend at λ_cross, flat to its right and "
        "proportional to λ to its left, while the velocity variance stays proportional to λ. "
        "Right: the correlation time should fall as 1/λ in steep directions and stop growing at "
        "τ_SGD in flat ones; 95 % of the points should lie in the orange band.",
    ),
    "fig03": Caption(
        "Fig. 3: the original basis against principal components",
        "What is isotropic looks anisotropic in the eigenbasis of its own recorded covariance.",
    ),
    "fig04": Caption(
        "Fig. 4: the first convolution in two bases",
        "The exponents depend on the basis: compare those of the eigenbasis of Σ, which a finite "
        "recording inflates, with those of the Hessian's.",
    ),
    "fig05": Caption(
        "Fig. 5: density of the Hessian eigenvalues found",
        "A few steep directions stand apart from a multitude of flat ones. The anti-correlations "
        "act on those left of λ_cross.",
    ),
    "fig05_density": Caption(
        "Fig. 5: all eigenvalues, by their density",
        "Where the lines meet nothing is missing among the eigenvalues found. Most of the spectrum "
        "lies far left of λ_cross.",
    ),
    "fig06": Caption(
        "Fig. 6: noise autocorrelation in both regimes",
        "The dip of the left panel should be missing in the right one: with replacement nothing "
        "anti-correlates the noise.",
    ),
    "fig07": Caption(
        "Fig. 7: variances and correlation times in both regimes",
        "Right of λ_cross both columns should agree. Left of it, with replacement, the correlation "
        "time should go on growing until the finite window cuts it off (the dashed line).",
    ),
    "fig08": Caption(
        "Fig. 8: loss and accuracy",
        "In the shaded analysis period the loss should hardly change: the theory assumes a "
        "stationary state.",
    ),
    "fig09": Caption("Fig. 9: other batch sizes", "Each batch size follows its own theory line."),
    "fig10": Caption(
        "Fig. 10: τ_SGD and λ_cross, hyperparameters varied",
        "The points should lie on the lines, which are Eq. 109.",
    ),
    "fig11": Caption(
        "Fig. 11: discarding eigenvectors",
        "Top: how many eigenvectors the accuracy survives without; in the paper it falls in two "
        "steps, the second far below λ_cross. Bottom: the points outside the red band are "
        "directions in which the weights reach further than a random vector of their length.",
    ),
    "fig12": Caption("Fig. 12: ResNet-20", "The same laws in a deeper network."),
    "fig13": Caption(
        "Fig. 13: noise variance in two eigenbases",
        "Points on the line mean that noise covariance and Hessian share their eigenvectors.",
    ),
    "fig14": Caption(
        "Fig. 14: noise variance against curvature",
        "An exponent of one would mean that the noise covariance is proportional to the Hessian.",
    ),
    "seeds": Caption(
        "Sec. 7: test accuracy of every seed",
        "Each grey line is one seed in both regimes: look whether the lines fall together. The "
        "error bars are one standard error of the mean.",
    ),
}


def caption(figure: str) -> Caption:
    """The caption of a figure by its name, such as fig02_seed1; the name where there is none."""
    base, _, seed = figure.partition("_seed")
    title, notice = CAPTIONS.get(base, Caption(figure, ""))
    return Caption(f"{title}, seed {seed}" if seed else title, notice)
