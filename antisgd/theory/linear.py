"""Any linear optimiser under any noise law: stationary covariances from state-space matrices.

Per curvature λ the state x = (θ, …) obeys x_k = A(λ) x_{k−1} + b n_k with n_k the gradient noise.
All of this page is beyond the paper, which treats heavy ball. Lyapunov's equation is solved as a
dense system in float64: in flat directions its digits fade like eps/(Mηλ)², where
`stationary_variances` keeps them all for heavy ball.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from antisgd import display, inputs
from antisgd.theory.noise import Noise, autocorrelation, checked_law
from antisgd.theory.precision import float64_on_host

__all__ = [
    "LinearOptimizer",
    "from_optax",
    "heavy_ball_system",
    "state_names",
    "stationary_covariance",
    "with_weight_average",
]


# Sizes of weights, state and gradient at which an update is compared with its matrices: what is
# cut off above or below some size is not linear.
_PROBED = (1e-8, -1e-4, 1.0, -1e4, 1e8)


class LinearOptimizer(NamedTuple):
    """x_k = (free + λ·curved) x_{k−1} + response·n_k, the first component of x being θ.

    Attributes:
        free: A at λ = 0, [n, n].
        curved: dA/dλ, [n, n].
        response: b, [n].
    """

    free: np.ndarray
    curved: np.ndarray
    response: np.ndarray

    def __repr__(self) -> str:
        return display.described(self)


def heavy_ball_system(
    learning_rate: float,
    momentum: float,
    *,
    dampening: float = 0.0,
    nesterov: bool = False,
    l2: float = 0.0,
    decoupled: float = 0.0,
) -> LinearOptimizer:
    """SGD with momentum in the conventions of PyTorch; state (θ, u) with u = η·buffer.

    u_k = β u_{k−1} + (1−d)(h θ + η n), θ_k = (1−ηw) θ_{k−1} − u_k, h = η(λ + l2); Nesterov steps
    by η g + β u_k instead. With d = l2 = w = 0 this is Eq. 1 with v = −u.

    Args:
        learning_rate: η.
        momentum: β.
        dampening: d.
        nesterov: look ahead.
        l2: coefficient of θ added to the gradient.
        decoupled: w of decoupled weight decay.

    Raises:
        ValueError: a number that is not finite, η not positive or β outside [0, 1).
    """
    learning_rate = inputs.number("learning_rate", learning_rate, above=0)
    if not 0 <= inputs.number("momentum", momentum) < 1:
        raise ValueError(f"momentum must lie in [0, 1), not {momentum}")
    for name, value in (("dampening", dampening), ("l2", l2), ("decoupled", decoupled)):
        inputs.number(name, value)
    eta, beta, t = learning_rate, momentum, 1 - dampening
    step, carried = (1 + beta * t, beta**2) if nesterov else (t, beta)
    kept = 1 - eta * decoupled
    curved = eta * np.array([[-step, 0.0], [t, 0.0]])
    free = np.array([[kept, -carried], [0.0, beta]]) + l2 * curved
    return LinearOptimizer(free, curved, eta * np.array([-step, t]))


def with_weight_average(optimizer: LinearOptimizer, decay: float) -> LinearOptimizer:
    """Adds m_k = α m_{k−1} + (1−α) θ_k, an exponential average of the weights, as last component.

    Args:
        optimizer: what moves θ.
        decay: α in [0, 1).

    Raises:
        ValueError: α outside [0, 1).
    """
    if not 0 <= inputs.number("decay", decay) < 1:
        raise ValueError(f"decay must lie in [0, 1), not {decay}")
    n = len(optimizer.response)
    follow = (1 - decay) * np.eye(n)[:1]

    def bordered(matrix, corner):
        grown = np.vstack([matrix, follow @ matrix])
        return np.hstack([grown, np.append(np.zeros(n), corner)[:, None]])

    return LinearOptimizer(
        bordered(optimizer.free, decay),
        bordered(optimizer.curved, 0.0),
        np.append(optimizer.response, follow @ optimizer.response),
    )


def from_optax(optimizer: optax.GradientTransformation) -> LinearOptimizer:
    """Reads A and b off an optax transformation by differentiating one update on a scalar.

    Args:
        optimizer: linear in gradient, state and weights, and the same at every step. The numbers
            that `optax.inject_hyperparams` keeps in the state are taken as they stand.

    Raises:
        ValueError: the transformation is not linear (Adam; clipping at any size from 1e-8 to 1e8,
            whether or not it would ever be met), draws noise of its own, needs more
            than gradients and weights, or changes from step to step (a schedule, a debiased
            average); its state is named.
    """
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise ValueError(f"not an optax transformation but a {type(optimizer).__name__}")
    with float64_on_host():
        theta = jnp.zeros((), jnp.float64)
        begun = optimizer.init(theta)
        name = ", ".join(state_names(begun)) or "no state"
        _refuse_noise(begun, name)
        numbers, counters = _split_state(begun)
        flat, restore = ravel_pytree((theta, numbers))

        def step(x, gradient, count):
            theta, numbers = restore(x)
            state = _join_state(optimizer.init(theta), numbers, counters + count)
            update, state = _update(optimizer, gradient, state, theta, name)
            return ravel_pytree((optax.apply_updates(theta, update), _split_state(state)[0]))[0]

        slopes = jax.jacfwd(step, argnums=(0, 1))
        origin, nothing = jnp.zeros_like(flat), jnp.zeros((), jnp.float64)
        A, b = map(np.asarray, slopes(origin, nothing, 0))
        later_A, later_b = slopes(origin, nothing, 11)
        elsewhere, gradient = jnp.linspace(0.3, 1.7, flat.size), nothing + 2.3
        expected = A @ np.asarray(elsewhere) + b * float(gradient)
        scaled = [step(size * elsewhere, size * gradient, 0) / size for size in _PROBED]
        off = np.abs(np.asarray(scaled) - expected)
    if not (off <= 1e-9 * np.abs(expected).max()).all():
        raise ValueError(
            f"the optimiser ({name}) is not linear in the gradient: it has no matrices A and b "
            "(Adam and RMSProp have them at frozen second moments: `frozen_from_optax`)"
        )
    if not np.allclose(A, later_A) or not np.allclose(b, later_b):
        raise ValueError(
            f"the optimiser ({name}) changes from step to step (a schedule or a debiased "
            "average): fix its hyper-parameters"
        )
    return LinearOptimizer(A, np.outer(b, np.eye(len(b))[0]), b)


def state_names(state: Any) -> list[str]:
    """Names of the parts of an optimiser's state, such as ScaleByAdamState, without empty ones."""
    if not isinstance(state, tuple):
        return []
    own = [type(state).__name__] if hasattr(state, "_fields") and state else []
    return own + [name for part in state for name in state_names(part)]


def _refuse_noise(state: Any, name: str) -> None:
    keyed = any(
        jnp.issubdtype(jnp.asarray(leaf).dtype, jax.dtypes.prng_key)
        or (leaf.dtype == jnp.uint32 and leaf.ndim)
        for leaf in jax.tree.leaves(state)
        if hasattr(leaf, "dtype")
    )
    if keyed or "InjectionState" in name:
        raise ValueError(
            f"the optimiser ({name}) draws noise of its own: leave that part out, its law is a "
            "Noise of its own such as theory.anti_pgd()"
        )


def _update(optimizer: Any, gradient: Any, state: Any, theta: Any, name: str) -> tuple[Any, Any]:
    try:
        return optimizer.update(gradient, state, theta)
    except (TypeError, ValueError, AttributeError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(
            f"the optimiser ({name}) needs more than gradients and weights ({reason}): it is not "
            "linear in them"
        ) from error


def _is_number(path: tuple[Any, ...], leaf: jax.Array) -> bool:
    """Whether a leaf of the state moves with the gradients: hyper-parameters kept there do not."""
    kept = {"hyperparams", "hyperparams_states"}
    constant = any(getattr(key, "name", None) in kept for key in path)
    return bool(jnp.issubdtype(leaf.dtype, jnp.floating)) and not constant


def _split_state(state: Any) -> tuple[list[jax.Array], np.ndarray]:
    leaves = [
        (path, jnp.asarray(leaf)) for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    ]
    numbers = [leaf for path, leaf in leaves if _is_number(path, leaf)]
    counters = [leaf for _, leaf in leaves if not jnp.issubdtype(leaf.dtype, jnp.floating)]
    return numbers, np.zeros(len(counters), int)


def _join_state(template: Any, numbers: list[jax.Array], counters: Any) -> Any:
    leaves, structure = jax.tree_util.tree_flatten_with_path(template)
    floats, integers = iter(numbers), iter(counters)
    joined = []
    for path, given in leaves:
        leaf = jnp.asarray(given)
        if _is_number(path, leaf):
            joined.append(next(floats))
        elif jnp.issubdtype(leaf.dtype, jnp.floating):
            joined.append(leaf)
        else:
            joined.append(jnp.asarray(next(integers), leaf.dtype))
    return jax.tree.unflatten(structure, joined)


def stationary_covariance(
    eigenvalues: np.ndarray, optimizer: LinearOptimizer, noise: Noise
) -> tuple[np.ndarray, np.ndarray]:
    """Stationary covariance of the state and its lag-one covariance per unit noise variance.

    P = A P Aᵀ + bbᵀ + G bᵀ + b Gᵀ with G = Σ_{h≥1} r(h) A^h b, and Cov(x_k, x_{k−1}) = A P + b gᵀ
    with G = A g. The variance of θ is P[…, 0, 0]; of its updates 2(P − Cov₁)[…, 0, 0].

    Args:
        eigenvalues: λ, [k].
        optimizer: A and b.
        noise: any law; for one that repeats, P = Σ_j H_j H_j*/(M−1) over its spectral lines
            ω = 2πj/M, j = 1 … M−1, with H_j = (1 − A e^{−iω})⁻¹ b.

    Returns:
        P and Cov(x_k, x_{k−1}), [k, n, n] each.

    Raises:
        ValueError: an unstable direction.
    """
    checked_law(noise)
    lam = np.asarray(inputs.finite("eigenvalues", eigenvalues, 1), np.float64)
    A = optimizer.free + lam[:, None, None] * optimizer.curved
    radius = np.abs(np.linalg.eigvals(A)).max()
    if radius >= 1:
        raise ValueError(f"the optimiser is not stable at every eigenvalue (radius {radius:.6g})")
    if noise.periodic:
        return _from_lines(A, optimizer.response, noise.period)
    return _from_lags(A, optimizer.response, noise)


def _from_lines(A: np.ndarray, b: np.ndarray, period: int) -> tuple[np.ndarray, np.ndarray]:
    P, lagged = np.zeros_like(A), np.zeros_like(A)
    for turn in np.exp(2j * np.pi * np.arange(1, period) / period):
        H = np.linalg.solve(np.eye(len(b)) - A / turn, b[:, None])[..., 0]
        line = H[:, :, None] * H[:, None, :].conj() / (period - 1)
        P, lagged = P + line.real, lagged + (turn * line).real
    return P, lagged


def _from_lags(A: np.ndarray, b: np.ndarray, noise: Noise) -> tuple[np.ndarray, np.ndarray]:
    n = len(b)
    reach = len(noise.correlations) if noise.correlations is not None else noise.period
    g, power = np.zeros((len(A), n)), np.broadcast_to(b, (len(A), n))
    for r in autocorrelation(noise, np.arange(1, reach + 1)):
        g = g + r * power
        power = np.einsum("kij,kj->ki", A, power)
    G = np.einsum("kij,kj->ki", A, g)
    source = np.outer(b, b) + G[:, :, None] * b + b[:, None] * G[:, None, :]
    kron = np.einsum("kij,klm->kiljm", A, A).reshape(-1, n * n, n * n)
    P = np.linalg.solve(np.eye(n * n) - kron, source.reshape(-1, n * n, 1)).reshape(-1, n, n)
    return P, A @ P + b[:, None] * g[:, None, :]
