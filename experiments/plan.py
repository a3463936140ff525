"""What a run will hold in memory and on disk, known before it starts; refuses what cannot fit."""

import os
import shutil
from pathlib import Path
from typing import NamedTuple

import jax
from absl import flags

from antisgd import lanczos, results
from experiments import curvature, recording, training

FLAGS = flags.FLAGS

# Hessian products of the stages that take them beside the eigen-solve.
PRODUCTS = {"validity": 16, "density": 200}


class Work(NamedTuple):
    """What an experiment will do, as far as it decides what it needs.

    Attributes:
        pairs: eigenpairs of each network that is analysed, 0 for none.
        directions: recorded in each period.
        periods: of analysis, over all networks and regimes.
        train: trainings of all seeds still to be done.
        solves: eigen-solves still to be done.
        records: periods still to be recorded.
        products: Hessian products besides, still to be taken.
        stored: networks whose basis and vectors lie on disk at a time; None: all analysed.
    """

    pairs: int
    directions: int
    periods: int
    train: int
    solves: int
    records: int
    products: int
    stored: int | None = None


class Bytes(NamedTuple):
    """On the device that computes and on the host, one and the same where that is a CPU."""

    device: int
    host: int


def work(problem: training.Problem, folder: Path) -> Work:
    """What the flags ask of the main experiment, less what the run folder holds."""
    del problem
    places = [folder / f"seed_{i}" if i else folder for i in range(FLAGS.analysis_seeds)]
    periods = [place / f"trajectory_{name}" for place in places for name in FLAGS.sampling]
    solve, record = "eigenpairs" in FLAGS.stages, "analysis" in FLAGS.stages
    pairs = FLAGS.eigenpairs * bool(places) * (solve or record)
    solves = solve * sum(_unsolved(place / "eigenpairs.npz") for place in places)
    return Work(
        pairs=pairs,
        directions=pairs * record,
        periods=len(periods) * record,
        train=int(missing(folder / "training.npz")),
        solves=solves,
        records=record * sum(bool(solves) or missing(one / "anchors.npz") for one in periods),
        products=sum(
            PRODUCTS[name] * missing(place / f"{name}.npz")
            for name in PRODUCTS.keys() & set(FLAGS.stages)
            for place in places
        ),
    )


def missing(path: Path) -> bool:
    """Whether a result is still to be made."""
    return FLAGS.overwrite or not path.exists()


def _unsolved(path: Path) -> bool:
    return missing(path) or len(results.read_arrays(path)["values"]) < FLAGS.eigenpairs


def refuse(problem: training.Problem, needed: Work, folder: Path) -> None:
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
    limit = curvature.basis_limit()
    least = lanczos.memory_plan(problem.dimension, max(1, needed.pairs)).least_bytes
    if needed.solves and limit is not None and limit < least:
        raise MemoryError(
            f"--basis_memory={FLAGS.basis_memory:g} is too little for {needed.pairs} eigenpairs: "
            f"give at least {least / 2**30:.3g} or ask for fewer --eigenpairs"
        )
    items = memory(problem, needed)
    for place, wanted in _totals(items).items():
        if wanted > place.available:
            raise MemoryError(
                f"the run needs about {in_words(wanted)} of memory, {place.name} has "
                f"{in_words(place.available)}: {_remedy(items)}"
            )
    wanted, free = disk(problem, needed) - _held(folder), _free(folder)
    if wanted > free:
        raise OSError(
            f"the run needs about {in_words(wanted)} of disk, {in_words(free)} are free: "
            "give an --output_dir on a larger disk or ask for fewer --eigenpairs"
        )


def text(problem: training.Problem, needed: Work, folder: Path) -> str:
    """What the run will need, in words."""
    items = memory(problem, needed)
    parts = ", ".join(f"{name} {in_words(sum(item))}" for name, item in items.items())
    lines = [
        f"{problem.dimension:,} weights, {problem.num_examples:,} pictures, "
        f"{problem.steps_per_epoch:,} steps an epoch"
    ]
    for place, wanted in _totals(items).items():
        lines.append(
            f"memory: about {in_words(wanted)} of the {in_words(place.available)} of "
            f"{place.name} ({parts})"
        )
    lines.append(
        f"disk: about {in_words(disk(problem, needed))}, of which {in_words(_held(folder))} are "
        f"there; {in_words(_free(folder))} are free for {folder}"
    )
    return "\n".join(lines)


def memory(problem: training.Problem, needed: Work) -> dict[str, Bytes]:
    """Bytes that the parts of a run hold at their largest."""
    d, k = problem.dimension, needed.directions
    data = [leaf.nbytes for leaf in jax.tree.leaves(problem.dataset)]
    copied = sum(leaf.nbytes for leaf in jax.tree.leaves(problem.dataset.train))
    networks = len(training.schemes()) * FLAGS.seeds
    # Weights, velocity, gradient and update of every network.
    items = {"pictures": Bytes(sum(data) + copied, 0), "networks": Bytes(16 * networks * d, 0)}
    if needed.solves:
        solve = lanczos.memory_plan(d, needed.pairs, memory=curvature.basis_limit())
        items["eigenpairs"] = Bytes(solve.basis_bytes + solve.vectors_bytes, solve.host_bytes)
    if needed.periods:
        chunk = 4 * d * recording.chunk_steps() * recorded_arrays()
        # Weights in float64, velocities and noise of every period of a network, then what turns
        # one into statistics: its copy and four float64 arrays; or single gradients, twice.
        values = FLAGS.analysis_epochs * problem.steps_per_epoch * k
        single = 12 * problem.num_examples * k * ("covariance" in FLAGS.stages)
        held = values * 16 * len(FLAGS.sampling) + max(values * 48, single)
        items["recording"] = Bytes(4 * d * k + chunk, held)
    return items


def beside_products(problem: training.Problem, needed: Work) -> int:
    """Bytes on the device that a block of Hessian products has to leave alone."""
    items = memory(problem, needed)
    kept = [items[name] for name in ("pictures", "networks", "eigenpairs") if name in items]
    return sum(item.device for item in kept)


def disk(problem: training.Problem, needed: Work) -> int:
    """Bytes of the finished run folder, checkpoints included."""
    steps = FLAGS.analysis_epochs * problem.steps_per_epoch
    recordings = needed.periods * steps * needed.directions * (4 * recorded_arrays() + 16)
    networks = 16 * len(training.schemes()) * FLAGS.seeds * problem.dimension
    if not needed.pairs:
        return recordings + networks
    limit = curvature.basis_limit()
    solve = lanczos.memory_plan(problem.dimension, needed.pairs, memory=limit)
    # A basis that is restarted lies there twice for a moment.
    basis = solve.basis_bytes * (1 if limit is None else 2)
    stored = FLAGS.analysis_seeds if needed.stored is None else needed.stored
    return recordings + networks + stored * (basis + solve.vectors_bytes)


def recorded_arrays() -> int:
    """Arrays [steps, k] that a period projects: gradients and exact full gradients."""
    return 1 + (FLAGS.full_gradient == "exact")


class Place(NamedTuple):
    """Something with memory, and its bytes."""

    name: str
    available: int


def machine() -> Place:
    """The host, or the container that the process runs in."""
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    words = limit.read_text().strip() if limit.exists() else ""
    return Place("this machine", min(installed, int(words)) if words.isdecimal() else installed)


def device() -> Place:
    """What computes: an accelerator if there is one."""
    limit = (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")
    return machine() if limit is None else Place("the accelerator", limit)


def _totals(items: dict[str, Bytes]) -> dict[Place, int]:
    """Bytes wanted of each place; solve and recording come one after the other."""
    names = ("eigenpairs", "recording")
    later = [items.get(name, Bytes(0, 0)) for name in names]
    always = sum(item.device for name, item in items.items() if name not in names)
    if device() == machine():
        return {machine(): always + max(sum(item) for item in later)}
    on_device = always + max(item.device for item in later)
    return {device(): on_device, machine(): max(item.host for item in later)}


def _remedy(items: dict[str, Bytes]) -> str:
    largest = max(items, key=lambda name: sum(items[name]))
    if largest == "pictures":
        return "ask for fewer --num_examples"
    limit = "" if FLAGS.basis_memory else " or restart the basis with --basis_memory=GIB"
    return f"ask for fewer --eigenpairs{limit if largest == 'eigenpairs' else ''}"


def _held(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _free(folder: Path) -> int:
    places = (folder.absolute(), *folder.absolute().parents)
    return shutil.disk_usage(next(place for place in places if place.exists())).free


def in_words(size: float) -> str:
    """Bytes with the unit that suits them."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} TiB"
