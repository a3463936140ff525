"""All devices of all processes as one mesh, and what processes do together.

One axis over every device: networks, microbatches of examples and the columns of a basis are dealt
out along it. Every process runs the same program; process 0 alone writes and prints. The only
module that asks JAX for devices or processes. On one device `mesh` is None, and nothing is placed
or waited for.
"""

import atexit
import os
import pickle
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import SimpleNamespace
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

__all__ = [
    "AXIS", "COLUMNS", "DEALT", "WHOLE", "alone", "anywhere", "columns", "connect", "count",
    "dealt", "end_all", "fetched", "fill", "filled", "first", "host", "in_words", "local",
    "memory", "mesh", "on", "platform", "prepare", "several_processes", "told", "whole",
]  # fmt: skip

AXIS = "all"
WHOLE, DEALT, COLUMNS = PartitionSpec(), PartitionSpec(AXIS), PartitionSpec(None, AXIS)

# Seconds that process 0 waits for the others to hear of an error before it ends, and between two
# looks for an error of another process.
_FAREWELL, _PATIENCE = 5, 0.5
_FAILED, _HEARD = "antisgd/failed", "antisgd/heard"

_Result = TypeVar("_Result")
# Held for ever by the thread that ends this process.
_leaving = threading.Lock()
# Within what process 0 does alone nobody waits for another.
_at_work = SimpleNamespace(alone=False)


def connect(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> None:
    """Joins the processes of a run, before anything else of JAX.

    Under Slurm, Open MPI and on TPU pods nothing need be given.

    Args:
        coordinator: host:port where process 0 listens.
        processes: their number.
        process: number of this one.

    Raises:
        ValueError: there are no other processes to be found.
    """
    # A stop is this program's own affair: JAX's notice of it would take the signal away.
    jax.config.update("jax_enable_preemption_service", False)
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    try:
        jax.distributed.initialize(coordinator, processes, process)
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"--distributed found no other processes ({error}): start under Slurm, Open MPI or on "
            "a TPU pod, or give --coordinator=HOST:PORT --processes=N --process=I"
        ) from error
    if several_processes():
        over = threading.Event()
        listener = threading.Thread(target=_listen, args=(over,), daemon=True)
        listener.start()
        # Before JAX takes leave of the others, which no thread may be in the midst of asking.
        atexit.register(listener.join)
        atexit.register(over.set)


def prepare() -> None:
    """Lets several CPU devices run one program after another; before anything else of JAX.

    Programs under way together can hold the threads that the sums of each other wait for, and then
    none of them ends.
    """
    forced = "host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if forced or getattr(jax.config, "jax_num_cpu_devices", 0) > 1:
        jax.config.update("jax_cpu_enable_async_dispatch", False)


def count() -> int:
    """Devices of all processes."""
    return jax.device_count()


def several_processes() -> bool:
    """Whether others run the program too."""
    return jax.process_count() > 1


def first() -> bool:
    """Whether this is the process that writes and prints."""
    return jax.process_index() == 0


def host() -> Any:
    """A CPU of this process, for what needs its arithmetic."""
    return jax.local_devices(backend="cpu")[0]


def in_words() -> str:
    """Number and kind of all devices, and of processes where there are several."""
    words = f"{count()} x {jax.devices()[0].device_kind}"
    return f"{words}, {jax.process_count()} processes" if several_processes() else words


def platform() -> str:
    """cpu, gpu or tpu."""
    return jax.default_backend()


def memory() -> int | None:
    """Bytes of a device; None where it shares those of the machine."""
    return (jax.local_devices()[0].memory_stats() or {}).get("bytes_limit")


def mesh() -> Mesh | None:
    """All devices in one row; None where there is one alone."""
    return None if count() == 1 else Mesh(np.array(jax.devices()), (AXIS,))


def on(over: Mesh | None, spec: PartitionSpec, tree: Any) -> Any:
    """Inside `jit`: arrays laid out over a mesh, as they are without one."""
    if over is None:
        return tree
    return jax.lax.with_sharding_constraint(tree, NamedSharding(over, spec))


def local(
    over: Mesh | None, function: Callable[..., Any], takes: Any, gives: Any
) -> Callable[..., Any]:
    """The function run by every device on its own part of what it takes; itself without a mesh."""
    if over is None:
        return function
    return jax.shard_map(function, mesh=over, in_specs=takes, out_specs=gives, check_vma=False)


def whole(tree: Any, over: Mesh | None = None) -> Any:
    """Copies of arrays on every device of a mesh; as they are without one."""
    return tree if over is None else jax.tree.map(lambda leaf: _put(leaf, over, WHOLE), tree)


def dealt(tree: Any, over: Mesh | None = None) -> Any:
    """The leading axis of arrays, which the devices must divide, dealt out to them."""
    return tree if over is None else jax.tree.map(lambda leaf: _put(leaf, over, DEALT), tree)


def columns(rows: Any, over: Mesh | None = None) -> jax.Array:
    """Rows [r, d] by columns: on every device its own of every row, zeros filling up the last."""
    if over is None:
        return jnp.asarray(rows)
    if isinstance(rows, jax.Array):
        return _columns(rows, over)
    shape = rows.shape[0], filled(rows.shape[1], over)

    def own(index: Any) -> np.ndarray:
        # A file that is memory-mapped is read only where it is needed.
        part = np.asarray(rows[index])
        start, stop, _ = index[1].indices(shape[1])
        return np.pad(part, ((0, 0), (0, stop - start - part.shape[1])))

    return jax.make_array_from_callback(shape, NamedSharding(over, COLUMNS), own)


def filled(dimension: int, over: Mesh | None) -> int:
    """Columns of a row [d] dealt out over a mesh: d, filled up to a multiple of its devices."""
    return dimension if over is None else -(-dimension // over.size) * over.size


@partial(jax.jit, static_argnums=1)
def _columns(rows: jax.Array, over: Mesh) -> jax.Array:
    return on(over, COLUMNS, fill(rows, filled(rows.shape[1], over)))


def fill(rows: jax.Array, size: int) -> jax.Array:
    """Rows [r, d] with zeros behind them, [r, size]."""
    lack = size - rows.shape[1]
    return rows if lack == 0 else jnp.pad(rows, ((0, 0), (0, lack)))


def fetched(tree: Any) -> Any:
    """Arrays on the host, NumPy's, those in pieces put together on every process."""
    return jax.tree.map(_fetch, tree)


def told(call: Callable[[], _Result]) -> _Result:
    """What process 0 finds, handed to all: a look at a file, a clock or a solve on the host."""
    if not several_processes() or _at_work.alone:
        return call()
    words = pickle.dumps(call()) if first() else b""
    # Of few lengths, because a program is compiled for each.
    pieces = int(multihost_utils.broadcast_one_to_all(np.int32(max(1, -(-len(words) // 1024)))))
    padded = np.frombuffer(words.ljust(1024 * 2 ** (pieces - 1).bit_length(), b"\0"), np.uint8)
    found = multihost_utils.broadcast_one_to_all(padded)
    return pickle.loads(np.asarray(found, np.uint8).tobytes())


def anywhere(holds: bool) -> bool:
    """Whether something holds on any process, such as that it was asked to stop."""
    if not several_processes():
        return holds
    return bool(multihost_utils.process_allgather(np.array(holds)).any())


def alone(call: Callable[[], None]) -> None:
    """Has process 0 do something while the others wait, before and after."""
    if not several_processes() or _at_work.alone:
        return call()
    multihost_utils.sync_global_devices("before")
    if first():
        _at_work.alone = True
        try:
            call()
        finally:
            _at_work.alone = False
    multihost_utils.sync_global_devices("after")


def end_all(message: str) -> None:
    """Ends all processes with an error of this one; returns where there is no other.

    Those that wait for this one in a sum would wait for ever.
    """
    if not several_processes():
        return
    try:
        _client().key_value_set(_FAILED, message)
    except jax.errors.JaxRuntimeError:
        # Another was the first to fail, and this one hears of it.
        time.sleep(_FAREWELL)
    _leave(message)


def _listen(over: threading.Event) -> None:
    """Waits in a thread for the error of any process."""
    while not over.wait(_PATIENCE):
        with suppress(jax.errors.JaxRuntimeError):
            _leave(_client().key_value_try_get(_FAILED))


def _leave(message: str) -> None:
    _leaving.acquire()
    if first():
        print(message, file=sys.stderr, flush=True)
        for other in range(1, jax.process_count()):
            with suppress(jax.errors.JaxRuntimeError):
                _client().blocking_key_value_get(f"{_HEARD}/{other}", 1000 * _FAREWELL)
    else:
        with suppress(jax.errors.JaxRuntimeError):
            _client().key_value_set(f"{_HEARD}/{jax.process_index()}", "")
    if sys.stdout is not None:
        sys.stdout.flush()
    # Not sys.exit: the others cannot come to the barrier that JAX ends with.
    os._exit(1)


def _client() -> Any:
    # JAX has no public name for what its processes share besides arrays.
    from jax._src import distributed

    return distributed.global_state.client


def _put(leaf: Any, over: Mesh, spec: PartitionSpec) -> jax.Array:
    layout = NamedSharding(over, spec)
    placed = isinstance(leaf, jax.Array) and (
        leaf.sharding == layout or not leaf.is_fully_addressable
    )
    if placed or not several_processes():
        return jax.device_put(leaf, layout)
    held = np.asarray(leaf)
    return jax.make_array_from_callback(held.shape, layout, lambda index: held[index])


def _fetch(leaf: Any) -> np.ndarray:
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated:
        return np.asarray(leaf)
    return multihost_utils.process_allgather(leaf, tiled=True)
