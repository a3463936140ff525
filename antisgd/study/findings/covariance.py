"""The noise covariance against the Hessian: Fig. 13 and 14, App. L, Eq. 108."""

import numpy as np

from antisgd import plotting, statistics
from antisgd.study.findings.rows import Panels, Rows, exponent_row, median_row, row
from antisgd.study.stages.covariance import Covariances

__all__ = ["panels", "rows"]

# Variances that Fig. 13 shows.
LEADING = 200
_FROM = {"recorded": "recorded noise", "examples": "per-example gradients"}


def rows(found: Covariances, eigenvalues: np.ndarray, steps: int) -> Rows:
    """Alignment of C with H, the power law of Fig. 14, and Eq. 108."""
    k = len(eigenvalues)
    made = []
    for name in _FROM:
        covariance = getattr(found, name)
        aligned = statistics.alignment(covariance, eigenvalues)
        biased = name == "recorded"
        note = f"{steps} steps" if biased else "per-example gradients at theta_K"
        note += f" in {k} directions"
        made += _alignment_rows(name, aligned, eigenvalues, note)
    ratio = np.diag(found.recorded) / np.diag(found.examples)
    quantity = "recorded noise variance over (1/S - 1/N) C_0 at theta_K, median"
    changed = median_row("recorded_over_example_noise", "Assumption 2", quantity, ratio)
    changed["note"] = "1 if the noise did not change over the period; error over directions"
    return [*made, changed]


def _alignment_rows(
    name: str, aligned: statistics.Alignment, eigenvalues: np.ndarray, note: str
) -> Rows:
    k = len(eigenvalues)
    random = statistics.random_cosine_similarity(aligned.own_variances, eigenvalues, k)
    made = [
        row(
            f"cosine_similarity_{name}",
            "App. L",
            f"cosine similarity of the noise covariance and the Hessian, {_FROM[name]}",
            aligned.cosine,
            n=k,
            note=f"{note}; the same spectra in random relative orientation {random:.2g}",
        ),
        row(
            f"commutator_{name}",
            "App. L",
            f"commutator of the noise covariance and the Hessian, relative norm, {_FROM[name]}",
            aligned.commutator,
            n=k,
            note=f"{note}; 0 if they commute, at most 1.41",
        ),
    ]
    leading = slice(0, LEADING)
    ratio = np.sort(aligned.hessian_variances)[::-1][leading] / aligned.own_variances[leading]
    shared = median_row(
        f"leading_variances_{name}",
        "Fig. 13",
        f"noise variance in the Hessian's eigenbasis over its own's, by rank, {_FROM[name]}",
        ratio,
    )
    made.append(shared | {"note": f"{note}; the {ratio.size} largest of each; 1 if both share it"})
    positive = eigenvalues > 0
    if positive.sum() >= 3:
        law = statistics.fit_power_law(eigenvalues[positive], aligned.hessian_variances[positive])
        quantity = f"exponent of the noise variance against the Hessian eigenvalue, {_FROM[name]}"
        identifier = f"noise_exponent_{name}"
        made.append(exponent_row(identifier, "Fig. 14", quantity, law, note=f"; {note}"))
    return made


def panels(found: Covariances, eigenvalues: np.ndarray, unconverged: np.ndarray) -> Panels:
    """Fig. 13 from both covariances, and Fig. 14 from the recorded one."""
    alignments = {
        words: statistics.alignment(getattr(found, name), eigenvalues)
        for name, words in _FROM.items()
    }
    made = {"leading_variances": plotting.leading_variances(alignments)}
    positive = eigenvalues > 0
    if positive.sum() >= 3:
        x, y = eigenvalues[positive], np.diag(found.recorded)[positive]
        span = np.array([x.min(), x.max()])
        fit = statistics.fit_power_law(x, y)
        figure = plotting.noise_against_curvature(x, y, fit, span, unconverged[positive])
        made["noise_against_curvature"] = figure
    return made
