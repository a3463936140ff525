"""A PyTorch training that is recorded: LeNet on digits, as a user of PyTorch would write it."""

from typing import NamedTuple

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import nn
from torch.func import functional_call, grad, jvp
from torch.utils.data import DataLoader, TensorDataset

__all__ = ["Problem", "along_path", "leading_eigenpairs", "per_example", "problem", "train"]


class Problem(NamedTuple):
    """A network, its examples and the penalty on its kernels."""

    model: nn.Module
    images: torch.Tensor
    labels: torch.Tensor
    penalty: float


def problem(images: np.ndarray, labels: np.ndarray, penalty: float, seed: int) -> Problem:
    """LeNet for pictures [N, 8, 8, 1]: two convolutions 'same' with pooling, three dense layers."""
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # So small a network gains nothing from more.
    model = nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(64, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10),
    )  # fmt: skip
    pictures = torch.tensor(np.moveaxis(images, -1, 1), dtype=torch.float32)
    return Problem(model, pictures, torch.tensor(labels, dtype=torch.long), penalty)


def flat(tensors) -> torch.Tensor:
    """One vector, in float64: the projection of small displacements would lose digits."""
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors]).double()


def train(
    of: Problem, *, batch_size: int, learning_rate: float, decay: float, momentum: float,
    epochs: int, recorded_epochs: int, num_directions: int, anchor_steps: int,
) -> tuple[dict[str, np.ndarray], dict[str, float]]:  # fmt: skip
    """Trains, finds the leading eigenvectors, goes on at constant η and records along them.

    Returns:
        The arrays of a recording, and what there is to say of the training.
    """
    model, params = of.model, list(of.model.parameters())
    examples = TensorDataset(torch.arange(len(of.labels)), of.images, of.labels)
    loader = DataLoader(examples, batch_size=batch_size, shuffle=True)
    optimizer = torch.optim.SGD(params, lr=learning_rate, momentum=momentum)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, decay)
    for _ in range(epochs):
        for _, x, y in loader:
            _step(of, optimizer, x, y)
        scheduler.step()
    values, P = leading_eigenpairs(of, num_directions)
    start, loss = flat(params), _full_loss(of)
    path, weights, gradients, indices = [], [torch.zeros(len(P)).double()], [], []
    for _ in range(recorded_epochs):
        for i, x, y in loader:
            if len(gradients) % anchor_steps == 0:
                path.append(along_path(of, P))
            _step(of, optimizer, x, y)
            gradients.append(P @ flat(p.grad for p in params))
            weights.append(P @ (flat(params) - start))
            indices.append(np.pad(i.numpy(), (0, batch_size - len(i)), constant_values=-1))
    arrays = {
        "curvatures": values, "path_curvatures": np.array(path), "indices": np.array(indices),
        "weights": torch.stack(weights).numpy(), "gradients": torch.stack(gradients).numpy(),
        "example_gradients": per_example(of, P),
        "learning_rate": np.array(optimizer.param_groups[0]["lr"]),
    }  # fmt: skip
    with torch.no_grad():
        accuracy = float((model(of.images).argmax(1) == of.labels).double().mean())
    return arrays, {"loss": loss, "loss_after": _full_loss(of), "accuracy": accuracy}


def _step(of: Problem, optimizer: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor) -> None:
    optimizer.zero_grad()
    loss = _loss(of, dict(of.model.named_parameters()), x, y)
    loss.backward()
    optimizer.step()


def _loss(of: Problem, params: dict, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Cross-entropy and c·Σ w² over kernels: with the penalty the minimum is at finite weights."""
    kernels = sum(p.square().sum() for name, p in params.items() if name.endswith("weight"))
    logits = functional_call(of.model, params, (x,))
    return nn.functional.cross_entropy(logits, y) + of.penalty * kernels


def _full_loss(of: Problem) -> float:
    with torch.no_grad():
        return float(_loss(of, dict(of.model.named_parameters()), of.images, of.labels))


def _product(of: Problem):
    """v → Hv of all examples at the present weights, float64 in and out, float32 within."""
    params = {name: p.detach().clone() for name, p in of.model.named_parameters()}
    full = grad(lambda p: _loss(of, p, of.images, of.labels))

    def product(v: np.ndarray) -> np.ndarray:
        parts = torch.split(torch.tensor(v).float(), [p.numel() for p in params.values()])
        pairs = zip(params.items(), parts, strict=True)
        tangents = {name: part.reshape(p.shape) for (name, p), part in pairs}
        _, found = jvp(full, (params,), (tangents,))
        return flat(found.values()).numpy()

    return product, sum(p.numel() for p in params.values())


def leading_eigenpairs(of: Problem, k: int) -> tuple[np.ndarray, torch.Tensor]:
    """The k largest eigenvalues of the Hessian, descending, and their vectors [k, d]."""
    product, d = _product(of)
    operator = LinearOperator((d, d), matvec=product, dtype=np.float64)
    start = np.random.default_rng(0).standard_normal(d)
    values, vectors = eigsh(operator, k, which="LA", v0=start, tol=1e-5)
    return values[::-1].copy(), torch.tensor(vectors.T[::-1].copy())


def along_path(of: Problem, P: torch.Tensor) -> np.ndarray:
    """pᵀH(θ)p of the directions at the present weights, [k]."""
    product, _ = _product(of)
    return np.array([float(p @ product(p)) for p in P.numpy()])


def per_example(of: Problem, P: torch.Tensor) -> np.ndarray:
    """Gradients of every example along the directions, [N, k]."""
    params = list(of.model.parameters())
    found = []
    for x, y in zip(of.images, of.labels, strict=True):
        loss = _loss(of, dict(of.model.named_parameters()), x[None], y[None])
        found.append((P @ flat(torch.autograd.grad(loss, params))).numpy())
    return np.array(found)
