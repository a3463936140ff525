"""Where the time of LeNet's training step goes, beside what the machine could do at best.

    python -m experiments.benchmarks.roofline

Each part of a step of 50 pictures alone: its floating-point operations and the bytes it moves, as
the compiler counts them, the time that these would take at the machine's own rates (a matrix
product of 2,048, a sum of two arrays of the size of the patches), the larger of both, and the time
it takes. A part that takes far longer than its bound could be written better; the sum of the
bounds is what no rewriting of these parts can beat. Last comes one JSON line.
"""

import argparse
import json
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from antisgd import data, heavy_ball, models, objective
from antisgd.convolution import convolve_and_pool, maps_from_pictures
from experiments.benchmarks.training import (
    BATCH_SIZE,
    LEARNING_RATE,
    MOMENTUM,
    NUM_EXAMPLES,
    WEIGHT_DECAY,
    peak_gflops,
    take_turns,
)

TURNS = 30
# Numbers of the patches of the first layer: 6 x 6 x 3 pixels at 16 x 16 places of 50 pictures.
PATCHES = 108 * 16 * 16 * BATCH_SIZE


class Part(NamedTuple):
    """A compiled part of a step.

    Attributes:
        run: runs it once.
        operations: floating-point operations of it.
        moved: bytes read and written.
    """

    run: Callable[[], int]
    operations: float
    moved: float


def main() -> None:
    argparse.ArgumentParser(description=__doc__.split("\n")[0]).parse_args()
    found = {
        name: compiled(function, *arguments) for name, (function, arguments) in parts().items()
    }
    times = take_turns({name: part.run for name, part in found.items()}, TURNS)
    flops, bandwidth = 1e9 * peak_gflops(), bytes_a_second()
    print(
        f"{os.cpu_count()} cores, jax {jax.__version__}, load {os.getloadavg()[0]:.1f}: "
        f"{flops / 1e9:.0f} GFLOP/s, {bandwidth / 1e9:.0f} GB/s"
    )
    print(f"{'':32s}{'MFLOP':>8s}{'MB':>8s}{'bound ms':>10s}{'ms':>8s}{'reached':>9s}")
    for name, part in found.items():
        bound, taken = least_seconds(part, flops, bandwidth), np.min(times[name])
        print(
            f"{name:32s}{part.operations / 1e6:8.1f}{part.moved / 1e6:8.1f}{bound * 1e3:10.2f}"
            f"{taken * 1e3:8.2f}{bound / taken:9.0%}"
        )
    print(json.dumps({name: round(float(np.min(times[name])) * 1e3, 3) for name in found}))


def least_seconds(part: Part, flops: float, bandwidth: float) -> float:
    """The roofline: at the machine's rates neither the arithmetic nor the traffic is faster."""
    return max(part.operations / flops, part.moved / bandwidth)


def parts() -> dict[str, tuple[Callable[..., Any], tuple[Any, ...]]]:
    """Parts of a step, and the whole, with what they are given."""
    model = models.lenet()
    pictures = jax.random.normal(jax.random.key(0), (NUM_EXAMPLES, 32, 32, 3))
    labels = jax.random.randint(jax.random.key(1), (NUM_EXAMPLES,), 0, 10)
    batch = jax.random.permutation(jax.random.key(2), NUM_EXAMPLES)[:BATCH_SIZE]
    params = model.init(jax.random.key(3), pictures[:1])
    first, second = (params["params"][f"Conv_{i}"]["kernel"] for i in (0, 1))
    loss = objective.make_loss(model.apply, WEIGHT_DECAY)
    optimizer = heavy_ball.heavy_ball(LEARNING_RATE, MOMENTUM)
    state = heavy_ball.init(optimizer, params)
    maps = maps_from_pictures(pictures[batch])
    inner = convolve_and_pool(maps, first)

    def backward(maps, kernel, cotangent, argnums):
        _, pull = jax.vjp(convolve_and_pool, maps, kernel)
        return [pull(cotangent)[i] for i in argnums]

    def whole(state, pictures, labels, batch):
        examples = data.Examples(pictures[batch], labels[batch])
        gradient = jax.grad(loss)(state.params, examples, jnp.ones(BATCH_SIZE))
        return optimizer.update(gradient, state.opt_state, state.params)

    upper = convolve_and_pool(inner, second)
    return {
        "pictures drawn and turned": (lambda x, i: maps_from_pictures(x[i]), (pictures, batch)),
        "first layer": (convolve_and_pool, (maps, first)),
        "first layer and its gradient": (lambda *x: backward(*x, (1,)), (maps, first, inner)),
        "second layer": (convolve_and_pool, (inner, second)),
        "second layer and its gradients": (
            lambda *x: backward(*x, (0, 1)), (inner, second, upper),
        ),
        "the whole step": (whole, (state, pictures, labels, batch)),
    }  # fmt: skip


def compiled(function: Callable[..., Any], *arguments: Any) -> Part:
    """The part as a program, with what the compiler counts."""
    program = jax.jit(function).lower(*arguments).compile()
    counted: Any = program.cost_analysis()

    def run() -> int:
        jax.block_until_ready(program(*arguments))
        return 1

    return Part(run, counted["flops"], counted["bytes accessed"])


def bytes_a_second() -> float:
    """The best rate at which a sum of two arrays as large as the patches reads and writes."""
    a = jnp.ones(PATCHES)
    add = jax.jit(jnp.add)

    def run() -> int:
        jax.block_until_ready(add(a, a))
        return 1

    return 2 * a.nbytes / take_turns({"add": run}, TURNS)["add"].min()


if __name__ == "__main__":
    main()
