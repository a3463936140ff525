"""Sizes that the memory decides where they are not given: how many examples and vectors a block of
Hessian products takes at a time, by what the compiled program says that it needs."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax

from antisgd import devices, hessian, lanczos, results, sources
from antisgd.study.preflight import plan
from antisgd.study.problem import Problem
from antisgd.study.settings import MICROBATCH, Place, Settings

__all__ = ["block_size", "check", "compiled", "sized"]

# Examples at a time where the memory allows it: on a GPU, where every microbatch launches a hundred
# kernels, more.
_MOST = {"gpu": 2000}
# Examples at a time below which rather fewer vectors are multiplied.
_LEAST = 8


def sized(
    problem: Problem, settings: Settings, place: Place, work: plan.Work | None = None
) -> Settings:
    """The settings with microbatch and block: as given, as the run folder began with, or else the
    largest that fit the memory. Where a microbatch is given, a block goes by the eigenpairs alone.

    Raises:
        MemoryError: not even the smallest fit; names what they take.
        ValueError, OSError: impossible settings, what cannot fit whatever the sizes.
    """
    stored = _stored(place)
    size = settings.microbatch_size or stored.get("microbatch_size")
    block = settings.block_size or stored.get("block_size")
    needed = plan.work(settings, place) if work is None else work
    if size is None and (needed.solves or needed.records or needed.products):
        settings.check()
        problem.check()
        plan.refuse(problem, settings, needed, place.folder)
        found = _fitting(problem, settings, needed, None, block)
        # Of several processes the first decides.
        size, block = devices.told(lambda: found)
    return dataclasses.replace(settings, microbatch_size=size, block_size=block)


def block_size(problem: Problem, settings: Settings, pairs: int) -> int:
    """Vectors multiplied at a time in a solve."""
    default = lanczos.memory_plan(problem.dimension, max(1, pairs)).block_size
    return min(problem.dimension, settings.block_size or default)


def compiled(problem: Problem, settings: Settings, size: int, block: int) -> tuple[Any, Any, int]:
    """A block of products over two microbatches a device: program, arguments, its examples."""
    count = min(problem.num_examples, 2 * size * devices.count())
    few, key = sources.first(problem.train, count), jax.random.key(settings.seed)
    params, loss = problem.init(key), problem.frozen(problem.state_at(key)).loss
    matvec: Any = hessian.hessian_vector_product(
        loss, params, few, microbatch_size=size, precision=settings.precision
    )
    vectors = jax.random.normal(jax.random.key(0), (block, problem.dimension))
    return lanczos.lowered(matvec, vectors).compile(), (matvec, vectors), count


def check(program: Any, problem: Problem, settings: Settings, needed: plan.Work) -> None:
    """Refuses a block of products that leaves no room for the rest.

    Raises:
        MemoryError: names the largest that does.
    """
    taking, free = _taken(program), _free(problem, settings, needed)
    if taking <= free:
        return
    size, block = settings.microbatch, block_size(problem, settings, needed.pairs)
    words = _words(size, block, taking, free)
    smaller = dataclasses.replace(settings, microbatch_size=None, block_size=None)
    try:
        size, fitting = _fitting(problem, smaller, needed, None, None)
    except MemoryError as error:
        raise MemoryError(f"{words}, and no smaller one fits: {_remedy(settings)}") from error
    also = f" --block_size={fitting}" if fitting is not None and fitting < block else ""
    raise MemoryError(f"{words}: give --microbatch_size={size}{also} or leave it to the memory")


def _fitting(
    problem: Problem, settings: Settings, needed: plan.Work, size: int | None, block: int | None
) -> tuple[int, int | None]:
    """The largest that leave room for the rest; what is given is kept.

    Raises:
        MemoryError: none do.
    """
    free, tried, taking = _free(problem, settings, needed), (1, 1), 0
    for examples, vectors in _candidates(problem, settings, needed, size, block):
        # A part of a program's work takes no less than that part of its memory: those that cannot
        # fit need not be compiled.
        if taking * examples * vectors > free * tried[0] * tried[1]:
            continue
        tried = examples, vectors
        taking = _taken(compiled(problem, settings, examples, vectors)[0])
        if taking <= free:
            return examples, vectors if needed.pairs or block else None
    raise MemoryError(f"{_words(*tried, taking, free)}: {_remedy(settings)}")


def _candidates(
    problem: Problem, settings: Settings, needed: plan.Work, size: int | None, block: int | None
) -> Iterator[tuple[int, int]]:
    """Fewer and fewer examples at a time, then fewer vectors as well."""
    vectors = block or block_size(problem, settings, needed.pairs)
    examples = size or min(problem.num_examples, _MOST.get(devices.platform(), MICROBATCH))
    yield examples, vectors
    while size is None and examples > _LEAST:
        examples = max(_LEAST, examples // 2)
        yield examples, vectors
    while block is None and vectors > 1:
        vectors //= 2
        yield examples, vectors


def _free(problem: Problem, settings: Settings, needed: plan.Work) -> int:
    beside = plan.beside_products(problem, settings, needed)
    return max(0, plan.device().available - beside)


def _taken(program: Any) -> int:
    """Bytes of all that a program holds in between; 0 where it does not say."""
    held = program.memory_analysis()
    return 0 if held is None else int(held.temp_size_in_bytes)


def _words(size: int, block: int, taking: int, free: int) -> str:
    return (
        f"a block of {block} Hessian products over --microbatch_size={size} examples takes "
        f"{plan.in_words(taking)}, {plan.device().name} has {plan.in_words(free)} beside the rest"
    )


def _remedy(settings: Settings) -> str:
    limit = "" if settings.basis_memory else " or restart the basis with --basis_memory=GIB"
    return f"ask for fewer --eigenpairs{limit}"


def _stored(place: Place) -> dict[str, int]:
    """What the run folder began with."""
    path = place.folder / "config.json"
    if place.missing(path):
        return {}
    try:
        stored = results.read_json(path)
    except ValueError:
        # Refused when the folder is opened, with the remedy.
        return {}
    return stored.get("sizes", {}) if isinstance(stored, dict) else {}
