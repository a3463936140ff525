"""The eigenvalues found (Fig. 5, Sec. 4.3)."""

import numpy as np

from antisgd import plotting
from antisgd.study.conditions import Conditions
from antisgd.study.findings.rows import Panels, Rows, row
from antisgd.study.stages.eigenpairs import Curvature

__all__ = ["panels", "rows"]

_HEAVY_BALL = "3(1-beta)/(eta M)", "tau_SGD = M/3 (1+beta)/(1-beta)"
_LINEAR = "3/(eta_eff M)", "tau_SGD = M eta_eff^2/(3 sigma_v^2)"


def rows(conditions: Conditions, pairs: Curvature) -> Rows:
    """Fig. 5: the eigenvalues found, and how many lie above the crossover."""
    k = len(pairs.values)
    ends = []
    for name, index in (("largest", 0), ("smallest", -1)):
        quantity = f"{name} of the Hessian eigenvalues found"
        value, error = pairs.values[index], pairs.residuals[index]
        note = "error: residual norm"
        ends.append(row(f"{name}_eigenvalue", "Fig. 5", quantity, value, error, n=k, note=note))
    unconverged = row(
        "unconverged_eigenpairs",
        "Fig. 5",
        "eigenpairs not converged",
        np.sum(~pairs.converged),
        n=k,
        note="residual above 1e-3 of the eigenvalue and above the noise of the product",
    )
    blurred = row(
        "blurred_eigenpairs",
        "Fig. 5",
        "eigenpairs that are no single eigenvectors for sure",
        np.sum(pairs.blurred),
        n=k,
        note="eigenvalues nearer than the noise of the product, and all smaller ones",
    )
    return [*_scale_rows(conditions, pairs), *ends, unconverged, blurred]


def _scale_rows(conditions: Conditions, pairs: Curvature) -> Rows:
    """The two scales of Sec. 4.3 at this run's settings, and the eigenvalues above the one."""
    if not conditions.has_theory:
        return []
    cross, limit = conditions.crossover, conditions.max_correlation_time
    complete = pairs.values[-1] < cross
    reach = "of those found" + ("" if complete else ", all of them: there may be more")
    scales = _HEAVY_BALL if conditions.heavy_ball else _LINEAR
    return [
        row("crossover_eigenvalue", "Sec. 4.3", scales[0], cross),
        row("max_correlation_time", "Sec. 4.3", scales[1], limit, unit="steps"),
        row(
            "eigenvalues_above_crossover",
            "App. J",
            "eigenvalues above the crossover",
            np.sum(pairs.values > cross),
            n=len(pairs.values),
            note=reach,
        ),
    ]


def panels(conditions: Conditions, pairs: Curvature) -> Panels:
    """Fig. 5."""
    cross, unsure = conditions.crossover, ~pairs.converged
    return {"eigenvalues": plotting.eigenvalue_density(pairs.values, cross, unsure)}
