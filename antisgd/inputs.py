"""What every function asks of counts, keys and examples: one line instead of a wrong number.

Integers may be Python's or NumPy's. Arguments that are traced (under `jit`, `vmap`, `grad`) are
looked at as far as their shapes go.
"""

import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = [
    "array_like", "count", "example_weights", "finite", "number", "number_of_examples",
    "permutations", "random_key", "traced",
]  # fmt: skip


def traced(*trees: Any) -> bool:
    """Whether any leaf is traced, so that it has no values to look at."""
    return any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(trees))


def count(name: str, value: Any, least: int = 1) -> int:
    """An integer of at least `least`.

    Raises:
        ValueError: anything else, also a float, a text or a truth value.
    """
    try:
        found = None if isinstance(value, (bool, np.bool_)) else operator.index(value)
    except TypeError:
        found = None
    if found is None or found < least:
        hint = f", int({value:g})?" if isinstance(value, float) and np.isfinite(value) else ""
        raise ValueError(f"{name}={value!r} must be an integer of at least {least}{hint}")
    return found


def number(name: str, value: Any, *, least: float = -np.inf, above: float = -np.inf) -> float:
    """A finite real number, at least `least` and larger than `above`.

    Raises:
        ValueError: anything else.
    """
    try:
        found = float(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}={value!r} must be a number") from error
    if not (np.isfinite(found) and found >= least and found > above):
        bound = f" above {above:g}" if np.isfinite(above) else ""
        bound = f" of at least {least:g}" if np.isfinite(least) else bound
        raise ValueError(f"{name}={value!r} must be a finite number{bound}")
    return found


def finite(name: str, values: Any, ndim: int | None = None) -> np.ndarray:
    """A real array without NaN and infinity, of so many dimensions.

    Raises:
        ValueError: naming the first place that is not finite.
    """
    array = np.asarray(values)
    if array.dtype.kind not in "fiu" and not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(f"{name} must be real numbers, not {array.dtype}")
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"{name} must have {ndim} dimensions, not the shape {array.shape}")
    # The sum is a quick look; it may itself overflow, so it only ever acquits.
    with np.errstate(all="ignore"):
        if np.isfinite(np.sum(array, dtype=np.float64)):
            return array
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        place = tuple(map(int, bad[0]))
        raise ValueError(
            f"{name} is not finite at {len(bad)} places, first at {list(place)}: "
            f"{array[place]}; leave them out or find where they come from"
        )
    return array


def permutations(name: str, rows: Any) -> np.ndarray:
    """Integers [E, M], every row a permutation of 0 … M−1.

    Raises:
        ValueError: naming the first row that is none.
    """
    found = np.asarray(rows)
    if found.ndim != 2 or found.dtype.kind not in "iu" or not found.size:
        raise ValueError(f"{name} must be integers [rows, places], not {found.dtype}{found.shape}")
    whole = (np.sort(found, axis=1) == np.arange(found.shape[1])).all(axis=1)
    if not whole.all():
        raise ValueError(
            f"row {int(np.argmin(whole))} of {name} does not hold each of 0 ... "
            f"{found.shape[1] - 1} once"
        )
    return found


def random_key(key: Any) -> jax.Array:
    """A JAX key, of the new kind or of the old (uint32 [2] or [4]).

    Raises:
        ValueError: anything else, such as an integer.
    """
    dtype = getattr(key, "dtype", None)
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
        return key
    if dtype == np.uint32 and key.shape in {(2,), (4,)}:
        return jax.random.wrap_key_data(key, impl="threefry2x32" if key.shape == (2,) else "rbg")
    shown = repr(key) if isinstance(key, (int, np.integer)) else type(key).__name__
    raise ValueError(f"key={shown} is no JAX key: pass for example jax.random.key(0)")


def array_like(leaf: Any) -> bool:
    """Whether a leaf is an array of JAX or NumPy, concrete or traced."""
    return isinstance(leaf, (jax.Array, np.ndarray, np.generic))


def number_of_examples(examples: Any) -> int:
    """N, the length of the leading axis that all arrays of the examples share.

    Raises:
        ValueError: no arrays, a leaf without such an axis, differing lengths, or N = 0.
    """
    leaves = jax.tree.leaves(examples)
    strange = [leaf for leaf in leaves if not array_like(leaf) or leaf.ndim == 0]
    if strange or not leaves:
        found = "nothing" if not leaves else _named(strange[0])
        raise ValueError(
            f"examples must be arrays with a leading axis [N, ...] or a pytree of such, not {found}"
        )
    counts = sorted({leaf.shape[0] for leaf in leaves})
    if len(counts) > 1:
        raise ValueError(
            f"the arrays of the examples differ in their number: {counts}; give inputs and labels "
            "of as many examples"
        )
    if counts[0] < 1:
        raise ValueError("the examples hold 0 examples: give one or more")
    return counts[0]


def example_weights(weights: Any, num_examples: int) -> Any:
    """Weights of the examples, [N], none negative and not all zero.

    Raises:
        ValueError: another shape, a negative or not finite weight, or nothing but zeros.
    """
    if np.shape(weights) != (num_examples,):
        raise ValueError(
            f"weights must be one number for each of the {num_examples} examples, "
            f"not of the shape {np.shape(weights)}"
        )
    if traced(weights):
        return weights
    values = finite("weights", np.asarray(weights).astype(np.float64))
    if np.any(values < 0) or not np.any(values > 0):
        raise ValueError("weights must not be negative, and not all zero")
    return values


def _named(leaf: Any) -> str:
    if array_like(leaf) or isinstance(leaf, (bool, int, float, complex)):
        return f"the single number {leaf}" if not isinstance(leaf, jax.core.Tracer) else "a scalar"
    return f"a {type(leaf).__name__}"
