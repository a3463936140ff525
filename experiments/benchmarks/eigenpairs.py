"""Hessian eigenpairs of a trained LeNet against other solvers.

    python -m experiments.benchmarks.eigenpairs --k=10,50,200

Trains a LeNet on 2,000 pictures of CIFAR-10 (ANTISGD_DATA_DIR; synthetic ones without it), then
runs every solver in a process of its own, so that peak memory and threads are its own. Residuals
are true ones, taken with the same product for all; ghosts are copies of pairs returned before;
misses are eigenvalues of the reference (SciPy in the highest precision run) that are absent.
Peers that are not installed are skipped with a word: `pip install '.[peers]'`. Last comes one JSON
line of ratios: P3 is PyTorch's time for a Hessian-vector product over ours, P4 and P5 ARPACK's and
hessian-eigenthings' time for 200 pairs over ours.
"""

import argparse
import importlib.util
import json
import multiprocessing
import os
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.flatten_util import ravel_pytree

from antisgd import data, heavy_ball, models, objective, sampling
from experiments.benchmarks import kept
from experiments.benchmarks.eigensolvers import (
    BLOCK_SIZE,
    SOLVERS,
    TOLERANCE,
    WEIGHT_DECAY,
    Problem,
    matvec_of,
    torch_lenet,
)

BATCH_SIZE = 50
_HEADER = f"{'products':>28s}{'seconds':>10s}{'CPU s':>10s}{'peak MB':>10s}" + (
    f"{'worst/λ_k':>11s}{'ghosts':>8s}{'misses':>8s}"
)


class Row(NamedTuple):
    """A line of the table; `values` serve as reference."""

    solver: str
    k: int
    products: int
    seconds: float
    cpu_seconds: float
    megabytes: float
    worst: float
    ghosts: int
    values: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--k", default="10,50,200", help="numbers of eigenpairs, with commas")
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=30, help="of training before")
    parser.add_argument("--solvers", default=",".join(SOLVERS), help="which, with commas")
    kept.flag(parser)
    options = parser.parse_args()
    problem = _in_process(train, options.pictures, options.epochs)
    ratios = _product_ratio(problem)
    for k in map(int, options.k.split(",")):
        names = [name for name in options.solvers.split(",") if _available(name, k)]
        rows = {}
        print(f"\n{k:3d} pairs{_HEADER}", flush=True)
        for name in names:
            # A peer that cannot stop by itself gets as many products as ours took.
            budget = rows["ours"].products if "ours" in rows else int(2.6 * k) + 20
            rows[name] = _in_process(_measure, name, problem, k, budget)
            print(_line(rows[name], _reference(rows)), flush=True)
        ratios.update(_ratios(rows, k))
    if options.keep:
        kept.keep("eigenpairs", ratios)
    print(json.dumps(ratios))


def _ratios(rows: dict[str, Row], k: int) -> dict[str, float]:
    """P4 and P5 for 200 pairs; every k under a name of its own."""
    ratios = {}
    for target, peer in (("P4", "arpack"), ("P5", "eigenthings_reorthogonalised")):
        if peer in rows and "ours" in rows:
            ratio = round(rows[peer].seconds / rows["ours"].seconds, 3)
            ratios[target if k == 200 else f"{target}_k{k}"] = ratio
    if "ours" in rows and "arpack" in rows:
        ratios[f"products_k{k}"] = round(rows["arpack"].products / rows["ours"].products, 3)
    return ratios


def _reference(rows: dict[str, Row]) -> np.ndarray:
    for name in ("arpack_float64", "arpack", "ours"):
        if name in rows:
            return rows[name].values
    return next(iter(rows.values())).values


def _line(row: Row, reference: np.ndarray) -> str:
    misses = _misses(row.values, reference)
    took = f"{row.products:6d} {row.seconds:9.1f} {row.cpu_seconds:9.1f} {row.megabytes:9.0f}"
    return f"{row.solver:30s} {took} {row.worst:10.1e} {row.ghosts:7d} {misses:7d}"


def _misses(values: np.ndarray, reference: np.ndarray) -> int:
    """Reference eigenvalues without one of their own within the tolerance, largest first."""
    left = list(np.sort(values)[::-1])
    missed = 0
    for value in np.sort(reference)[::-1]:
        near = [i for i, other in enumerate(left) if abs(other - value) <= 2 * TOLERANCE * value]
        missed += not near
        if near:
            left.pop(near[0])
    return missed


def _in_process(function: Any, *arguments: Any) -> Any:
    """The result of a function in a fresh process, which then ends."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def train(pictures: int, epochs: int) -> Problem:
    """A LeNet trained on so many pictures at a constant rate."""
    directory = os.environ.get("ANTISGD_DATA_DIR")
    name = "cifar10" if directory else "synthetic"
    examples = data.load(name, directory=directory, num_examples=pictures).train
    model = models.lenet()
    params = model.init(jax.random.key(0), examples.images[:1])
    loss = objective.make_loss(model.apply, WEIGHT_DECAY)
    optimizer = heavy_ball.heavy_ball(5e-3, 0.9)
    epoch = jax.jit(partial(heavy_ball.run_schedule, loss, optimizer))
    state = heavy_ball.init(optimizer, params)
    for number in range(epochs):
        schedule = sampling.without_replacement(jax.random.key(1), number, pictures, BATCH_SIZE)
        state, losses = epoch(state, schedule, examples)
    print(f"{name}, {pictures} pictures, {epochs} epochs: loss {np.mean(losses):.3f}", flush=True)
    flat = np.asarray(ravel_pytree(state.params)[0])
    return Problem(np.asarray(examples.images), np.asarray(examples.labels), flat)


def _measure(name: str, problem: Problem, k: int, budget: int) -> Row:
    """Runs one solver, then takes true residuals and ghosts of what it returned."""
    solution = SOLVERS[name](problem, k, budget)
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    values, vectors = solution.values, np.asarray(solution.vectors, np.float32)
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    product = jax.jit(matvec_of(problem))
    residuals = [
        np.linalg.norm(np.asarray(product(vector)) - value * vector)
        for value, vector in zip(values, vectors, strict=True)
    ]
    ghosts = int(np.sum(np.linalg.eigvalsh(vectors @ vectors.T) < 0.5))
    worst = float(np.max(residuals) / np.sort(values)[0])
    return Row(
        name,
        k,
        solution.products,
        solution.seconds,
        solution.cpu_seconds,
        megabytes,
        worst,
        ghosts,
        np.asarray(values),
    )


def _product_ratio(problem: Problem) -> dict[str, float]:
    """P3: seconds a vector of PyTorch's double backward, best thread count, over ours."""
    ours = {size: _in_process(_time_ours, problem, size) for size in (1, BLOCK_SIZE)}
    for size, seconds in ours.items():
        print(f"product, ours, block of {size}: {seconds:.3f} s a vector", flush=True)
    if importlib.util.find_spec("torch") is None:
        print("torch is not installed: no P3", flush=True)
        return {}
    threads = sorted({1, os.cpu_count() or 1})
    theirs = {count: _in_process(_time_torch, problem, count) for count in threads}
    for count, seconds in theirs.items():
        print(f"product, PyTorch, {count} threads: {seconds:.3f} s a vector", flush=True)
    return {"P3": round(min(theirs.values()) / min(ours.values()), 3)}


def _time_ours(problem: Problem, block_size: int) -> float:
    matvec, dimension = matvec_of(problem), problem.weights.size
    vectors = jax.random.normal(jax.random.key(0), (block_size, dimension))
    product = jax.jit(lambda matvec, block: jax.vmap(matvec)(block))
    return _best(lambda: jax.block_until_ready(product(matvec, vectors))) / block_size


def _time_torch(problem: Problem, threads: int) -> float:
    import torch

    torch.set_num_threads(threads)
    model, loss, images, labels = torch_lenet(problem)
    weights = list(model.parameters())
    vector = [torch.randn_like(weight) for weight in weights]
    size = min(500, len(labels))

    def product():
        for batch in zip(images.split(size), labels.split(size), strict=True):
            gradient = torch.autograd.grad(loss(model, batch), weights, create_graph=True)
            slope = sum((g * v).sum() for g, v in zip(gradient, vector, strict=True))
            torch.autograd.grad(slope, weights)

    return _best(product)


def _best(function: Any, repeats: int = 3) -> float:
    function()
    times = []
    for _ in range(repeats):
        start = time.monotonic()
        function()
        times.append(time.monotonic() - start)
    return min(times)


def _available(name: str, k: int) -> bool:
    if name not in SOLVERS:
        raise SystemExit(f"--solvers knows {', '.join(SOLVERS)}, not {name}")
    if name == "lobpcg" and k > 10:
        return False
    needed = {"matfree": "matfree", "eigenthings": "hessian_eigenthings"}.get(name.split("_")[0])
    found = needed is None or importlib.util.find_spec(needed) is not None
    if not found:
        print(f"{name}: {needed} is not installed, skipped")
    return found


if __name__ == "__main__":
    main()
