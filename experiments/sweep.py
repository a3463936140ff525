"""An experiment over a grid of its flags, one run folder a point and one table over all.

    python -m experiments.sweep --module=experiments.lenet \\
        --grid=batch_size=32,50,64 --grid=momentum=0.5,0.9 --sweep_dir=runs/sweep \\
        --with_flags="--flagfile=experiments/presets/cpu.flags"

A point is the ordinary command in a process of its own; one that is finished is skipped, one that
was stopped goes on. --engine=here runs one after the other, local several at a time and slurm on
a cluster, both through submitit (local starts all points at once) (`pip install submitit`).
"""

import csv
import io
import itertools
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from antisgd import results
from antisgd.study.fields import check_bounds, setting
from experiments import cli


@dataclass(frozen=True, kw_only=True)
class Options:
    """What is swept, where and how."""

    module: str = setting("experiments.lenet", "Experiment.")
    grid: tuple[str, ...] = setting(
        (), "flag=value,value,... Repeat for more dimensions.", repeat=True
    )
    with_flags: str = setting("", "Further flags of every point, in quotes.")
    sweep_dir: str = setting("runs/sweep", "Folder of the run folders.")
    engine: str = setting("here", "Where the points run.", choices=("here", "local", "slurm"))
    hours: float = setting(24.0, "Time limit of a job (local, slurm).")
    gpus: int = setting(0, "GPUs of a job (slurm).", least=0)
    partition: str | None = setting(None, "Partition of the jobs (slurm).", kind=str)
    account: str | None = setting(None, "Account of the jobs (slurm).", kind=str)


class Point(NamedTuple):
    """Settings of one point of the grid, its run folder and the command that makes it."""

    settings: dict[str, str]
    folder: Path
    command: list[str]


def points(module: str, grid: list[str], with_flags: str, sweep_dir: Path) -> list[Point]:
    """All combinations of the grid's values.

    Args:
        module: experiment, such as "experiments.lenet".
        grid: "flag=value,value,…" each.
        with_flags: further flags of every point, as in a shell.
        sweep_dir: where the run folders lie.

    Raises:
        ValueError: a grid entry without a name or values, or a flag given twice.
    """
    axes = [entry.partition("=")[::2] for entry in grid]
    names = [name for name, _ in axes]
    for entry, (name, values) in zip(grid, axes, strict=True):
        if not name or not all(values.split(",")):
            raise ValueError(f"--grid={entry}: write flag=value,value,...")
    if len(set(names)) < len(names):
        raise ValueError("--grid names a flag twice")
    made = []
    for values in itertools.product(*(values.split(",") for _, values in axes)):
        settings = dict(zip(names, values, strict=True))
        folder = sweep_dir / ",".join(f"{name}={value}" for name, value in settings.items())
        chosen = [f"--{name}={value}" for name, value in settings.items()]
        command = [sys.executable, "-m", module, *shlex.split(with_flags), *chosen]
        made.append(Point(settings, folder, [*command, f"--output_dir={folder}"]))
    return made


def finished(point: Point) -> bool:
    """A run writes its report last."""
    return (point.folder / "report.html").exists()


def run_here(waiting: list[Point]) -> None:
    """One after the other; a point that fails does not stop the next."""
    for number, point in enumerate(waiting, 1):
        print(f"point {number} of {len(waiting)}: {point.folder.name}", flush=True)
        subprocess.run(point.command, check=False)


def parameters(options: Options) -> dict[str, object]:
    """What submitit asks of a job; Slurm has names of its own for some of it.

    Raises:
        ValueError: what only Slurm can give is asked of another engine.
    """
    asked = {
        "gpus_per_node": options.gpus or None,
        "slurm_partition": options.partition,
        "slurm_account": options.account,
    }
    given = {name: value for name, value in asked.items() if value is not None}
    if given and options.engine != "slurm":
        raise ValueError("--gpus, --partition and --account are Slurm's: give --engine=slurm")
    return {"timeout_min": int(60 * options.hours)} | given


def run_submitted(waiting: list[Point], options: Options) -> None:
    """As jobs of submitit, on this machine or on a Slurm cluster, and waits for them.

    Raises:
        ValueError: submitit is not installed.
    """
    try:
        import submitit
    except ImportError as error:
        raise ValueError(
            f"--engine={options.engine} needs submitit: pip install submitit, or --engine=here"
        ) from error
    jobs_folder = Path(options.sweep_dir) / "jobs"
    executor = submitit.AutoExecutor(folder=jobs_folder, cluster=options.engine)
    executor.update_parameters(**parameters(options))
    jobs = [executor.submit(subprocess.run, point.command, check=True) for point in waiting]
    for job, point in zip(jobs, waiting, strict=True):
        failure = job.exception()
        print(f"{point.folder.name}: {'failed' if failure else 'done'}", flush=True)


def table(made: list[Point]) -> str:
    """CSV: the settings of every point, whether it is finished, and each row of its summary."""
    lines = []
    for point in made:
        done = finished(point)
        rows = results.read_json(point.folder / "summary.json") if done else []
        state = {"state": "finished" if done else "not finished"}
        lines.append(point.settings | state | {row["id"]: row["here"] for row in rows})
    text = io.StringIO()
    columns = list(dict.fromkeys(name for line in lines for name in line))
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def main(options: Options) -> None:
    """Runs what is not finished, then writes table.csv over all points."""
    check_bounds(options)
    parameters(options)
    if not options.grid:
        raise ValueError("--grid is empty: write --grid=flag=value,value,... once for each axis")
    sweep_dir = Path(options.sweep_dir)
    made = points(options.module, list(options.grid), options.with_flags, sweep_dir)
    waiting = [point for point in made if not finished(point)]
    if options.engine == "here":
        run_here(waiting)
    else:
        run_submitted(waiting, options)
    results.write_text(sweep_dir / "table.csv", table(made))
    missing = [point.folder.name for point in made if not finished(point)]
    print(
        f"{len(made) - len(missing)} of {len(made)} points are finished, all are in "
        f"{sweep_dir / 'table.csv'}"
    )
    if missing:
        sys.exit(f"not finished: {'; '.join(missing)}. The same command tries them again")


if __name__ == "__main__":
    cli.run(main, Options())
