"""From a recording to what is plotted: statistics per direction, the theory beside them."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from antisgd import fluctuations, results, statistics, theory
from antisgd.study.conditions import Conditions
from antisgd.study.stages.eigenpairs import Curvature
from antisgd.study.stages.period import Recording

__all__ = ["QUANTILES", "Analysis", "analyse", "marked", "read", "window_theory", "write"]

# Of one direction's statistics about the theory: the ends of the 95 % band, between them the
# middles of ten equal parts, which together stand for the whole distribution.
QUANTILES = (0.025, *(np.arange(10) + 0.5) / 10, 0.975)


class Analysis(NamedTuple):
    """One period's statistics along k directions of positive curvature.

    Attributes:
        eigenvalues: λ at θ_K, [k].
        lags: [L], update steps.
        autocorrelations: of the noise along each direction, float32 [L, k].
        directions: how many independent directions the k are worth for the noise.
        autocorrelation_theory: r(h) of the sampling scheme (Eq. 2), [L].
        noise: σ_δg², [k].
        measured: variances of weight and velocity and τ, mean velocity removed, [k] each.
        stationary: theory of Eq. 6 per unit noise variance, [k] each; of other linear optimisers
            than heavy ball likewise, nan where the optimiser is not linear.
        window: the same in the window, mean velocity removed (beyond the paper), [k] each.
        balance: residual of the fluctuation relation in each half of the period, [2, k]: zero in
            expectation if the period is stationary, whatever the loss is; [0, k] where a half is
            shorter than an epoch, and for other optimisers than heavy ball.
        balance_error: its standard errors, [2, k].
        slope: of exact full gradients against displacements at the anchors, [k]: a test of
            stationarity. It is no measure of curvature, since it obeys the fluctuation relation
            whatever the loss is.
        spread: scatter of one direction's statistics about `window`, at QUANTILES.
        drift_share: share of the mean velocity in the raw weight variance, [k].
        fits: power laws of "weight" (below λ_cross) and "velocity" (all).
        fit_spans: end points of the fitted regions.
        unconverged: eigenpairs whose residual is too large, bool [k]; None before `marked`.
        blurred: directions that are no single eigenvector for sure, bool [k]; the same.
    """

    eigenvalues: np.ndarray
    lags: np.ndarray
    autocorrelations: np.ndarray
    directions: float
    autocorrelation_theory: np.ndarray
    noise: np.ndarray
    measured: statistics.Fluctuations
    stationary: statistics.Fluctuations
    window: statistics.Fluctuations
    balance: np.ndarray
    balance_error: np.ndarray
    slope: np.ndarray
    spread: theory.WindowSpread
    drift_share: np.ndarray
    fits: dict[str, statistics.PowerLaw]
    fit_spans: dict[str, np.ndarray]
    unconverged: np.ndarray | None = None
    blurred: np.ndarray | None = None

    @property
    def autocorrelation(self) -> np.ndarray:
        """Mean over directions, [L] (Fig. 1)."""
        return self.autocorrelations.mean(axis=1, dtype=np.float64)


# What `read` fills in: the structure of an Analysis.
_LEAF: Any = 0
_THREE = statistics.Fluctuations(_LEAF, _LEAF, _LEAF)
_LAW = statistics.PowerLaw(_LEAF, _LEAF, _LEAF, _LEAF, _LEAF)
_SPREAD = theory.WindowSpread(_LEAF, _LEAF, _LEAF, _LEAF, _LEAF)
_NAMES = ("weight", "velocity")
_EMPTY = Analysis(
    eigenvalues=_LEAF, lags=_LEAF, autocorrelations=_LEAF, directions=_LEAF,
    autocorrelation_theory=_LEAF, noise=_LEAF, measured=_THREE, stationary=_THREE, window=_THREE,
    balance=_LEAF, balance_error=_LEAF, slope=_LEAF, spread=_SPREAD, drift_share=_LEAF,
    fits=dict.fromkeys(_NAMES, _LAW), fit_spans=dict.fromkeys(_NAMES, _LEAF), unconverged=_LEAF,
    blurred=_LEAF,
)  # fmt: skip


def write(path: Path, one: Analysis) -> None:
    """Writes an analysis as .npz but for its autocorrelations, which are the bulk of it."""
    nothing = np.zeros(0)
    kept = one._replace(lags=nothing, autocorrelations=nothing, autocorrelation_theory=nothing)
    leaves, _ = jax.tree.flatten_with_path(kept)
    results.write_arrays(path, **{_name(place): leaf for place, leaf in leaves})


def read(path: Path) -> Analysis:
    """Reads what `write` wrote.

    Raises:
        ValueError: the file is damaged, or of an earlier version.
    """
    arrays = results.read_arrays(path)
    wanted = {_name(place) for place, _ in jax.tree.flatten_with_path(_EMPTY)[0]}
    if not wanted <= set(arrays):
        raise ValueError(
            f"{path} was written by an earlier version: remove it, and the same command makes it "
            "anew"
        )
    return jax.tree.map_with_path(lambda place, _: arrays[_name(place)], _EMPTY)


def _name(place: Any) -> str:
    return jax.tree_util.keystr(place, simple=True, separator="/")


def analyse(
    recorded: Recording,
    eigenvalues: np.ndarray,
    scheme: str,
    conditions: Conditions,
    drift: str = "mean_velocity",
) -> Analysis:
    """Statistics of one recorded period and the theory of its sampling scheme.

    Directions whose curvature is not positive have no stationary variance and are left out.

    Args:
        recorded: along the k eigenvectors.
        eigenvalues: [k].
        scheme: name of the sampling scheme of the period.
        conditions: of the period.
        drift: "mean_velocity" (Sec. 5.3) or "none", which leaves it in and has no `spread`.
    """
    positive = eigenvalues > 0
    eigenvalues = eigenvalues[positive]
    weights, velocities, noise = (array[:, positive] for array in recorded.trajectory)
    lags = np.arange(1, min(2 * conditions.steps_per_epoch, len(noise) - 1) + 1)
    correlations = statistics.autocorrelation(noise, lags[-1])[1:]
    measured = statistics.variances(*statistics.remove_drift(weights, velocities, drift))
    slope = statistics.restoring_slope(
        weights[recorded.anchor_steps], recorded.anchor_gradients[:, positive]
    )
    balance, balance_error = _balance(weights, velocities, conditions)
    fits, spans = _fit(eigenvalues, measured, conditions.crossover)
    law = conditions.noise_law(scheme)
    window = (conditions, law, len(velocities), drift)
    return Analysis(
        eigenvalues=eigenvalues,
        lags=lags,
        autocorrelations=correlations.astype(np.float32),
        directions=statistics.effective_directions(noise),
        autocorrelation_theory=theory.autocorrelation(law, lags),
        noise=np.mean(np.square(noise, dtype=np.float64), axis=0),
        measured=measured,
        stationary=_stationary(eigenvalues, conditions, law),
        window=window_theory(eigenvalues, *window),
        balance=balance,
        balance_error=balance_error,
        slope=slope,
        spread=_spread(eigenvalues, *window),
        drift_share=statistics.drift_share(weights),
        fits=fits,
        fit_spans=spans,
    )


def marked(one: Analysis, pairs: Curvature) -> Analysis:
    """The analysis along the directions of a solve, those that are not certain marked."""
    positive = pairs.values > 0
    unconverged, blurred = ~pairs.converged[positive], pairs.blurred[positive]
    return one._replace(unconverged=unconverged, blurred=blurred)


def _balance(
    weights: np.ndarray, velocities: np.ndarray, conditions: Conditions
) -> tuple[np.ndarray, np.ndarray]:
    """Residual of the fluctuation relation in both halves, and its error, [2, k] each.

    The gradients are those of Eq. 1: ηg_k = βv_{k−1} − v_k. That of the first step is not used.
    """
    rate, beta, M = conditions.learning_rate, conditions.momentum, conditions.steps_per_epoch
    if len(velocities) <= 2 * M or not conditions.heavy_ball:
        nothing = np.zeros((0, weights.shape[1]))
        return nothing, nothing
    v = np.asarray(velocities, np.float64)
    before = np.concatenate([np.zeros_like(v[:1]), v[:-1]])
    found = fluctuations.fluctuation_balance(
        weights, v, (beta * before - v) / rate, rate, beta, num_blocks=2, steps_per_epoch=M
    )
    return found.residual, np.broadcast_to(found.error, found.residual.shape).copy()


def _stationary(
    eigenvalues: np.ndarray, conditions: Conditions, law: theory.Noise
) -> statistics.Fluctuations:
    weight, velocity = conditions.stationary_variances(eigenvalues, law)
    return statistics.Fluctuations(weight, velocity, 2 * weight / velocity)


def window_theory(
    curvature: np.ndarray, conditions: Conditions, law: theory.Noise, num_steps: int, drift: str
) -> statistics.Fluctuations:
    """Variances per unit noise variance and correlation time, nan where no theory holds, [k] each.

    The window starts from the state that training left (App. G).

    Args:
        curvature: along the directions, [k].
        conditions: of the period.
        law: of its noise.
        num_steps: of the window.
        drift: as in `analyse`.
    """
    usable = conditions.stable(curvature)
    found = np.full((3, curvature.size), np.nan)
    if usable.any():
        found[:, usable] = conditions.window_variances(
            curvature[usable], law, num_steps, start=conditions.starting_law,
            drift="mean" if drift == "none" else drift,
        )  # fmt: skip
    return statistics.Fluctuations(*found)


def _spread(
    curvature: np.ndarray, conditions: Conditions, law: theory.Noise, num_steps: int, drift: str
) -> theory.WindowSpread:
    """The scatter of one direction's statistics in such a window, for Gaussian noise."""
    usable = conditions.stable(curvature)
    tables = np.full((3, curvature.size, len(QUANTILES)), np.nan)
    deviations = np.full((3, curvature.size), np.nan)
    if usable.any() and drift == "mean_velocity":
        _, *found, deviations[:, usable] = conditions.window_spread(
            curvature[usable], law, num_steps, start=conditions.starting_law, quantiles=QUANTILES
        )
        tables[:, usable] = found
    weight, velocity, time = tables
    return theory.WindowSpread(np.array(QUANTILES), weight, velocity, time, deviations)


def _fit(eigenvalues: np.ndarray, measured: statistics.Fluctuations, cross: float):
    """Power laws in the regions of Fig. 2: the weight below λ_cross, the velocity everywhere."""
    flat = eigenvalues < cross
    flat = flat if flat.sum() >= 3 else np.ones_like(flat)
    regions = {"weight": flat, "velocity": np.ones_like(flat)}
    fits = {
        name: statistics.fit_power_law(eigenvalues[region], getattr(measured, name)[region])
        for name, region in regions.items()
    }
    spans = {
        name: np.array([eigenvalues[region].min(), eigenvalues[region].max()])
        for name, region in regions.items()
    }
    return fits, spans
