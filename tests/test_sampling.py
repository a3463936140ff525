"""The law of every scheme, by exact enumeration of Eq. 2 and by the streams themselves."""

import itertools
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from antisgd import sampling, theory

# `designed` and `repeated` make schemes of orders; they have tests of their own.
OTHERS = {"Schedule", "designed", "repeated"}
SCHEMES = [getattr(sampling, name) for name in sampling.__all__ if name not in OTHERS]
KEY = jax.random.key(0)


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.__name__)
def test_same_key_same_stream_other_key_another(scheme):
    one, again = scheme(KEY, 3, 20, 6), scheme(KEY, 3, 20, 6)
    np.testing.assert_array_equal(one.indices, again.indices)
    assert np.any(one.indices != scheme(jax.random.key(1), 3, 20, 6).indices)
    assert one.indices.dtype == np.int32
    assert one.weights.dtype == np.float32
    assert one.indices.min() >= 0
    assert one.indices.max() < 20


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.__name__)
def test_a_traced_epoch_gives_the_same_schedule(scheme):
    traced = jax.jit(lambda epoch: scheme(KEY, epoch, 20, 6))(5)
    np.testing.assert_array_equal(traced.indices, scheme(KEY, 5, 20, 6).indices)


@pytest.mark.parametrize(("num_examples", "batch_size"), [(12, 3), (13, 5), (7, 7), (6, 1)])
def test_an_epoch_without_replacement_shows_every_example_once(num_examples, batch_size):
    schedule = sampling.without_replacement(KEY, 2, num_examples, batch_size)
    used = np.asarray(schedule.indices)[np.asarray(schedule.weights) > 0]
    np.testing.assert_array_equal(np.sort(used), np.arange(num_examples))
    assert schedule.indices.shape == (-(-num_examples // batch_size), batch_size)


def test_both_regimes_have_one_shape_so_that_they_share_a_program():
    without = sampling.without_replacement(KEY, 0, 13, 5)
    replaced = sampling.with_replacement(KEY, 0, 13, 5)
    np.testing.assert_array_equal(without.weights, replaced.weights)


def test_with_replacement_draws_uniformly():
    drawn = np.concatenate(
        [np.ravel(sampling.with_replacement(KEY, e, 10, 5).indices) for e in range(400)]
    )
    counts = np.bincount(drawn, minlength=10)
    chi_square = np.sum((counts - 400) ** 2 / 400)
    assert chi_square < 27.9  # 9 degrees of freedom, p = 1e-3
    assert counts.sum() == 4000


def test_shuffle_once_ignores_the_epoch_and_flip_flop_pairs_them():
    once = [sampling.shuffle_once(KEY, e, 12, 3).indices for e in range(3)]
    np.testing.assert_array_equal(once[0], once[2])
    flips = [np.ravel(sampling.flip_flop(KEY, e, 12, 3).indices) for e in range(4)]
    np.testing.assert_array_equal(flips[0], flips[1][::-1])
    np.testing.assert_array_equal(flips[2], flips[3][::-1])
    assert np.any(flips[0] != flips[2])


def test_drop_last_leaves_the_ragged_end_out():
    schedule = sampling.drop_last(KEY, 0, 13, 5)
    assert schedule.indices.shape == (2, 5)
    assert len(np.unique(schedule.indices)) == 10
    np.testing.assert_array_equal(schedule.weights, 1)


def test_spanning_batches_cut_one_endless_stream_of_permutations():
    parts = [np.ravel(sampling.spanning_batches(KEY, e, 13, 5).indices) for e in range(13)]
    stream = np.concatenate(parts)
    epochs = stream[: len(stream) // 13 * 13].reshape(-1, 13)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(13), (15, 1)))


def test_independent_batches_hold_distinct_examples():
    indices = np.sort(sampling.independent_batches(KEY, 0, 12, 5).indices, axis=1)
    assert np.all(np.diff(indices, axis=1) > 0)


@pytest.mark.parametrize("batch_size", [0, 13])
@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: s.__name__)
def test_impossible_batches_are_refused(scheme, batch_size):
    with pytest.raises(ValueError, match="batch_size"):
        scheme(KEY, 0, 12, batch_size)


def enumerated_autocorrelation(num_examples, batch_size):
    """Covariance of batch means by lag, over all permutations, in units of C₀, as fractions."""
    gradients = [Fraction(n * n) for n in range(num_examples)]
    mean = sum(gradients) / num_examples
    noise = [g - mean for g in gradients]
    c_0 = sum(x * x for x in noise) / (num_examples - 1)
    steps = num_examples // batch_size
    within = [[Fraction(0)] * steps for _ in range(steps)]
    permutations = list(itertools.permutations(range(num_examples)))
    for order in permutations:
        batches = [
            sum(noise[n] for n in order[k * batch_size : (k + 1) * batch_size]) / batch_size
            for k in range(steps)
        ]
        for i, j in itertools.product(range(steps), repeat=2):
            within[i][j] += batches[i] * batches[j]
    covariance = [
        sum(within[i][i + h] for i in range(steps - h)) / steps / len(permutations) / c_0
        for h in range(steps)
    ]
    return [*covariance, Fraction(0)]


@pytest.mark.parametrize(("num_examples", "batch_size"), [(4, 1), (4, 2), (6, 2), (6, 3), (7, 1)])
def test_equation_2_by_exact_enumeration(num_examples, batch_size):
    steps = num_examples // batch_size
    exact = enumerated_autocorrelation(num_examples, batch_size)
    C = Fraction(1, batch_size) - Fraction(1, num_examples)
    for h, value in enumerate(exact):
        formula = C if h == 0 else -C * Fraction(steps - h, steps * (steps - 1))
        assert value == formula
    law = theory.without_replacement(steps, batch_size)
    np.testing.assert_allclose(law.variance, float(C), rtol=1e-15)
    correlations = theory.autocorrelation(law, np.arange(steps + 1))
    np.testing.assert_allclose(correlations, [float(v / C) for v in exact], atol=1e-15)


LAWS = {
    "without_replacement": theory.partial_last,
    "with_replacement": theory.with_replacement,
    "independent_batches": theory.independent_batches,
    "drop_last": theory.drop_last,
    "spanning_batches": theory.spanning_batches,
    "flip_flop": lambda n, s: theory.flip_flop(n // s, s),
    "shuffle_once": lambda n, s: theory.shuffle_once(n // s, s),
}


@pytest.mark.parametrize(("num_examples", "batch_size"), [(12, 3), (14, 4), (15, 2)])
@pytest.mark.parametrize("name", sorted(LAWS))
def test_streams_have_the_autocovariance_of_their_law(name, num_examples, batch_size):
    """Blocks of epochs give independent estimates; |z| < 4 at every lag."""
    if num_examples % batch_size and name in ("flip_flop", "shuffle_once", "with_replacement"):
        pytest.skip("the law is tabulated for whole batches")
    law = LAWS[name](num_examples, batch_size)
    scheme = getattr(sampling, name)
    epochs, blocks = 12, 800
    gradients = np.random.default_rng(0).normal(size=num_examples)
    noise = (gradients - gradients.mean()) / gradients.std(ddof=1)

    def block(key):
        schedules = jax.vmap(lambda e: scheme(key, e, num_examples, batch_size))(
            np.arange(2, epochs + 2)
        )
        values = jnp.asarray(noise)[schedules.indices] * schedules.weights
        return (values.sum(-1) / schedules.weights.sum(-1)).ravel()

    series = np.asarray(jax.vmap(block)(jax.random.split(KEY, blocks)), np.float64)
    steps_per_epoch = (
        -(-num_examples // batch_size) if name != "drop_last" else num_examples // batch_size
    )
    lags = np.arange(min(2 * steps_per_epoch + 1, 12))
    whole = (epochs - 4) * steps_per_epoch
    products = np.stack([(series[:, :whole] * series[:, h : whole + h]).mean(1) for h in lags])
    error = products.std(axis=1, ddof=1) / np.sqrt(blocks)
    expected = law.variance * theory.autocorrelation(law, lags)
    assert np.all(np.abs(products.mean(1) - expected) < 4 * error)
