"""What each choice changes, and the counts of a toy run against dense Hessians."""

import json

import jax
import numpy as np
import pytest

from antisgd import data, models, objective, results, theory
from experiments.choices import __main__ as choices
from experiments.choices import variants
from tests import mains, tiny

pytestmark = pytest.mark.slow

N = 60
TOY = (
    f"--num_examples={N}", "--batch_size=6", "--learning_rate=0.05", "--momentum=0.99",
    "--learning_rate_decay=1", "--epochs=1", "--eigenpairs=90", "--curvature_examples=40",
    "--seeds=2", "--choices=reference,over_255,no_penalty,lecun,penalised_biases,seed_1",
)  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def pictures():
    """Synthetic pictures in the place of CIFAR-10's, and bytes for their raw pixels."""
    made = data.synthetic(N)
    raw = [data.cifar10.Pictures(as_bytes(part.images), np.asarray(part.labels)) for part in made]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load_named", lambda *_, **__: (made, "synthetic pictures"))
        patch.setattr(data.cifar10, "read", lambda directory: raw)
        yield


def as_bytes(images):
    return np.clip(128 + 40 * np.asarray(images), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return mains.run(choices, tmp_path_factory.mktemp("choices") / "run", *TOY)


def dense(flat, penalty, images, labels, penalised=None):
    """Of softmax regression's Hessian over 40 pictures, by automatic differentiation, float64."""
    template = tiny.network().init(jax.random.key(0), images[:1])
    restore = jax.flatten_util.ravel_pytree(template)[1]
    loss = objective.make_loss(tiny.network().apply, penalty, penalised)
    examples = data.Examples(images[:40], labels[:40])
    hessian = jax.hessian(lambda w: loss(restore(w), examples, np.ones(40, np.float32)))(flat)
    return np.linalg.eigh(np.asarray(hessian, np.float64))


def dense_eigenvalues(*problem):
    return dense(*problem)[0]


@pytest.mark.parametrize(
    "name", ["reference", "over_255", "no_penalty", "lecun", "penalised_biases", "seed_1"]
)
def test_counts_are_those_of_dense_hessians(finished, name):
    train = data.synthetic(N).train
    images, penalty = np.asarray(train.images), 0.0 if name == "no_penalty" else 1e-4
    if name == "over_255":
        images = (as_bytes(images) / 255).astype(np.float32)
    kept = results.read_arrays(finished / f"{name}.npz")
    cross = theory.crossover_eigenvalue(0.05, 0.99, 10)
    for seed in range(2):
        penalised = (lambda _: True) if name == "penalised_biases" else None
        flat = kept["params"][seed]
        exact = dense_eigenvalues(flat, penalty, images, train.labels, penalised)
        assert kept["above_crossover"][seed] == np.sum(exact > cross)
        np.testing.assert_allclose(kept["largest_eigenvalue"][seed], exact[-1], rtol=2e-3)


def test_where_none_lies_above_the_crossover_the_largest_is_found(tmp_path):
    few = ("--learning_rate=1e-4", "--choices=reference", "--seeds=1")
    mains.run(choices, tmp_path / "run", *TOY, *few)
    kept = results.read_arrays(tmp_path / "run" / "reference.npz")
    train = data.synthetic(N).train
    exact = dense_eigenvalues(kept["params"][0], 1e-4, np.asarray(train.images), train.labels)
    assert exact[-1] < theory.crossover_eigenvalue(1e-4, 0.99, 10)
    assert kept["above_crossover"][0] == 0
    np.testing.assert_allclose(kept["largest_eigenvalue"][0], exact[-1], rtol=2e-3)


def test_rows_are_means_over_the_seeds_and_the_run_is_kept(finished):
    rows = {row["id"]: row for row in json.loads((finished / "summary.json").read_text())}
    counts = results.read_arrays(finished / "lecun.npz")["above_crossover"]
    row = rows["above_crossover_lecun"]
    # The paper's 35 is that of 50,000 pictures.
    assert row["here"] == counts.mean() and row["n"] == 2 and row["paper"] is None
    assert len(rows) == 7 * 6
    assert "<html" in (finished / "report.html").read_text()


def test_discarding_and_alignment_are_those_of_dense_matrices(finished):
    """Accuracy from weights without 35 eigenvectors; cosine from each picture's gradient."""
    kept = results.read_arrays(finished / "reference.npz")
    made, flat = data.synthetic(N), kept["params"][0]
    images, labels = np.asarray(made.train.images)[:40], np.asarray(made.train.labels)[:40]
    values, vectors = (part[..., ::-1] for part in dense(flat, 1e-4, images, labels))
    model = tiny.network()
    restore = jax.flatten_util.ravel_pytree(model.init(jax.random.key(0), images[:1]))[1]
    leading = vectors[:, :35]
    left = restore(np.asarray(flat - leading @ (leading.T @ flat), np.float32))
    accuracy = objective.evaluate(model.apply, left, made.test).accuracy
    # Eigenvectors of nearly equal eigenvalues may change places: a picture or two of the set.
    assert abs(kept["accuracy_without_35"][0] - accuracy) <= 2 / len(made.test.labels)
    loss = objective.make_loss(model.apply, 1e-4)
    each = [
        jax.grad(
            lambda w, i=i: loss(
                restore(w),
                data.Examples(images[i : i + 1], labels[i : i + 1]),
                np.ones(1, np.float32),
            )
        )(flat)
        for i in range(40)
    ]
    noise = np.cov(np.array(each, np.float64) @ vectors[:, : len(values)][:, :90], rowvar=False)
    lam = np.diag(values[:90])
    cosine = np.sum(noise * lam) / np.linalg.norm(noise) / np.linalg.norm(lam)
    np.testing.assert_allclose(kept["cosine_similarity"][0], cosine, rtol=1e-3)
    loss_at = kept["largest_eigenvalue"] / kept["largest_over_loss"]
    np.testing.assert_allclose(loss_at, kept["train_loss"], rtol=1e-6)


def test_penalised_biases_are_in_the_loss():
    settings, chosen = choices.OPTIONS[:2]
    usual = choices.pictures.problem(models.lenet(), "LeNet", chosen, settings)
    other = variants.changed(usual, variants.CHOICES["penalised_biases"], chosen, settings)
    # Biases of one and no kernels: the cross-entropy is small, and nothing is lost beside it.
    start = usual.init(jax.random.key(0))
    params = jax.tree.map(lambda leaf: np.full(leaf.shape, leaf.ndim == 1, np.float32), start)
    batch, weights = jax.tree.map(lambda leaf: leaf[:5], usual.train), np.ones(5, np.float32)
    biases = sum(leaf.size for leaf in jax.tree.leaves(params) if leaf.ndim == 1)
    more = other.loss(params, batch, weights) - usual.loss(params, batch, weights)
    np.testing.assert_allclose(more, 1e-4 * biases, rtol=1e-4)


def test_another_seed_is_another_network(finished):
    first, other = (results.read_arrays(finished / f"{n}.npz") for n in ("reference", "seed_1"))
    assert not np.allclose(first["params"], other["params"])


def test_properties_of_pixels_and_kernels():
    """Channels of mean 0 and variance 1; variance 1/fan-in to 4 standard errors (p = 6e-5)."""
    pixels = np.random.default_rng(0).integers(0, 256, (50, 8, 8, 3), np.uint8)
    pixels[..., 1] //= 2
    made = variants.whole_set(pixels)
    np.testing.assert_allclose(made.mean((0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(made.var((0, 1, 2)), 1, rtol=1e-5)
    made = variants.whole_picture(pixels)
    np.testing.assert_allclose(made.mean((1, 2, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(made.var((1, 2, 3)), 1, rtol=1e-5)
    ends = variants.centred(np.array([0, 51, 255], np.uint8))
    np.testing.assert_allclose(ends, [-1, -0.6, 1], rtol=1e-6)
    assert not variants.whole_picture(np.full((1, 8, 8, 3), 7, np.uint8)).any()
    glorot, shapes = jax.nn.initializers.glorot_normal(), ((5, 5, 3, 6), (256, 120))

    def template(key):
        return [{"kernel": glorot(key, shape), "bias": np.zeros(6)} for shape in shapes]

    layers = variants._rescaled(template, variants.fan_in_over_glorot)(jax.random.key(0))
    for layer in layers:
        kernel = layer["kernel"]
        ratio = float(kernel.var() * kernel.size / kernel.shape[-1])
        assert abs(ratio - 1) < 4 * np.sqrt(2 / kernel.size) and not layer["bias"].any()


def test_unknown_choices_are_refused(tmp_path):
    with pytest.raises(SystemExit, match="--choices knows reference, over_255"):
        mains.run(choices, tmp_path / "run", "--choices=glorot")
