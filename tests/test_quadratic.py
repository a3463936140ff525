"""SGD on quadratics against the theory at toy size: standard errors, files, refusals."""

import json

import jax
import numpy as np
import pytest

from antisgd import results
from experiments.quadratic import __main__ as quadratic
from experiments.quadratic import simulations as sim

pytestmark = pytest.mark.slow

SIZE = quadratic.Size(
    replicas=200, curvatures=4, epochs=8, window_epochs=3, settle_epochs=20, dimension=20,
    isotropic_steps=30, isotropic_batch=2,
)  # fmt: skip
SCHEMES = {"with_replacement", "independent_batches", "without_replacement", "shuffle_once",
           "flip_flop", "drop_last", "partial_last", "spanning_batches", "anti_pgd"}  # fmt: skip
FIGURES = ("fig03", "quadratic_variances", "quadratic_autocorrelations", "quadratic_phase",
           "quadratic_windows")  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """Most of a toy run is compilation; results do not depend on how much is optimised."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "toy"
    with jax.numpy_rank_promotion("allow"):
        quadratic.run(folder, 0, SIZE)
    return folder


def scores(folder, name):
    arrays = results.read_arrays(folder / f"{name}.npz")
    labels = {key.rsplit("/", 1)[0] for key in arrays if "/" in key}
    return {
        label: (arrays[f"{label}/measured"] - arrays[f"{label}/expected"])
        / arrays[f"{label}/error"]
        for label in labels
    }


@pytest.mark.parametrize("name", ["variances", "autocorrelations", "phase", "windows"])
def test_agrees_with_theory(finished, name):
    for label, z in scores(finished, name).items():
        assert np.abs(z).max() < 4, label


def test_every_scheme_and_optimizer_is_compared(finished):
    labels = {label.split("/")[0] for label in scores(finished, "variances")}
    optimizers = {f"{kind}_{scheme}" for kind in ("nesterov", "average")
                  for scheme in ("without_replacement", "with_replacement")}  # fmt: skip
    assert labels == SCHEMES | optimizers
    assert {label.split("/")[0] for label in scores(finished, "autocorrelations")} == SCHEMES


def test_principal_components_look_anisotropic_where_nothing_is(finished):
    found = results.read_arrays(finished / "isotropic.npz")
    own, principal = (2 * found[f"{basis}_weight"] / found[f"{basis}_velocity"]
                      for basis in ("own", "principal"))  # fmt: skip
    assert principal.max() / principal.min() > 3 * own.max() / own.min()
    speeds = found["own_velocity"], found["principal_velocity"]
    assert speeds[1].max() / speeds[1].min() > 1.3 * speeds[0].max() / speeds[0].min()
    # A rotation keeps the traces.
    for name in ("weight", "velocity"):
        totals = [found[f"{basis}_{name}"].sum(dtype=np.float64) for basis in ("own", "principal")]
        np.testing.assert_allclose(*totals, rtol=1e-4)
    linear = found["own_weight"]
    error = linear.std(ddof=1) / np.sqrt(linear.size)
    assert abs(linear.mean() - found["expected_weight"][0]) < 4 * error


def test_isotropic_noise_is_isotropic_and_sums_to_zero():
    noise = np.asarray(sim.isotropic_noise(jax.random.key(1), 6, 2, 10, 400), np.float64)
    covariance = noise.T @ noise / len(noise)
    np.testing.assert_allclose(covariance, np.eye(6), atol=4 * np.sqrt(2 / len(noise)))
    np.testing.assert_allclose(noise.reshape(400, 10, 6).sum(axis=1), 0, atol=1e-4)
    with pytest.raises(ValueError, match="larger batch_size"):
        sim.isotropic_noise(jax.random.key(1), 40, 2, 10, 1)


def test_writes_rows_and_figures(finished):
    rows = json.loads((finished / "summary.json").read_text())
    assert {"id", "paper_item", "quantity", "unit", "paper", "here", "here_error", "n", "note"} <= (
        rows[0].keys()
    )
    by_id = {row["id"]: row for row in rows}
    assert by_id["largest_z"]["here"] < 4
    assert "theory 1, z = " in by_id["variances_without_replacement_weight"]["note"]
    for name in FIGURES:
        for ending in ("png", "pdf"):
            assert (finished / "figures" / f"{name}.{ending}").stat().st_size > 0


def test_refuses_a_folder_of_another_seed(finished):
    with pytest.raises(ValueError, match="other settings: seed"):
        quadratic.run(finished, 1, SIZE)
