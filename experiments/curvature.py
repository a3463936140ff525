"""The eigenpair stage: leading Hessian eigenpairs at θ_K over all training pictures, resumable."""

import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags, logging
from tqdm import tqdm

from antisgd import hessian, lanczos, results
from experiments import training

FLAGS = flags.FLAGS

CHECKPOINT_SECONDS = 60.0


class Curvature(NamedTuple):
    """Leading eigenpairs of the Hessian at θ_K.

    Attributes:
        values: λ, [k], largest first.
        vectors: rows, float32 [k, d], memory-mapped.
        residuals: true residual norms, [k].
        converged: bool [k].
    """

    values: np.ndarray
    vectors: np.ndarray
    residuals: np.ndarray
    converged: np.ndarray


def find(problem: training.Problem, params: Any, folder: Path) -> Curvature:
    """Finds --eigenpairs pairs, goes on from the folder's checkpoint, or reads finished ones.

    The Hessian is that of the full training loss with its penalty, the largest algebraic
    eigenvalues (Sec. 5.1). More pairs than the folder holds extend its solve.
    """
    path = folder / "eigenpairs.npz"
    if path.exists() and len(results.read_arrays(path)["values"]) >= FLAGS.eigenpairs:
        return load(folder)
    matvec = hessian.hessian_vector_product(
        problem.loss, params, problem.dataset.train, microbatch_size=FLAGS.microbatch_size
    )
    checkpoint = folder / "checkpoints" / "eigenpairs.npz"
    found = lanczos.leading_eigenpairs(
        matvec,
        problem.dimension,
        FLAGS.eigenpairs,
        key=jax.random.key(FLAGS.seed),
        state=_read_state(checkpoint),
        callback=_Watch(checkpoint),
    )
    _write_state(checkpoint, found.state)
    results.write_array(folder / "eigenvectors.npy", np.asarray(found.vectors))
    certificate = {f"certificate_{n}": v for n, v in found.certificate._asdict().items()}
    results.write_arrays(
        path,
        values=found.values,
        residuals=found.residuals,
        converged=found.converged,
        **{name: value for name, value in certificate.items() if value is not None},
    )
    return load(folder)


def load(folder: Path) -> Curvature:
    """The eigenpairs of a run folder, the first --eigenpairs of them."""
    arrays = results.read_arrays(folder / "eigenpairs.npz")
    vectors = np.load(folder / "eigenvectors.npy", mmap_mode="r", allow_pickle=False)
    parts = (arrays["values"], vectors, arrays["residuals"], arrays["converged"])
    curvature = Curvature(*(part[: FLAGS.eigenpairs] for part in parts))
    if not curvature.converged.all():
        logging.warning("%d eigenpairs are not converged", np.sum(~curvature.converged))
    return curvature


class _Watch:
    """Progress bar and checkpoints of a solve."""

    def __init__(self, checkpoint: Path):
        self.checkpoint, self.saved, self.stage = checkpoint, time.monotonic(), "solve"
        self.bar = tqdm(desc="eigenpairs", unit="product", mininterval=1)

    def __call__(self, state: lanczos.State, progress: lanczos.Progress) -> None:
        if progress.stage != self.stage:
            self.bar.close()
            self.stage = progress.stage
            self.bar = tqdm(desc=f"eigenpairs, {self.stage}", unit="product", mininterval=1)
        self.bar.total = progress.products + progress.remaining
        self.bar.n = progress.products
        self.bar.set_postfix_str(f"{progress.converged} of {progress.wanted} converged")
        if time.monotonic() - self.saved > CHECKPOINT_SECONDS:
            _write_state(self.checkpoint, state)
            self.saved = time.monotonic()


def _write_state(path: Path, state: lanczos.State) -> None:
    segments = {f"basis_{i}": np.asarray(part) for i, part in enumerate(state.basis)}
    results.write_arrays(path, **segments, **state._replace(basis=())._asdict())


def _read_state(path: Path) -> lanczos.State | None:
    if not path.exists():
        return None
    arrays = results.read_arrays(path)
    del arrays["basis"]
    count = sum(name.startswith("basis_") for name in arrays)
    basis = tuple(jnp.asarray(arrays.pop(f"basis_{i}")) for i in range(count))
    scalars = {name: value.item() if value.ndim == 0 else value for name, value in arrays.items()}
    return lanczos.State(basis=basis, **scalars)
