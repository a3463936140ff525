"""Leading eigenvalues along training, each solve started from what the last one found."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from antisgd import devices, display, lanczos, results, streaming
from antisgd.study.conditions import conditions_of
from antisgd.study.problem import Problem
from antisgd.study.settings import Settings
from antisgd.study.stages.cohorts import Cohort

__all__ = ["Tracked", "keeper", "num_pairs", "num_solves", "track", "tracked_epochs"]

# Pairs of each solve, without --track_eigenpairs.
PAIRS = 10
WEIGHTS, FILE = "tracked_weights.npy", "tracked.npz"


class Tracked(NamedTuple):
    """Leading eigenvalues of the Hessian at some epochs of the training.

    Attributes:
        epochs: passes over the examples before each, the first 0, the last K, [n].
        values: λ, largest first, [n, k].
        residuals: true residual norms, [n, k].
        products: of each solve, without its probe and certificate, [n].
        cold_products: of the same solve from a random vector; nan where none was made, [n].
        cold_values: λ of those solves, [n, k].
        crossover: λ_cross at the learning rate of the epoch, nan without theory, [n].
        edge: 2(1+β)/η of heavy ball, above which steps grow; nan for other optimisers, [n].
    """

    epochs: np.ndarray
    values: np.ndarray
    residuals: np.ndarray
    products: np.ndarray
    cold_products: np.ndarray
    cold_values: np.ndarray
    crossover: np.ndarray
    edge: np.ndarray


def tracked_epochs(settings: Settings) -> np.ndarray:
    """Epochs at which eigenvalues are tracked: 0, every so many, the last; none if not asked."""
    if settings.track_every is None:
        return np.zeros(0, int)
    return np.unique([*range(0, settings.epochs, settings.track_every), settings.epochs])


def num_pairs(settings: Settings) -> int:
    """k of each tracked solve."""
    return PAIRS if settings.track_eigenpairs is None else settings.track_eigenpairs


def num_solves(settings: Settings) -> int:
    """Solves of one network, those from a random vector included."""
    count = len(tracked_epochs(settings))
    return count + len(_compared(count))


def keeper(
    problem: Problem, settings: Settings, folder: Path, cohort: Cohort
) -> Callable[[Any, int], None]:
    """What keeps the weights of the networks to be analysed at the tracked epochs.

    Args:
        problem: for the number of weights.
        settings: of the study.
        folder: the run folder.
        cohort: networks that are trained together; those of the first regime are analysed.

    Returns:
        `keep(params, epoch)`, params with a leading axis of networks.
    """
    epochs, files = tracked_epochs(settings), []
    wanted = range(settings.analysis_seeds) if len(epochs) else ()
    own = cohort.seeds if cohort.schemes[0] == settings.sampling[0] else ()
    for seed in (one for one in own if one in wanted):
        inside = folder / f"seed_{seed}" if seed else folder
        shape = len(epochs), problem.dimension
        files.append(results.open_recording(inside / WEIGHTS, shape))

    def keep(params: Any, epoch: int) -> None:
        if epoch not in epochs:
            return
        leaves = [devices.fetched(leaf)[: len(files)] for leaf in jax.tree.leaves(params)]
        if not devices.first():
            return
        for network, file in enumerate(files):
            row = np.concatenate([np.ravel(leaf[network]) for leaf in leaves])
            file[np.searchsorted(epochs, epoch)] = row
            file.flush()

    return keep


def track(
    problem: Problem, settings: Settings, network: Any, found: Mapping[str, Any]
) -> Tracked | None:
    """Solves at each of the weights kept, goes on from the folder's checkpoint, or reads the end.

    A solve starts from sums of the eigenvectors of the one before, one sum for each vector of a
    block. In the middle of training and at its end it is made from a random vector as well. Of a
    training loss with a state the Hessian is that at the state of θ_K.

    Args:
        problem: loss and examples.
        settings: of the study; without `track_every` there is nothing to track.
        network: `run.Network` after training.
        found: not used.

    Raises:
        ValueError: the folder does not hold the weights of this training.
        FloatingPointError: a product is not finite.
    """
    del found
    path = network.folder / FILE
    if settings.track_every is None:
        return None
    if not results.exists(path):
        weights = _weights(network.folder / WEIGHTS, network.state.params, settings)
        solved = _solved(problem, settings, weights, network)
        results.write_arrays(path, **solved._asdict())
    return Tracked(**results.read_arrays(path))


def _weights(path: Path, params: Any, settings: Settings) -> np.ndarray:
    """The weights kept, [n, d]; they end at θ_K = params."""
    weights = results.read_array(path) if results.exists(path) else np.zeros((0, 0))
    theta = np.asarray(ravel_pytree(params)[0], np.float32)
    shape = len(tracked_epochs(settings)), theta.size
    whole = weights.shape == shape and weights.any(axis=1).all()
    if not whole or not np.array_equal(weights[-1], theta):
        raise ValueError(
            f"{path} does not hold the weights of this network along its training, which only the "
            "training itself keeps: leave track out of --stages, or train anew with --overwrite"
        )
    return weights


def _solved(problem: Problem, settings: Settings, weights: np.ndarray, network: Any) -> Tracked:
    checkpoint = network.folder / "checkpoints" / "tracking.npz"
    k, epochs = num_pairs(settings), tracked_epochs(settings)
    state: dict[str, Any] = results.whole_arrays(checkpoint) or _nothing(len(epochs), k)
    restore = ravel_pytree(network.state.params)[1]
    done = int(state["done"])
    bar = display.progress_bar("tracking", "solve", len(epochs), done, shown=devices.first())
    with bar:
        for place in range(done, len(epochs)):
            theta = jnp.asarray(weights[place], ravel_pytree(network.state.params)[0].dtype)
            one = _solve(problem, settings, restore(theta), state.get("vectors"))
            state["values"][place], state["residuals"][place] = one.values, one.residuals
            state["products"][place] = one.certificate.products
            if place in _compared(len(epochs)):
                cold = _solve(problem, settings, restore(theta), None)
                state["cold_values"][place] = cold.values
                state["cold_products"][place] = cold.certificate.products
            state["vectors"] = devices.fetched(one.vectors)[:, : problem.dimension]
            state["done"] = place + 1
            results.write_arrays(checkpoint, **state)
            bar.update()
    kept = {name: state[name] for name in Tracked._fields if name in state}
    return Tracked(epochs=epochs, **kept, **_lines(problem, settings, epochs))


def _solve(
    problem: Problem, settings: Settings, params: Any, vectors: np.ndarray | None
) -> lanczos.Eigenpairs:
    operator = streaming.products(
        problem.loss, params, problem.train, settings.microbatch, settings.precision
    )
    k, d = num_pairs(settings), problem.dimension
    rows = lanczos.memory_plan(d, k).block_size
    # All k vectors would make blocks of k, which need two or three times the products.
    start = None
    if vectors is not None:
        start = jnp.stack([vectors[i::rows].sum(0) for i in range(rows)])
    return lanczos.leading_eigenpairs(
        **operator, dimension=d, k=k, key=jax.random.key(settings.seed), start=start,
        mesh=devices.mesh(),
    )  # fmt: skip


def _compared(count: int) -> list[int]:
    """Places at which a solve is made from a random vector as well; the first one always is."""
    return sorted({count // 2, count - 1} - {0, -1})


def _nothing(count: int, k: int) -> dict[str, Any]:
    """The arrays of a tracking before its first solve."""
    wide = {name: np.full((count, k), np.nan) for name in ("values", "residuals", "cold_values")}
    return wide | {"done": 0, "products": np.zeros(count), "cold_products": np.full(count, np.nan)}


def _lines(problem: Problem, settings: Settings, epochs: np.ndarray) -> dict[str, np.ndarray]:
    """λ_cross and the edge of stability at the learning rate of each epoch."""
    cross, edge = np.full((2, len(epochs)), np.nan)
    for place, epoch in enumerate(epochs):
        rate = settings.learning_rate * settings.learning_rate_decay**epoch
        then = dataclasses.replace(settings, learning_rate=rate, learning_rate_decay=1.0)
        conditions = conditions_of(problem.num_examples, then, problem.optimizer)
        cross[place] = conditions.crossover
        if conditions.heavy_ball:
            edge[place] = 2 * (1 + settings.momentum) / rate
    return {"crossover": cross, "edge": edge}
