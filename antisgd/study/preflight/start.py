"""How a study begins: what it will need, whether that fits, and its folder, held until it ends."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from antisgd import data, devices, results, sources
from antisgd.study.optimiser import described
from antisgd.study.preflight import plan, timing
from antisgd.study.problem import Problem
from antisgd.study.settings import Place, Settings

__all__ = ["opened"]


@contextmanager
def opened(
    problem: Problem,
    settings: Settings,
    place: Place,
    *,
    work: plan.Work | None = None,
    may_grow: tuple[str, ...] = (),
    config: Mapping[str, Any] | None = None,
) -> Iterator[Path | None]:
    """Says what the run will need and opens its folder, which no other process may enter.

    What cannot fit is refused before the folder is made, so that it blocks no smaller run.

    Args:
        problem: what is trained on what.
        settings: of the study.
        place: the folder.
        work: what will be done; what the stages of a study do, if not given.
        may_grow: settings whose value may be larger than the folder's.
        config: what decides the numbers besides problem and settings.

    Yields:
        The folder; None where only the plan was asked for.

    Raises:
        ValueError, OSError, MemoryError: impossible settings, data or folder, what cannot fit.
    """
    settings.check()
    problem.check()
    _refuse_batch_size(problem, settings)
    _refuse_what_is_not_read(problem, settings)
    needed = plan.work(settings, place) if work is None else work
    plan.refuse(problem, settings, needed, place.folder)
    if place.plan:
        _say(problem, settings, needed, place)
        yield None
        return
    with results.held(place.folder):
        values = dict(problem.description) | settings.to_json() | dict(config or {})
        if problem.optimizer is not None:
            values["optimizer"] = described(problem.optimizer, settings.learning_rate)
        results.open_run(place.folder, values, overwrite=place.overwrite, may_grow=may_grow)
        train, test = sources.identity(problem.train), problem.test
        fingerprint = data.fingerprint((train,) if test is None else (train, test))
        if devices.told(lambda: fingerprint) != fingerprint:
            raise ValueError("the processes hold different data: give all the same --data_dir")
        results.check_fingerprint(place.folder, fingerprint)
        _describe(problem, settings, place)
        _say(problem, settings, needed, place)
        yield place.folder


def _refuse_batch_size(problem: Problem, settings: Settings) -> None:
    """Raises a ValueError for batches that are no parts of the training examples."""
    if problem.num_examples < settings.batch_size:
        raise ValueError(
            f"--batch_size={settings.batch_size} is larger than the {problem.num_examples} "
            "training examples"
        )
    if problem.num_examples == settings.batch_size:
        raise ValueError(
            f"--batch_size={settings.batch_size} is all of the training examples: every batch is "
            "the same, and there is no noise; give a smaller one"
        )


def _refuse_what_is_not_read(problem: Problem, settings: Settings) -> None:
    """What needs all examples on the device, where they are read piece by piece.

    Raises:
        ValueError: full gradients at every step, or several devices.
    """
    if not sources.streamed(problem.train):
        return
    if settings.exact and "analysis" in settings.stages and settings.analysis_seeds:
        raise ValueError(
            "--full_gradient=exact takes all examples at every step, and they are read from disk: "
            "use --full_gradient=quadratic, or give arrays in memory that fit the device"
        )
    if devices.mesh() is not None:
        raise ValueError(
            f"examples that are read from disk run on one device, not {devices.count()}: give "
            "arrays in memory that fit, or start with one device"
        )


def _describe(problem: Problem, settings: Settings, place: Place) -> None:
    """Notes what the results are called by, and the sizes that the same command goes on with."""
    both = {"microbatch_size": settings.microbatch_size, "block_size": settings.block_size}
    sizes = {name: size for name, size in both.items() if size is not None}
    results.describe(
        place.folder, network=problem.name, data=problem.data, sizes=sizes,
        precision=settings.precision,
    )  # fmt: skip


def _say(problem: Problem, settings: Settings, needed: plan.Work, place: Place) -> None:
    if place.plan and place.json:
        numbers = plan.numbers(problem, settings, needed, place.folder)
        times = timing.rough_times(problem, settings, needed, planning=True)
        print(json.dumps(numbers | {"seconds": times}, indent=2))
        return
    print(plan.text(problem, settings, needed, place.folder), flush=True)
    times = timing.rough_times(problem, settings, needed, planning=place.plan)
    print(timing.text(times), end="", flush=True)
