"""What an audit takes: plain arrays of a run that is done, whatever framework made it."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from antisgd import display, inputs, results

__all__ = ["CLAIMS", "Recording", "checked", "load"]

# Which laws a run may be said to have: functions of `antisgd.theory` and `antisgd.sampling`.
CLAIMS = (
    "without_replacement",
    "with_replacement",
    "independent_batches",
    "shuffle_once",
    "flip_flop",
    "drop_last",
    "spanning_batches",
)
_SERIES = ("updates", "gradients", "noise")


class Recording(NamedTuple):
    """A recorded stretch of training along k directions; weights or updates are needed.

    Attributes:
        learning_rate: η, constant in the recorded stretch, as in v_k = βv_{k−1} − ηg_k.
        momentum: β.
        num_examples: N.
        batch_size: S.
        claimed: how the examples are said to be drawn, one of `CLAIMS`.
        weights: θ_k along the directions, [T + 1, k].
        updates: θ_k − θ_{k−1}, [T, k], in place of weights or beside them.
        gradients: minibatch gradients g_k(θ_{k−1}), [T, k].
        noise: minibatch gradient less full gradient, [T, k].
        indices: the loader's examples at each step, [T, S]; −1 in unused places.
        curvatures: λ of the directions at the start, [k].
        path_curvatures: pᵀH(θ)p of the directions at a points along the stretch, [a, k].
        example_gradients: of every example along the directions, at one point, [N, k].
    """

    learning_rate: float
    momentum: float
    num_examples: int
    batch_size: int
    claimed: str = "without_replacement"
    weights: Any = None
    updates: Any = None
    gradients: np.ndarray | None = None
    noise: np.ndarray | None = None
    indices: np.ndarray | None = None
    curvatures: np.ndarray | None = None
    path_curvatures: np.ndarray | None = None
    example_gradients: np.ndarray | None = None

    def __repr__(self) -> str:
        return display.described(self)


def load(path: str | Path) -> Recording:
    """Reads a recording from an .npz whose keys are the fields of `Recording`.

    Raises:
        ValueError: a file that is damaged, a key that is unknown or missing, or as `checked`.
    """
    found: dict[str, Any] = results.read_arrays(Path(path))
    unknown = sorted(set(found) - set(Recording._fields))
    if unknown:
        raise ValueError(
            f"{path} has the unknown keys {', '.join(unknown)}: those of a recording are "
            f"{', '.join(Recording._fields)}"
        )
    needed = [name for name in Recording._fields if name not in Recording._field_defaults]
    missing = [name for name in needed if name not in found]
    if missing:
        raise ValueError(f"{path} lacks {', '.join(missing)}: save them beside the arrays")
    numbers = {name: value.item() for name, value in found.items() if value.ndim == 0}
    return checked(Recording(**{**found, **numbers}))


def checked(recording: Recording) -> Recording:
    """The recording with both weights and updates, in float64, if all its parts agree.

    Raises:
        ValueError: in one line, what does not fit and what is expected.
    """
    if recording.claimed not in CLAIMS:
        raise ValueError(f"claimed={recording.claimed!r} is none of {', '.join(CLAIMS)}")
    inputs.number("learning_rate", recording.learning_rate, above=0)
    if not 0 <= inputs.number("momentum", recording.momentum) < 1:
        raise ValueError(f"momentum must lie in [0, 1), not {recording.momentum}")
    N = inputs.count("num_examples", recording.num_examples)
    if not 1 <= inputs.count("batch_size", recording.batch_size) < N:
        raise ValueError(f"batch_size={recording.batch_size} must lie in [1, {N})")
    weights, updates = _motion(recording)
    made = recording._replace(weights=weights, updates=updates)
    T, k = updates.shape
    shapes = {name: (T, k) for name in _SERIES} | {"curvatures": (k,), "example_gradients": (N, k)}
    for name, shape in shapes.items():
        value = getattr(made, name)
        if value is not None and np.shape(value) != shape:
            raise ValueError(f"{name} must have the shape {shape}, not {np.shape(value)}")
    for name in (*shapes, "path_curvatures"):
        if getattr(made, name) is not None:
            value = np.asarray(inputs.finite(name, getattr(made, name)), np.float64)
            changed: dict[str, Any] = {name: value}
            made = made._replace(**changed)
    along = made.path_curvatures
    if along is not None and (along.ndim != 2 or along.shape[1] != k or len(along) < 3):
        raise ValueError(f"path_curvatures must be [a, {k}] with a >= 3, not {along.shape}")
    if made.indices is not None and len(made.indices) != T:
        raise ValueError(f"indices are of {len(made.indices)} steps, the updates of {T}")
    _check_length(made, T)
    return made


def _motion(recording: Recording) -> tuple[np.ndarray, np.ndarray]:
    """Weights [T + 1, k] about their first point and updates [T, k], one from the other."""
    theta, v = recording.weights, recording.updates
    if theta is None and v is None:
        raise ValueError("a recording needs weights [T + 1, k] or updates [T, k]")
    if v is not None:
        v = np.asarray(inputs.finite("updates", v, 2), np.float64)
    if theta is None:
        return np.concatenate([np.zeros((1, v.shape[1])), np.cumsum(v, axis=0)]), v
    theta = np.asarray(inputs.finite("weights", theta, 2), np.float64)
    v = np.diff(theta, axis=0) if v is None else v
    if theta.shape != (len(v) + 1, v.shape[1]):
        raise ValueError(
            f"weights [T + 1, k] and updates [T, k] are needed, not {theta.shape} and {v.shape}"
        )
    return theta - theta[0], v


def _check_length(recording: Recording, num_steps: int) -> None:
    steps = -(-recording.num_examples // recording.batch_size)
    if num_steps < 4 * steps:
        raise ValueError(
            f"{num_steps} recorded steps are too few: an audit needs four epochs, {4 * steps} steps"
        )
    still = np.flatnonzero(np.ptp(recording.updates, axis=0) == 0)
    if len(still):
        raise ValueError(
            f"direction {still[0]} never moves ({len(still)} such): leave out directions that feel "
            "no noise"
        )
