"""Power laws between two quantities, and how far two matrices agree."""

from typing import NamedTuple

import numpy as np

from antisgd import display, inputs

__all__ = [
    "Alignment",
    "PowerLaw",
    "alignment",
    "cosine_similarity",
    "fit_power_law",
    "random_cosine_similarity",
]


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

    def __repr__(self) -> str:
        return display.described(self)


def fit_power_law(x: np.ndarray, y: np.ndarray, errors: np.ndarray | None = None) -> PowerLaw:
    """Straight line in the log–log plot by least squares (Fig. 2).

    The n points are weighed by the standard errors of y, known up to a common factor, or alike.

    Raises:
        ValueError: fewer than three points, equal x, lengths that differ, or a value or an error
            that is not positive and finite.
    """
    x, y = (np.asarray(inputs.finite(n, v, 1), np.float64) for n, v in (("x", x), ("y", y)))
    spreads = y if errors is None else np.asarray(inputs.finite("errors", errors, 1), np.float64)
    if not len(x) == len(y) == len(spreads):
        raise ValueError(f"x, y and errors differ in length: {len(x)}, {len(y)}, {len(spreads)}")
    if np.any(spreads <= 0) and errors is not None:
        raise ValueError("the errors of a power law's points must be positive")
    w = np.ones_like(y) if errors is None else (y / spreads) ** 2
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


def cosine_similarity(first: np.ndarray, second: np.ndarray) -> float:
    """⟨A, B⟩_F/(‖A‖_F ‖B‖_F) of two matrices of one shape (App. L).

    Raises:
        ValueError: different shapes, or a matrix that is zero or not finite.
    """
    first, second = inputs.finite("first", first), inputs.finite("second", second)
    if first.shape != second.shape:
        raise ValueError(f"the matrices differ in shape: {first.shape} and {second.shape}")
    return float(np.sum(first * second) / _product_of_norms(first, second))


def random_cosine_similarity(first: np.ndarray, second: np.ndarray, dimension: int) -> float:
    """Mean cosine similarity of two matrices of given spectra in random relative orientation.

    tr A·tr B/(d ‖A‖_F ‖B‖_F) from their non-zero eigenvalues, the mean over rotations of the
    d-dimensional space they lie in: what two random low-rank matrices have.

    Raises:
        ValueError: spectra that are zero or not finite, or fewer dimensions than eigenvalues.
    """
    first, second = inputs.finite("first", first, 1), inputs.finite("second", second, 1)
    if inputs.count("dimension", dimension) < max(len(first), len(second)):
        raise ValueError(f"{max(len(first), len(second))} eigenvalues in {dimension} dimensions")
    norms = _product_of_norms(first, second)
    return float(np.sum(first) * np.sum(second) / (dimension * norms))


def alignment(covariance: np.ndarray, eigenvalues: np.ndarray) -> Alignment:
    """Compares a covariance [k, k] in the Hessian's eigenbasis with its eigenvalues [k] (App. L).

    [C, Λ]_ij = C_ij(λ_j − λ_i). A covariance recorded over T steps is biased once k nears T:
    its own eigenvalues spread too far and its cosine is too small.

    Raises:
        ValueError: shapes that do not fit, or what is zero or not finite.
    """
    C = np.asarray(inputs.finite("covariance", covariance, 2), np.float64)
    eigenvalues = inputs.finite("eigenvalues", eigenvalues, 1)
    if C.shape != (len(eigenvalues), len(eigenvalues)):
        raise ValueError(f"a covariance {C.shape} does not fit {len(eigenvalues)} eigenvalues")
    norms = _product_of_norms(C, eigenvalues)
    commutator = np.linalg.norm(C * (eigenvalues - eigenvalues[:, None])) / norms
    own = np.linalg.eigvalsh(C)[::-1]
    return Alignment(own, np.diag(C), cosine_similarity(C, np.diag(eigenvalues)), float(commutator))


def _product_of_norms(first: np.ndarray, second: np.ndarray) -> float:
    norms = float(np.linalg.norm(first) * np.linalg.norm(second))
    if norms == 0:
        raise ValueError("a matrix of zeros has no direction: its cosine is undefined")
    return norms
