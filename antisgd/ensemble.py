"""Many networks at once: seeds × sampling schemes, by `vmap` in groups and over all devices.

A network is a pure function of its key, so an ensemble is a leading axis. Networks trained with
different schemes run the same compiled program, because a schedule is data.
"""

from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding

from antisgd import averaging, devices, heavy_ball, inputs, sampling

__all__ = [
    "each_network", "init", "make_epoch", "network_keys", "on_all_devices", "over_devices",
    "schedules", "step_keys",
]  # fmt: skip

Scheme = Callable[[jax.Array, Any, int, int], sampling.Schedule]


def network_keys(seed: int, seeds: int) -> tuple[jax.Array, jax.Array]:
    """Keys of every seed's initial weights and of its stream of examples, each [seeds].

    Seed i is the same whatever `seeds` is, so that more can be added later.

    Raises:
        ValueError: a seed that is no integer, or fewer than one of them.
    """
    seed, seeds = inputs.count("seed", seed, 0), inputs.count("seeds", seeds)
    keys = jax.vmap(partial(jax.random.fold_in, jax.random.key(seed)))(jnp.arange(seeds))
    pairs = jax.vmap(partial(jax.random.split, num=2))(keys)
    return pairs[:, 0], pairs[:, 1]


def step_keys(stream_keys: jax.Array) -> jax.Array:
    """Keys of the networks' steps, [networks], for a `heavy_ball.Stepwise` loss.

    `fold_in(stream key, 2³² − 1)`: apart from the keys of all epochs, and the same for one seed
    in all regimes, whose steps differ by their examples alone.
    """
    return jax.vmap(lambda key: jax.random.fold_in(key, np.uint32(2**32 - 1)))(stream_keys)


def init(
    model_init: Callable[[jax.Array], Any],
    optimizer: optax.GradientTransformation,
    keys: jax.Array,
    state_init: Callable[[jax.Array], Any] | None = None,
) -> heavy_ball.TrainState:
    """Initial states of all networks, every leaf with a leading axis [networks].

    Args:
        model_init: `model_init(key) -> params`.
        optimizer: the optax transformation (its state starts at zero).
        keys: [networks]; equal keys give equal networks, as for one seed in two regimes.
        state_init: `state_init(key)` → state of a `heavy_ball.Stepwise` loss; None: it has none.
    """

    def one(key):
        state = None if state_init is None else state_init(key)
        return heavy_ball.init(optimizer, model_init(key), state)

    return jax.vmap(one)(keys)


def over_devices(tree: Any) -> Any:
    """Deals the leading axis [networks] out to all devices, of all processes.

    Filled up with copies of the first networks to a multiple of the number of devices, so that
    all of them work: 3 networks on 2 devices are 4. `make_epoch` and `each_network` know of it.
    """
    mesh = devices.mesh()
    if mesh is None:
        return tree
    return devices.dealt(jax.tree.map(lambda leaf: _filled(np.asarray(leaf), mesh), tree), mesh)


def on_all_devices(tree: Any) -> Any:
    """Copies what all networks share, such as the examples, to every device."""
    return devices.whole(tree, devices.mesh())


def each_network(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Jitted `(networks, shared) -> [networks, …]`: the function of one network after another.

    Networks that `over_devices` dealt out are taken where they lie, and what it filled up is in
    the result as well; others are taken one after another on the device they are on.
    """

    @partial(jax.jit, static_argnums=2)
    def run(networks, shared, mesh):
        def of_all(networks, shared):
            return jax.lax.map(lambda network: function(network, shared), networks)

        return devices.local(mesh, of_all, (devices.DEALT, devices.WHOLE), devices.DEALT)(
            networks, shared
        )

    def mapped(networks, shared):
        return run(networks, shared, _mesh_of(networks))

    mapped.lower = lambda networks, shared: run.lower(  # type: ignore[attr-defined]
        networks, shared, _mesh_of(networks)
    )
    return mapped


def _mesh_of(networks: Any) -> Mesh | None:
    """The mesh that the networks are dealt out over."""
    layout = getattr(jax.tree.leaves(networks)[0], "sharding", None)
    if isinstance(layout, NamedSharding) and layout.spec[:1] == (devices.AXIS,):
        return devices.mesh()
    return None


def _filled(leaf: Any, mesh: Mesh) -> Any:
    """Networks [networks, …] and copies of the first ones, as many as the devices divide."""
    count = leaf.shape[0]
    return leaf[np.arange(devices.filled(count, mesh)) % count]


def make_epoch(
    loss: heavy_ball.Loss | heavy_ball.Stepwise,
    optimizer_at: Callable[..., optax.GradientTransformation],
    schemes: Sequence[Scheme],
    batch_size: int,
    *,
    group_size: int | None = None,
    example_weights: Any = None,
) -> Callable[..., tuple[heavy_ball.TrainState, Any]]:
    """Builds the jitted function that carries all networks through one epoch.

    Args:
        loss: `loss(params, examples, weights)`, or a `heavy_ball.Stepwise` one, whose networks
            get the keys `step_keys(keys)`.
        optimizer_at: epoch and what is swept (both traced) → optax transformation, for a
            learning rate that decays once an epoch and differs from network to network.
        schemes: sampling schemes; the networks are ordered scheme by scheme, all seeds of the
            first one first.
        batch_size: S.
        group_size: networks of a device trained side by side by `vmap`; the groups follow one
            another. None: all at once.
        example_weights: as for `heavy_ball.run_schedule`, the same for all networks.

    Returns:
        `epoch(states, keys, epoch, examples, *swept) -> (states, minibatch losses [networks,
        steps])`, of a `Stepwise` loss (losses, aux) in their place, with states, keys (of the
        seeds' streams) and `swept`, the further arguments of `optimizer_at`, on a leading axis
        [networks]. Uses up `states`. States and `swept` may come from `over_devices`, as the
        states returned then do; keys and losses are those of the networks alone. The first call
        tries the loss on a few examples.

    Raises:
        ValueError: here a batch or group size below one; from `epoch` what
            `heavy_ball.run_schedule` refuses, keys that the schemes do not divide, or states
            that are used up.
    """
    batch_size = inputs.count("batch_size", batch_size)
    group_size = None if group_size is None else inputs.count("group_size", group_size)

    @partial(jax.jit, donate_argnums=0, static_argnums=1)
    def run_epoch(states, mesh, keys, epoch, examples, *swept):
        def train_all(networks, epoch, examples):
            def train(network):
                state, schedule, key, swept = network
                optimizer = optimizer_at(epoch, *swept)
                return heavy_ball.run_schedule(
                    loss, optimizer, state, schedule, examples, example_weights=example_weights,
                    key=key,
                )  # fmt: skip

            if group_size is None:
                return jax.vmap(train)(networks)
            return jax.lax.map(train, networks, batch_size=group_size)

        drawn = schedules(schemes, keys, epoch, inputs.number_of_examples(examples), batch_size)
        own = step_keys(keys) if isinstance(loss, heavy_ball.Stepwise) else None
        if mesh is None:
            return train_all((states, drawn, own, swept), epoch, examples)
        drawn, own = jax.tree.map(lambda leaf: _filled(leaf, mesh), (drawn, own))
        takes = devices.DEALT, devices.WHOLE, devices.WHOLE
        dealt = devices.local(mesh, train_all, takes, devices.DEALT)
        states, told = dealt((states, drawn, own, swept), epoch, examples)
        told = jax.tree.map(lambda leaf: leaf[: keys.shape[0]], told)
        return states, devices.on(mesh, devices.WHOLE, told)

    return _entered(run_epoch, loss)


def _entered(run_epoch: Any, loss: heavy_ball.Loss | heavy_ball.Stepwise) -> Callable[..., Any]:
    """The jitted epoch behind what has to be looked at outside of it."""
    # Once: the later epochs are the same loss on the same examples. A stepwise loss may be any.
    tried: list[bool] = [True] if isinstance(loss, heavy_ball.Stepwise) else []

    @wraps(run_epoch)
    def epoch(states, keys, epoch, examples, *swept):
        states = _own_buffers(states)
        if not tried and not inputs.traced(states, examples):
            first = jax.tree.map(lambda leaf: jnp.asarray(devices.fetched(leaf)[0]), states.params)
            averaging.refuse_other_than_mean(loss, first, examples)  # type: ignore[arg-type]
            tried.append(True)
        return run_epoch(states, _mesh_of(states), keys, epoch, examples, *swept)

    def lower(states, *arguments):
        return run_epoch.lower(states, _mesh_of(states), *arguments)

    epoch.lower = lower  # type: ignore[attr-defined]
    return epoch


def _own_buffers(states: heavy_ball.TrainState) -> heavy_ball.TrainState:
    """The states with a buffer for each leaf, as giving them away needs."""
    seen: set[int] = set()

    def own(leaf: Any) -> Any:
        if isinstance(leaf, jax.core.Tracer) or not isinstance(leaf, jax.Array):
            return leaf
        if leaf.is_deleted():
            raise ValueError(
                "these states were used up by an earlier epoch: go on from those it returned, or "
                "give it a copy"
            )
        if id(leaf) in seen:
            return jnp.copy(leaf)
        seen.add(id(leaf))
        return leaf

    return jax.tree.map(own, states)


def schedules(
    schemes: Sequence[Scheme], keys: jax.Array, epoch: Any, num_examples: int, batch_size: int
) -> sampling.Schedule:
    """An epoch of every network, [networks, steps, batch], keys split evenly among the schemes.

    Args:
        schemes: sampling schemes, as for `make_epoch`.
        keys: of the networks' streams, [networks].
        epoch: its number.
        num_examples: N.
        batch_size: S.

    Raises:
        ValueError: keys that the schemes do not divide.
    """
    if not schemes or keys.shape[0] % len(schemes):
        raise ValueError(
            f"{keys.shape[0]} networks cannot be split evenly among {len(schemes)} schemes: give "
            "as many keys for each"
        )
    drawn = [
        jax.vmap(lambda key, scheme=scheme: scheme(key, epoch, num_examples, batch_size))(group)
        for scheme, group in zip(schemes, jnp.split(keys, len(schemes)), strict=True)
    ]
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *drawn)
