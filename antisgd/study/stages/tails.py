"""Windows of resampled pictures: the scatter of τ where few examples carry the noise."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from antisgd import devices, display, sampling, statistics
from antisgd.study.conditions import Conditions

__all__ = ["Tails", "find"]

# Windows of each scheme; directions, half of them those that the fewest examples carry; epochs
# before a window, after which flat directions are as they stay.
WINDOWS, DIRECTIONS, BEFORE = 200, 64, 5
# The 95 % band.
QUANTILES = (0.025, 0.975)


class Tails(NamedTuple):
    """How few examples carry the noise at θ_K, and what that does to the scatter of τ.

    Attributes:
        carriers: how many examples carry the noise of a direction, and the three largest.
        places: directions whose windows were resampled, [n].
        bands: scheme → ends of the 95 % band of τ, update steps, [n, 2].
    """

    carriers: statistics.Carriers
    places: np.ndarray
    bands: dict[str, np.ndarray]


def find(
    gradients: np.ndarray, eigenvalues: np.ndarray, conditions: Conditions,
    schemes: tuple[str, ...], seed: int,
) -> Tails:  # fmt: skip
    """Resamples the pictures of each scheme's window; heavy ball's only, else no directions.

    Args:
        gradients: of the examples along the directions, [N, k].
        eigenvalues: [k].
        conditions: of the period.
        schemes: of the periods.
        seed: of the orders.
    """
    carriers = statistics.carriers(gradients)
    places = np.zeros(0, int)
    if conditions.heavy_ball:
        usable = conditions.stable(eigenvalues) & np.isfinite(carriers.number)
        places = _chosen(np.flatnonzero(usable), carriers.number)
    bands = {}
    for scheme in schemes if places.size else ():
        times = _times(gradients[:, places], eigenvalues[places], conditions, scheme, seed)
        bands[scheme] = np.quantile(times, QUANTILES, axis=0).T
    return Tails(carriers, places, bands)


def _chosen(usable: np.ndarray, number: np.ndarray) -> np.ndarray:
    """Those that the fewest examples carry, and as many spread evenly over the others."""
    few = usable[np.argsort(number[usable], kind="stable")[: DIRECTIONS // 2]]
    others = np.setdiff1d(usable, few)
    evenly = np.linspace(0, max(len(others) - 1, 0), min(DIRECTIONS // 2, len(others)))
    return np.sort(np.concatenate([few, others[evenly.astype(int)]]))


def _times(
    gradients: np.ndarray, eigenvalues: np.ndarray, conditions: Conditions, scheme: str, seed: int
) -> np.ndarray:
    """τ of every window, [windows, n]; before it the scheme that training left the weights in."""
    size = conditions.num_examples, conditions.batch_size
    before, within = getattr(sampling, conditions.training_scheme), getattr(sampling, scheme)

    @jax.jit
    def stream(key: jax.Array) -> Any:
        epochs = [before(key, e, *size) for e in range(BEFORE)]
        later = jax.vmap(lambda e: within(key, e, *size))(BEFORE + np.arange(conditions.epochs))
        later = jax.tree.map(lambda leaf: leaf.reshape(-1, leaf.shape[-1]), later)
        return jax.tree.map(lambda *parts: jax.numpy.concatenate(parts), *epochs, later)

    keys = jax.random.split(jax.random.key(seed), WINDOWS)
    steps = conditions.epochs * conditions.steps_per_epoch
    words = f"resampled windows, {scheme.replace('_', ' ')}"
    with display.progress_bar(words, "window", len(keys), shown=devices.first()) as bar:

        def schedules() -> Iterator[Any]:
            for key in keys:
                yield stream(key)
                bar.update()

        return statistics.resampled_windows(
            gradients, eigenvalues, conditions.learning_rate, conditions.momentum,
            schedules(), steps,
        )[2]  # fmt: skip
