"""What a run will hold in memory and on disk, known before it starts; refuses what cannot fit."""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax

from antisgd import devices, lanczos, results, sources
from antisgd.study.preflight.room import Room, device, in_words, machine
from antisgd.study.problem import Problem
from antisgd.study.settings import Place, Settings
from antisgd.study.stages import cohorts, record, table, track
from antisgd.study.stages.period import folder_of, kept_epochs

__all__ = [
    "Room", "Work", "beside_products", "device", "in_words", "machine", "numbers",
    "recorded_arrays", "refuse", "text", "work",
]  # fmt: skip


class Work(NamedTuple):
    """What an experiment will do, as far as it decides what it needs.

    Attributes:
        pairs: eigenpairs of each network that is analysed, 0 for none.
        directions: recorded in each period.
        periods: of analysis, over all networks and regimes.
        train: trainings of all networks still to be done, a part of one where some are trained.
        solves: eigen-solves still to be done.
        records: periods still to be recorded.
        products: Hessian products besides, still to be taken.
        stored: networks whose basis and vectors lie on disk at a time; None: all analysed.
        tracked: solves along training still to be done.
    """

    pairs: int
    directions: int
    periods: int
    train: float
    solves: int
    records: int
    products: int
    stored: int | None = None
    tracked: int = 0


class Bytes(NamedTuple):
    """On the device that computes and on the host, one and the same where that is a CPU."""

    device: int
    host: int


def work(settings: Settings, place: Place) -> Work:
    """What the settings ask of a study, less what the run folder holds."""
    seeds = range(settings.analysis_seeds)
    places = [place.folder / f"seed_{i}" if i else place.folder for i in seeds]
    periods = [
        folder_of(one, name, number)
        for one in places
        for number in range(settings.analysis_periods)
        for name in settings.sampling
    ]
    solve, record_too = "eigenpairs" in settings.stages, "analysis" in settings.stages
    pairs = settings.eigenpairs * bool(places) * (solve or record_too)
    solves = solve * sum(_unsolved(one / "eigenpairs.npz", settings, place) for one in places)
    unrecorded = sum(
        bool(solves) or _unrecorded(one / "anchors.npz", settings, place) for one in periods
    )
    return Work(
        pairs=pairs,
        directions=pairs * record_too,
        periods=len(periods) * record_too,
        train=("train" in settings.stages) * _untrained(settings, place),
        solves=solves,
        records=record_too * unrecorded,
        products=sum(
            stage.products * (place.overwrite or not stage.done(one))
            for stage in table.STAGES
            if stage.name in settings.stages
            for one in places
        ),
        tracked=sum(track.num_solves(settings) * place.missing(one / track.FILE) for one in places)
        * ("track" in settings.stages),
    )


def _untrained(settings: Settings, place: Place) -> float:
    """The share of the networks that are still to be trained."""
    held = 0 if place.overwrite else cohorts.finished(place.folder)
    return max(0.0, 1 - held / settings.networks)


def _unsolved(path: Path, settings: Settings, place: Place) -> bool:
    return place.missing(path) or len(results.read_arrays(path)["values"]) < settings.eigenpairs


def _unrecorded(path: Path, settings: Settings, place: Place) -> bool:
    """Whether a period is still to be recorded, or anew because it is to be longer."""
    anchors = settings.analysis_epochs + 1
    return place.missing(path) or len(results.read_arrays(path).get("steps", ())) < anchors


def refuse(problem: Problem, settings: Settings, needed: Work, folder: Path) -> None:
    """Stops what cannot fit, before anything is written.

    Raises:
        ValueError: more eigenpairs than weights.
        MemoryError: this machine's memory is too small.
        OSError: the run folder's disk is too small.
    """
    if needed.pairs > problem.dimension:
        raise ValueError(
            f"--eigenpairs={needed.pairs} is more than the {problem.dimension} weights of the "
            "network"
        )
    if track.num_pairs(settings) * bool(needed.tracked) > problem.dimension:
        raise ValueError(
            f"--track_eigenpairs={track.num_pairs(settings)} is more than the "
            f"{problem.dimension} weights of the network"
        )
    limit = settings.basis_limit
    least = lanczos.memory_plan(problem.dimension, max(1, needed.pairs)).least_bytes
    if needed.solves and limit is not None and limit < least:
        raise MemoryError(
            f"--basis_memory={settings.basis_memory:g} is too little for {needed.pairs} "
            f"eigenpairs: give at least {least / 2**30:.3g} or ask for fewer --eigenpairs"
        )
    items = memory(problem, settings, needed)
    for room, wanted in _totals(items).items():
        if wanted > room.available:
            raise MemoryError(
                f"the run needs about {in_words(wanted)} of memory, {room.name} has "
                f"{in_words(room.available)}: {_remedy(items, settings)}"
            )
    wanted, free = disk(problem, settings, needed) - _held(folder), _free(folder)
    if wanted > free:
        raise OSError(
            f"the run needs about {in_words(wanted)} of disk, {in_words(free)} are free: "
            "give an --output_dir on a larger disk or ask for fewer --eigenpairs"
        )


def text(problem: Problem, settings: Settings, needed: Work, folder: Path) -> str:
    """What the run will need, in words."""
    items = memory(problem, settings, needed)
    parts = ", ".join(f"{name} {in_words(sum(item))}" for name, item in items.items())
    lines = [
        f"{problem.dimension:,} weights, {problem.num_examples:,} examples, "
        f"{_steps_per_epoch(problem, settings):,} steps an epoch"
    ]
    for room, wanted in _totals(items).items():
        lines.append(
            f"memory: about {in_words(wanted)} of the {in_words(room.available)} of "
            f"{room.name} ({parts})"
        )
    lines.append(
        f"disk: about {in_words(disk(problem, settings, needed))}, of which "
        f"{in_words(_held(folder))} are there; {in_words(_free(folder))} are free for {folder}"
    )
    return "\n".join(lines)


def numbers(problem: Problem, settings: Settings, needed: Work, folder: Path) -> dict[str, Any]:
    """What the run will need, for programs: bytes of each place, and what is free there."""
    items = memory(problem, settings, needed)
    return {
        "weights": problem.dimension,
        "examples": problem.num_examples,
        "steps_per_epoch": _steps_per_epoch(problem, settings),
        "memory_bytes": {
            room.name: {"wanted": wanted, "available": room.available}
            for room, wanted in _totals(items).items()
        },
        "disk_bytes": {
            "wanted": disk(problem, settings, needed),
            "there": _held(folder),
            "free": _free(folder),
        },
    }


def memory(problem: Problem, settings: Settings, needed: Work) -> dict[str, Bytes]:
    """Bytes that the parts of a run hold at their largest."""
    d, k = problem.dimension, needed.directions
    data = sum(leaf.nbytes for leaf in jax.tree.leaves(problem.test))
    if sources.streamed(problem.train):
        # A piece that is computed with, and one that is read.
        data += 2 * sources.CHUNK_BYTES
    else:
        data += 2 * sum(leaf.nbytes for leaf in jax.tree.leaves(problem.train))
    # Devices with a memory of their own hold their part of it each.
    parts = 1 if devices.memory() is None else devices.count()
    networks = -(-settings.networks // parts)
    # Weights, velocity, gradient and update of every network.
    items = {"examples": Bytes(data, 0), "networks": Bytes(16 * networks * d, 0)}
    if needed.solves:
        solve = lanczos.memory_plan(d, needed.pairs, memory=settings.basis_limit)
        held = (solve.basis_bytes + solve.vectors_bytes) // parts
        items["eigenpairs"] = Bytes(held, solve.host_bytes)
    if needed.tracked:
        solve = lanczos.memory_plan(d, track.num_pairs(settings))
        held = (solve.basis_bytes + solve.vectors_bytes) // parts
        items["tracking"] = Bytes(held, solve.host_bytes + solve.vectors_bytes)
    if needed.periods:
        chunk = 4 * d * record.chunk_steps(settings) * recorded_arrays(problem, settings)
        # Weights in float64, velocities and noise of every period of a network, then what turns
        # one into statistics: its copy and four float64 arrays; or single gradients, twice.
        values = settings.analysis_epochs * _steps_per_epoch(problem, settings) * k
        of_examples = bool({"covariance", "predict"} & set(settings.stages))
        single = 12 * problem.num_examples * k * of_examples
        recordings = len(settings.sampling) * settings.analysis_periods
        held = values * 16 * recordings + max(values * 48, single)
        items["recording"] = Bytes(4 * d * k // parts + chunk, held)
    return items


def beside_products(problem: Problem, settings: Settings, needed: Work) -> int:
    """Bytes on the device that a block of Hessian products has to leave alone."""
    items = memory(problem, settings, needed)
    kept = [items[name] for name in ("examples", "networks", "eigenpairs") if name in items]
    return sum(item.device for item in kept)


def disk(problem: Problem, settings: Settings, needed: Work) -> int:
    """Bytes of the finished run folder, checkpoints included."""
    steps = settings.analysis_epochs * _steps_per_epoch(problem, settings)
    each = 4 * recorded_arrays(problem, settings) + 16
    recordings = needed.periods * steps * needed.directions * each
    recordings += (
        needed.periods * 4 * len(kept_epochs(settings.analysis_epochs)) * problem.dimension
    )
    # Beside the networks the weights that are tracked, and the vectors of the last solve of each.
    rows = len(track.tracked_epochs(settings))
    rows += track.num_pairs(settings) * bool(rows)
    networks = (16 * settings.networks + 4 * settings.analysis_seeds * rows) * problem.dimension
    if not needed.pairs:
        return recordings + networks
    limit = settings.basis_limit
    solve = lanczos.memory_plan(problem.dimension, needed.pairs, memory=limit)
    # A basis that is restarted lies there twice for a moment.
    basis = solve.basis_bytes * (1 if limit is None else 2)
    stored = settings.analysis_seeds if needed.stored is None else needed.stored
    return recordings + networks + stored * (basis + solve.vectors_bytes)


def recorded_arrays(problem: Problem, settings: Settings) -> int:
    """Arrays [steps, k] that a period projects: gradients, exact full ones, updates if recorded."""
    return 1 + settings.exact + (problem.optimizer is not None)


def _steps_per_epoch(problem: Problem, settings: Settings) -> int:
    return -(-problem.num_examples // settings.batch_size)


def _totals(items: dict[str, Bytes]) -> dict[Room, int]:
    """Bytes wanted of each place; solves and recording come one after the other."""
    names = ("eigenpairs", "recording", "tracking")
    later = [items.get(name, Bytes(0, 0)) for name in names]
    always = sum(item.device for name, item in items.items() if name not in names)
    if device() == machine():
        return {machine(): always + max(sum(item) for item in later)}
    on_device = always + max(item.device for item in later)
    return {device(): on_device, machine(): max(item.host for item in later)}


def _remedy(items: dict[str, Bytes], settings: Settings) -> str:
    largest = max(items, key=lambda name: sum(items[name]))
    if largest == "examples":
        return "ask for fewer --num_examples"
    if largest == "networks":
        return "ask for fewer --seeds"
    limit = "" if settings.basis_memory else " or restart the basis with --basis_memory=GIB"
    return f"ask for fewer --eigenpairs{limit if largest == 'eigenpairs' else ''}"


def _held(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _free(folder: Path) -> int:
    places = (folder.absolute(), *folder.absolute().parents)
    return shutil.disk_usage(next(place for place in places if place.exists())).free
