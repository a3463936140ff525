"""Recorded noise on the parabola: what is the law's part of a deviation, what the loss's."""

from types import SimpleNamespace

import numpy as np
import pytest

from antisgd import relaxation, statistics
from antisgd.study.conditions import Conditions
from antisgd.study.findings import replay
from antisgd.trajectory import Trajectory

N, S, EPOCHS, ETA, BETA = 60, 6, 40, 0.05, 0.5
M = N // S
LAM = np.geomspace(0.02, 4, 200)
CONDITIONS = Conditions(N, S, ETA, BETA, EPOCHS, "without_replacement")
CROSS = CONDITIONS.crossover


def recorded(*, curvature=0.0, quartic=0.0, start=0.0, reshuffled=True):
    """Eq. 1 as it stands with gradients λθ + qθ³ + c_n + d_nθ of 60 examples, from rest.

    The period begins after ten epochs, with a velocity, `start` away from where it is.
    """
    rng = np.random.default_rng(0)
    c, d = rng.standard_normal((2, N, LAM.size))
    c, d = c - c.mean(axis=0), curvature * (d - d.mean(axis=0))

    def full(at):
        return LAM * at + quartic * at**3 + force

    force, theta, v = 0.3 * LAM, start * np.ones(LAM.size), np.zeros(LAM.size)
    path, moves, noises, slope = [theta], [], [], None
    for epoch in range(10 + EPOCHS):
        order = rng.permutation(N) if reshuffled else rng.integers(0, N, N)
        for step, batch in enumerate(order.reshape(M, S)):
            if epoch == 10 and step == 0:
                slope, path, moves, noises = full(theta), [theta], [], []
            noise = c[batch].mean(axis=0) + d[batch].mean(axis=0) * theta
            v = BETA * v - ETA * (full(theta) + noise)
            noises.append(noise)
            theta = theta + v
            path.append(theta)
            moves.append(v)
    weights = np.array(path) - path[0]
    return SimpleNamespace(
        trajectory=Trajectory(weights, np.array(moves), np.array(noises)),
        anchor_gradients=np.array([slope]), full_gradient_error=np.zeros(LAM.size),
    )  # fmt: skip


def rows_of(period, scheme="without_replacement"):
    weights, velocities, noise = period.trajectory
    law = CONDITIONS.noise_law(scheme)
    start = CONDITIONS.starting_law
    one = SimpleNamespace(
        eigenvalues=LAM, noise=np.mean(noise**2, axis=0),
        measured=statistics.variances(
            *statistics.remove_drift(weights, velocities, "mean_velocity")
        ),
        window=CONDITIONS.window_variances(
            LAM, law, EPOCHS * M, start=start, drift="mean_velocity"
        ),
    )  # fmt: skip
    made = replay.rows(CONDITIONS, one, period, LAM, scheme)
    return {row["id"]: row for row in made}


def values(rows, name):
    return np.array([row["here"] for id, row in rows.items() if id.startswith(f"{name}_")])


def test_noise_drives_the_path_as_eq_1_does():
    """A path of Eq. 1 is its own replay, to the rounding of 400 steps."""
    period = recorded(start=1.0)
    weights, velocities, noise = period.trajectory
    slope = period.anchor_gradients[0]
    before = (velocities[0] + ETA * (slope + noise[0])) / BETA
    rates = np.full(len(noise), ETA)
    x, v = relaxation.relaxation_path(LAM, slope, before, rates, BETA, noise)
    bound = 400 * np.finfo(float).eps * np.abs(weights).max() / (ETA * LAM.min())
    np.testing.assert_allclose(x, weights, atol=bound)
    np.testing.assert_allclose(v, velocities, atol=bound)
    with pytest.raises(ValueError, match="noise of 400 steps along 200 directions"):
        relaxation.relaxation_path(LAM, slope, before, rates, BETA, noise[:-1])


def test_on_a_parabola_noise_that_cancels_leaves_nothing():
    rows = rows_of(recorded())
    assert rows["epoch_sums_without_replacement"]["here"] < 1e-25
    np.testing.assert_allclose(values(rows, "weight_over_replayed"), 1, rtol=1e-9)
    replayed = values(rows, "replayed_over_theory")
    np.testing.assert_allclose(values(rows, "cancelled_over_theory"), replayed, rtol=1e-9)


@pytest.mark.parametrize("times", [1.0, 2.0])
def test_noise_that_grows_over_the_epochs_is_seen(times):
    period = recorded()
    grown = np.where(np.arange(EPOCHS * M) % M >= M // 2, np.sqrt(times), 1.0)
    noise = period.trajectory.noise * grown[:, None]
    period.trajectory = period.trajectory._replace(noise=noise)
    row = rows_of(period)["noise_rise_without_replacement"]
    assert abs(row["here"] - times) < 3.3 * row["here_error"]
    assert row["here_error"] < 0.1 * times


def test_examples_whose_curvatures_differ_leave_sums():
    """The noise has another law then, which the replay has and the theory has not."""
    rows = rows_of(recorded(curvature=15.0))
    assert rows["epoch_sums_without_replacement"]["here"] > 0.01
    np.testing.assert_allclose(values(rows, "weight_over_replayed"), 1, rtol=1e-9)
    flat = "replayed_over_theory_without_replacement", "cancelled_over_theory_without_replacement"
    replayed, cancelled = (rows[name]["here"] for name in flat)
    # Three errors of a median over directions.
    error = np.hypot(*(rows[name]["here_error"] for name in flat))
    assert replayed - cancelled > 3 * error


def test_a_loss_that_is_no_parabola_is_not_replayed():
    """A quartic confines the weights, the steepest most, with noise that cancels as before."""
    rows = rows_of(recorded(quartic=500.0))
    assert rows["epoch_sums_without_replacement"]["here"] < 1e-25
    (steepest,) = [row for id, row in rows.items() if "weight_over_replayed_1_to_3.2" in id]
    assert steepest["here"] < 1 - 3 * steepest["here_error"] < 0.95


def test_independent_noise_has_sums_and_nothing_to_take_out():
    rows = rows_of(recorded(reshuffled=False), "with_replacement")
    share = rows["epoch_sums_with_replacement"]
    # Of 40 epochs and 24 independent directions: z at p = 1e-3.
    assert abs(share["here"] - 1) < 3.3 * np.sqrt(2 / (EPOCHS * LAM.size))
    assert not values(rows, "cancelled_over_theory").size


def test_modelled_gradients_and_ragged_epochs_have_no_rows():
    period = recorded()
    period.full_gradient_error[3] = 1e-3
    assert not rows_of(period)
    ragged = Conditions(N + 1, S, ETA, BETA, EPOCHS, "without_replacement")
    assert not replay.rows(ragged, None, recorded(), LAM, "without_replacement")
