"""The response to correlations rebuilds every law's variance, and is a derivative."""

import numpy as np
import pytest

from antisgd import theory

LAMBDA, ETA, BETA = np.array([0.05, 0.6, 4.0]), 0.2, 0.7
LAWS = [theory.without_replacement(9), theory.flip_flop(6), theory.spanning_batches(23, 4)]


@pytest.mark.parametrize("law", LAWS)
def test_white_noise_and_the_response_make_every_law(law):
    lags = np.arange(1, 40)
    response = theory.correlation_response(LAMBDA, ETA, BETA, 39)
    white = theory.stationary_variances(LAMBDA, ETA, BETA, theory.with_replacement()).weight
    exact = theory.stationary_variances(LAMBDA, ETA, BETA, law).weight
    rebuilt = white + theory.autocorrelation(law, lags) @ response
    # Two terms of the size of the white variance cancel.
    np.testing.assert_allclose(rebuilt, exact, atol=1e-13 * white.max())


def test_the_slope_of_the_loss_is_its_difference_quotient():
    """One correlation changed by ±ε in a list of them; ℓ is linear, so the quotient is exact."""
    C, epsilon = np.array([1.0, 0.3, 2.0]), 1e-3
    slope = theory.loss_fluctuation_slope(LAMBDA, C, ETA, BETA, 5)
    for h in range(5):
        values = []
        for sign in (1, -1):
            r = np.full(5, -0.05)
            r[h] += sign * epsilon
            law = theory.Noise(1 + 2 * r.sum(), 0, correlations=r)
            V = theory.stationary_variances(LAMBDA, ETA, BETA, law).weight
            values.append(theory.loss_fluctuation(LAMBDA, V, C))
        np.testing.assert_allclose(slope[h], (values[0] - values[1]) / (2 * epsilon), rtol=1e-9)
