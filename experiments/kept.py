"""Keeps the small results of runs in the repository, and makes the tables of the docs from them.

    python -m experiments.kept --run=runs/lenet_cpu --name=lenet_cpu     copies a run's results
    python -m experiments.kept                                           only tables and page

A kept run is experiments/results/NAME: summary.json, config.json and the figures as PNG. The README
has ten numbers, docs/results.md the main rows of the runs on the paper's pictures and
experiments/results/README.md all of them.
"""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from antisgd import results
from antisgd.study.fields import setting
from antisgd.study.findings.rows import with_error
from antisgd.study.report import caption
from experiments import cli
from experiments.paper import CAPTIONED


@dataclass(frozen=True, kw_only=True)
class Options:
    """A run and its name among the kept ones."""

    run: str | None = setting(None, "Folder of the finished run.", kind=str)
    name: str | None = setting(
        None, "Name of what is kept of it; the folder's by default.", kind=str
    )


ROOT = Path(__file__).parent.parent
FOLDER = Path(__file__).parent / "results"
PAGE = FOLDER / "README.md"
RESULTS = ROOT / "docs" / "results.md"
# Run and row of the numbers on the README's second screen.
TEN = (
    ("lenet_whole", "velocity_over_theory_without_replacement_over_periods"),
    ("lenet_whole", "epoch_sums_without_replacement_over_periods"),
    ("lenet_whole", "cancelled_over_theory_without_replacement_over_periods"),
    ("lenet_cpu_300", "tau_over_theory_window_with_replacement"),
    ("lenet_cpu_300", "weight_exponent_without_replacement"),
    ("lenet_flat", "tau_over_theory_20_epochs_without_replacement_over_networks"),
    ("lenet_cpu_300", "eigenvalues_above_crossover"),
    ("first_layer_cpu", "weight_exponent_pca"),
    ("first_layer_cpu", "weight_exponent_hessian"),
    ("lenet_seeds", "best_accuracy_difference"),
)
# The runs whose main rows the page of results shows, in its order.
SHOWN = (
    "lenet_cpu_300", "lenet_cpu", "lenet_whole", "lenet_kinks", "lenet_smooth", "lenet_flat",
    "first_layer_cpu", "hyperparameters_cpu", "hyperparameters_seeds", "resnet20_cpu",
    "resnet20_seeds", "resnet20_quieter", "lenet_seeds", "choices_cpu",
)  # fmt: skip
# What rows and figures of further networks end with.
FURTHER = r"_seed\d+$"
# Shown beside the rows that have a value of the paper.
HEADLINES = (
    "weight_exponent_theory_without_replacement",
    "velocity_exponent_theory_without_replacement",
    "tau_over_theory_window_without_replacement",
    "tau_deviation_p90_window_without_replacement",
    "tau_over_theory_window_with_replacement",
    "velocity_over_theory_without_replacement",
    "velocity_over_theory_with_replacement",
    "correlation_time_within_band_window_without_replacement",
    "correlation_time_within_band_window_with_replacement",
    "loss_fluctuation_reduction",
    "loss_fluctuation_reduction_300",
    "loss_fluctuation_reduction_5000",
    "loss_fluctuation_reduction_all",
    "density_above_crossover",
    "regime_ratio",
    "trace_ratio_measured",
    "tau_over_theory_1_epochs_without_replacement",
    "tau_over_theory_5_epochs_without_replacement",
    *(f"{scale}_off_{law}" for scale in ("tau_sgd", "lambda_cross") for law in ("eq109", "window")),
    *(
        f"{scale}{over}_exponent_{varied}"
        for scale in ("tau_sgd", "lambda_cross")
        for over in ("", "_over_window")
        for varied in ("learning_rate", "momentum", "batch_size")
    ),
    "plateau",
    "plateau_over_networks",
    *(
        f"tau_over_theory_{epochs}_epochs_without_replacement_over_networks"
        for epochs in (1, 2, 5, 10, 20, 50)
    ),
    "tau_over_theory_window_without_replacement_over_networks",
    "tau_over_theory_window_with_replacement_over_networks",
    "velocity_over_theory_without_replacement_over_networks",
    "velocity_over_theory_with_replacement_over_networks",
    "correlation_time_within_band_window_with_replacement_over_networks",
    "end_curvature_without_replacement_over_networks",
    "end_curvature_with_replacement_over_networks",
    "bend_share_without_replacement_over_networks",
    *(
        f"{name}_{scheme}_over_periods"
        for name in (
            "weight_exponent",
            "weight_exponent_theory",
            "velocity_exponent",
            "velocity_exponent_theory",
            "velocity_over_theory",
            "tau_over_theory_window",
            "epoch_sums",
            "weight_over_replayed",
            "replayed_over_theory",
            "cancelled_over_theory",
            "stationarity_without_drift",
        )
        for scheme in ("without_replacement", "with_replacement")
    ),
    *(
        f"{name}_{scheme}"
        for name in (
            "epoch_sums",
            "weight_over_replayed",
            "replayed_over_theory",
            "cancelled_over_theory",
            "outside_band",
            "end_curvature",
            "secant_curvature",
            "predicted_curvature",
            "predicted_epoch_sums",
            "tau_over_prediction",
            "tau_over_harmonic",
            "weight_over_prediction",
            "noise_over_prediction",
            "noise_over_path",
            "tau_over_theory_at_start",
            "tau_over_theory_at_path",
            "tau_over_theory_at_secant",
            "tau_over_theory_at_start_above",
            "tau_over_theory_at_path_above",
            "tau_over_theory_at_secant_above",
            "tau_over_theory_at_start_below",
            "tau_over_theory_at_path_below",
            "tau_over_theory_at_secant_below",
        )
        for scheme in ("without_replacement", "with_replacement")
    ),
    "largest_eigenvalue_over_255",
    "largest_eigenvalue_whole_set",
    "largest_eigenvalue_half_penalty",
    "largest_eigenvalue_no_penalty",
    "drift_share_1_without_replacement",
    "drift_cosine_without_replacement",
    "largest_over_crossover",
    "last_accuracy_without_replacement",
    "last_accuracy_with_replacement",
    "last_accuracy_difference",
)


def keep(run: Path, name: str) -> None:
    """Copies summary, settings and figures of a finished run.

    Of several networks those of the first, and the means over all, whose notes have each value.
    """
    place = FOLDER / name
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    rows = results.read_json(run / "summary.json")
    first = [row for row in rows if not re.search(FURTHER, row["id"])]
    results.write_json(place / "summary.json", first)
    results.write_json(place / "config.json", portable_config(run))
    for figure in sorted((run / "figures").glob("*.png")):
        if not re.search(FURTHER, figure.stem):
            shutil.copy(figure, place / figure.name)


def portable_config(run: Path) -> dict[str, Any]:
    """config.json of a run without where the data and the run lay, which tells a reader nothing.

    Raises:
        ValueError: it does not name its data, such as the copy of CIFAR-10.
    """
    config = results.read_json(run / "config.json")
    if not config.get("data"):
        raise ValueError(
            f"{run} does not say what its data are called: run its figures once more, "
            "with --stages=figures"
        )
    for made in (config[key] for key in ("provenance", "begun_with") if key in config):
        made["command"] = re.sub(r" --(data_dir|output_dir)=\S+", "", made["command"])
    return config


def tables() -> str:
    """One table 'paper | here ± error' for each run that the page of results shows, in Markdown."""
    return "\n\n".join(_shown(FOLDER / name) for name in SHOWN)


def ten_numbers() -> str:
    """The README's table: number, paper, here, expected where theory has it, and the run."""
    lines = ["| number | paper | here | note | run |", "|---" * 5 + "|"]
    for name, identifier in TEN:
        rows = results.read_json(FOLDER / name / "summary.json")
        (row,) = (one for one in rows if one["id"] == identifier)
        link = f"[{name}]({PAGE.relative_to(ROOT)}#{name})"
        lines.append(f"{_line(row)} | {_cell(row['note'] or '')} | {link} |".partition(" | ")[2])
    return "\n".join("| " * (not line.startswith("|")) + line for line in lines)


def page() -> str:
    """The page of all kept runs in Markdown, CIFAR-10 first: every row, every figure."""
    places = sorted((place for place in FOLDER.iterdir() if place.is_dir()), key=_order)
    contents = "\n".join(f"- [{place.name}](#{place.name})" for place in places)
    head = (
        "# Kept results\n\nMade by `python -m experiments.kept` from what runs wrote. Errors are "
        "one standard error; n counts the directions, seeds or points behind a value.\n\n"
    )
    return head + contents + "\n\n" + "\n\n".join(map(_section, places)) + "\n"


def _order(place: Path) -> tuple[bool, str]:
    """The paper's pictures first."""
    settings = results.read_json(place / "config.json")["settings"]
    return settings.get("dataset") != "cifar10", place.name


def _shown(place: Path) -> str:
    rows = results.read_json(place / "summary.json")
    rows = [row for row in rows if row["paper"] is not None or row["id"] in HEADLINES]
    # The mean over networks stands for the first one's.
    names = {row["id"] for row in rows}
    rows = [row for row in rows if f"{row['id']}_over_networks" not in names]
    link = f"[all rows and figures](../{PAGE.relative_to(ROOT)}#{place.name})"
    lines = [
        f"{_made(place)}, {link}:",
        "",
        "| item | quantity | paper | here |",
        "|---" * 4 + "|",
    ]
    return "\n".join(lines + [f"{_line(row)} |" for row in rows])


def _section(place: Path) -> str:
    lines = [f"## {place.name}", "", f"{_made(place)}.", ""]
    lines += ["| item | quantity | paper | here | n | note |", "|---" * 6 + "|"]
    for row in results.read_json(place / "summary.json"):
        lines.append(f"{_line(row)} | {row['n'] or ''} | {_cell(row['note'] or '')} |")
    shown = results.read_json(place / "config.json")["data"]
    return "\n".join(lines + [_picture(path, shown) for path in sorted(place.glob("*.png"))])


def _picture(path: Path, shown: str) -> str:
    title = caption(path.stem, CAPTIONED).title
    return f"\n**{title}** ({shown})\n\n![{title}]({path.relative_to(FOLDER)})"


def _made(place: Path) -> str:
    config = results.read_json(place / "config.json")
    made = config["provenance"]
    known = [
        config["data"],
        made["device"],
        f"{made['cpu_cores']} cores",
        f"jax {made['versions']['jax']}",
    ]
    known += [made["date"], f"commit {made['git_commit']}"]
    return f"`{made['command']}` ({', '.join(known)})"


def _line(row: dict[str, Any]) -> str:
    paper = with_error(row["paper"], row["paper_error"])
    here = with_error(row["here"], row["here_error"])
    unit = "" if row["unit"] == "1" else f" {row['unit']}"
    return f"| {row['paper_item']} | {_cell(row['quantity'])} | {paper} | {here}{unit}"


def _cell(words: str) -> str:
    return words.replace("|", "∣")


def write_between(path: Path, name: str, table: str) -> None:
    """Replaces what stands between the marks of a name in a page."""
    marks = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, rest = path.read_text().split(marks[0])
    after = rest.split(marks[1])[1]
    results.write_text(path, f"{before}{marks[0]}\n{table}\n{marks[1]}{after}")


def main(options: Options) -> None:
    """Copies --run, if given, and rewrites the tables and the page."""
    if options.run:
        keep(Path(options.run), options.name or Path(options.run).name)
    write_between(ROOT / "README.md", "ten numbers", ten_numbers())
    write_between(RESULTS, "kept results", tables())
    results.write_text(PAGE, page())


if __name__ == "__main__":
    cli.run(main, Options())
