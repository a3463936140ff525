"""How an experiment with the shared flags begins: pictures, run folder, what it will need."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags

from antisgd import data, results
from experiments import flags as shared
from experiments import plan, timing, training

FLAGS = flags.FLAGS


def start(
    model: Any,
    *,
    work: Callable[[training.Problem, Path], plan.Work] = plan.work,
    may_grow: tuple[str, ...] = (),
    **settings: Any,
) -> tuple[training.Problem, Path]:
    """Loads the pictures, says what the run will need and opens its folder.

    What cannot fit is refused before the folder is made, so that it blocks no smaller run. With
    --plan the folder is neither made nor opened: the caller returns after this.

    Args:
        model: linen module.
        work: problem and folder → what the experiment will do.
        may_grow: settings whose value may be larger than the folder's.
        **settings: what decides the numbers besides the shared flags.

    Raises:
        ValueError, OSError, MemoryError: impossible settings, data or folder, what cannot fit.
    """
    shared.check()
    folder = Path(FLAGS.output_dir)
    problem = training.load_problem(model, weight_decay=FLAGS.weight_decay)
    needed = work(problem, folder)
    plan.refuse(problem, needed, folder)
    if not FLAGS.plan:
        results.open_run(
            folder, shared.settings() | settings, overwrite=FLAGS.overwrite, may_grow=may_grow
        )
        results.check_fingerprint(folder, data.fingerprint(problem.dataset))
    print(plan.text(problem, needed, folder), flush=True)
    print(timing.text(problem, needed), end="", flush=True)
    return problem, folder
