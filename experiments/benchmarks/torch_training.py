"""PyTorch's ways of training LeNet on a CPU, for P1 and P2: each contender returns its steps.

Eager and compiled, contiguous and channels last, one thread and all, a network a core in processes
of their own, and several networks at once by `torch.func`. PyTorch is imported where it is used, so
that a process can be told its threads before.
"""

import importlib.util
import os
from collections.abc import Callable
from functools import partial
from typing import Any

__all__ = ["contenders", "network", "one_thread"]

LAYOUTS = ("contiguous_format", "channels_last")
WAYS = ("eager", "compiled")


def contenders(
    pool: Any, num_examples: int, batch_size: int, seeds: int, sgd: dict[str, float]
) -> dict[str, Callable[[], int]]:
    """Functions that train for an epoch, by name; none where PyTorch is not installed.

    Args:
        pool: of processes that began with `one_thread`.
        num_examples: random pictures of an epoch.
        batch_size: of a step.
        seeds: networks that `torch.func` trains at once.
        sgd: lr, momentum and weight_decay, of λ/2·‖w‖².
    """
    if importlib.util.find_spec("torch") is None:
        print("torch is not installed: no P1, no P2")
        return {}
    sizes, found = (num_examples, batch_size, sgd), {}
    for way in WAYS:
        for layout in LAYOUTS:
            for threads in sorted({1, os.cpu_count() or 1}):
                name = f"PyTorch {way}, {layout}, {threads} threads"
                found[name] = partial(_epoch, way, layout, threads, *sizes)
            work = [(way, layout, 1, *sizes)] * (os.cpu_count() or 1)
            name = f"PyTorch {way}, {layout}, a network a core"
            found[name] = lambda work=work: sum(pool.starmap(_epoch, work, 1))
        found[f"PyTorch {way}, torch.func of {seeds}"] = partial(_joint_epoch, way, seeds, *sizes)
    return found


def one_thread() -> None:
    """Before PyTorch is imported in a process of a pool."""
    os.environ["OMP_NUM_THREADS"] = "1"


_MADE: dict[Any, Any] = {}


def _epoch(
    way: str,
    layout: str,
    threads: int,
    num_examples: int,
    batch_size: int,
    sgd: dict[str, float],
) -> int:
    import torch

    torch.set_num_threads(threads)
    if (way, layout, threads) not in _MADE:
        made = network().to(memory_format=getattr(torch, layout))
        optimizer = torch.optim.SGD(made.parameters(), **sgd, fused=way == "compiled")
        loss = partial(_loss, made)
        loss = torch.compile(loss) if way == "compiled" else loss
        _MADE[way, layout, threads] = loss, optimizer, *_examples(num_examples, layout)
    loss, optimizer, images, labels = _MADE[way, layout, threads]
    batches = torch.randperm(num_examples).split(batch_size)
    for batch in batches:
        optimizer.zero_grad()
        loss(images[batch], labels[batch]).backward()
        optimizer.step()
    return len(batches)


def _joint_epoch(
    way: str, seeds: int, num_examples: int, batch_size: int, sgd: dict[str, float]
) -> int:
    """Networks side by side, each with batches of its own; the optimiser sees stacked weights."""
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    if (way, seeds) not in _MADE:
        networks = [network() for _ in range(seeds)]
        params, _ = torch.func.stack_module_state(networks)  # type: ignore[arg-type]

        def loss(one, images, labels):
            made = torch.func.functional_call(networks[0], one, (images,))
            return torch.nn.functional.cross_entropy(made, labels)

        gradients = torch.func.vmap(torch.func.grad(loss))
        gradients = torch.compile(gradients) if way == "compiled" else gradients
        optimizer = torch.optim.SGD(params.values(), **sgd, fused=way == "compiled")
        _MADE[way, seeds] = gradients, params, optimizer, *_examples(num_examples, LAYOUTS[0])
    gradients, params, optimizer, images, labels = _MADE[way, seeds]
    orders = torch.stack([torch.randperm(num_examples) for _ in range(seeds)])
    batches = orders.split(batch_size, dim=1)
    for batch in batches:
        detached = {name: value.detach() for name, value in params.items()}
        for name, gradient in gradients(detached, images[batch], labels[batch]).items():
            params[name].grad = gradient
        optimizer.step()
    return seeds * len(batches)


def _loss(module: Any, images: Any, labels: Any) -> Any:
    import torch

    return torch.nn.functional.cross_entropy(module(images), labels)


def network() -> Any:
    """LeNet as a module."""
    from torch.nn import Conv2d, Flatten, Linear, MaxPool2d, ReLU, Sequential

    return Sequential(
        *(Conv2d(3, 6, 5, padding=2), ReLU(), MaxPool2d(2)),
        *(Conv2d(6, 16, 5, padding=2), ReLU(), MaxPool2d(2), Flatten()),
        *(Linear(1024, 120), ReLU(), Linear(120, 84), ReLU(), Linear(84, 10)),
    )


def _examples(num_examples: int, layout: str) -> tuple[Any, Any]:
    import torch

    images = torch.randn(num_examples, 3, 32, 32)
    images = images.contiguous(memory_format=getattr(torch, layout))
    return images, torch.randint(10, (num_examples,))
