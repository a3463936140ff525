"""What one accelerator does, in pieces of minutes, the most telling first.

    python -m experiments.benchmarks.accelerator --minutes=9 --output_dir=runs/accelerator

Measures in this order: steps of 1 and of 40 networks, beside PyTorch eager and as a CUDA graph
where it is installed (G4, G1); Hessian products by block and microbatch; 5,000 pairs of a LeNet
trained on 50,000 pictures, as far as the time goes (G2); recorded steps with the exact full
gradient in 5,000 directions (G3). measurements.json is written after each piece, with device and
versions. Started again it goes on where it was, within the pairs too; so a machine that is lent for
ten minutes at a time will do. Pictures are those of ANTISGD_DATA_DIR, else synthetic ones. --toy is
the same at a size for a laptop. Last comes one JSON line of the ids that are measured.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from antisgd import data, devices, hessian, lanczos, models, objective, results
from antisgd.study.stages.solve_checkpoint import Checkpoint
from experiments.benchmarks import eigenpairs, training
from experiments.benchmarks.eigensolvers import WEIGHT_DECAY, Problem
from experiments.benchmarks.recorded import exact_steps
from experiments.benchmarks.torch_steps import torch_contenders

CHECKPOINT_SECONDS = 120.0


class Sizes(NamedTuple):
    """Of everything that is measured."""

    pictures: int = 50_000
    timed_pictures: int = 2_000
    epochs: int = 30
    networks: int = 40
    turns: int = 5
    blocks: tuple[int, ...] = (8, 32, 1)
    microbatches: tuple[int, ...] = (2_000, 500)
    pairs: int = 5_000
    steps: int = 20


TOY = Sizes(100, 100, 2, 3, 1, (2, 1), (50,), 5, 3)


class Run(NamedTuple):
    """What every piece is told: `left()` are the seconds left, `before` its own last figures."""

    sizes: Sizes
    folder: Path
    left: Callable[[], float]
    before: dict[str, Any]


class Late(Exception):
    """The time is over."""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=9.0, help="start nothing after these")
    parser.add_argument("--output_dir", default="runs/accelerator")
    parser.add_argument("--toy", action="store_true", help="a size for a laptop")
    options = parser.parse_args(arguments)
    end = time.monotonic() + 60 * options.minutes
    folder, sizes = Path(options.output_dir), TOY if options.toy else Sizes()
    with results.held(folder):
        # A machine that is lent anew has to compile nothing that an earlier one has.
        jax.config.update("jax_compilation_cache_dir", str(folder.absolute() / "compiled"))
        measured = measure(folder, sizes, lambda: end - time.monotonic())
    left = [name for name in pieces(sizes) if unfinished(measured, name)]
    print(f"left for the next start: {', '.join(left)}" if left else "all is measured")
    print(json.dumps(ids(measured, sizes)))


def measure(folder: Path, sizes: Sizes, left: Callable[[], float]) -> dict[str, Any]:
    """The pieces that are left, as far as the time goes; figures of all so far by piece."""
    held = opened(folder, sizes)
    for name, piece in pieces(sizes).items():
        if not unfinished(held["pieces"], name) or left() < 0:
            continue
        before, started = held["pieces"].get(name, {}), time.monotonic()
        found = piece(Run(sizes, folder, left, before))
        found["seconds"] = time.monotonic() - started + before.get("seconds", 0.0)
        print(name, json.dumps(found), flush=True)
        held["pieces"][name] = found | {"by": results.provenance(), "load": os.getloadavg()[0]}
        results.write_json(folder / "measurements.json", held)
    return held["pieces"]


def unfinished(measured: dict[str, Any], name: str) -> bool:
    """Whether a piece has yet to be measured, or the rest of it."""
    return measured.get(name, {"unfinished": True}).get("unfinished", False)


def opened(folder: Path, sizes: Sizes) -> dict[str, Any]:
    """What the folder holds.

    Raises:
        SystemExit: figures of another device or of other sizes.
    """
    mine = {"device": devices.in_words(), "sizes": json.loads(json.dumps(sizes._asdict()))}
    path = folder / "measurements.json"
    if not path.exists():
        return mine | {"pieces": {}}
    held = results.read_json(path)
    for key, value in mine.items():
        if held[key] != value:
            raise SystemExit(
                f"error: {path} has measured on {held['device']}, another {key} than this "
                f"({value}): give another --output_dir"
            )
    return held


def pieces(sizes: Sizes) -> dict[str, Callable[[Run], dict[str, Any]]]:
    """What is measured, in the order of its worth."""
    found: dict[str, Callable[[Run], dict[str, Any]]] = {
        f"steps of {count}": partial(steps, networks=count) for count in (1, sizes.networks)
    }
    for size in sizes.microbatches:
        for block in sizes.blocks:
            name = f"products, {block} at a time over {size}"
            found[name] = partial(products, block=block, microbatch=size)
    return found | {"pairs": pairs, "recorder": recorder}


def steps(run: Run, networks: int) -> dict[str, Any]:
    """Seconds of a step of one network, of so many side by side."""
    count = run.sizes.timed_pictures
    examples = data.Examples(
        jax.random.normal(jax.random.key(0), (count, 32, 32, 3)),
        jax.random.randint(jax.random.key(1), (count,), 0, 10),
    )
    ours = {"antisgd": training.our_steps(models.lenet(), examples, networks)}
    theirs, told = torch_contenders(count, networks)
    times = training.take_turns(ours | theirs, run.sizes.turns)
    seconds = {name: float(np.median(one)) for name, one in times.items()}
    return {"seconds_a_step": seconds, "PyTorch": told}


def products(run: Run, block: int, microbatch: int) -> dict[str, Any]:
    """Seconds a vector of Hessian products over all pictures, and what the program holds."""
    problem = trained(run.folder, run.sizes)
    matvec = product_of(problem, microbatch)
    vectors = jax.random.normal(jax.random.key(0), (block, problem.weights.size))
    started = time.monotonic()
    program = lanczos.lowered(matvec, vectors).compile()
    compiling = time.monotonic() - started
    held = program.memory_analysis()
    seconds = eigenpairs._best(lambda: jax.block_until_ready(program(matvec, vectors))) / block
    return {
        "seconds_a_vector": seconds, "compile_seconds": compiling,
        "temporary_bytes": None if held is None else int(held.temp_size_in_bytes),
    }  # fmt: skip


def pairs(run: Run) -> dict[str, Any]:
    """The solve of all pairs, gone on with from its checkpoint until the time is over."""
    problem, sizes = trained(run.folder, run.sizes), run.sizes
    checkpoint, started = Checkpoint(run.folder / "checkpoints"), time.monotonic()
    saved, seen = [started], {}

    def callback(state: lanczos.State, progress: lanczos.Progress) -> None:
        seen.update(progress._asdict())
        late = run.left() < 0
        if late or time.monotonic() - saved[0] > CHECKPOINT_SECONDS:
            checkpoint.write(state)
            saved[0] = time.monotonic()
        if late:
            raise Late

    before = run.before.get("solve_seconds", 0.0)
    try:
        found = lanczos.leading_eigenpairs(
            product_of(problem, min(sizes.microbatches[0], sizes.pictures)), problem.weights.size,
            sizes.pairs, key=jax.random.key(0), state=checkpoint.read(problem.weights.size),
            callback=callback, mesh=devices.mesh(),
        )  # fmt: skip
    except Late:
        return {"unfinished": True, "solve_seconds": before + time.monotonic() - started} | seen
    certificate = found.certificate._replace(measured=None)._asdict()
    return {
        "solve_seconds": before + time.monotonic() - started,
        "values": [float(one) for one in found.values[[0, -1]]],
        "certificate": certificate,
    }


def recorder(run: Run) -> dict[str, Any]:
    """Seconds of a step recorded with the exact full gradient."""
    problem, sizes = trained(run.folder, run.sizes), run.sizes
    found = {}
    for size in sizes.microbatches:
        call = exact_steps(problem, sizes.pairs, sizes.steps, size)
        found[str(size)] = float(np.median(training.take_turns({"": call}, 2)[""]))
    return {"seconds_a_step_by_microbatch": found}


def product_of(problem: Problem, microbatch: int) -> Any:
    """The product with the Hessian of the training loss over all pictures."""
    model = models.lenet()
    images = jnp.asarray(problem.images)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images[:1])
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
    return hessian.hessian_vector_product(
        objective.make_loss(model.apply, WEIGHT_DECAY),
        ravel_pytree(zeros)[1](jnp.asarray(problem.weights)),
        data.Examples(images, jnp.asarray(problem.labels)), microbatch_size=microbatch,
    )  # fmt: skip


@cache
def trained(folder: Path, sizes: Sizes) -> Problem:
    """The pictures and a network trained on them, by the first piece that needs it."""
    path = folder / "trained.npz"
    if not path.exists():
        made = eigenpairs.train(sizes.pictures, sizes.epochs)
        results.write_arrays(path, **made._asdict())
    return Problem(**results.read_arrays(path))


def ids(measured: dict[str, Any], sizes: Sizes) -> dict[str, float]:
    """Minutes of G1 to G3 and ratios of G4, those that the pieces so far allow."""
    found: dict[str, float] = {}
    for name, count in (("one", 1), ("many", sizes.networks)):
        times = dict(measured.get(f"steps of {count}", {}).get("seconds_a_step", {}))
        ours = times.pop("antisgd", None)
        if ours is not None and count > 1:
            found["G1"] = ours * count * 100 * 1000 / 60
        if ours is not None and times:
            found[f"G4_{name}"] = min(times.values()) / ours
    if "certificate" in measured.get("pairs", {}):
        found["G2"] = measured["pairs"]["solve_seconds"] / 60
    if "recorder" in measured:
        by_size = measured["recorder"]["seconds_a_step_by_microbatch"]
        found["G3"] = min(by_size.values()) * 20 * 1000 / 60
    return found


if __name__ == "__main__":
    main()
