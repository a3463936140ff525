"""The audit of a PyTorch training, end to end at toy size; skipped without PyTorch."""

import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from antisgd import audit, data  # noqa: E402
from experiments.audit import __main__ as experiment  # noqa: E402
from experiments.audit import network  # noqa: E402


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit") / "run"
    options = experiment.Options(
        num_examples=45, batch_size=10, epochs=2, recorded_epochs=8, eigenpairs=3,
        output_dir=str(folder),
    )  # fmt: skip
    experiment.main(options)
    return folder


def test_what_the_loader_did_is_read_off_its_indices_and_eq_1_off_its_gradients(finished):
    found = audit.audit(audit.load(finished / "recording.npz"))
    told = {one.name: one for one in found.verdict}
    assert found.law.name == "without_replacement" and not told["sampling"].flagged
    assert found.steps_per_epoch == 5 and found.recording.indices[4].min() == -1
    assert told["momentum"].p_value == 1 and told["momentum"].statistic == pytest.approx(0.9)


def test_the_run_folder_has_the_page_the_figure_and_the_rows(finished):
    names = {row["id"] for row in json.loads((finished / "summary.json").read_text())}
    assert {"accuracy", "crossover", "audit_sampling", "audit_drift"} <= names
    assert (finished / "audit.html").exists() and (finished / "figures" / "audit.png").exists()


def test_directions_are_eigenvectors_of_the_hessian():
    """By double backward in float64; the library's products are forward over reverse in float32.

    Residuals to ARPACK's 1e-5 and the rounding of some hundred operations, gradients to the latter.
    """
    pictures = data.load("digits", num_examples=30).train
    images, labels = np.asarray(pictures.images), np.asarray(pictures.labels)
    problem = network.problem(images, labels, 1e-3, 0)
    values, P = network.leading_eigenpairs(problem, 2)
    np.testing.assert_allclose(P @ P.T, np.eye(2), atol=1e-8)
    np.testing.assert_allclose(network.along_path(problem, P), values, rtol=1e-4)
    means = network.per_example(problem, P).mean(axis=0)
    model = problem.model.double()
    params = list(model.parameters())
    kernels = sum(p.square().sum() for p in params if p.ndim > 1)
    logits = model(problem.images.double())
    loss = torch.nn.functional.cross_entropy(logits, problem.labels) + 1e-3 * kernels
    gradients = torch.autograd.grad(loss, params, create_graph=True)
    flat = torch.cat([g.reshape(-1) for g in gradients])
    rounding = 100 * float(np.finfo(np.float32).eps)
    np.testing.assert_allclose(means, (P @ flat).detach(), atol=rounding * flat.norm().item())
    for value, p in zip(values, P, strict=True):
        product = torch.autograd.grad(flat @ p, params, retain_graph=True)
        residual = torch.cat([x.reshape(-1) for x in product]) - value * p
        assert residual.norm() < (1e-5 + rounding) * values[0]
