"""The eigenpair stage: leading Hessian eigenpairs at θ_K over all training pictures, resumable."""

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from antisgd import data, devices, display, lanczos, results, streaming
from antisgd.study import interruption
from antisgd.study.divergence import Optimizer, edge, stability
from antisgd.study.problem import Problem
from antisgd.study.settings import Settings
from antisgd.study.stages.solve_checkpoint import Checkpoint

__all__ = ["Curvature", "find", "load"]

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


def find(problem: Problem, settings: Settings, params: Any, folder: Path) -> Curvature:
    """Finds the leading pairs, goes on from the folder's checkpoint, or reads finished ones.

    The Hessian is that of the full training loss with its penalty, the largest algebraic
    eigenvalues (Sec. 5.1). More pairs than the folder holds extend its solve.

    Args:
        problem: loss and examples.
        settings: how many pairs, and what they are stable under.
        params: θ_K.
        folder: of the network; keeps eigenpairs.npz and eigenvectors.npy.

    Raises:
        FloatingPointError: a product is not finite, or SGD is not stable in the steepest direction.
        ValueError: `--precision` is none of the device's, or too low for the pairs.
    """
    path = folder / "eigenpairs.npz"
    vectors = folder / "eigenvectors.npy"
    if results.exists(path) and results.exists(vectors):
        if len(results.read_arrays(path)["values"]) >= settings.eigenpairs:
            return load(folder, settings, problem.optimizer)
    operator = streaming.products(
        problem.loss, params, problem.train, settings.microbatch, settings.precision
    )
    checkpoint = Checkpoint(folder / "checkpoints")
    with interruption.postponed() as asked:
        found = _solve(operator, problem, settings, checkpoint, asked)
        _refuse_noise(found, settings, checkpoint)
        checkpoint.write(found.state)
    results.write_array(vectors, devices.fetched(found.vectors)[:, : problem.dimension])
    certificate = {f"certificate_{n}": v for n, v in found.certificate._asdict().items()}
    results.write_arrays(
        path,
        values=found.values,
        residuals=found.residuals,
        converged=found.converged,
        vectors_fingerprint=data.fingerprint(results.read_array(vectors)),
        **{name: value for name, value in certificate.items() if value is not None},
    )
    return load(folder, settings, problem.optimizer)


def _solve(
    operator: dict[str, Any],
    problem: Problem,
    settings: Settings,
    checkpoint: Checkpoint,
    asked: Callable[[], bool],
) -> lanczos.Eigenpairs:
    try:
        return lanczos.leading_eigenpairs(
            dimension=problem.dimension,
            k=settings.eigenpairs,
            **operator,
            key=jax.random.key(settings.seed),
            state=checkpoint.read(problem.dimension),
            callback=_Watch(checkpoint, asked),
            block_size=settings.block_size,
            memory=settings.basis_limit,
            mesh=devices.mesh(),
        )
    except FloatingPointError as error:
        words = stability(settings.epochs, settings, problem.optimizer)
        raise FloatingPointError(f"{error}; {words}") from error


def _refuse_noise(found: lanczos.Eigenpairs, settings: Settings, checkpoint: Checkpoint) -> None:
    """What is lost at full precision is rounding and stays; a lower one must not lose more."""
    certificate = found.certificate
    if settings.precision == "highest" or not certificate.noise_limited:
        return
    checkpoint.remove()
    raise ValueError(
        f"--precision={settings.precision} leaves a noise of {certificate.noise:.1e} in the "
        f"products, more than the tolerance of {certificate.noise_limited} of the "
        f"{len(found.values)} eigenpairs allows (the last is {found.values[-1]:.1e}): the same "
        "command with --precision=highest takes them anew"
    )


def load(folder: Path, settings: Settings, optimizer: Optimizer = None) -> Curvature:
    """The eigenpairs of a network's folder, as many of them as are asked for.

    Args:
        folder: of the network.
        settings: how many pairs, and what they are stable under.
        optimizer: that of the problem; None for heavy ball.

    Raises:
        ValueError: eigenvectors other than those written.
        FloatingPointError: SGD is not stable in the steepest direction.
    """
    arrays = results.read_arrays(folder / "eigenpairs.npz")
    vectors = results.read_array(folder / "eigenvectors.npy")
    written = arrays.get("vectors_fingerprint")
    if written is not None and str(written) != data.fingerprint(vectors):
        raise ValueError(
            f"{folder / 'eigenvectors.npy'} is not what the solve wrote: remove it, and the same "
            "command makes it anew from the solve's checkpoint"
        )
    k, identifiable = settings.eigenpairs, int(arrays["certificate_identifiable"])
    curvature = Curvature(
        arrays["values"][:k], vectors[:k], arrays["residuals"][:k], arrays["converged"][:k],
        identifiable,
    )  # fmt: skip
    if not curvature.converged.all():
        _log.warning("%d eigenpairs are not converged", np.sum(~curvature.converged))
    largest = curvature.values[0]
    if largest >= edge(settings.epochs, settings, optimizer):
        raise FloatingPointError(
            f"the largest curvature at the end of training is {largest:.3g}: "
            f"{stability(settings.epochs, settings, optimizer)}"
        )
    return curvature


def _bar(words: str) -> Any:
    return display.progress_bar(words, "product", shown=devices.first())


class _Watch:
    """Progress bar and checkpoints of a solve."""

    def __init__(self, checkpoint: Checkpoint, asked: Callable[[], bool]):
        self.checkpoint, self.asked, self.saved = checkpoint, asked, time.monotonic()
        self.stage = "solve"
        self.bar = _bar("eigenpairs")

    def __call__(self, state: lanczos.State, progress: lanczos.Progress) -> None:
        if progress.stage != self.stage:
            self.bar.close()
            self.stage = progress.stage
            self.bar = _bar(f"eigenpairs, {self.stage}")
        self.bar.total = progress.products + progress.remaining
        words = f"{progress.converged} of {progress.wanted} converged"
        self.bar.set_postfix_str(words, refresh=False)
        self.bar.update(progress.products - self.bar.n)
        stop = self.asked()
        if stop or devices.anywhere(time.monotonic() - self.saved > CHECKPOINT_SECONDS):
            self.checkpoint.write(state)
            self.saved = time.monotonic()
        if stop:
            raise KeyboardInterrupt
