"""All that the results of a study show: its rows and figures, network by network."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

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
    replay,
    schemes,
    stationarity,
    tails,
    tracking,
    training,
    validity,
    variances,
    velocities,
)
from antisgd.study.findings.rows import Panels, Rows, mean_row
from antisgd.study.problem import Problem
from antisgd.study.settings import Settings
from antisgd.study.stages import analysis
from antisgd.study.stages.period import Recording
from antisgd.study.stages.train import Trained

__all__ = ["of_study", "over"]


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
    conditions = conditions_of(problem.num_examples, settings, problem.optimizer)
    rows, panels = [], {}
    if trained.curves:
        rows = training.rows(settings, trained.curves, final, trained.steps)
        panels = training.panels(settings, trained.curves, _first_period(found))
    each = [_of_network(problem, conditions, results, marks) for results in found]
    rows += over([more_rows for more_rows, _ in each], "networks")
    for seed, (more_rows, more_panels) in enumerate(each):
        suffix = f"_seed{seed}" if seed else ""
        rows += [one | {"id": one["id"] + suffix} for one in more_rows]
        panels |= {f"{name}{suffix}": panel for name, panel in more_panels.items()}
    return rows, panels


def over(each: Sequence[Rows], what: str) -> Rows:
    """The mean of every number that all of several networks or periods have, with its error.

    Directions of one network share its minimum and those of one period its stream of examples, so
    their scatter does not say how far another network, or another period, would lie.

    Args:
        each: the rows of each; fewer than two make no rows.
        what: "networks" or "periods".
    """
    if len(each) < 2:
        return []
    others = [{one["id"]: one["here"] for one in rows} for rows in each[1:]]
    made = []
    for one in each[0]:
        values = [one["here"], *(of.get(one["id"], np.nan) for of in others)]
        if np.all(np.isfinite(values)) and np.ptp(values) > 0:
            made.append(
                mean_row(
                    f"{one['id']}_over_{what}", one["paper_item"],
                    f"{one['quantity']}; mean of {len(values)} {what}", np.array(values),
                    unit=one["unit"], note=f"of each: {', '.join(f'{v:.3g}' for v in values)}",
                )
            )  # fmt: skip
    return made


def _first_period(found: Sequence[Mapping[str, Any]]) -> Any:
    recorded = found[0].get("analysis") if found else None
    return next(iter(recorded[0].values())) if recorded else None


def _of_network(
    problem: Problem,
    conditions: Conditions,
    found: Mapping[str, Any],
    marks: Mapping[int, float] | None,
) -> tuple[Rows, Panels]:
    """What one network shows, as far as its stages went."""
    pairs, tracked = found.get("eigenpairs"), found.get("track")
    along = ([], {}) if tracked is None else (tracking.rows(tracked), tracking.panels(tracked))
    if pairs is None:
        return along
    rows = curvature.rows(conditions, pairs) + along[0]
    panels = curvature.panels(conditions, pairs) | along[1]
    parts = (_of_periods, partial(_of_noise, marks=marks), _of_spectrum)
    for part in parts:
        more_rows, more_panels = part(problem, conditions, found)
        rows, panels = rows + more_rows, panels | more_panels
    return rows, panels


def _of_periods(
    problem: Problem, conditions: Conditions, found: Mapping[str, Any]
) -> tuple[Rows, Panels]:
    """The first period of each regime beside the theory, and the mean over all periods."""
    first, *further = found.get("analysis") or [{}]
    rows, panels = _of_period_in_regimes(conditions, found, first)
    alone = {"eigenpairs": found["eigenpairs"]}
    others = [_of_period_in_regimes(conditions, alone, period)[0] for period in further]
    return rows + over([rows, *others], "periods"), panels


def _of_period_in_regimes(
    conditions: Conditions, found: Mapping[str, Any], recorded: Mapping[str, Recording]
) -> tuple[Rows, Panels]:
    """One period of each regime beside the theory."""
    pairs, predicted = found["eigenpairs"], found.get("predict", {})
    if not recorded:
        each = [
            predict.rows(conditions, one, None, pairs.values, name)
            for name, one in predicted.items()
        ]
        return [row for rows in each for row in rows], {}
    analyses = {
        scheme: analysis.marked(analysis.analyse(one, pairs.values, scheme, conditions), pairs)
        for scheme, one in recorded.items()
    }
    rows, in_bins = [], {}
    for scheme, one in analyses.items():
        title = training.TITLES[scheme]
        own = noise.rows(conditions, one, recorded[scheme], scheme)
        own += variances.rows(one, scheme, conditions.optimizer)
        if conditions.has_theory:
            in_bins[title] = bins.binned(conditions, one)
            own += bins.rows(in_bins[title], scheme)
        own += _of_period(conditions, one, recorded[scheme], pairs.values, scheme)
        if scheme in found.get("validity", {}):
            along = found["validity"][scheme]
            own += validity.rows(conditions, along, one, pairs.values, scheme)
        if "covariance" in found:
            own += tails.period_rows(found["covariance"].tails, one, pairs.values, scheme)
        if scheme in predicted:
            own += predict.rows(conditions, predicted[scheme], one, pairs.values, scheme)
        rows += [_told_apart(row, title) for row in own]
    lines = predict.shown(predicted, pairs.values, training.TITLES)
    titled = {training.TITLES[scheme]: one for scheme, one in analyses.items()}
    panels = noise.panels(conditions, titled) | variances.panels(conditions, titled, lines)
    return rows + schemes.rows(conditions, analyses), panels | bins.panels(in_bins)


def _of_period(
    conditions: Conditions,
    one: analysis.Analysis,
    recorded: Recording,
    eigenvalues: np.ndarray,
    scheme: str,
) -> Rows:
    """What else one period says; the relations of Eq. 1 where it is heavy ball that moves."""
    drifting = drift.rows(conditions, one, recorded, eigenvalues, scheme)
    if not conditions.heavy_ball:
        return drifting
    own = stationarity.rows(conditions, one, scheme)
    own += velocities.rows(conditions, one, recorded.trajectory, eigenvalues, scheme)
    own += replay.rows(conditions, one, recorded, eigenvalues, scheme)
    return own + drifting + relaxation.rows(conditions, recorded, eigenvalues, scheme)


def _told_apart(row: dict[str, Any], title: str) -> dict[str, Any]:
    """The row of a period with its scheme in words, where it does not have it."""
    quantity = row["quantity"]
    return row if title in quantity else row | {"quantity": f"{quantity}, {title}"}


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
        steps = len(found["analysis"][0]["without_replacement"].trajectory.noise)
        rows += covariance.rows(found["covariance"], pairs.values, steps)
        rows += tails.rows(found["covariance"].tails, pairs.values, problem.num_examples)
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
