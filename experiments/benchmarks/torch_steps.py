"""PyTorch's steps of one and of many LeNets on its best device: eager, and as a CUDA graph."""

import importlib.util
from collections.abc import Callable
from functools import partial
from typing import Any

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
    weights = _weights(networks, device)
    velocities = [torch.zeros_like(one) for one in weights]
    gradient = torch.func.grad(_loss)
    together = gradient if networks == 1 else torch.func.vmap(gradient)

    def step(rows: Any) -> None:
        rows = rows[0] if networks == 1 else rows
        with torch.no_grad():
            found = together(weights, images[rows], labels[rows])
            for weight, velocity, slope in zip(weights, velocities, found, strict=True):
                velocity.mul_(MOMENTUM).sub_(slope, alpha=LEARNING_RATE)
                weight.add_(velocity)

    whole = num_examples // BATCH_SIZE * BATCH_SIZE

    def batches() -> Any:
        drawn = [torch.randperm(num_examples, device=device)[:whole] for _ in range(networks)]
        return torch.stack([one.reshape(-1, BATCH_SIZE) for one in drawn], 1)

    return step, batches


def _weights(networks: int, device: str) -> list[Any]:
    import torch

    shapes = ((6, 3, 5, 5), (6,), (16, 6, 5, 5), (16,), (120, 1024), (120,), (84, 120), (84,),
              (10, 84), (10,))  # fmt: skip
    many = () if networks == 1 else (networks,)
    scale = partial(torch.randn, device=device)
    return [0.05 * scale(*many, *shape) for shape in shapes]


def _loss(weights: list[Any], images: Any, labels: Any) -> Any:
    from torch.nn import functional

    x = images
    for kernel, bias in zip(weights[:4:2], weights[1:4:2], strict=True):
        x = functional.max_pool2d(functional.relu(functional.conv2d(x, kernel, bias, padding=2)), 2)
    x = x.flatten(1)
    for kernel, bias in zip(weights[4::2], weights[5::2], strict=True):
        x = functional.linear(x, kernel, bias)
        x = x if kernel.shape[0] == 10 else functional.relu(x)
    penalty = sum((kernel**2).sum() for kernel in weights[::2])
    return functional.cross_entropy(x, labels) + WEIGHT_DECAY * penalty


def _wait() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
