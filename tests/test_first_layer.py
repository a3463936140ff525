"""Fig. 4 at toy size: the layer's Hessian, and the rotation of its recording onto Σ's basis."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from antisgd import data, models, objective
from experiments.first_layer import __main__ as first_layer
from tests import mains

pytestmark = pytest.mark.slow

TOY = (
    "--dataset=synthetic", "--num_examples=60", "--batch_size=6", "--learning_rate=0.01",
    "--epochs=3", "--analysis_epochs=24", "--full_gradient=quadratic",
)  # fmt: skip


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("first_layer") / "run"
    return mains.run(first_layer, folder, *TOY, network=False)


def test_the_layers_hessian_is_the_dense_one(finished):
    dataset = data.load("synthetic", num_examples=60, seed=0)
    model = models.lenet()
    template = model.init(jax.random.key(0), dataset.train.images[:1])
    restore = jax.flatten_util.ravel_pytree(template)[1]
    params = restore(jnp.asarray(np.load(finished / "training.npz")["params"][0]))
    loss = objective.make_loss(model.apply, 0.0)
    kernel = params["params"]["Conv_0"]["kernel"]

    def of_kernel(flat):
        changed = {"params": params["params"] | {"Conv_0": dict(params["params"]["Conv_0"])}}
        changed["params"]["Conv_0"]["kernel"] = flat.reshape(kernel.shape)
        return loss(changed, dataset.train, jnp.ones(60))

    with jax.default_matmul_precision("highest"):
        exact = jax.jit(jax.jacfwd(jax.grad(of_kernel)))(kernel.ravel())
    kept = np.load(finished / "checkpoints" / "layer_hessian.npz")
    found = next(kept[name] for name in kept if kept[name].shape == exact.shape)
    bound = 1000 * np.finfo(np.float32).eps * np.linalg.norm(exact, 2)
    np.testing.assert_allclose(found, exact, atol=bound)


def test_the_drift_mode_is_the_first_principal_component(finished):
    """Variances of the recorded weights along the eigenvectors of Σ, drift left in."""
    weights = np.load(finished / "trajectory_without_replacement" / "weights.npy")
    spectrum, components = np.linalg.eigh(np.cov(weights.T, bias=True))
    moved = np.diff(weights, axis=0) @ components
    time = (2 * spectrum / moved.var(axis=0))[::-1]
    rows = {row["id"]: row for row in json.loads((finished / "summary.json").read_text())}
    # Only directions of positive curvature are kept, so the median is over those.
    assert rows["drift_mode"]["n"] <= weights.shape[1]
    assert time[0] > 2 * np.median(time)
    if rows["drift_mode"]["n"] == weights.shape[1]:
        np.testing.assert_allclose(rows["drift_mode"]["here"], time[0] / np.median(time), rtol=1e-3)
    assert rows["weight_exponent_pca"]["paper"] is None
    assert (finished / "figures" / "fig04.png").exists()
