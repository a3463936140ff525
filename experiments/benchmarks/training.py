"""LeNet's training step against PyTorch's and flax's.

    python -m experiments.benchmarks.training

Random pictures of CIFAR-10's size, batches of 50, float32. Contenders take turns, so that a change
of the machine's load meets all of them; a ratio is the median over the turns. Compile times are
apart. PyTorch trains in all the ways of `torch_training`, the best counts; without it (`pip install
'.[peers]'`) P1 and P2 are left out. The whole epoch needs CIFAR-10 under ANTISGD_DATA_DIR. Last
comes one JSON line of ratios: P1 is PyTorch's best time over ours for one network, P1_eager and
P1_compiled its best in each way, P2 for four at once.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from multiprocessing import get_context
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from antisgd import data, ensemble, heavy_ball, models, objective, sampling
from experiments.benchmarks import kept, torch_training

BATCH_SIZE, LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 50, 5e-3, 0.9, 1e-4
NUM_EXAMPLES = 2000
SEEDS = 4
REST_SECONDS = 0.5
# Multiply-adds of a picture: two convolutions and three dense layers forward, twice that backward
# but for the gradient of the pictures.
FORWARD = (32 * 32 * 75 * 6, 16 * 16 * 150 * 16, 1024 * 120 + 120 * 84 + 84 * 10)
STEP_FLOPS = 2 * BATCH_SIZE * (3 * sum(FORWARD) - FORWARD[0])


class LibraryLeNet(nn.Module):
    """The same network from flax's own layers."""

    @nn.compact
    def __call__(self, x):
        for features in (6, 16):
            x = nn.max_pool(nn.relu(nn.Conv(features, (5, 5))(x)), (2, 2), (2, 2))
        x = x.reshape(len(x), -1)
        for width in (120, 84):
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(10)(x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--turns", type=int, default=10, help="timings of each contender")
    parser.add_argument("--epoch_pictures", type=int, default=50_000, help="0: no whole epoch")
    kept.flag(parser)
    parser.add_argument("--devices", type=int, default=os.cpu_count(), help="of a CPU")
    arguments = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", arguments.devices)
    print(
        f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores, {platform.machine()}; "
        f"Python {platform.python_version()}, jax {jax.__version__}, load {os.getloadavg()[0]:.1f}"
    )
    examples = data.Examples(
        jax.random.normal(jax.random.key(0), (NUM_EXAMPLES, 32, 32, 3)),
        jax.random.randint(jax.random.key(1), (NUM_EXAMPLES,), 0, 10),
    )
    contenders = {
        "antisgd, one network": our_steps(models.lenet(), examples, 1),
        f"antisgd, {SEEDS} networks": our_steps(models.lenet(), examples, SEEDS),
        f"antisgd, {SEEDS} in groups of 1": our_steps(models.lenet(), examples, SEEDS, 1),
    }
    if jax.default_backend() != "cpu":
        for seeds in (8, 20, 40):
            contenders[f"antisgd, {seeds} networks"] = our_steps(models.lenet(), examples, seeds)
    library = {"flax nn.Conv, one network": our_steps(LibraryLeNet(), examples, 1)}
    # PyTorch's decay λ w is the gradient of λ w² / 2.
    sgd = {"lr": LEARNING_RATE, "momentum": MOMENTUM, "weight_decay": 2 * WEIGHT_DECAY}
    with get_context("spawn").Pool(os.cpu_count(), torch_training.one_thread) as pool:
        theirs = torch_training.contenders(pool, NUM_EXAMPLES, BATCH_SIZE, SEEDS, sgd)
        times = take_turns(contenders | theirs, arguments.turns) | take_turns(library, 2)
    report(times, peak_gflops())
    if arguments.epoch_pictures:
        whole_epoch(arguments.epoch_pictures, np.median(times["antisgd, one network"]))
    found = ratios(times)
    if arguments.keep:
        kept.keep("training", found)
    print(json.dumps(found))


def our_steps(
    model: nn.Module, examples: data.Examples, seeds: int, group_size: int | None = None
) -> Callable[[], int]:
    """A compiled epoch of the ensemble; a call runs it and returns the steps of all networks."""
    loss = objective.make_loss(model.apply, WEIGHT_DECAY)
    optimizer = heavy_ball.heavy_ball(LEARNING_RATE, MOMENTUM)
    epoch = ensemble.make_epoch(
        loss,
        lambda epoch: optimizer,
        [sampling.without_replacement],
        BATCH_SIZE,
        group_size=group_size,
    )
    init_keys, stream_keys = ensemble.network_keys(0, seeds)
    init = partial(model.init, images=examples.images[:1])
    if isinstance(model, LibraryLeNet):
        init = partial(model.init, x=examples.images[:1])
    states = ensemble.init(init, optimizer, init_keys)
    keys = stream_keys
    # One network has one device, with all threads: dealt out to several it would run as copies.
    if seeds > 1:
        states, examples = ensemble.over_devices(states), ensemble.on_all_devices(examples)
    start = time.perf_counter()
    compiled = epoch.lower(states, keys, 0, examples).compile()
    print(f"compiled {type(model).__name__} x {seeds} in {time.perf_counter() - start:.1f} s")
    held = [states]

    def run() -> int:
        held[0], losses = compiled(held[0], keys, 0, examples)
        return jax.block_until_ready(losses).size

    return run


def take_turns(contenders: dict[str, Callable[[], int]], turns: int) -> dict[str, np.ndarray]:
    """Seconds a step of every contender at every turn, after one turn to warm up."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(turns + 1):
        for name, run in contenders.items():
            # Threads of the one before may still be waiting for work in a loop.
            time.sleep(REST_SECONDS)
            start = time.perf_counter()
            steps = run()
            times[name].append((time.perf_counter() - start) / steps)
    return {name: np.array(seconds[1:]) for name, seconds in times.items()}


def peak_gflops(size: int = 2048) -> float:
    """The machine's best rate of a float32 matrix product."""
    a = jax.random.normal(jax.random.key(2), (size, size))
    product = jax.jit(jnp.matmul)
    times = take_turns({"matmul": lambda: len(jax.block_until_ready(product(a, a)))}, 5)["matmul"]
    return 2 * size**2 / times.min() / 1e9


def report(times: dict[str, np.ndarray], peak: float) -> None:
    print(f"{'':42s}{'min ms':>9s}{'median ms':>11s}{'GFLOP/s':>9s}   (a step of one network)")
    for name, seconds in times.items():
        rate = STEP_FLOPS / seconds.min() / 1e9
        print(f"{name:42s}{seconds.min() * 1e3:9.2f}{np.median(seconds) * 1e3:11.2f}{rate:9.0f}")
    print(f"{'matrix product, the peak':42s}{'':20s}{peak:9.0f}")
    if jax.default_backend() != "cpu":
        hours = 40 * 100 * 1000 * np.median(times["antisgd, 40 networks"]) / 3600
        print(f"--seeds=20, 2 regimes, 100 epochs of 1,000 steps: {hours:.2f} h projected")


def ratios(times: dict[str, np.ndarray]) -> dict[str, float]:
    """Against the contender of PyTorch with the smallest median, and flax's ratio."""
    ours = times["antisgd, one network"]
    library = times["flax nn.Conv, one network"]
    result = {"flax": round(float(np.median(library) / np.median(ours)), 2)}
    theirs = {name: t for name, t in times.items() if name.startswith("PyTorch")}
    if not theirs:
        return result
    single = {name: t for name, t in theirs.items() if "threads" in name}
    ours_together = [t for name, t in times.items() if name.startswith(f"antisgd, {SEEDS}")]
    together = min(ours_together, key=np.median)
    contests: dict[str, tuple[Any, np.ndarray]] = {
        f"P1_{way}": ([t for name, t in single.items() if way in name], ours)
        for way in torch_training.WAYS
    }
    contests |= {"P1": (single.values(), ours), "P2": (theirs.values(), together)}
    for name, (peers, mine) in contests.items():
        result[name] = round(float(np.median(min(peers, key=np.median) / mine)), 3)
    return result


def whole_epoch(pictures: int, step: float) -> None:
    """Trains as users do, evaluation and progress bar on; start and compilation cancel."""
    if "ANTISGD_DATA_DIR" not in os.environ:
        print("ANTISGD_DATA_DIR does not name CIFAR-10: no whole epoch")
        return
    seconds = [_lenet_seconds(pictures, epochs) for epochs in (1, 1, 6)]
    epoch, bare = (seconds[2] - seconds[1]) / 5, pictures / BATCH_SIZE * step
    print(f"an epoch of {pictures} pictures as users train: {epoch:.1f} s, its steps {bare:.1f} s")


def _lenet_seconds(pictures: int, epochs: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        command = [
            *(sys.executable, "-m", "experiments.lenet", "--stages=train", "--analysis_seeds=0"),
            f"--data_dir={os.environ['ANTISGD_DATA_DIR']}",
            *(f"--num_examples={pictures}", f"--epochs={epochs}"),
            f"--output_dir={folder}/run",
        ]
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start


if __name__ == "__main__":
    main()
