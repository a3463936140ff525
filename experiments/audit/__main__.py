"""The audit of a real run: LeNet in PyTorch on digits, DataLoader(shuffle=True), heavy ball.

    python -m experiments.audit                     trains, records 40 epochs, audits
    python -m experiments.audit --claimed=with_replacement     the same, said to be otherwise

PyTorch trains, finds 50 Hessian eigenvectors and records along them the way docs/audit.md says; the
audit sees arrays alone. Needs the extra 'torch'. Minutes on 2 cores. The run folder has the
recording, the audit's page, and rows as every run's.
"""

import importlib.util
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from antisgd import audit, data, results
from antisgd.audit import page
from antisgd.audit.recording import CLAIMS
from antisgd.study.fields import check_bounds, setting
from antisgd.study.findings.rows import Rows, row
from experiments import cli, outcome

__all__ = ["Options", "main"]


@dataclass(frozen=True, kw_only=True)
class Options:
    """The training and what is recorded of it."""

    num_examples: int = setting(1500, "N, digits.", least=10)
    batch_size: int = setting(10, "S.", least=1)
    learning_rate: float = setting(0.02, "Initial learning rate.")
    learning_rate_decay: float = setting(0.99, "Factor per epoch before the recorded ones.")
    momentum: float = setting(0.9, "Heavy-ball momentum.")
    weight_decay: float = setting(1e-4, "c of the penalty c * sum(kernels^2).")
    epochs: int = setting(200, "Epochs before the recorded ones.", least=1)
    recorded_epochs: int = setting(40, "Epochs recorded.", least=4)
    eigenpairs: int = setting(50, "Directions.", least=1)
    claimed: str = setting("without_replacement", "What the run is said to be.", choices=CLAIMS)
    seed: int = setting(0, "Of initial weights and loader.")
    output_dir: str = setting("runs/audit", "Run folder.", decides=False)


def main(options: Options) -> None:
    """Trains, records, audits and writes all of it into the run folder.

    Raises:
        ValueError: PyTorch is missing, or a folder of another run.
    """
    check_bounds(options)
    if importlib.util.find_spec("torch") is None:
        raise ValueError("PyTorch is missing: pip install '.[torch]'")
    from experiments.audit import network

    pictures, shown = data.load_named("digits", num_examples=options.num_examples)
    images, labels = np.asarray(pictures.train.images), np.asarray(pictures.train.labels)
    settings = {name: value for name, value in asdict(options).items() if name != "output_dir"}
    folder = results.open_run(Path(options.output_dir), {"dataset": "digits", **settings})
    results.describe(folder, network="LeNet in PyTorch", data=shown)
    path = folder / "recording.npz"
    if not path.exists():
        problem = network.problem(images, labels, options.weight_decay, options.seed)
        arrays, told = network.train(
            problem, batch_size=options.batch_size, learning_rate=options.learning_rate,
            decay=options.learning_rate_decay, momentum=options.momentum, epochs=options.epochs,
            recorded_epochs=options.recorded_epochs, num_directions=options.eigenpairs,
            anchor_steps=2 * -(-options.num_examples // options.batch_size),
        )  # fmt: skip
        results.write_json(folder / "training.json", told)
        results.write_arrays(
            path, **arrays, momentum=options.momentum, num_examples=options.num_examples,
            batch_size=options.batch_size, claimed=options.claimed,
        )  # fmt: skip
    found = audit.audit(audit.load(path))
    page.write(found, folder)
    print(page.text(found))
    rows = training_rows(results.read_json(folder / "training.json")) + audit_rows(found)
    outcome.write(folder, rows, {"audit": page.figure(found)}, shown=shown)


def training_rows(told: dict[str, float]) -> Rows:
    """Where the recorded stretch lies."""
    return [
        row("loss", "beyond", "training loss where the recording begins", told["loss"]),
        row("loss_after", "beyond", "training loss where it ends", told["loss_after"]),
        row("accuracy", "beyond", "training accuracy", told["accuracy"]),
    ]


def audit_rows(found: audit.Audit) -> Rows:
    """A row for each question, with its sentence, and the scales."""
    k = len(found.directions.curvatures)
    made = [
        row(
            f"audit_{one.name}", "beyond", f"audit, {one.name}{': flagged' * one.flagged}",
            one.statistic, one.error if np.isfinite(one.error) else None, n=k, note=one.sentence,
        )
        for one in found.verdict if np.isfinite(one.p_value)
    ]  # fmt: skip
    steep = int(np.sum(found.directions.curvatures > found.crossover))
    verdict = "verdict: " + ", ".join(found.words)
    inside = (found.directions.correlation_time > found.directions.low) & (
        found.directions.correlation_time < found.directions.high
    )
    return [
        *made,
        row("crossover", "beyond", "crossover eigenvalue", found.crossover, note=verdict),
        row("above_crossover", "beyond", "eigenvalues above the crossover", steep, n=k),
        row("limit", "beyond", "tau_SGD", found.limit, unit="steps"),
        row(
            "within_band", "beyond", "share of correlation times within the theory's 95 % band",
            inside.mean(), n=k,
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    cli.run(main, Options())
