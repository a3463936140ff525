"""The solvers that `eigenpairs` compares, each from a problem to eigenpairs and what they took."""

import os
import time
import warnings
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.sparse.linalg import lobpcg_standard
from jax.flatten_util import ravel_pytree
from scipy.sparse.linalg import LinearOperator, eigsh

from antisgd import data, hessian, lanczos, models, objective

__all__ = [
    "BLOCK_SIZE",
    "SOLVERS",
    "TOLERANCE",
    "WEIGHT_DECAY",
    "Problem",
    "Solution",
    "matvec_of",
    "torch_lenet",
]

TOLERANCE = 1e-3
WEIGHT_DECAY = 1e-4
MICROBATCH = 50
BLOCK_SIZE = 4


class Problem(NamedTuple):
    """Pictures [n, 32, 32, 3], classes [n] and trained weights, flat [136,886], as NumPy arrays."""

    images: np.ndarray
    labels: np.ndarray
    weights: np.ndarray


class Solution(NamedTuple):
    """What a solver returns: values [k], vectors [k, d], and what it took."""

    values: np.ndarray
    vectors: np.ndarray
    products: int
    seconds: float
    cpu_seconds: float


def _params(problem: Problem) -> Any:
    images = jnp.asarray(problem.images[:1])
    params = jax.eval_shape(models.lenet().init, jax.random.key(0), images)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), params)
    return ravel_pytree(zeros)[1](jnp.asarray(problem.weights))


def matvec_of(problem: Problem, dtype: Any = jnp.float32) -> Any:
    """The product with the Hessian of the training loss at the trained weights."""
    loss = objective.make_loss(models.lenet().apply, WEIGHT_DECAY)
    params = jax.tree.map(lambda leaf: leaf.astype(dtype), _params(problem))
    examples = data.Examples(jnp.asarray(problem.images), jnp.asarray(problem.labels))
    return hessian.hessian_vector_product(loss, params, examples, microbatch_size=MICROBATCH)


class _Stopwatch:
    """Seconds of wall clock and of all cores since it was made."""

    def __init__(self):
        self.start = time.monotonic(), time.process_time()

    def read(self) -> tuple[float, float]:
        return time.monotonic() - self.start[0], time.process_time() - self.start[1]


def _solve_ours(problem: Problem, k: int, budget: int) -> Solution:
    matvec, dimension = matvec_of(problem), problem.weights.size
    block_size = max(1, min(BLOCK_SIZE, k // 50))
    options = {"block_size": block_size, "tolerance": TOLERANCE}
    # Compiles the product and what else does not depend on k.
    with warnings.catch_warnings(action="ignore"):
        lanczos.leading_eigenpairs(
            matvec, dimension, 1, key=jax.random.key(1), max_products=1, **options
        )
    watch = _Stopwatch()
    pairs = lanczos.leading_eigenpairs(matvec, dimension, k, key=jax.random.key(0), **options)
    vectors = np.asarray(pairs.vectors)
    times = watch.read()
    return Solution(pairs.values, vectors, pairs.certificate.products, *times)


def _solve_arpack(problem: Problem, k: int, budget: int, dtype: Any = np.float32) -> Solution:
    with jax.enable_x64(dtype == np.float64):
        product = jax.jit(matvec_of(problem, dtype))
        dimension, count = problem.weights.size, [0]
        jax.block_until_ready(product(jnp.zeros(dimension, dtype)))

        def counted(vector: np.ndarray) -> np.ndarray:
            count[0] += 1
            return np.asarray(product(jnp.asarray(vector.reshape(-1), dtype)))

        operator = LinearOperator((dimension, dimension), matvec=counted, dtype=dtype)
        first = np.random.default_rng(0).normal(size=dimension).astype(dtype)
        watch = _Stopwatch()
        values, vectors = eigsh(operator, k, which="LA", tol=TOLERANCE, v0=first)
        times = watch.read()
    return Solution(values[::-1], vectors.T[::-1], count[0], *times)


def _solve_matfree(problem: Problem, k: int, budget: int) -> Solution:
    from matfree import decomp, eig

    matvec, dimension = matvec_of(problem), problem.weights.size
    algorithm = eig.eigh_partial(decomp.tridiag_sym(budget))
    first = jax.random.normal(jax.random.key(0), (dimension,))

    def solve(vector, *arguments):
        return algorithm(lambda v, *rest: matvec.func(*rest, v), vector, *arguments)

    compiled = jax.jit(solve).lower(first, *matvec.args).compile()
    watch = _Stopwatch()
    values, vectors = jax.block_until_ready(compiled(first, *matvec.args))
    times = watch.read()
    leading = np.argsort(-np.asarray(values))[:k]
    return Solution(np.asarray(values)[leading], np.asarray(vectors)[leading], budget, *times)


def _solve_lobpcg(problem: Problem, k: int, budget: int, iterations: int = 50) -> Solution:
    matvec, dimension = matvec_of(problem), problem.weights.size
    start_vectors = jax.random.normal(jax.random.key(0), (dimension, k))
    operator = jax.vmap(matvec, in_axes=1, out_axes=1)
    watch = _Stopwatch()
    values, vectors, used = lobpcg_standard(operator, start_vectors, m=iterations, tol=TOLERANCE)
    times = watch.read()
    # Each iteration multiplies the iterates once and the three blocks of its subspace.
    return Solution(np.asarray(values), np.asarray(vectors).T, 4 * k * int(used), *times)


def torch_lenet(problem: Problem) -> Any:
    """The same network, its parameters in flax's layout and order, so that vectors compare."""
    import torch
    from torch.nn import functional

    flat = jax.tree_util.tree_leaves_with_path(_params(problem))
    names = ["_".join(str(part.key) for part in path[1:]) for path, _ in flat]

    class LeNet(torch.nn.Module):
        def __init__(self):
            super().__init__()
            for name, (_, leaf) in zip(names, flat, strict=True):
                self.register_parameter(name, torch.nn.Parameter(torch.tensor(np.asarray(leaf))))

        def forward(self, x):
            for layer in ("Conv_0", "Conv_1"):
                kernel = getattr(self, layer + "_kernel").permute(3, 2, 0, 1)
                x = functional.conv2d(x, kernel, getattr(self, layer + "_bias"), padding=2)
                x = functional.max_pool2d(functional.relu(x), 2)
            x = x.permute(0, 2, 3, 1).flatten(1)
            for layer in ("Dense_0", "Dense_1", "Dense_2"):
                x = x @ getattr(self, layer + "_kernel") + getattr(self, layer + "_bias")
                x = x if layer == "Dense_2" else functional.relu(x)
            return x

    def loss(model, batch):
        kernels = [weights for name, weights in model.named_parameters() if "kernel" in name]
        penalty = WEIGHT_DECAY * sum((weights**2).sum() for weights in kernels)
        return functional.cross_entropy(model(batch[0]), batch[1]) + penalty

    images = torch.tensor(problem.images.transpose(0, 3, 1, 2).copy())
    labels = torch.tensor(problem.labels.astype(np.int64))
    return LeNet(), loss, images, labels


def _solve_eigenthings(problem: Problem, k: int, budget: int, reorthogonalise: bool) -> Solution:
    import hessian_eigenthings as peer
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    model, loss, images, labels = torch_lenet(problem)
    size = min(500, len(labels))
    batches = list(zip(images.split(size), labels.split(size), strict=True))
    operator = peer.HessianOperator(model, batches, loss)
    options = {"reorthogonalize": True, "max_iter": budget} if reorthogonalise else {}
    watch = _Stopwatch()
    found = peer.lanczos(operator, k=k, which="LA", tol=TOLERANCE, seed=0, **options)
    times = watch.read()
    values, vectors = found.eigenvalues.numpy(), found.eigenvectors.numpy()
    return Solution(values, vectors, found.iterations, *times)


SOLVERS = {
    "ours": _solve_ours,
    "arpack": _solve_arpack,
    "arpack_float64": partial(_solve_arpack, dtype=np.float64),
    "matfree": _solve_matfree,
    "eigenthings": partial(_solve_eigenthings, reorthogonalise=False),
    "eigenthings_reorthogonalised": partial(_solve_eigenthings, reorthogonalise=True),
    "lobpcg": _solve_lobpcg,
}
