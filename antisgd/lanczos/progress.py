"""What a solve tells its caller while it runs."""

from collections.abc import Callable
from typing import NamedTuple

from jax import Array

from antisgd.lanczos.certificate import Product
from antisgd.lanczos.iteration import Matvec, apply
from antisgd.lanczos.memory import VECTORS_A_PAIR
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
    """Remaining products by the rate of the last two checks, before that by the rule of thumb."""
    checks = state.history[state.history[:, 1] >= 0][-2:]
    converged = int(checks[-1, 1]) if len(checks) else 0
    remaining = max(0, int(VECTORS_A_PAIR * k) - multiplied(state))
    if len(checks) == 2 and checks[1, 1] > checks[0, 1]:
        rate = (checks[1, 1] - checks[0, 1]) / (checks[1, 0] - checks[0, 0])
        remaining = max(0, int((k - converged) / rate) - int(state.products - checks[1, 0]))
    return Progress(int(state.products), converged, k, remaining)


def watched(
    matvec: Matvec, state: State, k: int, stage: str, total: int, callback: Callback | None
) -> Product:
    """The product of a block [b, d], with a word to the callback after each of `total`."""
    done = 0

    def product(block: Array) -> Array:
        nonlocal done
        image = apply(matvec, block, int(state.dimension))
        done += len(block)
        if callback is not None:
            progress = estimate(state, k)
            remaining = max(0, total - done)
            callback(state, progress._replace(products=done, remaining=remaining, stage=stage))
        return image

    return product
