"""What it costs to record an analysis period along 500 directions.

    python -m experiments.benchmarks.recording

LeNet, random pictures of CIFAR-10's size, batches of 50, chunks as in the experiments, float32.
Recording and plain training take turns; the ratio is the median over the turns. Last comes one
JSON line.
"""

import argparse
import json
import os
import platform

import jax
import jax.numpy as jnp
import numpy as np

from antisgd import data, heavy_ball, models, objective, sampling, trajectory
from antisgd.study.stages.record import CHUNK_STEPS
from experiments.benchmarks import kept
from experiments.benchmarks.training import BATCH_SIZE, LEARNING_RATE, MOMENTUM, take_turns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--directions", type=int, default=500)
    parser.add_argument("--turns", type=int, default=10)
    kept.flag(parser)
    arguments = parser.parse_args()
    print(
        f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, jax {jax.__version__}, load {os.getloadavg()[0]:.1f}"
    )
    times = take_turns(contenders(arguments.directions), arguments.turns)
    for name, seconds in times.items():
        print(f"{name:12s} {1e3 * np.median(seconds):7.2f} ms a step")
    ratio = float(np.median(times["recording"] / times["plain"]))
    found = {"P6": round(ratio, 3)}
    if arguments.keep:
        kept.keep("recording", found)
    print(json.dumps(found))


def contenders(directions: int) -> dict:
    """A chunk of steps each, with and without the recording; a call returns its steps."""
    model, num_examples = models.lenet(), CHUNK_STEPS * BATCH_SIZE
    examples = data.Examples(
        jax.random.normal(jax.random.key(0), (num_examples, 32, 32, 3)),
        jax.random.randint(jax.random.key(1), (num_examples,), 0, 10),
    )
    loss, optimizer = (
        objective.make_loss(model.apply),
        heavy_ball.heavy_ball(LEARNING_RATE, MOMENTUM),
    )
    params = model.init(jax.random.key(2), examples.images[:1])
    state = heavy_ball.init(optimizer, params)
    dimension = sum(leaf.size for leaf in jax.tree.leaves(params))
    P = jax.random.normal(jax.random.key(3), (directions, dimension)) / dimension**0.5
    schedule = sampling.without_replacement(jax.random.key(4), 0, num_examples, BATCH_SIZE)

    def advance(state, schedule, examples, record=None):
        options = {} if record is None else {"record": record}
        return heavy_ball.run_schedule(loss, optimizer, state, schedule, examples, **options)

    flat = trajectory.flat_record(with_updates=False)
    record = trajectory.make_recorder(lambda *arguments: advance(*arguments, record=flat))
    plain = jax.jit(advance)

    def run(call, *more):
        jax.block_until_ready(call(state, schedule, examples, *more))
        return CHUNK_STEPS

    return {"plain": lambda: run(plain), "recording": lambda: run(record, jnp.asarray(P))}


if __name__ == "__main__":
    main()
