"""The figures of the main experiment, by their number in the paper."""

from typing import Any

import numpy as np
from absl import flags

from antisgd import plotting, statistics, theory
from experiments import training

FLAGS = flags.FLAGS

TITLES = {"without_replacement": "without replacement", "with_replacement": "with replacement"}


def analysis_figures(
    problem: training.Problem, trained: training.Training, pairs: Any, analyses: Any, recorded: Any
) -> dict[str, Any]:
    """Fig. 5, and Fig. 1, 2, 6, 7 and the whole of Fig. 8 where the periods are recorded."""
    M = problem.steps_per_epoch
    cross = training.crossover(problem)
    limit = theory.max_correlation_time(FLAGS.momentum, M)
    panels = {"fig05": plotting.eigenvalue_density(pairs.values, cross, ~pairs.converged)}
    if not analyses:
        return panels
    titled = {TITLES[regime]: one for regime, one in analyses.items()}
    first = dict([next(iter(titled.items()))])
    one = next(iter(analyses.values()))
    steps = FLAGS.analysis_epochs * M
    band = statistics.independent_noise_band(steps, one.directions, one.lags[-1])[1:]
    panels["fig01"] = plotting.noise_autocorrelation(first, band, M)
    panels["fig02"] = plotting.variances_figure(first, cross, limit)
    if len(titled) > 1:
        panels["fig06"] = plotting.noise_autocorrelation(titled, band, M)
        panels["fig07"] = plotting.variances_figure(titled, cross, limit)
    curves = _whole_curves(trained, next(iter(recorded.values())))
    panels["fig08"] = plotting.training_curves(curves, FLAGS.epochs)
    return panels


def _whole_curves(trained: training.Training, period: Any) -> dict[str, np.ndarray]:
    return {
        name: np.concatenate([trained.curves[name][0], period.curves[1:, i]])
        for i, name in enumerate(training.CURVES)
    }
