"""What to notice in each figure of a study."""

from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["CAPTIONS", "Caption", "caption"]


class Caption(NamedTuple):
    """Title of a figure, and what a reader should notice in it."""

    title: str
    notice: str


CAPTIONS = {
    "noise_autocorrelation": Caption(
        "Autocorrelation of the gradient noise",
        "Within one epoch the noise should be anti-correlated and rise from −1/(M−1) to zero along "
        "the black line (Eq. 2); beyond an epoch nothing should be left. If the directions were "
        "independent, 95 % of the points would lie in the grey band.",
    ),
    "variances": Caption(
        "Variances and correlation time against curvature",
        "Left: the theory has the weight variance bend at λ_cross, flat to its right and "
        "proportional to λ to its left, while the velocity variance stays proportional to λ. "
        "Right: the correlation time should fall as 1/λ in steep directions and stop growing at "
        "τ_SGD in flat ones; 95 % of the points should lie in the orange band. A purple line "
        "was predicted from θ_K alone, with curvature and noise averaged over the weights that the "
        "period visits.",
    ),
    "eigenvalues": Caption(
        "Density of the Hessian eigenvalues found",
        "A few steep directions stand apart from a multitude of flat ones. The anti-correlations "
        "act on those left of λ_cross.",
    ),
    "spectrum": Caption(
        "All eigenvalues, by their density",
        "Where the lines meet nothing is missing among the eigenvalues found. Most of the spectrum "
        "lies far left of λ_cross.",
    ),
    "tracked_eigenvalues": Caption(
        "Leading eigenvalues along training",
        "Above the dashed line a step would overshoot and grow. Both lines rise as the learning "
        "rate falls; on directions below λ_cross the anti-correlations act. Whether training "
        "sharpens towards the edge or flattens away from it is seen in the largest eigenvalue.",
    ),
    "noise_autocorrelation_schemes": Caption(
        "Noise autocorrelation with both schemes",
        "The dip of the left panel should be missing in the right one: with replacement nothing "
        "anti-correlates the noise.",
    ),
    "variances_schemes": Caption(
        "Variances and correlation times with both schemes",
        "Right of λ_cross both columns should agree. Left of it, with replacement, the correlation "
        "time should go on growing until the finite window cuts it off (the dashed line).",
    ),
    "agreement": Caption(
        "Measured over predicted, against λ/λ_cross",
        "Where the points lie on one the finite-window theory at the curvature of θ_K holds. A "
        "single window's correlation time scatters skewly: its mean lies a little above one even "
        "where theory is exact.",
    ),
    "training_curves": Caption(
        "Loss and accuracy",
        "In the shaded analysis period the loss should hardly change: the theory assumes a "
        "stationary state.",
    ),
    "discarded_directions": Caption(
        "Discarding eigenvectors",
        "Top: how many eigenvectors the accuracy survives without. Bottom: the points outside the "
        "red band are directions in which the weights reach further than a random vector of their "
        "length.",
    ),
    "leading_variances": Caption(
        "Noise variance in two eigenbases",
        "Points on the line mean that noise covariance and Hessian share their eigenvectors.",
    ),
    "noise_against_curvature": Caption(
        "Noise variance against curvature",
        "An exponent of one would mean that the noise covariance is proportional to the Hessian.",
    ),
    "seeds": Caption(
        "Test accuracy of every seed",
        "Each grey line is one seed with both schemes: look whether the lines fall together. The "
        "error bars are one standard error of the mean.",
    ),
}


def caption(figure: str, captions: Mapping[str, Caption] = CAPTIONS) -> Caption:
    """The caption of a figure such as variances_seed1; its name where there is none."""
    base, _, seed = figure.partition("_seed")
    title, notice = captions.get(base, Caption(figure, ""))
    return Caption(f"{title}, seed {seed}" if seed else title, notice)
