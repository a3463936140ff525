"""Two versions of the library on one machine, in one run, turn by turn.

    python -m experiments.benchmarks.compare HEAD~20 .

Each version (a git revision; '.' is the working tree) has a process of its own that compiles what
is timed: a training step of one and of four networks, one that records, a Hessian product. Then
they take turns, so that a change of the machine's load meets both. Last comes one JSON line: the
first version's time over the second's, medians over the turns.
"""

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import IO, Any

import numpy as np

ROOT = Path(__file__).parents[2]
TIMED = ("step", "four networks", "recording", "product")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("revisions", nargs=2, help="of git; '.' is the working tree")
    parser.add_argument("--turns", type=int, default=10)
    parser.add_argument("--timed", default=",".join(TIMED), help="what, with commas")
    arguments = parser.parse_args()
    names = arguments.timed.split(",")
    with tempfile.TemporaryDirectory() as scratch:
        roots = [
            unpacked(revision, Path(scratch) / str(place))
            for place, revision in enumerate(arguments.revisions)
        ]
        workers = [_begin(root, arguments.timed) for root in roots]
        times = take_turns(workers, names, arguments.turns)
    print(f"{'ms':16s}" + "".join(f"{name:>16s}" for name in arguments.revisions))
    for name in names:
        print(f"{name:16s}" + "".join(f"{1e3 * np.median(one[name]):16.2f}" for one in times))
    print(json.dumps(ratios(*times)))


def unpacked(revision: str, folder: Path) -> Path:
    """The root of a version: the working tree, or a revision's files in a folder.

    Raises:
        ValueError: git knows no such revision.
    """
    if revision == ".":
        return ROOT
    found = subprocess.run(
        ["git", "-C", str(ROOT), "archive", revision], capture_output=True, check=False
    )
    if found.returncode:
        raise ValueError(f"git has no revision {revision}: give a commit, a tag, a branch or '.'")
    with tarfile.open(fileobj=BytesIO(found.stdout)) as files:
        files.extractall(folder, filter="data")
    return folder


def take_turns(
    workers: list["subprocess.Popen[str]"], names: list[str], turns: int
) -> list[dict[str, np.ndarray]]:
    """Seconds of every worker, by name, [turns], the order of the two turned about every time."""
    times: list[dict[str, list[float]]] = [{name: [] for name in names} for _ in workers]
    for turn in range(turns):
        for name in names:
            for place in (0, 1) if turn % 2 == 0 else (1, 0):
                times[place][name].append(_asked(workers[place], name))
    for worker in workers:
        _pipe(worker.stdin).close()
        worker.wait()
    return [{name: np.array(seconds) for name, seconds in one.items()} for one in times]


def ratios(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> dict[str, float]:
    """The first version's time over the second's, medians over the turns."""
    return {name: round(float(np.median(first[name] / second[name])), 3) for name in first}


def _begin(root: Path, timed: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, __file__, "--work", timed], cwd=root, text=True,
        env=os.environ | {"PYTHONPATH": str(root)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip


def _asked(worker: "subprocess.Popen[str]", name: str) -> float:
    ask, answer = _pipe(worker.stdin), _pipe(worker.stdout)
    print(name, file=ask, flush=True)
    for line in answer:
        if line.startswith("seconds "):
            return float(line.split()[1])
    raise RuntimeError(f"a version ended without a time for {name}: see its error above")


def _pipe(end: IO[str] | None) -> IO[str]:
    assert end is not None
    return end


def work(names: list[str]) -> None:
    """What a version's process does: compiles, then answers each name with seconds."""
    runs = contenders(names)
    for run in runs.values():
        run()
    for line in sys.stdin:
        start = time.perf_counter()
        count = runs[line.strip()]()
        print("seconds", (time.perf_counter() - start) / count, flush=True)


def contenders(names: list[str]) -> dict[str, Callable[[], int]]:
    """What is timed, by the code of the version; a call returns how often it was done."""
    import jax
    import jax.numpy as jnp

    from antisgd import data, hessian, models, objective
    from experiments.benchmarks import recording, training

    images = jax.random.normal(jax.random.key(0), (500, 32, 32, 3))
    examples = data.Examples(images, jax.random.randint(jax.random.key(1), (500,), 0, 10))
    model = models.lenet()

    def product() -> Callable[[], int]:
        params = model.init(jax.random.key(2), images[:1])
        matvec = hessian.hessian_vector_product(
            objective.make_loss(model.apply), params, examples, microbatch_size=100
        )
        vector = jnp.ones(sum(leaf.size for leaf in jax.tree.leaves(params)))
        run: Any = jax.jit(lambda matvec, vector: matvec(vector))
        return lambda: len([jax.block_until_ready(run(matvec, vector))])

    made = {
        "step": lambda: training.our_steps(model, examples, 1),
        "four networks": lambda: training.our_steps(model, examples, 4),
        "recording": lambda: recording.contenders(500)["recording"],
        "product": product,
    }
    return {name: made[name]() for name in names}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[2].split(","))
    else:
        main()
