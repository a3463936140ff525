"""The noise of a scheme step by step within an epoch (beyond the paper)."""

from typing import NamedTuple

import numpy as np

from antisgd.theory.noise import Noise, checked_law

__all__ = ["EpochChain", "epoch_chain"]


class EpochChain(NamedTuple):
    """The noise of an epoch as a Markov chain, exact in second moments (beyond the paper).

    δg_m = −pull_m·c + ε_m, c ← keep_m·c + weight_m·ε_m, var ε_m = innovation_m per unit mean noise
    variance; what c was before the first step is forgotten. All [steps an epoch].
    """

    pull: np.ndarray
    keep: np.ndarray
    weight: np.ndarray
    innovation: np.ndarray


def epoch_chain(noise: Noise) -> EpochChain:
    """The chain of a law whose epochs are independent.

    Batch m takes S_m of the W_m examples that are left: with w_m = M·S_m/N, pull 1/(M·W_m/N),
    weight w_m, innovation ∝ 1/S_m − 1/W_m. For equal batches pull = 1/(M−m+1), weight 1 and
    innovation = M/(M−1)·(M−m)/(M−m+1). Where batches span epochs, the steps are those until a batch
    ends with an epoch again.

    Raises:
        ValueError: a law without epochs, or with epochs that depend on one another.
    """
    checked_law(noise)
    if noise.white == 1 and noise.correlations is None:
        return EpochChain(np.zeros(1), np.zeros(1), np.ones(1), np.ones(1))
    if noise.batches is None:
        raise ValueError(
            "only laws whose epochs are independent have variances by position within the epoch: "
            "pass for example without_replacement(steps_per_epoch), or aligned=False for a window"
        )
    M, N, sizes = len(noise.batches), noise.num_examples, noise.batches
    if sizes.sum() > N:
        return _spanning_chain(M, int(N), int(sizes[0]), noise.variance)
    left = N - (np.cumsum(sizes) - sizes)
    innovation = (1 / sizes - 1 / left) / np.mean(1 / sizes - 1 / N)
    pull, weight = N / (M * left), M * sizes / N
    pull[0], keep = 0, 1 - weight * pull
    keep[0] = 0
    return EpochChain(pull, keep, weight, innovation)


def _spanning_chain(steps: int, N: int, S: int, variance: float) -> EpochChain:
    """c is the sum of what its epoch has drawn, over S; a batch that ends an epoch begins another.

    Of n more examples out of W that are left the sum is −nc/W on average, of variance n(1 − n/W)C₀.
    """
    rows = []
    for m in range(steps):
        left = N - m * S % N
        if left > S:
            rows.append((S / left, 1 - S / left, S * (1 - S / left)))
        else:
            begun = (S - left) % N
            rows.append((1.0, 0.0, begun * (1 - begun / N)))
    pull, keep, innovation = np.array(rows).T
    pull[0] = 0
    keep[0] = 0
    return EpochChain(pull, keep, np.ones(steps), innovation / (S**2 * variance))
