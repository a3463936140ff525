"""Command lines: flags made from settings classes, and how a main runs.

    python -m antisgd.study module:problem --eigenpairs=200 --output_dir=runs/mine

The only module of the library that knows absl; nothing of the library imports it.
"""

import dataclasses
import importlib
import io
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import jax
from absl import app, flags, logging

from antisgd import devices
from antisgd.study import interruption
from antisgd.study.settings import Processes

__all__ = ["guarded", "load", "parse", "run"]

# Programs that compile faster than this are not worth a file in the cache.
KEPT_COMPILE_SECONDS = 0.5


def run(main: Callable[..., None], *defaults: Any, positional: int = 0) -> None:
    """Runs a main on what the command line says: `main(*words, *options)`.

    Bad input ends in one line and exit code 1, no traceback.

    Args:
        main: takes the words of the command line and instances like `defaults`.
        *defaults: instances of settings classes whose fields become the flags.
        positional: how many words that are no flags there must be.
    """
    logging.set_verbosity(logging.WARNING)
    for stream in (sys.stdout, sys.stderr):
        # A terminal that knows no ± or λ shows a question mark and does not end the run.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    processes = Processes()
    names = _define(flags.FLAGS, (*defaults, processes))
    # --help lists what belongs to the module that was started.
    for name in names:
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS[name])

    def started(argv: Sequence[str]) -> None:
        words = argv[1:]
        if len(words) > positional:
            raise ValueError(f"unexpected argument {words[positional]}: flags begin with --")
        if len(words) < positional:
            raise ValueError("give module:problem, the name of a module and of a Problem in it")
        use_compilation_cache()
        devices.prepare()
        # Of several processes the first alone is to be heard.
        heard = _connected(*_instances(flags.FLAGS, [processes]))
        with redirect_stdout(sys.stdout if heard else None):
            main(*words, *_instances(flags.FLAGS, defaults))

    app.run(partial(guarded, started), flags_parser=_parsed)


def parse(arguments: Sequence[str], *defaults: Any) -> list[Any]:
    """The options that a command line of these arguments gives, without touching global flags.

    Raises:
        ValueError: an unknown flag or a value that it does not take.
    """
    values = flags.FlagValues()
    _define(values, defaults)
    try:
        words = values(["", *arguments])[1:]
    except flags.Error as error:
        raise ValueError(" ".join(str(error).split())) from error
    if words:
        raise ValueError(f"unexpected argument {words[0]}: flags begin with --")
    return _instances(values, defaults)


def guarded(main: Callable[..., Any], *arguments: Any) -> None:
    """Calls a main; bad input and interruptions end in one line and exit code 1."""
    interruption.install()
    try:
        main(*arguments)
    except KeyboardInterrupt:
        _end("stopped; the same command goes on from the last checkpoint")
    except (ValueError, OSError, ArithmeticError, MemoryError) as error:
        logging.debug("where it happened", exc_info=True)
        _end(f"error: {' '.join(str(error).split())}")
    except jax.errors.JaxRuntimeError as error:
        if "Algorithm not supported" in str(error):
            _end("error: this device has not all products of the network in the --precision given")
        if "RESOURCE_EXHAUSTED" not in str(error):
            _told(error)
            raise
        logging.debug("where it happened", exc_info=True)
        _end(
            "error: the device's memory is full: lower --microbatch_size, restart the basis "
            "with --basis_memory=GIB or ask for fewer --eigenpairs; the same command goes on "
            "from the last checkpoint"
        )
    except Exception as error:
        _told(error)
        raise


def _told(error: Exception) -> None:
    """Ends the other processes with an error that nobody foresaw, which this one shows."""
    if devices.several_processes():
        traceback.print_exception(error)
        devices.end_all(f"error: {type(error).__name__}: {' '.join(str(error).split())}")


def _end(message: str) -> None:
    devices.end_all(message)
    sys.exit(message)


def _connected(processes: Processes) -> bool:
    """Joins the processes of this run, if there are any; whether this is the first of them."""
    if not processes.distributed and processes.coordinator is None:
        return True
    devices.connect(processes.coordinator, processes.processes, processes.process)
    if not devices.first():
        logging.set_verbosity(logging.FATAL)
    return devices.first()


def use_compilation_cache() -> None:
    """Keeps compiled programs between runs, so that a second start does not compile."""
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "antisgd" / "jax"
    jax.config.update(
        "jax_compilation_cache_dir", os.environ.get("ANTISGD_CACHE_DIR", str(default))
    )
    jax.config.update("jax_persistent_cache_min_compile_time_secs", KEPT_COMPILE_SECONDS)


def load(words: str) -> Any:
    """The object that 'module:name' names; a function without arguments is called.

    Raises:
        ValueError: there is none.
    """
    module, _, name = words.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{words}: {error}; write module:problem") from error
    return found() if callable(found) else found


def _parsed(argv: Sequence[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        sys.exit(f"error: {' '.join(str(error).split())}")


def _define(values: flags.FlagValues, defaults: Sequence[Any]) -> list[str]:
    """Defines a flag for every field; their names."""
    fields = [(field, getattr(one, field.name)) for one in defaults for field in _fields(one)]
    for field, default in fields:
        _define_one(values, field, default)
    return [field.name for field, _ in fields]


def _fields(options: Any) -> tuple[dataclasses.Field[Any], ...]:
    return tuple(one for one in dataclasses.fields(options) if "words" in one.metadata)


def _define_one(values: flags.FlagValues, field: dataclasses.Field[Any], default: Any) -> None:
    known = field.metadata
    kind, choices = known.get("kind", type(field.default)), known.get("choices")
    given = {"name": field.name, "help": known["words"], "flag_values": values}
    bound = {} if known.get("least") is None else {"lower_bound": known["least"]}
    if kind is tuple and known.get("repeat"):
        flags.DEFINE_multi_string(default=list(default), **given)
    elif kind is tuple and choices:
        flags.DEFINE_multi_enum(default=list(default), enum_values=list(choices), **given)
    elif kind is tuple:
        words = [f"{one:g}" if isinstance(one, float) else str(one) for one in default]
        flags.DEFINE_list(default=words or None, **given)
    elif choices:
        flags.DEFINE_enum(default=default, enum_values=list(choices), **given)
    elif kind is bool:
        flags.DEFINE_bool(default=default, **given)
    elif kind is int:
        flags.DEFINE_integer(default=default, **bound, **given)
    elif kind is float:
        flags.DEFINE_float(default=default, **bound, **given)
    else:
        flags.DEFINE_string(default=default, **given)


def _instances(values: flags.FlagValues, defaults: Sequence[Any]) -> list[Any]:
    return [
        dataclasses.replace(one, **{f.name: _value(f, values[f.name].value) for f in _fields(one)})
        for one in defaults
    ]


def _value(field: dataclasses.Field[Any], given: Any) -> Any:
    """A flag's value as the field has it: lists as tuples, of numbers where it says so."""
    if field.metadata.get("kind", type(field.default)) is not tuple:
        return given
    try:
        return tuple(map(field.metadata.get("of", str), given or ()))
    except ValueError as error:
        raise ValueError(f"--{field.name}: {error}") from error
