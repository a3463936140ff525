"""Networks at the end of training, carried on by the batches of one order after another."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from antisgd import display, heavy_ball, results, sampling, theory, trajectory
from antisgd.study import Problem, Settings
from antisgd.study.divergence import check_finite
from antisgd.study.stages import train as training
from experiments.orders.simulation import blind_laws

__all__ = ["ORDERS", "Descent", "Expected", "descend", "expect"]

ORDERS = ("without_replacement", "flip_flop", "shuffle_once", "designed", "balanced")
# Pieces of an epoch after which the losses are taken.
PIECES = 5


class Expected(NamedTuple):
    """One network's loss fluctuations by theory at θ_K, one value an order.

    Attributes:
        weights: of the weights θ_k, [orders].
        means: of the mean of an epoch's weights, [orders].
        positions: of the blind design, int [E, M].
        order: that of balanced batches, int [M, S].
        bound: below which no blind design of as many epochs brings the fluctuation.
    """

    weights: np.ndarray
    means: np.ndarray
    positions: np.ndarray
    order: np.ndarray
    bound: float


class Descent(NamedTuple):
    """What the networks do under one order, [networks] each.

    Attributes:
        weights: mean full training loss at θ_k over the period.
        means: at the mean of an epoch's weights, over all phases of the epoch.
        period: at the mean of all the period's weights.
        test_loss: of the metrics, at the weights that end each epoch, mean over the period.
        test_loss_period: at the mean of all the period's weights.
    """

    weights: np.ndarray
    means: np.ndarray
    period: np.ndarray
    test_loss: np.ndarray
    test_loss_period: np.ndarray


def expect(
    problem: Problem, settings: Settings, params: Any, pairs: Any, cycle: int, path: Path
) -> Expected:
    """Designs the orders for a network and says what theory expects of all; kept in a file.

    Args:
        problem: loss and examples.
        settings: of the experiment.
        params: θ_K.
        pairs: its eigenpairs.
        cycle: epochs of the blind design.
        path: the file.
    """
    if not path.exists():
        optimizer = settings.final_learning_rate, settings.momentum
        used = (pairs.values > 0) & (optimizer[0] * pairs.values < 2 * (1 + optimizer[1]))
        lam = pairs.values[used]
        g = trajectory.example_gradients(
            problem.loss, params, problem.train, jnp.asarray(pairs.vectors[used]),
            microbatch_size=min(settings.microbatch, 100),
        )  # fmt: skip
        results.write_arrays(path, **_designed(np.asarray(g), lam, optimizer, settings, cycle))
    arrays: dict[str, Any] = results.read_arrays(path)
    return Expected(**arrays | {"bound": float(arrays["bound"])})


def _designed(
    g: np.ndarray, lam: np.ndarray, optimizer: Any, settings: Settings, cycle: int
) -> dict[str, Any]:
    S, M = settings.batch_size, len(g) // settings.batch_size
    noise = g.var(axis=0, ddof=1, dtype=np.float64)
    slope = theory.loss_fluctuation_slope(lam, noise, *optimizer, cycle * M)
    design = theory.best_order(slope, M, cycle, seed=settings.seed)
    order = theory.balanced_order(g, lam, *optimizer, S, seed=settings.seed)
    scale = 1 / S - 1 / len(g)
    laws = blind_laws(M, design.positions)
    weights, means = (
        [theory.loss_fluctuation(lam, of(law), scale * noise) for law in laws.values()]
        for of in (
            lambda law: theory.stationary_variances(lam, *optimizer, law).weight,
            lambda law: theory.averaged_variances(lam, *optimizer, law, M),
        )
    )
    own = theory.repeated_order_variances(g, lam, *optimizer, order)
    weights.append(float(lam @ own / 2))
    # An order that repeats leaves no noise in the mean of its epoch.
    means.append(0.0)
    white = theory.stationary_variances(lam, *optimizer, theory.with_replacement()).weight
    bound = scale * (theory.loss_fluctuation(lam, white, noise) + design.bound)
    return Expected(
        np.array(weights), np.array(means), design.positions, order, bound
    )._asdict()  # fmt: skip


def descend(
    problem: Problem,
    settings: Settings,
    states: heavy_ball.TrainState,
    expected: list[Expected],
    name: str,
    settle_epochs: int,
    path: Path,
) -> Descent:
    """Carries all networks on under an order; what is finished is read from its file.

    Args:
        problem: loss and examples.
        settings: of the experiment.
        states: of the trained networks, every leaf [networks, …].
        expected: of each network, for its designs.
        name: of the order.
        settle_epochs: epochs before the losses are taken.
        path: the file.
    """
    if not path.exists():
        found = _carried(problem, settings, states, expected, name, settle_epochs)
        results.write_arrays(path, **found._asdict())
    return Descent(**results.read_arrays(path))


def _schemes(name: str, expected: list[Expected]) -> list[sampling.Scheme]:
    if name == "designed":
        return [sampling.designed(one.positions) for one in expected]
    if name == "balanced":
        return [sampling.repeated(one.order) for one in expected]
    return [getattr(sampling, name)] * len(expected)


def _carried(problem, settings, states, expected, name, settle_epochs) -> Descent:
    piece, evaluate = _steps(problem, settings), _losses(problem)
    steps, last, whole = problem.num_examples // settings.batch_size, [], None
    taken: dict[str, list[np.ndarray]] = {"weights": [], "means": [], "test_loss": []}
    total = settle_epochs + settings.analysis_epochs
    with display.progress_bar(f"carrying on, {name}", "epoch", total) as bar:
        for epoch in range(total):
            for part in _pieces(settings, expected, name, epoch):
                states, losses, visited = piece(states, part, problem.train)
                networks = [(i, settings) for i in range(len(expected))]
                check_finite(np.asarray(losses), settings.epochs + epoch, steps, networks)
                last = [*last, visited][-PIECES:]
                if epoch >= settle_epochs:
                    whole = visited if whole is None else _sum([whole, visited])
                    taken["weights"].append(evaluate(states.params)[0])
                    taken["means"].append(evaluate(_sum(last, steps))[0])
            if epoch >= settle_epochs:
                taken["test_loss"].append(evaluate(states.params)[1])
            bar.update()
    period = evaluate(_sum([whole], steps * settings.analysis_epochs))
    averaged = {key: np.mean(values, axis=0) for key, values in taken.items()}
    return Descent(**averaged, period=period[0], test_loss_period=period[1])


def _pieces(
    settings: Settings, expected: list[Expected], name: str, epoch: int
) -> Iterator[sampling.Schedule]:
    """An epoch's schedules of all networks, [networks, steps, batch], in pieces."""
    num_examples, number = expected[0].order.size, ORDERS.index(name)
    drawn = [
        scheme(
            jax.random.fold_in(training.stream_key(settings, i), number), epoch, num_examples,
            settings.batch_size,
        )
        for i, scheme in enumerate(_schemes(name, expected))
    ]  # fmt: skip
    schedule = jax.tree.map(lambda *rows: jnp.stack(rows), *drawn)
    for rows in np.array_split(np.arange(schedule.indices.shape[1]), PIECES):
        yield jax.tree.map(lambda leaf, r=rows: leaf[:, r[0] : r[-1] + 1], schedule)


def _sum(parts: list[Any], over: int = 1) -> Any:
    return jax.tree.map(lambda *leaves: sum(leaves) / over, *parts)


def _steps(problem: Problem, settings: Settings) -> Callable[..., Any]:
    """(states, schedule, examples) → states, losses [networks, steps], sum of the weights."""
    optimizer = training.optimizer_at(
        settings, settings.epochs, *training.hyperparameters(settings), problem.optimizer
    )

    @jax.jit
    def piece(states, schedule, examples):
        def one(state, schedule):
            state, (losses, path) = heavy_ball.run_schedule(
                problem.loss, optimizer, state, schedule, examples,
                record=lambda theta, gradient, update, loss: (loss, theta),
            )  # fmt: skip
            return state, losses, jax.tree.map(lambda leaf: leaf.sum(axis=0), path)

        return jax.vmap(one)(states, schedule)

    return piece


def _losses(problem: Problem) -> Callable[[Any], np.ndarray]:
    """Full training loss with its penalty, and the test set's, [2, networks]."""
    ones = jnp.ones(problem.num_examples)

    @jax.jit
    def both(params, train, test):
        def one(params):
            return problem.loss(params, train, ones), problem.evaluate(params, test)["loss"]

        return jax.lax.map(one, params)

    return lambda params: np.array(both(params, problem.train, problem.test), np.float64)
