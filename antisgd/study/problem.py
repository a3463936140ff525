"""What is trained on what: the one thing that a study has to be given."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from antisgd.heavy_ball import Loss

__all__ = ["Problem"]

# Examples of a forward pass where the problem has no metrics of its own.
EVALUATED = 1000


@dataclasses.dataclass(frozen=True)
class Problem:
    """A network, its loss and its examples.

    Attributes:
        init: key → params, a pytree of float arrays.
        loss: (params, examples, weights) → the mean over the examples with these weights [n] (zero
            for an unused place of a batch), plus penalties: what is trained and what the Hessian
            is of.
        train: pytree of arrays with a leading example axis [N, …].
        test: the same for the test examples; None: no curves of a test set.
        metrics: (params, examples) → means over the examples, a mapping or NamedTuple of scalars,
            "loss" first; accuracy, where there is one, under the name "accuracy". None: the loss.
        name: of the network, for titles.
        data: what the examples are called in titles and captions.
        description: what else decides the numbers, for config.json: JSON values.
        noiseless_curvature: the curvature that a penalty adds in every batch alike, and that
            therefore makes no noise.
        optimizer: learning rate (traced) → optax transformation, such as
            `lambda rate: optax.sgd(rate, 0.9, nesterov=True)`; `settings.momentum` is not used
            then. None: heavy ball with that momentum. Where it is linear its theory stands beside
            what is measured (`theory.from_optax`), where it is not there is none.
    """

    init: Callable[[jax.Array], Any]
    loss: Loss
    train: Any
    test: Any = None
    metrics: Callable[[Any, Any], Any] | None = None
    name: str = "network"
    data: str = ""
    description: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    noiseless_curvature: float = 0.0
    optimizer: Callable[[Any], optax.GradientTransformation] | None = None

    @property
    def num_examples(self) -> int:
        """N."""
        return jax.tree.leaves(self.train)[0].shape[0]

    @cached_property
    def dimension(self) -> int:
        """d, the number of weights."""
        shapes = jax.eval_shape(self.init, jax.random.key(0))
        return sum(leaf.size for leaf in jax.tree.leaves(shapes))

    @property
    def parts(self) -> dict[str, Any]:
        """The sets of examples by name."""
        return {"train": self.train} | ({} if self.test is None else {"test": self.test})

    @cached_property
    def curve_names(self) -> tuple[str, ...]:
        """What is evaluated after every epoch: set and metric, the training loss first."""
        params = jax.eval_shape(self.init, jax.random.key(0))
        measured = jax.eval_shape(self.evaluate, params, self.train)
        return tuple(f"{part}_{name}" for part in self.parts for name in _ordered(measured))

    def evaluate(self, params: Any, examples: Any) -> dict[str, jax.Array]:
        """The metrics by name, means over the examples; pure."""
        if self.metrics is None:
            return {"loss": _mean_loss(self.loss, params, examples)}
        found = self.metrics(params, examples)
        return _ordered(found._asdict() if hasattr(found, "_asdict") else found)

    def check(self) -> None:
        """Refuses what cannot be trained.

        Raises:
            ValueError: arrays of differing numbers of examples, or weights that are no floats.
        """
        for part, examples in self.parts.items():
            leaves = jax.tree.leaves(examples)
            counts = sorted({np.shape(leaf)[0] if np.ndim(leaf) else 0 for leaf in leaves})
            if len(counts) != 1 or counts[0] == 0:
                raise ValueError(
                    f"the {part} examples are arrays of {counts} examples: all need one leading "
                    "axis [N, ...]"
                )
        shapes = jax.tree.leaves(jax.eval_shape(self.init, jax.random.key(0)))
        if not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in shapes):
            raise ValueError(
                "init returns leaves that are no float arrays: keep counters, keys and statistics "
                "out of params and close over them in loss"
            )


def _ordered(measured: Mapping[str, Any]) -> dict[str, Any]:
    """The loss first, then by name: JAX hands dictionaries back in an order of its own."""
    return {name: measured[name] for name in sorted(measured, key=lambda one: (one != "loss", one))}


def _mean_loss(loss: Loss, params: Any, examples: Any) -> jax.Array:
    """Mean over all examples, microbatch by microbatch, a ragged end filled with weight zero."""
    num_examples = jax.tree.leaves(examples)[0].shape[0]
    count = -(-num_examples // EVALUATED)
    size = -(-num_examples // count)

    def part(rows):
        weights = (rows < num_examples).astype(jnp.float32)
        batch = jax.tree.map(lambda leaf: leaf[jnp.minimum(rows, num_examples - 1)], examples)
        return loss(params, batch, weights) * jnp.sum(weights)

    rows = jnp.arange(count * size).reshape(count, size)
    return jnp.sum(jax.lax.map(part, rows)) / num_examples
