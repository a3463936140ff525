"""Studies of optimisers other than the default: theory where they are linear, none where not."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from antisgd import heavy_ball, results, study, theory, trajectory
from antisgd.study import conditions, divergence, optimiser
from antisgd.study.findings import drift
from antisgd.study.findings import study as all_findings
from antisgd.study.stages import analysis, period
from tests import tiny

SCHEME = "without_replacement"
N, S, ETA, BETA, DIRECTIONS = 60, 6, 0.1, 0.9, 24
M, T = N // S, 100
CURVATURE = np.geomspace(0.03, 1, DIRECTIONS).astype(np.float32)
STAGES = ("train", "eigenpairs", "analysis", "figures")
# p = 1e-3 of a normal variable.
Z = 3.29


def quadratic(optimizer):
    """½ Σ λ(θ − a_n)² of examples a_n: noise that does not depend on the weights."""
    centres = jax.random.normal(jax.random.key(5), (N, DIRECTIONS))

    def loss(params, examples, weights):
        each = 0.5 * jnp.sum(CURVATURE * (params["theta"] - examples) ** 2, axis=1)
        return jnp.sum(weights * each) / jnp.sum(weights)

    def init(key):
        return {"theta": centres.mean(0) + 0.0 * jax.random.normal(key, (DIRECTIONS,))}

    return study.Problem(init, loss, centres, name="quadratic", optimizer=optimizer)


def settings(**changes):
    given = {
        "batch_size": S, "learning_rate": ETA, "learning_rate_decay": 1.0, "momentum": BETA,
        "epochs": 30, "analysis_epochs": T // M, "eigenpairs": DIRECTIONS, "microbatch_size": N,
        "seeds": 1, "sampling": (SCHEME,), "stages": STAGES,
    }  # fmt: skip
    return study.Settings(**given | changes)


def studied(folder, optimizer, **changes):
    with tiny.small():
        study.run(quadratic(optimizer), settings(**changes), folder)
    return folder


def rows_of(folder):
    return {row["id"]: row for row in json.loads((folder / "summary.json").read_text())}


def nesterov(rate):
    return optax.sgd(rate, BETA, nesterov=True)


def test_what_a_linear_optimiser_does_is_what_its_theory_says(tmp_path, monkeypatch):
    # Windows of each length compile a program of their own.
    monkeypatch.setattr(drift, "EPOCHS", (5,))
    # Looked at in the other study.
    monkeypatch.setattr(results, "write_figure", lambda path, figure: None)
    folder = studied(tmp_path / "nesterov", nesterov)
    rows = rows_of(folder)
    for name, row in rows.items():
        if re.match("(velocity|weight|tau|correlation_time)_over_theory_", name):
            found = re.match(r"(?:by the )?theory ([\d.]+)", row["note"])
            expected = float(found[1]) if found else 1.0
            assert abs(row["here"] - expected) < Z * row["here_error"], (name, row)
    inside = rows[f"correlation_time_within_band_window_{SCHEME}"]
    assert abs(inside["here"] - 0.95) < Z * inside["here_error"]
    # eta_eff = eta/(1 − beta) and what the updates of one gradient sum to in squares.
    squares = ETA**2 * ((1 + BETA) ** 2 + BETA**4 / (1 - BETA**2))
    scale = M * (ETA / (1 - BETA)) ** 2 / (3 * squares)
    assert rows["max_correlation_time"]["here"] == pytest.approx(scale)
    assert rows["crossover_eigenvalue"]["here"] == pytest.approx(3 * (1 - BETA) / (M * ETA))
    # The relations of heavy ball are not said of it.
    assert not [name for name in rows if re.match("stationarity|not_stationary|tau_by_sums", name)]
    words = json.loads((folder / "config.json").read_text())["settings"]["optimizer"]
    assert words.startswith("TraceState; updates")


def test_an_optimiser_that_is_not_linear_is_measured_alone(tmp_path):
    folder = studied(tmp_path / "adam", lambda rate: optax.adam(0.1 * rate), epochs=3)
    rows = rows_of(folder)
    assert {f"weight_exponent_{SCHEME}", f"noise_autocorrelation_near_{SCHEME}"} <= set(rows)
    assert not [name for name in rows if re.search("theory|within_band_window|cross|max_c", name)]
    assert all(np.isfinite(row["here"]) for row in rows.values())
    assert "ScaleByAdamState" in rows[f"correlation_time_{SCHEME}"]["note"]
    assert "is not linear and has no theory" in (folder / "report.html").read_text()
    assert {"variances.pdf", "eigenvalues.pdf"} <= {f.name for f in (folder / "figures").iterdir()}
    # Where the recorded updates end the weights themselves are.
    inside, vectors = folder / f"trajectory_{SCHEME}", np.load(folder / "eigenvectors.npy")
    start = np.load(folder / "training.npz")["params"][0]
    kept = np.load(inside / "kept_weights.npy")[-1]
    weights = np.load(inside / "weights.npy")
    # Each of the steps rounds the weights once.
    bound = T * np.finfo(np.float32).eps * np.linalg.norm(start)
    np.testing.assert_allclose(weights[-1], vectors @ (kept - start), rtol=0, atol=bound)
    assert np.abs(weights[-1]).max() > 100 * bound
    with pytest.raises(ValueError, match="optimizer"):
        studied(folder, lambda rate: optax.adam(0.1 * rate, b1=0.8), epochs=3)


@pytest.fixture(scope="module")
def heavy_balls(tmp_path_factory):
    """Heavy ball as what a study does of itself, and as an optimiser that it is given."""
    folder = tmp_path_factory.mktemp("runs")
    few = {"epochs": 3, "stages": STAGES[:-1]}
    default = studied(folder / "default", None, **few)
    return default, studied(folder / "given", lambda rate: heavy_ball.heavy_ball(rate, BETA), **few)


def test_heavy_ball_given_as_an_optimiser_is_the_default(heavy_balls):
    params, weights, updates = [], [], []
    for folder in heavy_balls:
        params.append(np.load(folder / "training.npz")["params"])
        weights.append(np.load(folder / f"trajectory_{SCHEME}" / "kept_weights.npy"))
        updates.append(np.load(folder / f"trajectory_{SCHEME}" / "velocities.npy"))
    np.testing.assert_array_equal(*params)
    np.testing.assert_array_equal(*weights)
    # By Eq. 1 from the gradients, and recorded: float32 rounds each sum of some 1/(1 − β) terms.
    bound = 30 * np.finfo(np.float32).eps * np.abs(updates[0]).max()
    np.testing.assert_allclose(*updates, rtol=0, atol=bound)
    assert not (heavy_balls[0] / f"trajectory_{SCHEME}" / "updates.npy").exists()


def test_heavy_ball_given_as_an_optimiser_has_the_same_theory_and_rows(heavy_balls, monkeypatch):
    # Windows of each length compile a program of their own.
    monkeypatch.setattr(drift, "EPOCHS", (5,))
    found, rows = [], []
    given = (None, lambda rate: optax.sgd(rate, BETA))
    for folder, optimizer in zip(heavy_balls, given, strict=True):
        inside = folder / f"trajectory_{SCHEME}"
        path = trajectory.Trajectory(
            *(np.load(inside / f"{name}.npy") for name in trajectory.Trajectory._fields)
        )
        anchors = np.load(inside / "anchors.npz")
        recorded = period.Recording(
            path, anchors["steps"], anchors["gradients"], anchors["curves"],
            anchors["full_gradient_error"], np.zeros(0), None,
        )  # fmt: skip
        known = conditions.conditions_of(N, settings(), optimizer)
        values = np.load(folder / "eigenpairs.npz")["values"]
        with tiny.small():
            one = analysis.analyse(recorded, values, SCHEME, known)
            of_one = all_findings._of_period(known, one, recorded, values, SCHEME)
        found.append((known, one))
        rows.append({row["id"]: (row["here"], row["here_error"]) for row in of_one})
    (first, one), (second, other) = found
    assert first.crossover == pytest.approx(second.crossover, rel=1e-6)
    assert first.max_correlation_time == pytest.approx(second.max_correlation_time, rel=1e-6)
    for name in ("measured", "stationary", "window", "spread", "noise", "fits"):
        # float32 updates and eigenvalues; the theory itself is float64.
        jax.tree.map(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4),
            getattr(one, name), getattr(other, name),
        )  # fmt: skip
    # What rests on Eq. 1, from the velocities that were recorded instead of computed.
    assert len(one.balance) == len(other.balance) == 2
    assert {f"stationarity_{SCHEME}", f"tau_over_relaxed_{SCHEME}"} <= set(rows[0])
    assert rows[0].keys() == rows[1].keys()
    for name, (here, error) in rows[0].items():
        assert rows[1][name][0] == pytest.approx(here, rel=1e-3, abs=1e-3 * (error or 0)), name


@pytest.mark.parametrize("law", [theory.without_replacement(M), theory.with_replacement()])
def test_the_spread_of_heavy_ball_as_a_system_is_that_of_heavy_ball(law):
    """Of the same random numbers, to rounding, which some 1/(ηλ) steps add up."""
    lam, system = np.geomspace(0.05, 5, 3), theory.heavy_ball_system(ETA, BETA)
    one = theory.window_spread(lam, ETA, BETA, law, 5 * M, num_windows=20)
    other = theory.linear_window_spread(lam, system, law, 5 * M, num_windows=20)
    for name in ("weight", "velocity", "correlation_time", "relative_std"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-9)
    unlike = theory.heavy_ball_system(ETA, BETA, nesterov=True)
    with pytest.raises(ValueError, match="not stable"):
        theory.linear_window_spread(np.array([50.0]), unlike, law, 5 * M)


def test_scales_of_optimisers_in_the_flat_limit():
    """2V_θ/V_v of the stationary covariance far below the crossover, at long epochs."""
    long, made = 4000, [theory.heavy_ball_system(ETA, 0.5, nesterov=nest) for nest in (False, True)]
    made.append(theory.with_weight_average(made[0], 0.9))
    made.append(theory.from_optax(optax.sgd(ETA)))
    for system in made:
        scales = theory.linear_scales(system, long)
        lam = np.array([1e-3 * scales.crossover])
        P, lagged = theory.stationary_covariance(lam, system, theory.without_replacement(long))
        time = P[0, 0, 0] / (P - lagged)[0, 0, 0]
        # Corrections of λ/λ_cross and of the optimiser's memory over M.
        assert time == pytest.approx(scales.max_correlation_time, rel=5e-3)
        weight = scales.effective_learning_rate**2 * long / 6
        assert P[0, 0, 0] == pytest.approx(weight, rel=5e-3)


def test_an_optimiser_is_told_by_its_updates():
    words = [optimiser.described(lambda r, b=b: optax.adam(r, b1=b), 0.1) for b in (0.9, 0.8)]
    assert words[0] != words[1]
    assert optimiser.linear_system(optax.adam, 0.1) is None
    assert optimiser.described(optax.sgd, 0.5) == "no state; updates -0.5, 0.25, -1, -0.125"


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (optax.sgd(ETA, BETA), (ETA, BETA)),
        (optax.chain(optax.scale_by_learning_rate(ETA), optax.trace(BETA)), (ETA, BETA)),
        (heavy_ball.heavy_ball(ETA, BETA), (ETA, BETA)),
        (optax.chain(optax.scale(2.0), optax.sgd(ETA, BETA)), (2 * ETA, BETA)),
        (optax.chain(optax.ema(BETA, debias=False), optax.scale(-ETA)), (ETA * (1 - BETA), BETA)),
        (optax.sgd(ETA), (ETA, 0.0)),
        (optax.sgd(ETA, BETA, nesterov=True), None),
        (optax.chain(optax.add_decayed_weights(1e-4), optax.sgd(ETA, BETA)), None),
        (optax.chain(optax.trace(0.5), optax.sgd(ETA, BETA)), None),
        (optax.scale(ETA), None),
    ],
)
def test_heavy_ball_is_told_by_what_it_does(optimizer, expected):
    found = optimiser.heavy_ball_of(theory.from_optax(optimizer))
    assert found == (expected and pytest.approx(expected, rel=1e-9))


def test_an_average_beside_the_weights_does_not_move_them():
    averaged = theory.with_weight_average(theory.heavy_ball_system(ETA, BETA), 0.99)
    assert optimiser.heavy_ball_of(averaged) == pytest.approx((ETA, BETA))


def clipped(rate):
    return optax.chain(optax.clip_by_global_norm(50.0), optax.sgd(rate, BETA))


@pytest.mark.parametrize(
    ("optimizer", "words"),
    [
        (None, "momentum 0.9 is stable only for curvatures below 2(1+beta)/eta = 38;"),
        (lambda r: optax.sgd(r, 0.5), "momentum 0.5 is stable only for curvatures below 2(1+beta)"
         "/eta = 30;"),
        (nesterov, "stable at learning rate 0.1 only for curvatures below 13.6;"),
        (clipped, "the optimiser does not bear learning rate 0.1;"),
    ],
)  # fmt: skip
def test_what_diverges_is_told_its_own_bound_or_none(optimizer, words):
    """2(1+β)/η, for Nesterov 2(1+β)/(η(1+2β)); a clipped one is not linear."""
    assert words in divergence.stability(3, settings(), optimizer)
    edge = divergence.edge(3, settings(), optimizer)
    assert np.isinf(edge) == (optimizer is clipped)


def test_a_study_that_diverges_is_told_the_bound_of_its_optimiser(tmp_path):
    # 2(1+β)/(η(1+2β)).
    words = "stable at learning rate 60 only for curvatures below 0.0226; lower"
    with pytest.raises(FloatingPointError, match=words):
        studied(tmp_path, nesterov, learning_rate=60.0, stages=("train",))
