"""What is trained on what: the one thing that a study has to be given."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from antisgd import averaging, sources
from antisgd.heavy_ball import Loss, Stepwise

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
            is of. With `init_state` (params, state, examples, weights).
        train: pytree of arrays with a leading example axis [N, …]; read piece by piece where one
            of them is memory-mapped or they do not fit the device, or a `sources.Source`.
        test: the same for the test examples; None: no curves of a test set.
        metrics: (params, examples) → means over the examples, a mapping or NamedTuple of scalars,
            "loss" first; accuracy, where there is one, under the name "accuracy". None: the loss.
            With `init_state` (params, state, examples).
        name: of the network, for titles.
        data: what the examples are called in titles and captions.
        description: what else decides the numbers, for config.json: JSON values.
        noiseless_curvature: the curvature that a penalty adds in every batch alike, and that
            therefore makes no noise.
        optimizer: learning rate (traced) → optax transformation, such as
            `lambda rate: optax.sgd(rate, 0.9, nesterov=True)`; `settings.momentum` is not used
            then. None: heavy ball with that momentum. Where it is linear its theory stands beside
            what is measured (`theory.from_optax`), where it is not there is none.
        training_loss: (params, state, examples, weights, key) → (loss, state after the step, aux):
            what training differentiates where that is not `loss`, as with batch normalisation and
            dropout. `key` is that step's own, a function of seed and step; aux is a mapping of
            scalars, whose means over each epoch are kept in training.npz as step_NAME. None: `loss`
            is trained.
        init_state: key, the one that `init` gets → the state before the first step, a pytree of
            arrays such as batch statistics. None: there is none, and `training_loss` gets None.

    Where there is a `training_loss`, it makes the weights θ_K and nothing else. The analysis
    period goes on from there with `loss`, the state frozen as training left it, without a key: the
    minibatches, full gradients and Hessians are those of one deterministic loss, and the recorded
    noise comes from the sampling alone. Noise of keys (dropout) and of statistics that a batch
    takes of itself are not in it: they moved θ_K during training.
    """

    init: Callable[[jax.Array], Any]
    loss: Callable[..., jax.Array]
    train: Any
    test: Any = None
    metrics: Callable[..., Any] | None = None
    name: str = "network"
    data: str = ""
    description: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    noiseless_curvature: float = 0.0
    optimizer: Callable[[Any], optax.GradientTransformation] | None = None
    training_loss: Callable[..., tuple[jax.Array, Any, Mapping[str, Any]]] | None = None
    init_state: Callable[[jax.Array], Any] | None = None

    @property
    def num_examples(self) -> int:
        """N."""
        return jax.tree.leaves(self.train)[0].shape[0]

    @cached_property
    def dimension(self) -> int:
        """d, the number of weights."""
        shapes = jax.eval_shape(self.init, jax.random.key(0))
        return sum(leaf.size for leaf in jax.tree.leaves(shapes))

    def state_at(self, key: jax.Array) -> Any:
        """The state before the first step; None where there is none."""
        return None if self.init_state is None else self.init_state(key)

    @property
    def trained_loss(self) -> Loss | Stepwise:
        """What training differentiates."""
        return self.loss if self.training_loss is None else Stepwise(self.training_loss)

    def frozen(self, state: Any) -> "Problem":
        """The problem of the analysis period: its loss at a state that does not change."""
        if self.training_loss is None:
            return self
        if self.init_state is None:
            return dataclasses.replace(self, training_loss=None)
        if state is None:
            raise ValueError(
                "a problem with init_state is measured at a state: give a heavy_ball.TrainState, "
                "as heavy_ball.init(optimizer, params, state) makes one"
            )
        kept = jax.tree.map(jnp.asarray, state)

        def loss(params, examples, weights):
            return self.loss(params, kept, examples, weights)

        def measured(params, examples):
            return self.metrics(params, kept, examples)  # type: ignore[misc]

        return dataclasses.replace(
            self, loss=loss, metrics=self.metrics and measured, training_loss=None, init_state=None
        )

    @property
    def parts(self) -> dict[str, Any]:
        """The sets of examples by name."""
        return {"train": self.train} | ({} if self.test is None else {"test": self.test})

    @cached_property
    def curve_names(self) -> tuple[str, ...]:
        """What is evaluated after every epoch: set and metric, the training loss first."""

        def first(key, examples):
            return self.frozen(self.state_at(key)).evaluate(self.init(key), examples)

        examples = sources.sample(self.train)
        measured = jax.eval_shape(first, jax.random.key(0), examples)
        return tuple(f"{part}_{name}" for part in self.parts for name in _ordered(measured))

    @cached_property
    def step_names(self) -> tuple[str, ...]:
        """What a training loss of its own tells of each step: "loss" and the names of its aux."""
        if self.training_loss is None:
            return ()
        return ("loss", *sorted(self._first_step()[2]))

    def evaluate(self, params: Any, examples: Any) -> dict[str, jax.Array]:
        """The metrics by name, means over the examples; pure."""
        if self.metrics is None:
            return {"loss": _mean_loss(self.loss, params, examples)}
        found = self.metrics(params, examples)
        return _ordered(found._asdict() if hasattr(found, "_asdict") else found)

    def check(self) -> None:
        """Refuses what cannot be trained.

        Raises:
            ValueError: arrays of differing numbers of examples, weights that are no floats, a
                training loss that does not give what it has to, or a loss beside it that is no
                weighted mean.
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
        if self.training_loss is not None:
            self._check_training()
        elif self.init_state is not None:
            raise ValueError("init_state without a training_loss: nothing would change the state")

    def _first_step(self) -> tuple[Any, Any, Any]:
        """Shapes of what the training loss gives."""
        shapes = jax.eval_shape(lambda key: (self.init(key), self.state_at(key)), jax.random.key(0))
        few = sources.first(self.train, 2)
        arguments = *shapes, few, np.ones(2, np.float32), jax.random.key(0)
        try:
            value, after, aux = jax.eval_shape(self.training_loss, *arguments)  # type: ignore[arg-type]
        except (TypeError, ValueError) as error:
            raise ValueError(f"training_loss must give (loss, state, aux): {error}") from error
        return value, after, aux

    def _check_training(self) -> None:
        """Refuses a training loss whose state changes its form, and what no Hessian is of."""
        key = jax.random.key(0)
        state, (value, after, aux) = self.state_at(key), self._first_step()
        forms = [jax.tree.map(_form, one) for one in (state, after)]
        if forms[0] != forms[1]:
            raise ValueError(
                f"training_loss gives the state as {forms[1]}, init_state as {forms[0]}: both must "
                "have the same leaves, shapes and types"
            )
        scalars = isinstance(aux, Mapping) and all(leaf.shape == () for leaf in aux.values())
        if value.shape != () or not scalars or "loss" in aux:
            raise ValueError(
                "training_loss must give (loss, state, aux) with a scalar loss and aux a mapping "
                'of names, "loss" not among them, to scalars; {} for none'
            )
        few = sources.sample(self.train)
        averaging.refuse_other_than_mean(self.frozen(state).loss, self.init(key), few)


def _form(leaf: Any) -> str:
    return f"{jnp.result_type(leaf)}{list(jnp.shape(leaf))}"


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
