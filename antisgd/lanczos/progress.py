"""What a solve tells its caller while it runs."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jax import Array

from antisgd.lanczos.memory import VECTORS_A_PAIR
from antisgd.lanczos.products import Product
from antisgd.lanczos.projection import State, multiplied

__all__ = ["Callback", "Progress", "estimate", "watched"]


class Progress(NamedTuple):
    """Products of a stage so far and to come (for the solve a guess), pairs converged and wanted.

    stage: "solve", then "probe" for missed pairs, then "certificate".
    """

    products: int
    converged: int
    wanted: int
    remaining: int
    stage: str = "solve"


Callback = Callable[[State, Progress], None]


def estimate(state: State, k: int) -> Progress:
    """Remaining products: the rule of thumb, then more and more the rate of the last fifth.

    The first pairs converge slowly, and a rate taken from them would promise ten times the work;
    so it counts as the square of the share of the pairs that it has brought. Pairs converge in
    bursts, from one check to the next hardly any or many at once.
    """
    checks = state.history[state.history[:, 1] >= 0]
    last, converged = checks[-1] if len(checks) else (0, 0)
    # Hardly ever do more than two pairs converge a product.
    left = max((k - converged) // 2, int(VECTORS_A_PAIR * k) - multiplied(state))
    before = checks[: max(1, np.searchsorted(checks[:, 0], 0.8 * last, "right"))]
    if len(checks) > 1 and converged > before[-1, 1]:
        rate = (converged - before[-1, 1]) / (last - before[-1, 0])
        by_rate = (k - converged) / rate - (state.products - last)
        left = round(left + (converged / k) ** 2 * (by_rate - left))
    return Progress(int(state.products), int(converged), k, max(0, int(left)))


def watched(
    product: Product, state: State, k: int, stage: str, total: int, callback: Callback | None
) -> Product:
    """The product of a block [b, d], with a word to the callback after each of `total`."""
    done = 0

    def counted(block: Array) -> Array:
        nonlocal done
        image = product(block)
        done += len(block)
        if callback is not None:
            progress = estimate(state, k)
            remaining = max(0, total - done)
            callback(state, progress._replace(products=done, remaining=remaining, stage=stage))
        return image

    return counted
