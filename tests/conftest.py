"""Strict numerics for all tests: silent broadcasting of ranks is an error."""

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
