"""Accelerators that are not here: programs compiled for them, and what these hold and exchange.

Compiled and not run. `pip install '.[aot_tpu]'` and `'.[aot_gpu]'` bring the compilers; a process
that imports this computes on CPUs alone and is to import it before JAX.
"""

import collections
import os
import re
import time
from collections.abc import Callable
from typing import Any, NamedTuple

os.environ |= {
    "JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost", "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",
}  # fmt: skip

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from antisgd import devices

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
COLLECTIVES = "all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute"
# Instructions that start no kernel.
_FREE = {
    "after-all", "bitcast", "call", "conditional", "constant", "get-tuple-element", "parameter",
    "partition-id", "replica-id", "tuple", "while",
}  # fmt: skip
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?[\w.\-]+ = (\(.*?\)|\S+) ([\w\-]+)\(")


class Layout(NamedTuple):
    """Functions that give the shapes of arrays as `antisgd.devices` would lay them out."""

    mesh: Mesh | None
    whole: Callable[..., Any]
    dealt: Callable[..., Any]
    columns: Callable[..., Any]


def chips(name: str) -> list[Any]:
    """The devices of 'H100', 'H100:1x8x8' (hosts and GPUs of each), 'v5e:1x1', 'v5e:4x4', …"""
    kind, _, size = name.partition(":")
    if kind == "H100":
        shape = {"topology": size or "1x1x1", "target_config": H100}
        return topologies.get_topology_desc(platform="cuda", **shape).devices
    # A slice of one chip is no topology of its own.
    found = topologies.get_topology_desc(name.replace("1x1", "2x2"), platform="tpu").devices
    return found[:1] if size == "1x1" else found


def pretend(found: list[Any]) -> Layout:
    """Lets programs be laid out over these chips; what puts an array there gives its shape."""
    mesh = Mesh(np.array(found), (devices.AXIS,)) if len(found) > 1 else None

    def shape(leaf: Any, spec: PartitionSpec) -> jax.ShapeDtypeStruct:
        layout = NamedSharding(mesh, spec) if mesh else SingleDeviceSharding(found[0])
        return jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype, sharding=layout)

    def whole(tree: Any, over: Any = None) -> Any:
        return jax.tree.map(lambda leaf: shape(leaf, devices.WHOLE), tree)

    def dealt(tree: Any, over: Any = None) -> Any:
        return jax.tree.map(lambda leaf: shape(leaf, devices.DEALT), tree)

    def columns(rows: int, dimension: int) -> Any:
        size = rows, devices.filled(dimension, mesh)
        return shape(jax.ShapeDtypeStruct(size, jnp.float32), devices.COLUMNS)

    devices.mesh, devices.count = lambda: mesh, lambda: len(found)
    devices.platform = lambda: "tpu" if found[0].platform == "tpu" else "gpu"
    devices.whole, devices.dealt = whole, dealt
    return Layout(mesh, whole, dealt, columns)


def described(lower: Callable[[], Any]) -> dict[str, Any]:
    """What a program is once compiled, of each device: its bytes, kernels, products, exchanges.

    Args:
        lower: gives the program, lowered.

    Returns:
        seconds of compilation; bytes of arguments, of results that are none of these, and
        temporary ones; kernels of the longest body of a loop (of all where there is none);
        products and how many of them have precision HIGHEST; collectives by kind and the bytes
        that a device sends in them, by rings; how many rows of its first result a device holds, of
        how many.
    """
    start = time.perf_counter()
    lowered = lower()
    compiled = lowered.compile()
    seconds = time.perf_counter() - start
    memory, code = compiled.memory_analysis(), compiled.as_text()
    text = lowered.as_text().splitlines()
    products = [line for line in text if re.search(r"dot_general|convolution\(", line)]
    layout = jax.tree.leaves(compiled.output_shardings)[0]
    first = jax.tree.leaves(lowered.out_info)[0].shape
    exchanged = list(_exchanged(code, layout.num_devices))
    return {
        "seconds": round(seconds, 1),
        "arguments": memory.argument_size_in_bytes,
        "results": memory.output_size_in_bytes - memory.alias_size_in_bytes,
        "temporary": memory.temp_size_in_bytes,
        "kernels": _kernels(code),
        "products": len(products),
        "highest": sum("HIGHEST" in line for line in products),
        "collectives": collections.Counter(kind for kind, _ in exchanged),
        "exchanged": round(sum(size for _, size in exchanged)),
        "rows": [layout.shard_shape(first)[0], first[0]] if first else [],
    }


def _instructions(code: str) -> dict[str, list[tuple[str, str, str]]]:
    """Computation → type, name and line of its instructions."""
    found: dict[str, list[tuple[str, str, str]]] = {}
    name = ""
    for line in code.splitlines():
        if head := re.match(r"(?:ENTRY )?%?([\w.\-]+) \(.*\{$", line):
            name = head[1]
            found[name] = []
        elif name and (instruction := _INSTRUCTION.match(line)):
            found[name].append((instruction[1], instruction[2], line))
    return found


def _kernels(code: str) -> int:
    computations = _instructions(code)

    def within(name: str) -> int:
        """Of a computation and of those that it calls, such as the commands of a graph."""
        total = 0
        for _, kind, line in computations[name]:
            called = re.search(r"to_apply=%?([\w.\-]+)", line) if kind == "call" else None
            total += within(called[1]) if called else kind not in _FREE
        return total

    bodies = re.findall(r" while\(.*body=%?([\w.\-]+)", code)
    return max(map(within, bodies or re.findall(r"ENTRY %?([\w.\-]+)", code)))


def _exchanged(code: str, count: int) -> Any:
    """Kind of each collective and the bytes that one of count devices sends, by rings."""
    others = count - 1
    shares = {"all-reduce": 2 * others / count, "reduce-scatter": others}
    for instructions in _instructions(code).values():
        for given, name, _ in instructions:
            kind = name.removesuffix("-start")
            if kind not in COLLECTIVES:
                continue
            sizes = [
                int(np.prod([int(n) for n in shape.split(",") if n])) * int(bits) // 8
                for bits, shape in re.findall(r"[a-z]+(\d+)\[([\d,]*)\]", given)
            ]
            # What starts a gather tells of its operand before its result.
            apart = name.endswith("-start") and kind != "all-reduce"
            size = sum(sizes[len(sizes) // 2 :] if apart else sizes)
            yield kind, size * shares.get(kind, others / count)
