"""A run that diverges stops at once: which step, which network, and what it could have borne."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optax

from antisgd import theory
from antisgd.study.optimiser import heavy_ball_of, linear_system
from antisgd.study.settings import Training

__all__ = ["Optimizer", "check_finite", "edge", "stability"]

# `Problem.optimizer`: None for heavy ball.
Optimizer = Callable[[Any], optax.GradientTransformation] | None

# Nats. No minibatch of a network that learns comes near; float32 overflows only at 3e38.
DIVERGED = 1e6


def check_finite(
    losses: np.ndarray,
    epoch: int,
    steps_per_epoch: int,
    networks: Sequence[tuple[int, Training]],
    *,
    first: int = 0,
    optimizer: Optimizer = None,
) -> None:
    """Stops at the first loss that is not finite, or has left every scale of a loss.

    Args:
        losses: minibatch losses, [networks, steps].
        epoch: that they belong to.
        steps_per_epoch: M.
        networks: seed and settings of each.
        first: place of the first of the steps in the epoch.
        optimizer: that of the problem, whose bound is named where it is linear.

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
        f"{stability(epoch, settings, optimizer)}"
    )


def edge(epoch: int, settings: Training, optimizer: Optimizer = None) -> float:
    """The curvature from which on an epoch's steps grow; inf where the optimiser is not linear."""
    rate, momentum = _as_used(epoch, settings)
    if optimizer is None:
        return 2 * (1 + momentum) / rate
    system = linear_system(optimizer, rate)
    return np.inf if system is None else theory.stability_edge(system)


def stability(epoch: int, settings: Training, optimizer: Optimizer = None) -> str:
    """The learning rate of an epoch and what it can bear, in words."""
    rate, momentum = _as_used(epoch, settings)
    system = None if optimizer is None else linear_system(optimizer, rate)
    own = None if system is None else heavy_ball_of(system)
    rate, momentum = own or (rate, momentum)
    if optimizer is not None and system is None:
        return f"the optimiser does not bear learning rate {rate:.3g}; lower --learning_rate"
    bound = edge(epoch, settings, optimizer)
    if optimizer is not None and own is None:
        return (
            f"the optimiser is stable at learning rate {rate:.3g} only for curvatures below "
            f"{bound:.3g}; lower --learning_rate"
        )
    return (
        f"learning rate {rate:.3g} with momentum {momentum:.3g} is stable only for curvatures "
        f"below 2(1+beta)/eta = {bound:.3g}; lower --learning_rate"
    )


def _as_used(epoch: int, settings: Training) -> tuple[float, float]:
    """η of an epoch and β, as the steps use them."""
    first, momentum = np.float32(settings.learning_rate), np.float32(settings.momentum)
    decay = settings.learning_rate_decay ** min(epoch, settings.epochs)
    return float(first * decay), float(momentum)
