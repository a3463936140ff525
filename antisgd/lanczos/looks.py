"""Looks at a solve under way: a glance whether a whole one is worth it, and the whole one."""

import numpy as np

from antisgd import devices
from antisgd.lanczos import basis as storage
from antisgd.lanczos import certificate as certify
from antisgd.lanczos import glance
from antisgd.lanczos.goal import Goal, Verdict, judge
from antisgd.lanczos.products import Product
from antisgd.lanczos.projection import Ritz, State, ritz

__all__ = ["judged", "promising", "record"]


def promising(product: Product, state: State, goal: Goal) -> tuple[State, bool]:
    """Whether the wanted pairs may all have converged; the first look measures the noise."""
    mesh = storage.mesh_of(state.basis[0])
    alone = devices.told if mesh is not None else lambda call: call()
    problem = glance.band(state)
    values = alone(lambda: glance.values(problem, goal.which, goal.k))
    if np.isnan(state.noise):
        leading = values[: _noise_vectors(state)]
        state = _with_noise(product, state, alone(lambda: glance.vectors(problem, leading)))
    converged, wanted = alone(lambda: glance.converged(problem, values, goal, state))
    return (state, True) if converged == wanted else (_looked(state, converged), False)


def judged(product: Product, state: State, goal: Goal) -> tuple[State, Ritz, Verdict]:
    """Ritz pairs and what they are worth; the first look measures the noise of a product."""
    pairs = ritz(state, goal.which, goal.k + (goal.threshold is not None))
    if np.isnan(state.noise):
        state = _with_noise(product, state, pairs.coefficients[:, : _noise_vectors(state)])
    verdict = judge(pairs, goal, state)
    return _looked(state, verdict.converged), pairs, verdict


def record(state: State, products: int, converged: int) -> np.ndarray:
    """The history with what was seen after so many products; -1: to be looked at again then."""
    return np.concatenate([state.history, [[products, converged]]]).astype(np.int64)


def _noise_vectors(state: State) -> int:
    return max(1, state.block_size // 2)


def _with_noise(product: Product, state: State, coefficients: np.ndarray) -> State:
    vectors = storage.combine(state.basis, coefficients)
    noise = certify.measure_noise(product, vectors, state.block_size)
    return state._replace(noise=noise, products=state.products + 2 * len(vectors))


def _looked(state: State, converged: int) -> State:
    if len(state.history) and state.history[-1, 0] == state.products:
        return state
    return state._replace(history=record(state, state.products, converged))
