"""Which leaves of a pytree are weights: real floating-point numbers, and nothing else.

Integers, truth values, keys, texts, functions and None are left exactly as they are and are no
directions; so are the statistics that flax keeps beside its weights: the collections 'batch_stats',
'cache' and 'intermediates' next to 'params', and nnx variables of the kinds `BatchStat`, `Cache`
and `Intermediate`. A complex leaf is refused, because H v would not be linear in it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.flatten_util import ravel_pytree

from antisgd import inputs

__all__ = ["Join", "divide", "merged", "names", "ravel", "trainable", "widened"]

Only = Callable[[str], bool]

_COLLECTIONS = {"batch_stats", "cache", "intermediates"}
_STATISTICS = {"BatchStat", "Cache", "Intermediate"}
# Where a leaf goes when a pytree is cut into three.
_CHOSEN, _REST, _STATIC = range(3)


@dataclass(frozen=True)
class Join:
    """Puts a pytree together again; hashable, so that programs are compiled once for equal ones.

    `join(chosen, rest)` takes the leaves that `divide` gave, or others in their place.
    """

    treedef: Any
    kinds: tuple[int, ...]
    statics: tuple[Any, ...]

    def __call__(self, chosen: Any, rest: Any) -> Any:
        parts = [iter(chosen), iter(rest), (static.value for static in self.statics)]
        return jax.tree.unflatten(self.treedef, [next(parts[kind]) for kind in self.kinds])


class _Static:
    """A leaf that is no array, such as a text or a function: compared by value where it can be."""

    def __init__(self, value: Any) -> None:
        self.value = value
        try:
            self.mark = hash(value)
        except TypeError:
            self.mark = id(value)

    def __hash__(self) -> int:
        return self.mark

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Static) or self.mark != other.mark:
            return False
        return self.value is other.value or bool(np.all(self.value == other.value))


def names(params: Any) -> list[str]:
    """Names of all leaves, such as 'params/Conv_0/kernel', in their order."""
    return [_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]


def divide(params: Any, only: Only | None = None) -> tuple[tuple[Any, ...], tuple[Any, ...], Join]:
    """Cuts a pytree into the weights chosen, the other arrays, and what puts them together again.

    Args:
        params: any pytree.
        only: `only(name) -> bool` over the names of its weights; None for all of them.

    Raises:
        ValueError: a complex leaf, no weights at all, or none of them chosen.
    """
    leaves, treedef = jax.tree_util.tree_flatten_with_path(params)
    weights = _are_weights(params)
    labels = [_name(path) for path, _ in leaves]
    chosen = [
        weight and (only is None or bool(only(label)))
        for weight, label in zip(weights, labels, strict=True)
    ]
    if not any(weights):
        raise ValueError("params hold no weights: give a pytree with floating-point arrays")
    if not any(chosen):
        found = ", ".join(label for label, weight in zip(labels, weights, strict=True) if weight)
        raise ValueError(f"`only` selects none of the weights: {found}")
    kinds = tuple(
        _CHOSEN if take else _REST if inputs.array_like(leaf) else _STATIC
        for take, (_, leaf) in zip(chosen, leaves, strict=True)
    )
    parts: list[list[Any]] = [[], [], []]
    for kind, (_, leaf) in zip(kinds, leaves, strict=True):
        parts[kind].append(leaf)
    statics = tuple(map(_Static, parts[_STATIC]))
    return tuple(parts[_CHOSEN]), tuple(parts[_REST]), Join(treedef, kinds, statics)


def trainable(params: Any) -> Any:
    """The pytree with None in the place of what is no weight, as optax passes over it.

    Raises:
        ValueError: a complex leaf.
    """
    leaves, treedef = jax.tree.flatten(params)
    kept = zip(leaves, _are_weights(params), strict=True)
    return jax.tree.unflatten(treedef, [leaf if weight else None for leaf, weight in kept])


def merged(moving: Any, params: Any) -> Any:
    """The weights of `moving`, in the form of `trainable(params)`, the other leaves of `params`."""
    leaves, treedef = jax.tree.flatten(params)
    taken = iter(jax.tree.leaves(moving))
    parts = zip(leaves, _are_weights(params), strict=True)
    return jax.tree.unflatten(treedef, [next(taken) if weight else leaf for leaf, weight in parts])


def widened(tree: Any) -> Any:
    """Weights in float32 at least: what sums over data are computed in."""
    return jax.tree.map(_wide, tree)


def ravel(params: Any, only: Only | None = None) -> tuple[Array, Callable[[Array], Any]]:
    """The chosen weights as one vector, float32 at least, and the way back into the pytree.

    Raises:
        ValueError: as for `divide`.
    """
    chosen, rest, join = divide(params, only)
    flat, unravel = ravel_pytree(list(widened(chosen)))
    return flat, lambda vector: join(unravel(vector), rest)


def _wide(leaf: Any) -> Any:
    dtype = jnp.result_type(leaf)
    narrow = jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32
    return jnp.asarray(leaf, jnp.float32) if narrow else leaf


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _are_weights(params: Any) -> list[bool]:
    """Of each leaf, whether it is a weight."""
    paths = jax.tree_util.tree_leaves_with_path(params)
    kept = jax.tree_util.tree_leaves_with_path(params, is_leaf=_is_statistic)
    apart = {path for path, node in kept if _is_statistic(node)}
    collections = set()
    if isinstance(params, dict) and "params" in params:
        collections = _COLLECTIONS & set(params)
    return [
        _is_number(path, leaf)
        and not any(path[: len(prefix)] == prefix for prefix in apart)
        and not (collections and getattr(path[0], "key", None) in collections)
        for path, leaf in paths
    ]


def _is_statistic(node: Any) -> bool:
    return any(kind.__name__ in _STATISTICS for kind in type(node).__mro__)


def _is_number(path: tuple[Any, ...], leaf: Any) -> bool:
    if isinstance(leaf, complex) or _of_kind(leaf, jnp.complexfloating):
        raise ValueError(
            f"the leaf {_name(path)!r} is complex: give its real and imaginary parts as two leaves"
        )
    return isinstance(leaf, float) or _of_kind(leaf, jnp.floating)


def _of_kind(leaf: Any, kind: Any) -> bool:
    return inputs.array_like(leaf) and bool(jnp.issubdtype(leaf.dtype, kind))
