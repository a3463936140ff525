"""The programs of a study compiled for an accelerator that is not here; prints JSON.

    python tests/programs.py v5e:2x2 [small|paper [program …]]

A process of its own, because it makes `antisgd.devices` tell of chips that are not here: arrays
stand for themselves by shape, type and layout alone.
"""

import collections
import json
import sys
from functools import partial

# Before JAX, which it keeps to the CPU.
from experiments.benchmarks import chips  # isort: skip

import jax
import jax.numpy as jnp
import numpy as np

from antisgd import devices, ensemble, heavy_ball, hessian, models, objective, sampling, trajectory
from antisgd.lanczos import basis, iteration, products

# Side of the pictures, examples, batch, microbatch, directions, networks, basis vectors.
SIZES = {"small": (12, 64, 8, 16, 16, 3, 64), "paper": (32, 50_000, 50, 500, 5000, 40, 12_532)}
# Examples of a microbatch of ResNet-20's products, whose maps are ten times LeNet's.
RESNET_MICROBATCH = 50


def programs(found, size):
    """Name → a function that lowers the program."""
    mesh, whole, dealt, columns = chips.pretend(found)
    side, N, S, microbatch, k, networks, vectors = SIZES[size]
    Examples = collections.namedtuple("Examples", "images labels")
    held = Examples(np.zeros((N, side, side, 3), np.float32), np.zeros(N, np.int32))
    examples, key = whole(held), jax.random.key(0)

    def network(model):
        picture = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
        params = jax.eval_shape(model.init, key, picture)
        params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), params)
        return objective.make_loss(model.apply), params

    loss, params = lenet = network(models.lenet())
    d = sum(leaf.size for leaf in jax.tree.leaves(params))

    def optimizer_at(epoch, *swept):
        return heavy_ball.heavy_ball(jnp.float32(0.005), jnp.float32(0.9))

    def epoch(loss, params, networks):
        run = ensemble.make_epoch(loss, optimizer_at, [sampling.without_replacement], S)
        init = partial(ensemble.init, lambda key: params, optimizer_at(0))
        states = jax.eval_shape(init, jax.random.split(key, devices.filled(networks, mesh)))
        keys = whole(jax.random.split(key, networks))
        return run.lower(dealt(states), keys, np.int32(0), examples)

    def evaluation():
        count = devices.filled(networks, mesh)
        many = jax.tree.map(lambda p: np.zeros((count, *p.shape), np.float32), params)
        size = min(N, 1000)
        one = partial(objective.evaluate, models.lenet().apply, microbatch_size=size)
        return ensemble.each_network(lambda params, examples: one(params, examples)).lower(
            dealt(many), examples
        )

    def product(loss, params, microbatch):
        matvec = hessian.hessian_vector_product(loss, params, held, microbatch_size=microbatch)
        d = sum(leaf.size for leaf in jax.tree.leaves(params))
        return products._apply().lower(matvec, columns(8, d), d, mesh)

    def recorder(exact):
        def advance(state, schedule, examples):
            def full(params):
                found = objective.full_gradient(loss, params, examples, microbatch, mesh=mesh)
                return jax.flatten_util.ravel_pytree(found)[0]

            record = trajectory.flat_record(full if exact else None, with_updates=False)
            return heavy_ball.run_schedule(
                loss, optimizer_at(0), state, schedule, examples, record=record
            )

        state = whole(jax.eval_shape(partial(heavy_ball.init, optimizer_at(0)), params))
        steps = (25, S)
        rows = jax.ShapeDtypeStruct(steps, jnp.int32), jax.ShapeDtypeStruct(steps, jnp.float32)
        schedule = sampling.Schedule(*whole(rows))
        run = trajectory.make_recorder(advance, mesh)
        return run.lower(state, schedule, examples, columns(k, d))

    def gradients():
        run = partial(trajectory.example_gradients, loss, microbatch_size=min(N, 100), mesh=mesh)
        return jax.jit(run).lower(whole(params), examples, columns(k, d))

    def rotation():
        # A strip of columns of one segment, as many as a basis of that size rotates at a time.
        rows = basis.segment_rows(d, mesh)
        coefficients = whole(np.zeros((rows, k), np.float32))
        width = max(1, basis._SEGMENT // vectors)
        width = min(width, devices.filled(d, mesh) // len(found))
        return basis._strip_product.lower(coefficients, columns(rows, d), np.int32(0), width, mesh)

    segment = columns(basis.segment_rows(d, mesh), d)
    resnet = network(models.resnet20())
    return {
        "epoch": lambda: epoch(*lenet, networks),
        "epoch of one": lambda: epoch(*lenet, 1),
        "epoch of 40": lambda: epoch(*lenet, 40),
        "evaluation": evaluation,
        "product of 8": lambda: product(*lenet, microbatch),
        "recorder": lambda: recorder(exact=True),
        "quadratic recorder": lambda: recorder(exact=False),
        "example gradients": gradients,
        "orthogonalisation": lambda: basis._take_out.lower(segment, columns(8, d), mesh),
        "factorisation": lambda: iteration._qr.lower(columns(8, d), mesh),
        "rotation": rotation,
        "ResNet-20 epoch": lambda: epoch(*resnet, 1),
        "ResNet-20 product of 8": lambda: product(*resnet, min(N, RESNET_MICROBATCH)),
    }


# What is compiled where nothing is named; "epoch" is that of 40 networks at the paper's size.
SMALL = (
    "epoch", "evaluation", "product of 8", "recorder", "example gradients", "orthogonalisation",
    "factorisation", "rotation",
)  # fmt: skip
PAPER = (
    *SMALL, "epoch of one", "quadratic recorder", "ResNet-20 epoch", "ResNet-20 product of 8",
)  # fmt: skip


if __name__ == "__main__":
    name, size, *asked = [*sys.argv[1:], "small"][: max(2, len(sys.argv) - 1)]
    found, told = programs(chips.chips(name), size), {}
    for program in asked or (PAPER if size == "paper" else SMALL):
        try:
            told[program] = chips.described(found[program])
        except Exception as error:
            told[program] = {"error": f"{type(error).__name__}: {error}"[:1000]}
        print(program, told[program], file=sys.stderr, flush=True)
    print(json.dumps(told))
