"""One order for all epochs that is chosen by the examples' gradients: balanced batches.

The noise of an order that repeats is known, and so is what it does to the weights: the periodic
solution of Eq. 1. Where blind designs take a random order, this one exchanges examples until the
loss fluctuation falls no more.
"""

import numpy as np

from antisgd import inputs
from antisgd.theory.design import line_powers

__all__ = ["balanced_order", "repeated_order_variances"]


def repeated_order_variances(
    gradients: np.ndarray,
    eigenvalues: np.ndarray,
    learning_rate: float,
    momentum: float,
    order: np.ndarray,
) -> np.ndarray:
    """σ_θ² of one given order run in every epoch: M^{−2} Σ_j |ĝ_j|²|Ψ(2πj/M)|² (beyond the paper).

    ĝ is the discrete Fourier transform of the batch means of p_i·(g_n − ḡ). Not per unit noise:
    this order's own variance over the epoch, without any average over orders.

    Args:
        gradients: P∇l_n, [N, k], such as of `trajectory.example_gradients`.
        eigenvalues: λ > 0, [k].
        learning_rate: η.
        momentum: β.
        order: the examples of each step, int [M, S], every one once.

    Returns:
        [k].

    Raises:
        ValueError: arrays that do not belong together, an order that leaves examples out, or ηλ
            outside (0, 2(1+β)).
    """
    g, a = _checked(gradients, eigenvalues, learning_rate, momentum)
    batches = _batches(order, len(g))
    M = len(batches)
    spectrum = np.abs(np.fft.fft(g[batches].mean(axis=1), axis=0)[1:]) ** 2
    powers = line_powers(a, momentum, 2 * np.pi * np.arange(1, M) / M)
    return learning_rate**2 * (spectrum * powers).sum(axis=0) / M**2


def balanced_order(
    gradients: np.ndarray,
    eigenvalues: np.ndarray,
    learning_rate: float,
    momentum: float,
    batch_size: int,
    *,
    sweeps: int = 10,
    seed: int = 0,
) -> np.ndarray:
    """One order whose repetition has a small loss fluctuation ½ Σ_i λ_i σ_θ,i² (beyond the paper).

    From a random order on, every example is exchanged with the one that lowers the fluctuation
    most, if any does; up to so many sweeps over all examples, less if one changes nothing. A local
    minimum, not the best order. It knows the gradients along the k directions alone.

    Args:
        gradients, eigenvalues, learning_rate, momentum: as for `repeated_order_variances`.
        batch_size: S, a divisor of N.
        sweeps: at most.
        seed: of the order to begin with.

    Returns:
        The examples of each step, int [M, S]; `sampling.repeated` makes a scheme of it.

    Raises:
        ValueError: arrays that do not belong together, S that does not divide N, or ηλ outside
            (0, 2(1+β)).
    """
    g, a = _checked(gradients, eigenvalues, learning_rate, momentum)
    S, N = inputs.count("batch_size", batch_size), len(g)
    if N % S or N // S < 2:
        raise ValueError(f"batch_size={S} must divide the {N} examples into two batches or more")
    M, random = N // S, np.random.default_rng(seed)
    order = random.permutation(N)
    kernel = _kernel(a, momentum, M)
    # ℓ = Σ_i λ_i/2 Σ_kl G_k κ(k−l) G_l: λ/η is part of the gradients' units from here on.
    g = g * np.sqrt(a / 2)
    G = g[order].reshape(M, S, -1).mean(axis=1)
    U = np.fft.ifft(np.fft.fft(kernel, axis=0) * np.fft.fft(G, axis=0), axis=0).real
    for _ in range(inputs.count("sweeps", sweeps, 0)):
        changed = sum([_exchange(g, kernel, order, U, S, place) for place in range(N)])
        if not changed:
            break
    return order.reshape(M, S)


def _exchange(
    g: np.ndarray, kernel: np.ndarray, order: np.ndarray, U: np.ndarray, S: int, place: int
) -> bool:
    """Exchanges the example at a place for the best one of another batch; changes order and U."""
    here, there = place // S, np.arange(len(order)) // S
    d = (g[order] - g[order[place]]) / S
    change = 2 * np.sum(d * (U[here] - U[there]), axis=1)
    change += 2 * np.sum(d**2 * (kernel[0] - kernel[here - there]), axis=1)
    best = int(np.argmin(change))
    # Rounding must not send two examples back and forth.
    if change[best] >= -1e-9 * np.abs(np.sum(U * U, axis=0)).sum() ** 0.5 * np.abs(d[best]).max():
        return False
    shifts = np.arange(len(kernel))
    U += (kernel[shifts - here] - kernel[shifts - there[best]]) * d[best]
    order[[place, best]] = order[[best, place]]
    return True


def _kernel(a: np.ndarray, beta: float, steps: int) -> np.ndarray:
    """κ(h) with σ_θ² = η² Σ_kl G_k κ(k−l) G_l of a repeating G, [M, k]."""
    lines = line_powers(a, beta, 2 * np.pi * np.arange(1, steps) / steps)
    lines = np.concatenate([np.zeros((1, a.size)), lines])
    return np.fft.ifft(lines, axis=0).real / steps


def _batches(order: np.ndarray, num_examples: int) -> np.ndarray:
    found = np.asarray(order)
    if found.ndim != 2 or found.size != num_examples or len(found) < 2:
        raise ValueError(
            f"an order of {num_examples} examples is int [steps, batch], not of shape {found.shape}"
        )
    return inputs.permutations("the order", found.reshape(1, -1))[0].reshape(found.shape)


def _checked(
    gradients: np.ndarray, eigenvalues: np.ndarray, learning_rate: float, momentum: float
) -> tuple[np.ndarray, np.ndarray]:
    g = np.asarray(inputs.finite("gradients", gradients, 2), np.float64)
    eta = inputs.number("learning_rate", learning_rate, above=0)
    a = eta * np.asarray(inputs.finite("eigenvalues", eigenvalues, 1), np.float64)
    if not 0 <= inputs.number("momentum", momentum) < 1:
        raise ValueError(f"momentum must lie in [0, 1), not {momentum}")
    if a.shape != g.shape[1:]:
        raise ValueError(f"gradients along {g.shape[1]} directions have {a.size} eigenvalues")
    if not a.size or np.any(a <= 0) or np.any(a >= 2 * (1 + momentum)):
        raise ValueError("the variances need 0 < eta*lambda < 2(1 + beta): leave out the others")
    return g - g.mean(axis=0), a
