"""What a finite window shows of the weights under any linear optimiser (beyond the paper).

The same second moments as in `windows`, of which heavy ball is a special case: the state of the
optimiser takes the place of the velocity.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from antisgd import inputs
from antisgd.theory import windows
from antisgd.theory.chain import EpochChain, epoch_chain
from antisgd.theory.linear import LinearOptimizer
from antisgd.theory.noise import Noise, checked_law
from antisgd.theory.precision import float64_on_host
from antisgd.theory.window_state import MOMENT, SUM, THETA0, C, X, stepped
from antisgd.theory.windows import WindowVariances

__all__ = ["linear_window_variances"]

# The components of `window_state`, the update in the place of the velocity; then the optimiser's
# own state.
_OWN = 6


def linear_window_variances(
    eigenvalues: np.ndarray,
    optimizer: LinearOptimizer,
    noise: Noise,
    num_steps: int,
    *,
    drift: str = "mean_velocity",
    start: Noise | None = None,
) -> WindowVariances:
    """Expected variances of weights and updates in a window that begins with an epoch.

    The state (θ, …) obeys x_k = A(λ)x_{k−1} + b n_k; its second moments, those of the epoch's
    noise and of the window's sums are propagated step by step from the stationary state at the
    end of an epoch. An update is θ_k − θ_{k−1}, whatever the optimiser calls velocity.

    Args:
        eigenvalues: λ, [k].
        optimizer: A and b, with the learning rate in them.
        noise: law of the window, white or of independent epochs.
        num_steps: T.
        drift: what is removed, as for `window_variances`.
        start: law before the window; None: the window's own.

    Returns:
        Variances per unit noise variance σ_δg².

    Raises:
        ValueError: an unstable direction, an unknown drift, fewer than two steps, or a law without
            independent epochs.
    """
    if drift not in windows.DRIFTS:
        raise ValueError(f"drift must be one of {', '.join(windows.DRIFTS)}, got {drift!r}")
    num_steps = inputs.count("num_steps", num_steps, 2)
    before = noise if start is None else start
    chains = [epoch_chain(checked_law(law)) for law in (before, noise)]
    lam = np.asarray(inputs.finite("eigenvalues", eigenvalues, 1), np.float64)
    _check_stable(optimizer, lam)
    with float64_on_host():
        # A − 1 of the first row, so that flat directions keep their digits.
        at_zero = optimizer.free - np.eye(len(optimizer.response))
        change = jnp.asarray(at_zero + lam[:, None, None] * optimizer.curved)
        b = jnp.asarray(optimizer.response, jnp.float64)
        first = _boundary_state(change, b, chains[0])
        final, squares = _propagate(change, b, chains[1], num_steps, first)
        found = windows.removed(np.asarray(final), np.asarray(squares), num_steps, drift)
    weight, velocity = found
    return WindowVariances(weight, velocity, 2 * weight / velocity)


def _check_stable(optimizer: LinearOptimizer, lam: np.ndarray) -> None:
    A = optimizer.free + lam[:, None, None] * optimizer.curved
    radius = np.abs(np.linalg.eigvals(A)).max()
    if not radius < 1:
        raise ValueError(
            f"the optimiser is not stable at every eigenvalue (radius {radius:.6g}): leave out the "
            "others"
        )


def _boundary_state(change: jax.Array, b: jax.Array, chain: EpochChain) -> jax.Array:
    """Covariance of the whole state at the end of an epoch in the stationary regime."""
    k, n, _ = change.shape
    zero = jnp.zeros((k, _OWN + n - 1, _OWN + n - 1))
    one_epoch, _ = _propagate(change, b, chain, len(chain.pull), zero)
    # θ is the displacement here, since θ_0 = 0: x obeys P = B P Bᵀ + Q over an epoch.
    state = np.r_[X, _OWN : _OWN + n - 1]
    Q = one_epoch[:, state[:, None], state]
    B = jnp.linalg.matrix_power(jnp.eye(n)[None] + change, len(chain.pull))
    kron = jnp.einsum("kij,klm->kiljm", B, B).reshape(k, n * n, n * n)
    P = jnp.linalg.solve(jnp.eye(n * n)[None] - kron, Q.reshape(k, n * n, 1)).reshape(k, n, n)
    at = np.r_[THETA0, _OWN : _OWN + n - 1]
    return zero.at[:, at[:, None], at].set(P)


@partial(jax.jit, static_argnums=3)
def _propagate(change, b, chain, num_steps, first):
    def later(pull, keep, weight, k):
        return _transition(change, b, pull, keep, k), _response(b, weight, k)

    return stepped(later, chain, num_steps, first)


def _transition(change, b, pull, keep, k):
    """One step of the whole state, [k, m, m], the noise being −pull·c plus an innovation."""
    n = change.shape[1]
    size = _OWN + n - 1
    own = slice(_OWN, size)
    moved = jnp.zeros((change.shape[0], n, size))
    # θ = displacement + θ_0; of the optimiser's other numbers A itself is wanted, not A − 1.
    moved = moved.at[:, :, X].set(change[:, :, 0]).at[:, :, THETA0].set(change[:, :, 0])
    moved = moved.at[:, :, own].set(change[:, :, 1:]).at[:, :, C].set((-pull * b)[None])
    same = jnp.broadcast_to(jnp.eye(size), (change.shape[0], size, size))
    x = same[:, X] + moved[:, 0]
    rows = [x, moved[:, 0], keep * same[:, C], same[:, THETA0], same[:, SUM] + x]
    rows += [same[:, MOMENT] + k * x]
    return jnp.concatenate([jnp.stack(rows, 1), same[:, own] + moved[:, 1:]], axis=1)


def _response(b, weight, k):
    """Of the whole state to an innovation."""
    return jnp.concatenate([jnp.stack([b[0], b[0], weight, 0 * weight, b[0], k * b[0]]), b[1:]])
