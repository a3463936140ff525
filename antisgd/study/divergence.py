"""A run that diverges stops at once: which step, which network, and what it could have borne."""

from collections.abc import Sequence

import numpy as np

from antisgd.study.settings import Training

__all__ = ["check_finite", "stability"]

# Nats. No minibatch of a network that learns comes near; float32 overflows only at 3e38.
DIVERGED = 1e6


def check_finite(
    losses: np.ndarray,
    epoch: int,
    steps_per_epoch: int,
    networks: Sequence[tuple[int, Training]],
    *,
    first: int = 0,
    heavy_ball: bool = True,
) -> None:
    """Stops at the first loss that is not finite, or has left every scale of a loss.

    Args:
        losses: minibatch losses, [networks, steps].
        epoch: that they belong to.
        steps_per_epoch: M.
        networks: seed and settings of each.
        first: place of the first of the steps in the epoch.
        heavy_ball: False for another optimiser, whose bound is not known here.

    Raises:
        FloatingPointError: naming step, seed, learning rate and the stability bound.
    """
    bad = ~(losses < DIVERGED)
    if not bad.any():
        return
    step = int(np.argmax(bad.any(axis=0)))
    index = int(np.argmax(bad[:, step]))
    value, (seed, settings) = losses[index, step], networks[index]
    raise FloatingPointError(
        f"the loss of seed {seed} is "
        f"{f'{value:.2g}' if np.isfinite(value) else 'not finite'} at step "
        f"{epoch * steps_per_epoch + first + step} (epoch {epoch}): "
        f"{stability(epoch, settings, heavy_ball)}"
    )


def stability(epoch: int, settings: Training, heavy_ball: bool = True) -> str:
    """The learning rate of an epoch and what it can bear, in words."""
    # As the steps use them.
    first, momentum = np.float32(settings.learning_rate), np.float32(settings.momentum)
    rate = first * settings.learning_rate_decay ** min(epoch, settings.epochs)
    if not heavy_ball:
        return f"the optimiser does not bear learning rate {rate:.3g}; lower --learning_rate"
    return (
        f"learning rate {rate:.3g} with momentum {momentum:.3g} is stable only for curvatures "
        f"below 2(1+beta)/eta = {2 * (1 + momentum) / rate:.3g}; lower --learning_rate"
    )
