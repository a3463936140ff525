"""The choices that the paper leaves open, each a change of the problem."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from antisgd import data, models, objective
from antisgd.data import cifar10
from antisgd.study import Problem, Settings
from experiments import pictures
from experiments.pictures import Pictures

__all__ = ["CHOICES", "Choice", "changed"]


class Choice(NamedTuple):
    """What differs from the run of Fig. 2.

    Attributes:
        words: for the table.
        pixels: raw pictures of both sets, uint8 → float32; None for the usual preprocessing.
        penalty: factor on --weight_decay.
        kernel_scale: [kernel's shape] → factor on the initial Glorot-normal kernel.
        biases: whether the penalty is on biases as well.
        seed: added to --seed: other initial weights, another order of the pictures.
    """

    words: str
    pixels: Callable[[np.ndarray], np.ndarray] | None = None
    penalty: float = 1.0
    kernel_scale: Callable[[tuple[int, ...]], float] | None = None
    biases: bool = False
    seed: int = 0


def over_255(pixels: np.ndarray) -> np.ndarray:
    """Pixels in [0, 1]."""
    return (pixels / 255).astype(np.float32)


def centred(pixels: np.ndarray) -> np.ndarray:
    """Pixels in [−1, 1]."""
    return (pixels / 127.5 - 1).astype(np.float32)


def whole_set(pixels: np.ndarray) -> np.ndarray:
    """Mean 0 and variance 1 of every channel over all pictures instead of within each."""
    axes = (0, 1, 2)
    mean, deviation = (of(pixels, axis=axes, dtype=np.float64) for of in (np.mean, np.std))
    return ((pixels - mean) / deviation).astype(np.float32)


def whole_picture(pixels: np.ndarray) -> np.ndarray:
    """Mean 0 and variance 1 of every picture over all its channels together."""
    axes = (1, 2, 3)
    mean, deviation = (
        of(pixels, axis=axes, keepdims=True, dtype=np.float64) for of in (np.mean, np.std)
    )
    # Of a picture of one colour nothing would be left to divide by.
    least = 1 / np.sqrt(pixels[0].size)
    return ((pixels - mean) / np.maximum(deviation, least)).astype(np.float32)


def fan_in_over_glorot(shape: tuple[int, ...]) -> float:
    """Turns the deviation √(2/(fan in + fan out)) into LeCun's √(1/fan in)."""
    *window, wide, high = shape
    del window
    return float(np.sqrt((wide + high) / (2 * wide)))


CHOICES = {
    "reference": Choice("as in Fig. 2"),
    "over_255": Choice("pixels / 255 only", pixels=over_255),
    "centred": Choice("pixels between -1 and 1", pixels=centred),
    "whole_set": Choice("channels standardised over the data set", pixels=whole_set),
    "no_penalty": Choice("no penalty", penalty=0.0),
    "half_penalty": Choice("penalty c/2 Σw²", penalty=0.5),
    "lecun": Choice("LeCun-normal kernels", kernel_scale=fan_in_over_glorot),
    "seed_1": Choice("as in Fig. 2, another seed", seed=1),
    "seed_2": Choice("as in Fig. 2, a third seed", seed=2),
    "double_penalty": Choice("penalty 2c Σw²", penalty=2.0),
    "penalised_biases": Choice("biases penalised too", biases=True),
    "whole_picture": Choice("pictures standardised over all channels", pixels=whole_picture),
}


def changed(usual: Problem, choice: Choice, chosen: Pictures, settings: Settings) -> Problem:
    """The problem of a choice."""
    problem = usual
    if choice.penalty != 1:
        other = replace(chosen, weight_decay=choice.penalty * chosen.weight_decay)
        problem = pictures.problem(models.lenet(), usual.name, other, settings)
    if choice.biases:
        loss = objective.make_loss(models.lenet().apply, chosen.weight_decay, lambda name: True)
        problem = replace(problem, loss=loss)
    if choice.pixels is not None:
        train, test = _repainted(problem, choice.pixels, chosen.data_dir)
        problem = replace(problem, train=train, test=test)
    if choice.kernel_scale is not None:
        problem = replace(problem, init=_rescaled(problem.init, choice.kernel_scale))
    return problem


def _repainted(
    problem: Problem, pixels: Callable[[np.ndarray], np.ndarray], data_dir: str | None
) -> tuple[data.Examples, ...]:
    """The sets of a problem from the raw pictures."""
    return tuple(
        data.Examples(jnp.asarray(pixels(raw.images)[: len(kept.labels)]), kept.labels)
        for raw, kept in zip(cifar10.read(data_dir), problem.parts.values(), strict=True)
    )


def _rescaled(init: Any, scale: Callable[[tuple[int, ...]], float]) -> Any:
    def rescaled(key: jax.Array) -> Any:
        return jax.tree.map(lambda w: w * scale(w.shape) if w.ndim > 1 else w, init(key))

    return rescaled
