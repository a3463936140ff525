"""Leading eigenvalues along training: those of dense Hessians, whatever a solve started from."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from antisgd import lanczos, study
from antisgd.study.stages import track
from tests import tiny

SETTINGS = tiny.settings(
    epochs=5, track_every=2, track_eigenpairs=3, sampling=("with_replacement",),
    stages=("train", "track", "figures"),
)  # fmt: skip


@pytest.fixture(scope="module")
def problem():
    with tiny.small():
        return tiny.problem()


def run(problem, folder, settings=SETTINGS):
    with tiny.small():
        study.run(problem, settings, folder)
    return folder


@pytest.fixture(scope="module")
def tracked(problem, tmp_path_factory):
    return run(problem, tmp_path_factory.mktemp("tracked") / "run")


def test_eigenvalues_are_those_of_the_dense_hessian_at_each_of_the_weights(problem, tracked):
    """An eigenvalue lies within the residual (Weyl); float32 rounds by 2e-6 of the largest."""
    weights, found = np.load(tracked / "tracked_weights.npy"), np.load(tracked / "tracked.npz")
    np.testing.assert_array_equal(found["epochs"], [0, 2, 4, 5])
    np.testing.assert_array_equal(weights[-1], np.load(tracked / "training.npz")["params"][0])
    flat, restore = jax.flatten_util.ravel_pytree(problem.init(jax.random.key(0)))
    loss = lambda theta: problem.loss(restore(theta), problem.train, jnp.ones(60))  # noqa: E731
    hessian = jax.jit(jax.hessian(loss))
    for place, theta in enumerate(weights):
        dense = np.linalg.eigvalsh(np.asarray(hessian(theta), np.float64))[::-1][:3]
        off = np.abs(found["values"][place] - dense)
        assert np.all(off <= found["residuals"][place] + 2e-6 * dense[0])


def test_starting_from_the_last_solve_changes_no_eigenvalue(tracked):
    """Beyond the tolerance that both solves had; the middle and the end are compared."""
    found = np.load(tracked / "tracked.npz")
    compared = np.isfinite(found["cold_products"])
    np.testing.assert_array_equal(compared, [False, False, True, True])
    warm, cold = found["values"][compared], found["cold_values"][compared]
    assert np.all(np.abs(warm - cold) <= 2e-3 * np.abs(cold))
    rows = {row["id"]: row for row in json.loads((tracked / "summary.json").read_text())}
    saved = 1 - found["products"][-1] / found["cold_products"][-1]
    assert rows["tracked_saved_5"]["here"] == pytest.approx(saved)
    # η of the last epoch is 0.01·0.98⁵, N/S = 10 steps an epoch.
    rate = 0.01 * 0.98**5
    assert rows["tracked_over_edge"]["here"] == pytest.approx(warm[-1, 0] * rate / 3.8)
    assert rows["tracked_over_crossover"]["here"] == pytest.approx(
        warm[-1, 0] * 10 * rate / (3 * 0.1), rel=1e-6
    )


def test_each_solve_starts_from_sums_of_the_vectors_before(problem, tracked, tmp_path, monkeypatch):
    """And stopped between two solves it ends with the same bits."""
    starts, solve = [], lanczos.leading_eigenpairs

    def counted(*arguments, start, **more):
        if len(starts) == 3:
            raise KeyboardInterrupt
        pairs = solve(*arguments, start=start, **more)
        starts.append((start, np.asarray(pairs.vectors)))
        return pairs

    monkeypatch.setattr(track.lanczos, "leading_eigenpairs", counted)
    with pytest.raises(KeyboardInterrupt):
        run(problem, tmp_path / "run")
    assert starts[0][0] is None
    for (start, _), (_, before) in zip(starts[1:], starts, strict=False):
        np.testing.assert_array_equal(start, before.sum(0, keepdims=True))
    monkeypatch.undo()
    tiny.same_arrays(tracked, run(problem, tmp_path / "run"))


def test_weights_that_were_not_kept_are_refused(problem, tracked, tmp_path):
    folder = tmp_path / "run"
    run(problem, folder, dataclasses.replace(SETTINGS, stages=("train",)))
    (folder / "tracked_weights.npy").unlink()
    with pytest.raises(ValueError, match="only the training itself keeps: leave track out"):
        run(problem, folder)
    with pytest.raises(ValueError, match="trained elsewhere have no epochs to track"):
        study.measure(problem, problem.init(jax.random.key(0)), SETTINGS, tmp_path / "measured")
