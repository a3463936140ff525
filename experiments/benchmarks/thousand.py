"""A thousand certified eigenpairs of a trained LeNet, the leading ones against SciPy in float64.

    python -m experiments.benchmarks.thousand

Trains a LeNet on 1,000 pictures of CIFAR-10 (ANTISGD_DATA_DIR; synthetic ones without it), finds
1,000 eigenpairs of its Hessian with their certificate, and takes the leading 50 again with
`scipy.sparse.linalg.eigsh` on the product in float64: half an hour on 2 cores. Last comes one JSON
line.
"""

import argparse
import json
import time

import jax
import jax.numpy as jnp
import numpy as np
from scipy.sparse.linalg import LinearOperator, eigsh
from tqdm import tqdm

from antisgd import lanczos
from experiments.benchmarks.eigenpairs import train
from experiments.benchmarks.eigensolvers import BLOCK_SIZE, Problem, matvec_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--k", type=int, default=1000, help="eigenpairs")
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=40, help="of training before")
    parser.add_argument("--checked", type=int, default=50, help="leading eigenvalues, in float64")
    options = parser.parse_args()
    problem = train(options.pictures, options.epochs)
    started = time.monotonic()
    pairs = solve(problem, options.k)
    seconds = time.monotonic() - started
    certificate = pairs.certificate
    allowed = np.maximum(1e-3 * np.abs(pairs.values), 2 * certificate.noise)
    exact = leading_in_float64(problem, options.checked)
    found = {
        "pairs": len(pairs.values),
        "converged": certificate.converged,
        "missed": certificate.missed,
        "products": certificate.products,
        "seconds": round(seconds),
        "largest": float(pairs.values[0]),
        "smallest": float(pairs.values[-1]),
        "worst residual over the allowed": float(np.max(pairs.residuals / allowed)),
        "rms residual": certificate.rms_residual,
        "orthogonality": certificate.orthogonality,
        "noise": certificate.noise,
        "identifiable": certificate.identifiable,
        f"leading {len(exact)} against float64, largest relative difference": float(
            np.max(np.abs(pairs.values[: len(exact)] / exact - 1))
        ),
    }
    for name, value in found.items():
        print(f"{name:64s} {value:.6g}")
    print(json.dumps(found))


def solve(problem: Problem, k: int) -> lanczos.Eigenpairs:
    """The k leading pairs, with a progress bar."""
    bar = tqdm(unit="product", mininterval=1)

    def callback(state, progress):
        bar.set_description(progress.stage, refresh=False)
        bar.n, bar.total = progress.products, progress.products + progress.remaining
        bar.set_postfix_str(f"{progress.converged} of {progress.wanted} converged")

    pairs = lanczos.leading_eigenpairs(
        matvec_of(problem), problem.weights.size, k, key=jax.random.key(0),
        block_size=BLOCK_SIZE, callback=callback,
    )  # fmt: skip
    bar.close()
    return pairs


def leading_in_float64(problem: Problem, k: int) -> np.ndarray:
    """The k leading eigenvalues by ARPACK on the float64 product, largest first."""
    dimension = problem.weights.size
    with jax.enable_x64(True):
        product = jax.jit(matvec_of(problem, jnp.float64))
        operator = LinearOperator(
            (dimension, dimension),
            matvec=lambda v: np.asarray(product(jnp.asarray(v.reshape(-1)))),
            dtype=np.float64,
        )
        values, _ = eigsh(operator, k, which="LA", tol=1e-6)
    return np.sort(values)[::-1]


if __name__ == "__main__":
    main()
