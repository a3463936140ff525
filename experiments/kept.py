"""Keeps the small results of runs in the repository, and makes the README's tables from them.

    python -m experiments.kept --run=runs/lenet_cpu --name=lenet_cpu     copies a run's results
    python -m experiments.kept                                           only the tables

A kept run is experiments/results/NAME: summary.json, config.json and the figures as PNG.
"""

import re
import shutil
from pathlib import Path
from typing import Any

from absl import app, flags

from antisgd import results
from experiments.comparison import with_error

FLAGS = flags.FLAGS
flags.DEFINE_string("run", None, "Folder of the finished run.")
flags.DEFINE_string("name", None, "Name of what is kept of it; the folder's by default.")

ROOT = Path(__file__).parent.parent
FOLDER = Path(__file__).parent / "results"
MARKS = ("<!-- kept results -->", "<!-- end of kept results -->")
# Shown beside the rows that have a value of the paper.
HEADLINES = (
    "weight_exponent_theory_without_replacement",
    "velocity_exponent_theory_without_replacement",
    "tau_over_theory_window_without_replacement",
    "tau_deviation_p90_window_without_replacement",
    "tau_over_theory_effective_without_replacement",
    "tau_over_theory_window_with_replacement",
    "tau_over_theory_effective_with_replacement",
    "correlation_time_within_band_effective_without_replacement",
    "correlation_time_within_band_effective_with_replacement",
    "velocity_over_theory_without_replacement",
    "velocity_over_theory_with_replacement",
    "correlation_time_within_band_window_without_replacement",
    "correlation_time_within_band_window_with_replacement",
    "regime_ratio",
    "tau_over_theory_1_epochs_without_replacement",
    "tau_over_theory_5_epochs_without_replacement",
    "plateau",
    "largest_eigenvalue_over_255",
    "largest_eigenvalue_whole_set",
    "tau_sgd_exponent_momentum",
    "tau_sgd_exponent_batch_size",
    "lambda_cross_exponent_momentum",
    "lambda_cross_exponent_batch_size",
    "tau_sgd_off_eq109",
    "tau_sgd_off_window",
    "tau_sgd_off_seeds",
    "lambda_cross_off_eq109",
    "lambda_cross_off_window",
    "lambda_cross_off_seeds",
    "drift_share_1_without_replacement",
    "drift_cosine_without_replacement",
    "last_accuracy_without_replacement",
    "last_accuracy_with_replacement",
    "last_accuracy_difference",
    "weight_exponent_pca",
    "velocity_exponent_pca",
    "weight_exponent_hessian",
    "velocity_exponent_hessian",
    "drift_mode",
    "test_accuracy_without_replacement_minus_with_replacement",
    "trace_without_replacement_minus_with_replacement",
    "trace_anti_correlated_noise_minus_white_noise",
    "trace_anti_correlated_noise_minus_full_batch",
    "trace_strong_noise_minus_full_batch",
    "test_accuracy_strong_noise_minus_full_batch",
    "weight_over_theory_white_noise",
    "weight_over_theory_anti_correlated_noise",
    "weight_over_theory_strong_noise",
)


def keep(run: Path, name: str) -> None:
    """Copies summary, settings and figures of a finished run."""
    place = FOLDER / name
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    results.write_json(place / "summary.json", results.read_json(run / "summary.json"))
    results.write_json(place / "config.json", portable_config(run))
    for figure in sorted((run / "figures").glob("*.png")):
        shutil.copy(figure, place / figure.name)


def portable_config(run: Path) -> dict[str, Any]:
    """config.json of a run without where the data and the run lay, which tells a reader nothing."""
    config = results.read_json(run / "config.json")
    command = re.sub(r" --(data_dir|output_dir)=\S+", "", config["provenance"]["command"])
    config["provenance"]["command"] = command
    return config


def tables() -> str:
    """One table 'paper | here ± error' for each kept run, in Markdown, CIFAR-10 first."""
    places = (place for place in FOLDER.iterdir() if place.is_dir())
    return "\n\n".join(map(_table, sorted(places, key=_order)))


def _order(place: Path) -> tuple[bool, str]:
    """The paper's pictures first."""
    return results.read_json(place / "config.json")["settings"]["dataset"] != "cifar10", place.name


def _table(place: Path) -> str:
    provenance = results.read_json(place / "config.json")["provenance"]
    lines = [
        f"`{provenance['command']}` ({provenance['device']}, {provenance['cpu_cores']} cores, "
        f"jax {provenance['versions']['jax']}; [all rows and figures]({place.relative_to(ROOT)})):",
        "",
        "| item | quantity | paper | here |",
        "|---|---|---|---|",
    ]
    for row in results.read_json(place / "summary.json"):
        if row["paper"] is not None or row["id"] in HEADLINES:
            lines.append(_line(row))
    return "\n".join(lines)


def _line(row: dict[str, Any]) -> str:
    paper = with_error(row["paper"], row["paper_error"])
    here = with_error(row["here"], row["here_error"])
    unit = "" if row["unit"] == "1" else f" {row['unit']}"
    return f"| {row['paper_item']} | {row['quantity'].replace('|', '∣')} | {paper} | {here}{unit} |"


def write_tables(readme: Path) -> None:
    """Replaces what stands between the marks in the README."""
    before, _, after = _split(readme.read_text())
    results.write_text(readme, f"{before}{MARKS[0]}\n{tables()}\n{MARKS[1]}{after}")


def _split(text: str) -> tuple[str, str, str]:
    before, rest = text.split(MARKS[0])
    inside, after = rest.split(MARKS[1])
    return before, inside.strip(), after


def main(argv: Any) -> None:
    """Copies --run, if given, and rewrites the tables."""
    del argv
    if FLAGS.run:
        keep(Path(FLAGS.run), FLAGS.name or Path(FLAGS.run).name)
    write_tables(ROOT / "README.md")


if __name__ == "__main__":
    app.run(main)
