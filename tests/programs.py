"""The programs of a study compiled for an accelerator that is not here; prints JSON.

    python tests/programs.py v5e:2x2 [small|paper [program …]]

A process of its own: `antisgd.devices` is told of the chips of a topology, and arrays stand for
themselves by shape, type and layout alone.
"""

import collections
import json
import os
import re
import sys
import time
from functools import partial

os.environ |= {
    "JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost", "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",
}  # fmt: skip

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from antisgd import devices, ensemble, heavy_ball, hessian, models, objective, sampling, trajectory
from antisgd.lanczos import basis, iteration, products

# What XLA has to know of an H100 (80 GB, SXM).
H100 = """
gpu_device_info {
  threads_per_block_limit: 1024  threads_per_warp: 32  shared_memory_per_block: 49152
  shared_memory_per_core: 233472  threads_per_core_limit: 2048  core_count: 132
  fpus_per_core: 128  block_dim_limit_x: 2147483647  block_dim_limit_y: 65535
  block_dim_limit_z: 65535  memory_bandwidth: 3350000000000  l2_cache_size: 52428800
  clock_rate_ghz: 1.98  device_memory_size: 85000000000  shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 minor: 0 }
  registers_per_core_limit: 65536  registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 patch: 0 }
runtime_version { major: 12 minor: 9 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
# Side of the pictures, examples, batch, microbatch, directions, networks, basis vectors.
SIZES = {"small": (12, 64, 8, 16, 16, 3, 64), "paper": (32, 50_000, 50, 500, 5000, 40, 12_532)}


def chips(name):
    if name.startswith("H100"):
        topology = {"topology": f"1x1x{name.partition(':')[2] or 1}", "target_config": H100}
        return topologies.get_topology_desc(platform="cuda", **topology).devices
    # A slice of one chip is no topology of its own.
    whole = name.replace("1x1", "2x2")
    found = topologies.get_topology_desc(whole, platform="tpu").devices
    return found[:1] if "1x1" in name else found


def pretend(found):
    """Lets the programs be laid out over these chips; what puts an array there gives its shape."""
    mesh = Mesh(np.array(found), (devices.AXIS,)) if len(found) > 1 else None

    def shape(leaf, spec):
        layout = NamedSharding(mesh, spec) if mesh else SingleDeviceSharding(found[0])
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=layout)
        return jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype, sharding=layout)

    def whole(tree, over=None):
        return jax.tree.map(lambda leaf: shape(leaf, devices.WHOLE), tree)

    def dealt(tree, over=None):
        return jax.tree.map(lambda leaf: shape(leaf, devices.DEALT if mesh else ()), tree)

    def columns(rows, dimension, dtype=np.float32):
        spec = devices.COLUMNS if mesh else PartitionSpec()
        stand_in = jax.ShapeDtypeStruct((rows, devices.filled(dimension, mesh)), dtype)
        return shape(stand_in, spec)

    devices.mesh, devices.count = lambda: mesh, lambda: len(found)
    devices.platform = lambda: "tpu" if found[0].platform == "tpu" else "gpu"
    devices.whole, devices.dealt = whole, dealt
    return mesh, whole, dealt, columns


def programs(found, size):
    """Name → a function that lowers the program."""
    mesh, whole, dealt, columns = pretend(found)
    side, N, S, microbatch, k, networks, vectors = SIZES[size]
    model, key = models.lenet(), jax.random.key(0)
    pictures = jax.ShapeDtypeStruct((N, side, side, 3), jnp.float32)
    params = jax.eval_shape(model.init, key, jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32))
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), params)
    d = sum(leaf.size for leaf in jax.tree.leaves(params))
    Examples = collections.namedtuple("Examples", "images labels")
    held = Examples(np.zeros(pictures.shape, np.float32), np.zeros(N, np.int32))
    examples, loss = whole(held), objective.make_loss(model.apply)

    def optimizer_at(epoch, *swept):
        return heavy_ball.heavy_ball(jnp.float32(0.005), jnp.float32(0.9))

    def epoch():
        run = ensemble.make_epoch(loss, optimizer_at, [sampling.without_replacement], S)
        init = partial(ensemble.init, lambda key: params, optimizer_at(0))
        states = jax.eval_shape(init, jax.random.split(key, devices.filled(networks, mesh)))
        keys = whole(jax.random.split(key, networks))
        return run.lower(dealt(states), keys, np.int32(0), examples)

    def evaluation():
        many = jax.tree.map(lambda p: np.zeros((devices.filled(networks, mesh), *p.shape)), params)
        many = dealt(jax.tree.map(lambda leaf: leaf.astype(np.float32), many))
        one = partial(objective.evaluate, model.apply, microbatch_size=min(N, 1000))
        run = ensemble.each_network(lambda network, examples: one(network, examples))
        return run.lower(many, examples)

    def product(block):
        matvec = hessian.hessian_vector_product(loss, params, held, microbatch_size=microbatch)
        return products._apply().lower(matvec, columns(block, d), d, mesh)

    def recorder():
        def advance(state, schedule, examples):
            def full(params):
                found = objective.full_gradient(loss, params, examples, microbatch, mesh=mesh)
                return jax.flatten_util.ravel_pytree(found)[0]

            record = trajectory.flat_record(full, with_updates=False)
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

    segment = columns(basis.segment_rows(d, mesh), d)
    return {
        "epoch": epoch,
        "evaluation": evaluation,
        "product of 8": lambda: product(8),
        "recorder": recorder,
        "example gradients": gradients,
        "orthogonalisation": lambda: basis._take_out.lower(segment, columns(8, d), mesh),
        "factorisation": lambda: iteration._qr.lower(columns(8, d), mesh),
    }


def described(lower):
    """What is compiled: seconds, bytes, precisions of products and collectives."""
    start = time.perf_counter()
    lowered = lower()
    text = lowered.as_text()
    compiled = lowered.compile()
    seconds = time.perf_counter() - start
    memory, code = compiled.memory_analysis(), compiled.as_text()
    products = [line for line in text.splitlines() if re.search(r"dot_general|convolution\(", line)]
    kinds = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute")
    return {
        "seconds": round(seconds, 1),
        "temporary": memory.temp_size_in_bytes,
        "arguments": memory.argument_size_in_bytes,
        "products": len(products),
        "highest": sum("HIGHEST" in line for line in products),
        "collectives": {
            kind: n for kind in kinds if (n := len(re.findall(rf" {kind}(?:-start)?\(", code)))
        },
    }


if __name__ == "__main__":
    name, size = sys.argv[1], (sys.argv[2:] or ["small"])[0]
    told = {}
    for program, lower in programs(chips(name), size).items():
        if len(sys.argv) > 3 and program not in sys.argv[3:]:
            continue
        try:
            told[program] = described(lower)
        except Exception as error:
            told[program] = {"error": f"{type(error).__name__}: {error}"[:1000]}
        print(program, told[program], file=sys.stderr, flush=True)
    print(json.dumps(told))
