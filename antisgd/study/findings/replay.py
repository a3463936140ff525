"""The recorded noise once more, on the parabola at θ_K: what its law leaves out, what bends.

A window may leave the theory because its noise has another law, or because the loss is no
parabola. Eq. 1 with λ of θ_K and the noise that was recorded, step by step, tells the two apart:
replayed over theory is the law's part, measured over replayed the parabola's. Over an epoch of
reshuffled examples the noise cancels only while their gradients stay what they are; what is left
moves the flat directions, where cancelling makes the variance small.
"""

import numpy as np

from antisgd import relaxation, statistics
from antisgd.study.conditions import Conditions
from antisgd.study.findings import bins
from antisgd.study.findings.relaxation import velocity_before
from antisgd.study.findings.rows import Rows, mean_row, median_row, row
from antisgd.study.stages.analysis import Analysis
from antisgd.study.stages.period import Recording

__all__ = ["rows"]

_WORDS = {
    "weight_over_replayed": "weight variance over that of the recorded noise on the parabola",
    "replayed_over_theory": "weight variance of the recorded noise on the parabola over theory",
    "cancelled_over_theory":
        "weight variance of the recorded noise less its epoch's mean on the parabola over theory",
}  # fmt: skip


def rows(
    conditions: Conditions,
    one: Analysis,
    recorded: Recording,
    eigenvalues: np.ndarray,
    scheme: str,
) -> Rows:
    """Sums of the noise over epochs, and both parts of measured over theory in bins of λ/λ_cross.

    Only of exact full gradients, since the error of a modelled one does not cancel over an epoch,
    and of batches of one size.

    Args:
        conditions: of the period.
        one: its analysis.
        recorded: the period.
        eigenvalues: of all directions, [k].
        scheme: of the period.
    """
    usable = (eigenvalues > 0) & conditions.stable(eigenvalues)
    ragged = conditions.num_examples % conditions.batch_size
    if recorded.full_gradient_error.any() or ragged or usable.sum() < bins.FEWEST:
        return []
    inside = usable[eigenvalues > 0]
    noise = np.asarray(recorded.trajectory.noise[:, usable], np.float64)
    epochs = noise.reshape(conditions.epochs, -1, noise.shape[1])
    sums = epochs.sum(axis=1)
    share = np.mean(sums**2, axis=0) / (epochs.shape[1] * one.noise[inside])
    expected = one.noise[inside] * one.window.weight[inside]
    replayed = _weight_variance(conditions, recorded, eigenvalues, usable, noise)
    ratios = {
        "weight_over_replayed": one.measured.weight[inside] / replayed,
        "replayed_over_theory": replayed / expected,
    }
    if scheme == "without_replacement":
        cancelled = (epochs - epochs.mean(axis=1, keepdims=True)).reshape(noise.shape)
        found = _weight_variance(conditions, recorded, eigenvalues, usable, cancelled)
        ratios["cancelled_over_theory"] = found / expected
    summed = mean_row(
        f"epoch_sums_{scheme}", "Sec. 3",
        "variance of the noise summed over an epoch, over that of independent noise, mean", share,
        note="0 where the noise of an epoch cancels, 1 where it is independent",
    )  # fmt: skip
    position = one.eigenvalues[inside] / conditions.crossover
    made = [summed, *_rise_rows(epochs, one.noise[inside], scheme)]
    for name, ratio in ratios.items():
        made += _rows_of(name, ratio, position, scheme)
    return made


def _rise_rows(epochs: np.ndarray, variance: np.ndarray, scheme: str) -> Rows:
    """Noise [E, M, n] at the end of an epoch over that at its begin, of its variance [n].

    Directions share their examples, so the error is that over epochs.
    """
    E, M, _ = epochs.shape
    fifth = M // 5
    if E < 3 or not fifth:
        return []
    of_step = np.mean(epochs**2 / variance, axis=2)
    first, last = of_step[:, :fifth].mean(axis=1), of_step[:, -fifth:].mean(axis=1)
    ratio = last.mean() / first.mean()
    error = (last - ratio * first).std(ddof=1) / np.sqrt(E) / first.mean()
    made = row(
        f"noise_rise_{scheme}", "App. G",
        "noise variance in the last fifth of the epochs over that in the first", ratio, error, n=E,
        note="of all directions together; error over epochs",
    )  # fmt: skip
    return [made]


def _weight_variance(conditions, recorded: Recording, eigenvalues, usable, noise) -> np.ndarray:
    """Of the window of Eq. 1 from the recording's own start, mean velocity removed, [n].

    The parabola has λ of θ_K and the minimum about which the full gradient of the window vanishes
    in the mean: forces that bend shift it, and θ_K would relax to one that is not there.
    """
    rate, beta = conditions.learning_rate, conditions.momentum
    weights, velocities, recorded_noise = (
        np.asarray(part[:, usable], np.float64) for part in recorded.trajectory
    )
    lam, before = eigenvalues[usable], velocity_before(conditions, recorded, usable)
    # Eq. 1 backwards: the full gradient at every step.
    earlier = np.concatenate([before[None], velocities[:-1]])
    full = (beta * earlier - velocities) / rate - recorded_noise
    slope = full.mean(axis=0) - lam * weights[:-1].mean(axis=0)
    rates = np.full(len(noise), rate)
    path = relaxation.relaxation_path(lam, slope, before, rates, beta, noise)
    return statistics.variances(*statistics.remove_drift(*path, "mean_velocity")).weight


def _rows_of(name: str, ratio: np.ndarray, position: np.ndarray, scheme: str) -> Rows:
    """The median below λ_cross and the means in bins."""
    made, flat, words = [], position < 1, _WORDS[name]
    if flat.sum() >= bins.FEWEST:
        figure = "Fig. 2" if scheme == "without_replacement" else "Fig. 7"
        median = f"{words}, below the crossover, median"
        made.append(median_row(f"{name}_{scheme}", figure, median, ratio[flat]))
    return made + bins.mean_rows(name, words, position, ratio, scheme)
