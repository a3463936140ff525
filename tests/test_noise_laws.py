"""Every noise law by exact enumeration of all its streams for a few examples."""

import itertools

import numpy as np
import pytest

from antisgd import theory

# Per-example gradients with mean 0: the autocovariances below are in units of their variance.
GRADIENTS = np.array([3.0, -1.0, 0.5, 7.0, -2.0])


def orders(num_examples, epochs):
    """All equally likely orders of some epochs, [streams, epochs, N]."""
    one = np.array(list(itertools.permutations(range(num_examples))))
    which = np.array(list(itertools.product(range(len(one)), repeat=epochs)))
    return one[which]


def means(stream, size, *, num_examples, keep_rest):
    """Batch means of every epoch of orders [streams, epochs, N], [streams, steps]."""
    noise = gradients(num_examples)[stream]
    ends = [i for i in range(size, num_examples + 1, size)]
    if keep_rest and ends[-1] < num_examples:
        ends.append(num_examples)
    starts = [0, *ends[:-1]]
    batches = [noise[..., i:j].mean(-1) for i, j in zip(starts, ends, strict=True)]
    return np.stack(batches, -1).reshape(len(stream), -1)


def gradients(num_examples):
    values = GRADIENTS[:num_examples] - GRADIENTS[:num_examples].mean()
    return values / values.std(ddof=1)


def reshuffled(n, s, keep_rest=True):
    return means(orders(n, 2), s, num_examples=n, keep_rest=keep_rest)


def repeated(n, s):
    return means(np.repeat(orders(n, 1), 2, axis=1), s, num_examples=n, keep_rest=True)


def there_and_back(n, s):
    pairs = orders(n, 2)
    stream = np.stack([pairs[:, 0], pairs[:, 0, ::-1], pairs[:, 1], pairs[:, 1, ::-1]], 1)
    return means(stream, s, num_examples=n, keep_rest=True)


def endless(n, s):
    stream = gradients(n)[orders(n, 3 if n == 4 else 4).reshape(-1, n * (3 if n == 4 else 4))]
    return stream.reshape(len(stream), -1, s).mean(-1)


def drawn(n, s):
    draws = np.array(list(itertools.product(range(n), repeat=2 * s)))
    return gradients(n)[draws].reshape(-1, 2, s).mean(-1)


def distinct(n, s):
    batches = np.array(list(itertools.combinations(range(n), s)))
    pairs = np.array(list(itertools.product(range(len(batches)), repeat=2)))
    return gradients(n)[batches[pairs]].mean(-1)


# What a stream shows of its law: all batches, the period over which positions are averaged (in
# steps) and the law.
CASES = {
    "without_replacement": (reshuffled(4, 2), 2, theory.without_replacement(2, 2)),
    "without_replacement, S = 1": (reshuffled(4, 1), 4, theory.without_replacement(4, 1)),
    "partial_last, 4 = 3 + 1": (reshuffled(4, 3), 2, theory.partial_last(4, 3)),
    "partial_last, 5 = 2 + 2 + 1": (reshuffled(5, 2), 3, theory.partial_last(5, 2)),
    "drop_last, 5 = 2 + 2": (reshuffled(5, 2, False), 2, theory.drop_last(5, 2)),
    "shuffle_once": (repeated(5, 1), 5, theory.shuffle_once(5, 1)),
    "flip_flop": (there_and_back(4, 2), 4, theory.flip_flop(2, 2)),
    "flip_flop, S = 1": (there_and_back(4, 1), 8, theory.flip_flop(4, 1)),
    "spanning_batches": (endless(4, 3), 4, theory.spanning_batches(4, 3)),
    "spanning_batches, 3 by 2": (endless(3, 2), 3, theory.spanning_batches(3, 2)),
    "with_replacement": (drawn(4, 2), 1, theory.with_replacement(4, 2)),
    "independent_batches": (distinct(5, 2), 1, theory.independent_batches(5, 2)),
}


@pytest.mark.parametrize("name", sorted(CASES))
def test_law_by_enumeration(name):
    """Mean of δg_k δg_{k+h} over all streams and over the positions k of a period."""
    streams, period, law = CASES[name]
    lags = np.arange(streams.shape[1] - period + 1) if period > 1 else np.arange(2)
    exact = [
        np.mean(streams[:, :period] * streams[:, h : h + period])
        if period > 1
        else np.mean(streams[:, 0] * streams[:, h])
        for h in lags
    ]
    found = law.variance * theory.autocorrelation(law, lags)
    np.testing.assert_allclose(found, exact, atol=1e-14 * law.variance * len(streams) ** 0.5)


def test_anti_pgd_by_enumeration_of_signs():
    """ξ_{k+1} − ξ_k over all signs of four ξ."""
    signs = np.array(list(itertools.product([-1.0, 1.0], repeat=4)))
    noise = np.diff(signs, axis=1)
    exact = [np.mean(noise[:, 0] * noise[:, h]) / 2 for h in range(3)]
    np.testing.assert_allclose(theory.autocorrelation(theory.anti_pgd(), range(3)), exact)
