"""The autocorrelation of the gradient noise (Fig. 1, 6)."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from antisgd import plotting, statistics
from antisgd.study.conditions import Conditions
from antisgd.study.findings.rows import Panels, Rows, row
from antisgd.study.stages.analysis import Analysis
from antisgd.study.stages.period import Recording

__all__ = ["panels", "rows"]


def rows(conditions: Conditions, one: Analysis, recorded: Recording, scheme: str) -> Rows:
    """Mean noise autocorrelation over a few ranges of lags against the law of the scheme."""
    M = conditions.steps_per_epoch
    figure = "Fig. 1" if scheme == "without_replacement" else "Fig. 6"
    share = _full_gradient_share(recorded)
    shift = f"; the full gradient's own error may shift it by up to {share:.1g}" if share else ""
    made = []
    for name, low, high in (
        ("near", 1, M // 20),
        ("middle", M * 2 // 5, M * 3 // 5),
        ("beyond", M + 1, 2 * M),
    ):
        inside = (one.lags >= low) & (one.lags <= max(high, low))
        if not inside.any():
            continue
        expected = one.autocorrelation_theory[inside].mean()
        values = one.autocorrelations[inside].mean(axis=0, dtype=np.float64)
        made.append(
            row(
                f"noise_autocorrelation_{name}_{scheme}",
                figure,
                f"noise autocorrelation, mean of lags {low} to {max(high, low)}",
                values.mean(),
                values.std(ddof=1) / np.sqrt(one.directions),
                n=values.size,
                note=f"theory {expected:.3g}; the directions are worth {one.directions:.0f} "
                f"independent ones{shift}",
            )
        )
    made.append(_band_row(conditions, one, scheme, figure))
    made.append(
        row(
            f"full_gradient_error_{scheme}",
            figure,
            "error of the full gradient over the noise, root mean square",
            np.sqrt(share),
            note="0 for --full_gradient=exact",
        )
    )
    return made


def _band_row(conditions: Conditions, one: Analysis, scheme: str, figure: str) -> dict[str, Any]:
    """How many lags lie in the band that the figure shows, about the law instead of about zero."""
    steps = conditions.epochs * conditions.steps_per_epoch
    band = 2 * statistics.independent_noise_band(steps, one.directions, one.lags[-1])[one.lags]
    inside = np.abs(one.autocorrelation - one.autocorrelation_theory) < band
    return row(
        f"noise_autocorrelation_within_band_{scheme}", figure,
        "share of lags whose noise autocorrelation lies within 2 sigma of the law", inside.mean(),
        n=inside.size, note="theory 0.954; no error: the lags of one recording are not independent",
    )  # fmt: skip


def _full_gradient_share(recorded: Recording) -> float:
    """Error of the modelled full gradient over the noise, mean square over the directions."""
    noise = recorded.trajectory.noise
    variance = np.einsum("tk,tk->k", noise, noise) / len(noise)
    return float(np.mean(np.square(recorded.full_gradient_error) / variance))


def panels(conditions: Conditions, analyses: Mapping[str, Analysis]) -> Panels:
    """Fig. 1 of the first scheme and, with several, Fig. 6.

    Args:
        conditions: of the periods.
        analyses: title of the scheme → its analysis.
    """
    M, one = conditions.steps_per_epoch, next(iter(analyses.values()))
    steps = conditions.epochs * M
    band = statistics.independent_noise_band(steps, one.directions, one.lags[-1])[1:]
    first = dict([next(iter(analyses.items()))])
    made = {"noise_autocorrelation": plotting.noise_autocorrelation(first, band, M)}
    if len(analyses) > 1:
        made["noise_autocorrelation_schemes"] = plotting.noise_autocorrelation(analyses, band, M)
    return made
