"""SGD on a quadratic with real batches of every order, beside what theory says of it."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from antisgd import ensemble, heavy_ball, results, sampling, theory

__all__ = ["Simulated", "blind_laws", "simulate"]

# Examples, batches and directions of the quadratic, replicas of each order and their epochs.
EXAMPLES, STEPS, DIRECTIONS, REPLICAS, BEFORE, EPOCHS = 500, 50, 40, 32, 30, 40
LEARNING_RATE, MOMENTUM = 2e-3, 0.9


class Simulated(NamedTuple):
    """Loss fluctuation and that of the mean of an epoch's weights, over reshuffling's expected.

    Attributes:
        expected: by theory, [2].
        measured: mean over replicas, [2].
        error: standard error over replicas, [2].
    """

    expected: np.ndarray
    measured: np.ndarray
    error: np.ndarray


def blind_laws(steps: int, positions: np.ndarray) -> dict[str, theory.Noise]:
    """The laws of the orders that know nothing of the examples, at unit variance."""
    return {
        "without_replacement": theory.without_replacement(steps),
        "flip_flop": theory.flip_flop(steps),
        "shuffle_once": theory.shuffle_once(steps),
        "designed": theory.order_law(positions),
    }


def simulate(cycle: int, seed: int, path: Path) -> dict[str, Simulated]:
    """All orders on one quadratic with heavy-tailed examples and C ∝ λ in expectation.

    Args:
        cycle: epochs of a design.
        seed: of examples and orders.
        path: file of what is found, which is read where it is there.
    """
    if not path.exists():
        found = _simulated(cycle, seed)
        results.write_arrays(path, **{name: np.stack(one) for name, one in found.items()})
    return {name: Simulated(*rows) for name, rows in results.read_arrays(path).items()}


def _simulated(cycle: int, seed: int) -> dict[str, Simulated]:
    lam = np.geomspace(0.06, 30, DIRECTIONS)
    random = np.random.default_rng(seed)
    g = random.standard_t(5, (EXAMPLES, DIRECTIONS)) * np.sqrt(lam)
    g -= g.mean(axis=0)
    noise = g.var(axis=0, ddof=1)
    slope = theory.loss_fluctuation_slope(lam, noise, LEARNING_RATE, MOMENTUM, cycle * STEPS)
    positions = theory.best_order(slope, STEPS, cycle).positions
    laws, size = blind_laws(STEPS, positions), EXAMPLES // STEPS
    noise = noise * (1 / size - 1 / EXAMPLES)
    unit = _expected(lam, noise, laws["without_replacement"])[0]
    schemes = {name: getattr(sampling, name, None) for name in laws}
    schemes["designed"] = sampling.designed(positions)
    found = {}
    for number, (name, law) in enumerate(laws.items()):
        key = jax.random.fold_in(jax.random.key(seed), number)
        values = _measured(lam, g, schemes[name], key) / unit
        found[name] = Simulated(
            _expected(lam, noise, law) / unit, values.mean(axis=0),
            values.std(axis=0, ddof=1) / np.sqrt(REPLICAS),
        )  # fmt: skip
    return found


def _expected(lam: np.ndarray, noise: np.ndarray, law: theory.Noise) -> np.ndarray:
    optimizer = lam, LEARNING_RATE, MOMENTUM, law
    each = theory.stationary_variances(*optimizer).weight
    mean = theory.averaged_variances(*optimizer, STEPS)
    return np.array([theory.loss_fluctuation(lam, one, noise) for one in (each, mean)])


def _measured(lam: np.ndarray, g: np.ndarray, scheme: Any, key: jax.Array) -> np.ndarray:
    """Both fluctuations of every replica, [replicas, 2]."""
    curvature = jnp.asarray(lam, jnp.float32)

    def loss(theta, gradients, weights):
        return (jnp.vdot(theta, curvature * theta) / 2
                + jnp.vdot(weights @ gradients, theta) / weights.sum())  # fmt: skip

    optimizer = heavy_ball.heavy_ball(LEARNING_RATE, MOMENTUM)
    keys = jax.random.split(key, REPLICAS)
    start = ensemble.init(lambda _: jnp.zeros(lam.size, jnp.float32), optimizer, keys)

    @jax.jit
    def epoch(states, number, examples):
        def one(state, key):
            schedule = scheme(key, number, EXAMPLES, EXAMPLES // STEPS)
            return heavy_ball.run_schedule(
                loss, optimizer, state, schedule, examples, record=lambda theta, *_: theta
            )

        return jax.vmap(one)(states, keys)

    states, examples, paths = start, jnp.asarray(g, jnp.float32), []
    for number in range(BEFORE + EPOCHS):
        states, path = epoch(states, number, examples)
        if number >= BEFORE:
            paths.append(np.asarray(path, np.float64))
    theta = np.concatenate(paths, axis=1)
    sums = np.cumsum(np.pad(theta, ((0, 0), (1, 0), (0, 0))), axis=1)
    means = (sums[:, STEPS:] - sums[:, :-STEPS]) / STEPS
    return np.stack([(path**2).mean(axis=1) @ lam / 2 for path in (theta, means)], axis=1)
