"""All that the results of a study show: its rows and figures, network by network."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax

from antisgd.study.conditions import Conditions, conditions_of
from antisgd.study.findings import (
    bins,
    covariance,
    curvature,
    density,
    discard,
    drift,
    noise,
    predict,
    relaxation,
    schemes,
    stationarity,
    training,
    validity,
    variances,
    velocities,
)
from antisgd.study.findings.rows import Panels, Rows
from antisgd.study.problem import Problem
from antisgd.study.settings import Settings
from antisgd.study.stages import analysis
from antisgd.study.stages.train import Trained

__all__ = ["of_study"]


def of_study(
    problem: Problem,
    settings: Settings,
    trained: Trained,
    final: Mapping[str, float],
    found: Sequence[Mapping[str, Any]],
    marks: Mapping[int, float] | None = None,
) -> tuple[Rows, Panels]:
    """Rows and figures of the training and of every network that was analysed.

    Args:
        problem: for the sizes of its sets and of the network.
        settings: of the study.
        trained: networks and their curves.
        final: metrics of the first network over all examples.
        found: results of each analysed network by the names of the stages.
        marks: accuracies of the paper without so many directions, for Fig. 11.
    """
    conditions = conditions_of(problem.num_examples, settings)
    rows, panels = [], {}
    if trained.curves:
        rows = training.rows(settings, trained.curves, final)
        panels = training.panels(settings, trained.curves, _first_period(found))
    for seed, results in enumerate(found):
        more_rows, more_panels = _of_network(problem, conditions, results, marks)
        suffix = f"_seed{seed}" if seed else ""
        rows += [one | {"id": one["id"] + suffix} for one in more_rows]
        panels |= {f"{name}{suffix}": panel for name, panel in more_panels.items()}
    return rows, panels


def _first_period(found: Sequence[Mapping[str, Any]]) -> Any:
    recorded = found[0].get("analysis") if found else None
    return next(iter(recorded.values())) if recorded else None


def _of_network(
    problem: Problem,
    conditions: Conditions,
    found: Mapping[str, Any],
    marks: Mapping[int, float] | None,
) -> tuple[Rows, Panels]:
    """What one network shows, as far as its stages went."""
    pairs = found.get("eigenpairs")
    if pairs is None:
        return [], {}
    rows, panels = curvature.rows(conditions, pairs), curvature.panels(conditions, pairs)
    parts = (_of_periods, partial(_of_noise, marks=marks), _of_spectrum)
    for part in parts:
        more_rows, more_panels = part(problem, conditions, found)
        rows, panels = rows + more_rows, panels | more_panels
    return rows, panels


def _of_periods(
    problem: Problem, conditions: Conditions, found: Mapping[str, Any]
) -> tuple[Rows, Panels]:
    """Both periods beside the theory."""
    pairs, recorded = found["eigenpairs"], found.get("analysis")
    predicted = found.get("predict", {})
    if not recorded:
        each = [predict.rows(one, None, pairs.values, name) for name, one in predicted.items()]
        return [row for rows in each for row in rows], {}
    analyses = {
        scheme: analysis.marked(analysis.analyse(one, pairs.values, scheme, conditions), pairs)
        for scheme, one in recorded.items()
    }
    rows, in_bins = [], {}
    for scheme, one in analyses.items():
        rows += noise.rows(conditions, one, recorded[scheme], scheme)
        rows += variances.rows(one, scheme)
        in_bins[training.TITLES[scheme]] = bins.binned(conditions, one)
        rows += bins.rows(in_bins[training.TITLES[scheme]], scheme)
        rows += stationarity.rows(conditions, one, scheme)
        rows += velocities.rows(conditions, one, recorded[scheme].trajectory, pairs.values, scheme)
        rows += drift.rows(conditions, one, recorded[scheme], pairs.values, scheme)
        rows += relaxation.rows(conditions, recorded[scheme], pairs.values, scheme)
        if scheme in found.get("validity", {}):
            rows += validity.rows(found["validity"][scheme], one, pairs.values, scheme)
        if scheme in predicted:
            rows += predict.rows(predicted[scheme], one, pairs.values, scheme)
    lines = predict.shown(predicted, pairs.values, training.TITLES)
    titled = {training.TITLES[scheme]: one for scheme, one in analyses.items()}
    panels = noise.panels(conditions, titled) | variances.panels(conditions, titled, lines)
    return rows + schemes.rows(conditions, analyses), panels | bins.panels(in_bins)


def _of_noise(
    problem: Problem,
    conditions: Conditions,
    found: Mapping[str, Any],
    marks: Mapping[int, float] | None,
) -> tuple[Rows, Panels]:
    """Noise against curvature, and what is left without the leading directions."""
    pairs = found["eigenpairs"]
    rows: Rows = []
    panels: Panels = {}
    if "covariance" in found:
        steps = len(found["analysis"]["without_replacement"].trajectory.noise)
        rows += covariance.rows(found["covariance"], pairs.values, steps)
        panels |= covariance.panels(found["covariance"], pairs.values, ~pairs.converged)
    if "discard" in found:
        cross, tested = conditions.crossover, jax.tree.leaves(problem.test)[0].shape[0]
        rows += discard.rows(cross, found["discard"], pairs.values, tested)
        panels |= discard.panels(cross, found["discard"], pairs.values, ~pairs.converged, marks)
    return rows, panels


def _of_spectrum(
    problem: Problem, conditions: Conditions, found: Mapping[str, Any]
) -> tuple[Rows, Panels]:
    """The whole spectrum."""
    pairs = found["eigenpairs"]
    rows: Rows = []
    panels: Panels = {}
    if "density" in found:
        whole, d = found["density"], problem.dimension
        rows += density.rows(conditions, whole, d, problem.noiseless_curvature)
        panels |= density.panels(conditions, whole, d, pairs.values)
    return rows, panels
