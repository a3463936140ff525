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
    """By central differences of the gradient: ‖Hp − λp‖ to the cube of the step and rounding."""
    pictures = data.load("digits", num_examples=30).train
    images, labels = np.asarray(pictures.images), np.asarray(pictures.labels)
    problem = network.problem(images, labels, 1e-3, 0)
    values, P = network.leading_eigenpairs(problem, 2)
    np.testing.assert_allclose(P @ P.T, np.eye(2), atol=1e-8)
    np.testing.assert_allclose(network.along_path(problem, P), values, rtol=1e-4)
    mean = network.per_example(problem, P).mean(axis=0)
    params = list(problem.model.parameters())
    step = 1e-2
    for sign in (1, -1, 0):
        parts = torch.split(sign * step * P[0], [p.numel() for p in params])
        with torch.no_grad():
            for p, part in zip(params, parts, strict=True):
                p += part.reshape(p.shape).float()
        moved = network.per_example(problem, P).mean(axis=0)
        with torch.no_grad():
            for p, part in zip(params, parts, strict=True):
                p -= part.reshape(p.shape).float()
        expected = mean + sign * step * values[0] * np.array([1, 0])
        # ReLUs have kinks: the curvature between them differs by a few per cent.
        np.testing.assert_allclose(moved, expected, atol=0.1 * step * values[0])
