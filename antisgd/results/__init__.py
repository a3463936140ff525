"""Run folders: settings, provenance, arrays, checkpoints. The only package that writes files."""

from antisgd.results.checkpoints import (
    holds,
    open_recording,
    read_checkpoint,
    read_rows,
    whole_arrays,
    write_checkpoint,
    write_rows,
)
from antisgd.results.files import (
    exists,
    read_array,
    read_arrays,
    read_json,
    remove,
    write_array,
    write_arrays,
    write_figure,
    write_json,
    write_text,
)
from antisgd.results.folder import check_fingerprint, describe, open_run, tie
from antisgd.results.lock import held
from antisgd.results.provenance import provenance

__all__ = [
    "check_fingerprint",
    "describe",
    "exists",
    "held",
    "holds",
    "open_recording",
    "open_run",
    "provenance",
    "read_array",
    "read_arrays",
    "read_checkpoint",
    "read_json",
    "read_rows",
    "remove",
    "tie",
    "whole_arrays",
    "write_array",
    "write_arrays",
    "write_checkpoint",
    "write_figure",
    "write_json",
    "write_rows",
    "write_text",
]
