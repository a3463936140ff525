"""The eigenpair stage: leading Hessian eigenpairs at θ_K over all training pictures, resumable."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags
from tqdm import tqdm

from antisgd import hessian, lanczos, results
from experiments import interruption, training

FLAGS = flags.FLAGS

CHECKPOINT_SECONDS = 60.0

_log = logging.getLogger(__name__)


class Curvature(NamedTuple):
    """Leading eigenpairs of the Hessian at θ_K.

    Attributes:
        values: λ, [k], largest first.
        vectors: rows, float32 [k, d], memory-mapped.
        residuals: true residual norms, [k].
        converged: bool [k].
        identifiable: from this index on eigenvalues lie nearer than the noise of the products:
            sums over directions stay meaningful, single eigenvectors do not.
    """

    values: np.ndarray
    vectors: np.ndarray
    residuals: np.ndarray
    converged: np.ndarray
    identifiable: int

    @property
    def blurred(self) -> np.ndarray:
        """Directions that are no single eigenvector for sure, bool [k]."""
        return np.arange(len(self.values)) >= self.identifiable


def find(problem: training.Problem, params: Any, folder: Path) -> Curvature:
    """Finds --eigenpairs pairs, goes on from the folder's checkpoint, or reads finished ones.

    The Hessian is that of the full training loss with its penalty, the largest algebraic
    eigenvalues (Sec. 5.1). More pairs than the folder holds extend its solve.

    Raises:
        FloatingPointError: a product is not finite, or SGD is not stable in the steepest direction.
    """
    path = folder / "eigenpairs.npz"
    if path.exists() and len(results.read_arrays(path)["values"]) >= FLAGS.eigenpairs:
        return load(folder)
    matvec = hessian.hessian_vector_product(
        problem.loss, params, problem.dataset.train, microbatch_size=FLAGS.microbatch_size
    )
    checkpoint = Checkpoint(folder / "checkpoints")
    with interruption.postponed() as asked:
        found = _solve(matvec, problem.dimension, checkpoint, asked)
        checkpoint.write(found.state)
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


def _solve(
    matvec: Any, dimension: int, checkpoint: "Checkpoint", asked: Callable[[], bool]
) -> lanczos.Eigenpairs:
    try:
        return lanczos.leading_eigenpairs(
            matvec,
            dimension,
            FLAGS.eigenpairs,
            key=jax.random.key(FLAGS.seed),
            state=checkpoint.read(dimension),
            callback=_Watch(checkpoint, asked),
            memory=basis_limit(),
        )
    except FloatingPointError as error:
        raise FloatingPointError(f"{error}; {_stability()}") from error


def _stability() -> str:
    return training.stability(FLAGS.epochs, *training.hyperparameters())


def basis_limit() -> int | None:
    """Bytes that --basis_memory allows the basis."""
    return None if FLAGS.basis_memory is None else int(FLAGS.basis_memory * 2**30)


def load(folder: Path) -> Curvature:
    """The eigenpairs of a run folder, the first --eigenpairs of them.

    Raises:
        FloatingPointError: SGD is not stable in the steepest direction.
    """
    arrays = results.read_arrays(folder / "eigenpairs.npz")
    vectors = results.read_array(folder / "eigenvectors.npy")
    parts = (arrays["values"], vectors, arrays["residuals"], arrays["converged"])
    parts = (part[: FLAGS.eigenpairs] for part in parts)
    curvature = Curvature(*parts, int(arrays["certificate_identifiable"]))
    if not curvature.converged.all():
        _log.warning("%d eigenpairs are not converged", np.sum(~curvature.converged))
    if curvature.values[0] * training.final_learning_rate() >= 2 * (1 + FLAGS.momentum):
        raise FloatingPointError(
            f"the largest curvature at the end of training is {curvature.values[0]:.3g}: "
            f"{_stability()}"
        )
    return curvature


class _Watch:
    """Progress bar and checkpoints of a solve."""

    def __init__(self, checkpoint: "Checkpoint", asked: Callable[[], bool]):
        self.checkpoint, self.asked, self.saved = checkpoint, asked, time.monotonic()
        self.stage = "solve"
        self.bar = tqdm(desc="eigenpairs", unit="product", mininterval=1)

    def __call__(self, state: lanczos.State, progress: lanczos.Progress) -> None:
        if progress.stage != self.stage:
            self.bar.close()
            self.stage = progress.stage
            self.bar = tqdm(desc=f"eigenpairs, {self.stage}", unit="product", mininterval=1)
        self.bar.total = progress.products + progress.remaining
        self.bar.n = progress.products
        self.bar.set_postfix_str(f"{progress.converged} of {progress.wanted} converged")
        stop = self.asked()
        if stop or time.monotonic() - self.saved > CHECKPOINT_SECONDS:
            self.checkpoint.write(state)
            self.saved = time.monotonic()
        if stop:
            raise KeyboardInterrupt


class Checkpoint:
    """A solve on disk: the basis as rows of a file that grows, all else as arrays.

    Rows beyond the size that the arrays name are ignored, so that a kill between the two costs
    the rows alone. A restart makes another basis: it gets another file, and the old one goes once
    the arrays name the new one.
    """

    def __init__(self, folder: Path):
        self.folder, self.path = folder, folder / "eigenpairs.npz"
        self.kept, self.generation, self.written = None, 0, 0

    def write(self, state: lanczos.State) -> None:
        """Appends the rows that are new and replaces the arrays."""
        if state.kept is not self.kept:
            self.kept, self.written, self.generation = state.kept, 0, self.generation + 1
        rows, size = state.basis[0].shape[0], int(state.size)
        for start in range(self.written - self.written % rows, size, rows):
            first = max(self.written, start)
            segment = np.asarray(state.basis[start // rows])[first - start : size - start]
            results.write_rows(self._rows(), segment, first)
        self.written = size
        results.write_arrays(
            self.path, generation=self.generation, **state._replace(basis=())._asdict()
        )
        for path in set(self.folder.glob("basis_*.f32")) - {self._rows()}:
            path.unlink()

    def read(self, dimension: int) -> lanczos.State | None:
        """The solve so far; None where there is none, or no whole one, which is said."""
        arrays = results.whole_arrays(self.path)
        if arrays is None or "generation" not in arrays:
            return None
        del arrays["basis"]
        self.generation, self.written = int(arrays.pop("generation")), int(arrays["size"])
        try:
            basis = results.read_rows(self._rows(), self.written, dimension)
        except (ValueError, OSError) as error:
            _log.warning("%s; the solve starts anew", error)
            return None
        scalars = {name: one.item() if one.ndim == 0 else one for name, one in arrays.items()}
        state = lanczos.State(basis=lanczos.segments(basis), **scalars)
        self.kept = state.kept
        return state

    def _rows(self) -> Path:
        return self.folder / f"basis_{self.generation}.f32"
