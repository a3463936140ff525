"""PyTorch's steps of one and of many LeNets on its best device: eager, and as a CUDA graph."""

import importlib.util
from collections.abc import Callable
from typing import Any

from experiments.benchmarks import torch_training
from experiments.benchmarks.training import (
    BATCH_SIZE,
    LEARNING_RATE,
    MOMENTUM,
    WEIGHT_DECAY,
)

__all__ = ["torch_contenders"]


def torch_contenders(
    num_examples: int, networks: int
) -> tuple[dict[str, Callable[[], int]], dict[str, str]]:
    """Loops over an epoch whose calls return the steps of all networks, and the version of
    PyTorch with what failed and why.

    Many networks are `torch.func.vmap` of one; both run eagerly and, on a GPU, as one graph.
    """
    if importlib.util.find_spec("torch") is None:
        return {}, {"version": "not installed"}
    import torch

    made: dict[str, Callable[[], int]] = {}
    told = {"version": torch.__version__}
    ways = {"PyTorch eager": _eager}
    if torch.cuda.is_available():
        ways["PyTorch CUDA graph"] = _graphed
    for name, way in ways.items():
        try:
            made[name] = way(num_examples, networks)
            made[name]()
        except (RuntimeError, ValueError, NotImplementedError) as error:
            made.pop(name, None)
            told[name] = str(error).strip().partition("\n")[0]
    return made, told


def _eager(num_examples: int, networks: int) -> Callable[[], int]:
    step, batches = _step(num_examples, networks)

    def run() -> int:
        rows = batches()
        for one in rows:
            step(one)
        _wait()
        return len(rows) * networks

    return run


def _graphed(num_examples: int, networks: int) -> Callable[[], int]:
    """The step captured once; an epoch copies the rows of each batch in and replays it."""
    import torch

    step, batches = _step(num_examples, networks)
    rows = batches()[0].clone()
    beside = torch.cuda.Stream()
    beside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(beside):
        for _ in range(3):
            step(rows)
    torch.cuda.current_stream().wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step(rows)

    def run() -> int:
        drawn = batches()
        for one in drawn:
            rows.copy_(one)
            graph.replay()
        _wait()
        return len(drawn) * networks

    return run


def _step(num_examples: int, networks: int) -> tuple[Callable[[Any], None], Callable[[], Any]]:
    """The step of all networks on the rows [networks, batch] of the pictures, and an epoch's rows
    [steps, networks, batch]: heavy ball written out, in place, as a graph asks for."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    images = torch.randn(num_examples, 3, 32, 32, device=device)
    labels = torch.randint(10, (num_examples,), device=device)
    made = [torch_training.network().to(device) for _ in range(networks)]
    alone = networks == 1
    held = dict(made[0].named_parameters()) if alone else torch.func.stack_module_state(made)[0]
    weights = {name: one.detach() for name, one in held.items()}
    velocities = {name: torch.zeros_like(one) for name, one in weights.items()}

    def loss(one: Any, x: Any, y: Any) -> Any:
        logits = torch.func.functional_call(made[0], one, (x,))
        penalty = sum((w**2).sum() for name, w in one.items() if name.endswith("weight"))
        return torch.nn.functional.cross_entropy(logits, y) + WEIGHT_DECAY * penalty

    gradient = torch.func.grad(loss)
    gradients = gradient if alone else torch.func.vmap(gradient)

    def step(rows: Any) -> None:
        rows = rows[0] if alone else rows
        with torch.no_grad():
            for name, slope in gradients(weights, images[rows], labels[rows]).items():
                velocities[name].mul_(MOMENTUM).sub_(slope, alpha=LEARNING_RATE)
                weights[name].add_(velocities[name])

    whole = num_examples // BATCH_SIZE * BATCH_SIZE

    def batches() -> Any:
        drawn = [torch.randperm(num_examples, device=device)[:whole] for _ in range(networks)]
        return torch.stack([one.reshape(-1, BATCH_SIZE) for one in drawn], 1)

    return step, batches


def _wait() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
