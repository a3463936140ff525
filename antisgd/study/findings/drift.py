"""Sec. 5.3 and 6: whether the drift is linear, and what a longer window does with it."""

import numpy as np

from antisgd import plotting, statistics
from antisgd.study.conditions import Conditions
from antisgd.study.findings.rows import Rows, mean_row, median_row, row
from antisgd.study.stages.analysis import Analysis
from antisgd.study.stages.period import Recording
from antisgd.trajectory import Trajectory

__all__ = ["rows", "shape_rows"]

# Windows into which the period is cut, in epochs.
EPOCHS = (1, 2, 5, 10, 20, 50)


def rows(
    conditions: Conditions,
    one: Analysis,
    recorded: Recording,
    eigenvalues: np.ndarray,
    scheme: str,
) -> Rows:
    """Whether the period is what the theory assumes, in numbers for one scheme.

    Args:
        conditions: of the period.
        one: its analysis.
        recorded: what was analysed.
        eigenvalues: of all directions recorded, [k].
        scheme: name of the sampling scheme of the period.
    """
    losses, k = recorded.curves[[0, -1], 0], len(one.eigenvalues)
    quantity = "relative change of the training loss over the analysis period"
    loss = row(f"loss_change_{scheme}", "Fig. 8", quantity, losses[1] / losses[0] - 1)
    drifting = row(
        f"drifting_{scheme}", "Sec. 5.3", "share of directions mostly drift",
        np.mean(one.drift_share > plotting.MOSTLY_DRIFT), n=k,
        note="the straight line makes over half of the raw variance",
    )  # fmt: skip
    made = [drifting, *shape_rows(recorded.trajectory.weights, scheme), loss]
    # The law of a later window is that of the first only where the scheme is that of training.
    if scheme == conditions.training_scheme and conditions.has_theory:
        made += _window_rows(conditions, recorded.trajectory, eigenvalues, scheme)
    return made


def shape_rows(weights: np.ndarray, scheme: str) -> Rows:
    """How the straight line's share of the movement grows with the window, and how straight it is.

    Args:
        weights: [T + 1, k].
        scheme: for the names.
    """
    made = []
    for name, parts in (("a quarter", 4), ("half", 2), ("the whole", 1)):
        windows = np.array_split(weights, parts)
        share = np.mean([statistics.drift_share(window) for window in windows], axis=0)
        quantity = f"share of the straight line in the raw variance, {name} of the period, mean"
        note = "1 for a straight line, 0.44 for a random walk, 1/6 for short fluctuations"
        made.append(mean_row(f"drift_share_{parts}_{scheme}", "Sec. 6", quantity, share, note=note))
    half = len(weights) // 2
    quantity = "cosine of the movements in the first and second half of the period"
    cosine, error = _cosine(weights[half] - weights[0], weights[-1] - weights[half])
    note = "1 for a straight line, 0 for a random walk, -1/2 for short fluctuations"
    name = f"drift_cosine_{scheme}"
    made.append(row(name, "Sec. 5.3", quantity, cosine, error, n=len(share), note=note))
    return made


def _cosine(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Of the angle between two vectors [k], and its error by leaving out one direction."""
    products = np.stack([first * second, first**2, second**2]).astype(np.float64)
    inner, *squares = products.sum(1, keepdims=True) - products
    left_out = inner / np.sqrt(squares[0] * squares[1])
    whole = products.sum(1)
    return whole[0] / np.sqrt(whole[1] * whole[2]), np.sqrt((len(first) - 1) * left_out.var())


def _window_rows(
    conditions: Conditions, path: Trajectory, eigenvalues: np.ndarray, scheme: str
) -> Rows:
    """Correlation times from the mean variances of shorter windows, over those windows' theory."""
    positive, M = eigenvalues > 0, conditions.steps_per_epoch
    if not conditions.heavy_ball:
        positive &= conditions.stable(eigenvalues)
    law, made = conditions.noise_law(scheme), []
    for epochs in EPOCHS:
        if epochs >= conditions.epochs or not positive.any():
            break
        time, count = _mean_time(path, epochs * M)
        expected = conditions.window_variances(
            eigenvalues[positive], law, epochs * M, drift="mean_velocity"
        )
        ratio = time[positive] / expected.correlation_time
        quantity = "correlation time over the finite-window theory, median, windows of "
        quantity += f"{epochs} epoch{'s' * (epochs > 1)}"
        one = median_row(f"tau_over_theory_{epochs}_epochs_{scheme}", "Sec. 6", quantity, ratio)
        low, high = np.percentile(ratio, [10, 90])
        one["note"] = f"10th to 90th percentile {low:.3g} to {high:.3g}; {count} windows"
        made.append(one)
    return made


def _mean_time(path: Trajectory, steps: int) -> tuple[np.ndarray, int]:
    """2 Σ σ_θ²/Σ σ_v² over the windows of so many steps that the period holds, [k]; how many."""
    starts = range(0, len(path.velocities) - steps + 1, steps)
    windows = [
        statistics.variances(
            *statistics.remove_drift(
                path.weights[i : i + steps + 1], path.velocities[i : i + steps], "mean_velocity"
            )
        )
        for i in starts
    ]
    weight, velocity = (
        sum(getattr(one, name) for one in windows) for name in ("weight", "velocity")
    )
    return 2 * weight / velocity, len(windows)
