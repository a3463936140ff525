"""The main experiment with a network of 650 weights and all limits small, for tests of a run.

    python -m tests.tiny FLAGS

Checkpoints at every opportunity, chunks of a few steps and every program kept in the cache, so
that there is much to interrupt, to lose and to write amiss, and little to wait for.
"""

from types import SimpleNamespace

import jax
import jax.numpy as jnp

from antisgd import models
from experiments import curvature, flags, lenet, recording, training, validity

FLAGS = (
    "--dataset=synthetic", "--num_examples=60", "--batch_size=6", "--learning_rate=0.01",
    "--epochs=6", "--analysis_epochs=4", "--eigenpairs=5", "--microbatch_size=30",
)  # fmt: skip


def network():
    """Softmax regression on the pixels, with the two functions of a linen module."""

    def init(key, images):
        shape = (images[0].size, 10)
        dense = {"kernel": 0.1 * jax.random.normal(key, shape), "bias": jnp.zeros(10)}
        return {"params": {"Dense_0": dense}}

    def apply(variables, images):
        dense = variables["params"]["Dense_0"]
        return images.reshape(len(images), -1) @ dense["kernel"] + dense["bias"][None]

    return SimpleNamespace(init=init, apply=apply)


def shrink(patch):
    """Sets all of it with `patch(owner, name, value)`."""
    patch(models, "lenet", network)
    patch(validity, "PROBES", 2)
    patch(validity, "NODES", 5)
    patch(flags, "KEPT_COMPILE_SECONDS", 0)
    patch(recording, "CHUNK_STEPS", 4)
    for stage in (training, curvature, recording):
        patch(stage, "CHECKPOINT_SECONDS", 0)


if __name__ == "__main__":
    shrink(setattr)
    flags.run(lenet.main)
