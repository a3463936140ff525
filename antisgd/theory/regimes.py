"""The two regimes of Sec. 4.3 and what follows from them for the trace and the loss."""

from typing import Any

import jax
import numpy as np

from antisgd import inputs
from antisgd.theory.variances import Variances

__all__ = [
    "crossover_eigenvalue",
    "crossover_function",
    "flat_variances",
    "loss_fluctuation",
    "loss_fluctuation_reduction",
    "max_correlation_time",
    "steep_variances",
    "trace_ratio",
]


def steep_variances(eigenvalues: np.ndarray, learning_rate: float, momentum: float) -> Variances:
    """Eq. 8, for λ ≫ λ_cross: σ_θ² = η²(1+β)/((1−β)B·ηλ), σ_v² = 2η²/((1−β)B), B = 2(1+β) − ηλ.

    Per unit noise variance σ_δg²; exact with replacement. The correlation time is (1+β)/(ηλ).

    Args:
        eigenvalues: λ > 0, any shape.
        learning_rate: η.
        momentum: β.

    Raises:
        ValueError: η or β out of range, or ηλ outside (0, 2(1+β)).
    """
    _check(learning_rate, momentum)
    a = learning_rate * np.asarray(inputs.finite("eigenvalues", eigenvalues), np.float64)
    if not np.all((a > 0) & (a < 2 * (1 + momentum))):
        raise ValueError(
            "steep_variances needs 0 < eta*lambda < 2(1 + beta) in every direction, and "
            f"eta*lambda runs from {np.min(a):.3g} to {np.max(a):.3g}: leave the others out"
        )
    unit = learning_rate**2 / ((1 - momentum) * (2 * (1 + momentum) - a))
    return Variances(unit * (1 + momentum) / a, 2 * unit)


def flat_variances(learning_rate: float, momentum: float, steps_per_epoch: float) -> Variances:
    """Eq. 9, for λ ≪ λ_cross and M(1−β) ≫ 1: σ_θ² = η²M/(6(1−β)²), σ_v² = η²/((1−β)(1+β)).

    Per unit noise variance σ_δg²; no curvature in it. The correlation time is τ_SGD.

    Raises:
        ValueError: η, β or M out of range.
    """
    _check(learning_rate, momentum, steps_per_epoch)
    kept = 1 - momentum
    return Variances(
        learning_rate**2 * steps_per_epoch / (6 * kept**2),
        learning_rate**2 / (kept * (1 + momentum)),
    )


def crossover_eigenvalue(learning_rate: float, momentum: float, steps_per_epoch: float) -> float:
    """λ_cross = 3(1−β)/(ηM), where the asymptotes of Eq. 8 and 9 meet (Sec. 4.3, Eq. 109b).

    Raises:
        ValueError: η, β or M out of range.
    """
    _check(learning_rate, momentum, steps_per_epoch)
    return 3 * (1 - momentum) / (learning_rate * steps_per_epoch)


def max_correlation_time(momentum: float, steps_per_epoch: float) -> float:
    """τ_SGD = (M/3)(1+β)/(1−β), update steps, in directions flatter than λ_cross (Eq. 9, 109a).

    Raises:
        ValueError: β or M out of range.
    """
    _check(1.0, momentum, steps_per_epoch)
    return steps_per_epoch / 3 * (1 + momentum) / (1 - momentum)


def crossover_function(z: np.ndarray) -> np.ndarray:
    """Φ(z) = 1 − 2(e^{−z} − 1 + z)/z² with z = 3λ/λ_cross (beyond the paper).

    σ_θ² ≈ σ²_white·Φ(z) and τ ≈ (1+β)/(ηλ)·Φ(z) hold uniformly in λ for M(1−β) ≫ 1: the error
    in τ is below 1 % at β = 0.9, M = 1,000.

    Raises:
        ValueError: z is not finite.
    """
    z = np.asarray(inputs.finite("z", z), np.float64)
    series = z / 3 - z**2 / 12 + z**3 / 60 - z**4 / 360
    safe = np.where(np.abs(z) < 1e-2, 1.0, z)
    return np.where(np.abs(z) < 1e-2, series, 1 - 2 * (np.expm1(-safe) + safe) / safe**2)


def trace_ratio(
    eigenvalues: np.ndarray,
    learning_rate: float,
    momentum: float,
    steps_per_epoch: float,
    noise_variances: np.ndarray | None = None,
) -> float:
    """Tr Σ_< with over without anti-correlations, below λ_cross (Eq. 111, corrected).

    (Mη/3(1−β)) Σ σ_i² / Σ (σ_i²/λ_i): the printed mean of λ weighs with the noise, the exact one
    is harmonic. C ∝ H by default, which gives the plain mean of λ.

    Args:
        eigenvalues: λ_i, [k]; those above λ_cross and below zero are left out.
        learning_rate: η.
        momentum: β.
        steps_per_epoch: M.
        noise_variances: σ_δg,i², [k].

    Raises:
        ValueError: no curvature between zero and λ_cross, arrays that do not fit each other or
            are not finite, or hyper-parameters out of range.
    """
    cross = crossover_eigenvalue(learning_rate, momentum, steps_per_epoch)
    eigenvalues, noise = _spectra(eigenvalues, eigenvalues, noise_variances)[::2]
    flat = (eigenvalues > 0) & (eigenvalues < cross)
    if not flat.any():
        raise ValueError(f"no curvature lies between zero and the crossover, {cross:.3g}")
    return float(noise[flat].sum() / (noise[flat] / eigenvalues[flat]).sum() / cross)


def loss_fluctuation(
    eigenvalues: np.ndarray,
    weight_variances: np.ndarray,
    noise_variances: np.ndarray | None = None,
) -> float:
    """Expected rise of the loss over its minimum, ½ Σ λ_i C_ii V_θ(λ_i) (Sec. 7), C = H by default.

    Args:
        eigenvalues: λ_i, [k].
        weight_variances: V_θ per unit noise variance, [k].
        noise_variances: C_ii, [k]; for C = c·H the result scales with c.

    Raises:
        ValueError: arrays that do not fit each other or are not finite.
    """
    eigenvalues, variances, noise = _spectra(eigenvalues, weight_variances, noise_variances)
    return float(np.sum(eigenvalues * noise * variances) / 2)


def loss_fluctuation_reduction(
    eigenvalues: np.ndarray,
    weight_variances: np.ndarray,
    white_variances: np.ndarray,
    noise_variances: np.ndarray | None = None,
) -> float:
    """Share of the loss fluctuation ½ Σ λ_i σ_θ,i² that anti-correlations remove (Sec. 7).

    1 − Σ λ_i C_ii V_θ(λ_i) / Σ λ_i C_ii V_white(λ_i), C ∝ H by default.

    Args:
        eigenvalues: λ_i > 0, [k].
        weight_variances: V_θ of the scheme per unit noise variance, [k].
        white_variances: V_θ with replacement, [k].
        noise_variances: C_ii, [k].

    Raises:
        ValueError: as for `loss_fluctuation`.
    """
    anti, white = (
        loss_fluctuation(eigenvalues, variances, noise_variances)
        for variances in (weight_variances, white_variances)
    )
    return 1 - anti / white


def _check(learning_rate: Any, momentum: Any, steps_per_epoch: Any = 1.0) -> None:
    """Hyper-parameters within their range; traced ones are passed over."""
    for name, value, least, below in (
        ("learning rate", learning_rate, 0.0, np.inf),
        ("momentum", momentum, -1e-300, 1.0),
        ("number of steps per epoch", steps_per_epoch, 0.0, np.inf),
    ):
        if isinstance(value, jax.core.Tracer):
            continue
        values = np.asarray(value, np.float64)
        if not np.all((values > least) & (values < below)):
            bound = "lie in [0, 1)" if below == 1 else "be positive and finite"
            raise ValueError(f"the {name} must {bound}, not {value}")


def _spectra(
    eigenvalues: np.ndarray, variances: np.ndarray, noise: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Curvatures, variances and noise of the same directions; the noise is ∝ λ by default."""
    named = {"eigenvalues": eigenvalues, "weight_variances": variances}
    named["noise_variances"] = eigenvalues if noise is None else noise
    parts = [np.asarray(inputs.finite(n, v, 1), np.float64) for n, v in named.items()]
    if len({len(part) for part in parts}) > 1:
        lengths = ", ".join(f"{len(p)} {n}" for n, p in zip(named, parts, strict=True))
        raise ValueError(f"one value for each direction is needed, got {lengths}")
    return parts[0], parts[1], parts[2]
