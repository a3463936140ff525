from typing import NamedTuple
import jax, jax.numpy as jnp
class Schedule(NamedTuple):
    indices: jax.Array
    weights: jax.Array
def _cut(order, num_examples, batch_size):
    steps = -(-num_examples // batch_size)
    fill = steps * batch_size - num_examples
    idx = jnp.concatenate([order, order[:1].repeat(fill)]).reshape(steps, batch_size)
    w = (jnp.arange(steps * batch_size) < num_examples).astype(jnp.float32).reshape(steps, batch_size)
    return Schedule(idx.astype(jnp.int32), w)
def without_replacement(key, epoch, num_examples, batch_size):
    return _cut(jax.random.permutation(jax.random.fold_in(key, epoch), num_examples), num_examples, batch_size)
def with_replacement(key, epoch, num_examples, batch_size):
    return _cut(jax.random.randint(jax.random.fold_in(key, epoch), (num_examples,), 0, num_examples), num_examples, batch_size)
