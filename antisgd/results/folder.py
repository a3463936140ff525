"""Run folders: made once, gone on in with the same settings and the same data."""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from antisgd import devices
from antisgd.results.files import read_json, write_json
from antisgd.results.lock import LOCK
from antisgd.results.provenance import provenance

__all__ = ["check_fingerprint", "describe", "open_run", "tie"]

_log = logging.getLogger(__name__)


def open_run(
    folder: Path,
    config: Mapping[str, Any],
    *,
    overwrite: bool = False,
    may_grow: tuple[str, ...] = (),
) -> Path:
    """Opens a run folder: makes it, or goes on in it if it was made with the same settings.

    What a stop cut short in writing is removed, and said. Where the command, the code or the
    machine is another than the folder's, they are noted, and those it was begun with as well.

    Args:
        folder: the run folder.
        config: the settings that decide the results, JSON values.
        overwrite: removes what the folder holds and starts afresh.
        may_grow: settings whose value may be larger than the folder's, lists that may have more
            entries; the larger is kept.

    Raises:
        ValueError: the folder holds a run with other settings (the message lists them), or is
            not a run folder.
        OSError: the folder cannot be written.
    """
    devices.alone(lambda: _open_run(folder, config, overwrite, may_grow))
    if not (folder / "config.json").exists():
        raise ValueError(
            f"{folder} is not seen by all processes: give an --output_dir on a file system that "
            "all hosts share"
        )
    return folder


def _open_run(
    folder: Path, config: Mapping[str, Any], overwrite: bool, may_grow: tuple[str, ...]
) -> None:
    path = folder / "config.json"
    if overwrite and path.exists():
        _empty(folder)
    _make_writable(folder)
    if path.exists() or _names(folder) == {"config.json.partial"}:
        _remove_partial(folder)
    if not path.exists():
        if _names(folder):
            raise ValueError(f"{folder} is not empty and not a run folder: choose another one")
        write_json(path, {"settings": dict(config), "provenance": provenance()})
        return
    try:
        stored = read_json(path)
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged: give another --output_dir, or --overwrite to start afresh"
        ) from error
    if not isinstance(stored, dict) or not isinstance(stored.get("settings"), dict):
        raise ValueError(f"{path} is not that of a run folder: give another --output_dir")
    differing = _differences(stored["settings"], config, may_grow)
    if differing:
        raise ValueError(
            f"{folder} was made with other settings: {'; '.join(differing)}. "
            "Give another --output_dir, or --overwrite to start afresh"
        )
    write_json(path, _gone_on_with(stored, provenance()) | {"settings": dict(config)})


def check_fingerprint(folder: Path, fingerprint: str) -> None:
    """Notes the data set's fingerprint in a new run folder, compares it in an old one.

    Raises:
        ValueError: the folder's run saw other data.
    """
    devices.alone(lambda: _check_fingerprint(folder, fingerprint))


def _check_fingerprint(folder: Path, fingerprint: str) -> None:
    stored = read_json(folder / "config.json")
    then = stored.setdefault("data_fingerprint", fingerprint)
    if then != fingerprint:
        raise ValueError(
            f"the data differ from those that {folder} was made with (fingerprint {then[:12]} "
            f"then, {fingerprint[:12]} now): give the same data or another --output_dir"
        )
    write_json(folder / "config.json", stored)


def tie(folder: Path, fingerprint: str) -> None:
    """Ties what a folder holds to the weights that it was computed from.

    Args:
        folder: of one network.
        fingerprint: of its weights.

    Raises:
        ValueError: the folder's results are those of other weights.
    """
    devices.alone(lambda: _tie(folder, fingerprint))


def _tie(folder: Path, fingerprint: str) -> None:
    path = folder / "weights.json"
    if not path.exists():
        write_json(path, {"fingerprint": fingerprint})
        return
    then = read_json(path)["fingerprint"]
    if then != fingerprint:
        raise ValueError(
            f"the results in {folder} are those of other weights (fingerprint {then[:12]} then, "
            f"{fingerprint[:12]} now): give another --output_dir, or --overwrite to start afresh"
        )


def describe(folder: Path, **facts: Any) -> None:
    """Notes in a run folder's config.json what its results are to be called by."""
    devices.alone(lambda: _describe(folder, facts))


def _describe(folder: Path, facts: Mapping[str, Any]) -> None:
    stored = read_json(folder / "config.json")
    if any(stored.get(name) != fact for name, fact in facts.items()):
        write_json(folder / "config.json", stored | facts)


def _gone_on_with(stored: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    begun = stored["provenance"]
    if all(begun.get(key) == now[key] for key in now if key != "date"):
        return dict(stored)
    return {"begun_with": begun} | dict(stored) | {"provenance": dict(now)}


def _names(folder: Path) -> set[str]:
    """What the folder holds, but for the lock of the process that asks."""
    return {path.name for path in folder.iterdir()} - {LOCK}


def _empty(folder: Path) -> None:
    # config.json goes last: what a kill leaves behind is still a run folder.
    for name in sorted(_names(folder), key="config.json".__eq__):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def _remove_partial(folder: Path) -> None:
    for path in sorted(folder.rglob("*.partial")):
        path.unlink()
        _log.warning("%s was cut short by a stop and is ignored", path)


def _make_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise OSError(
            f"cannot write to {folder} ({error.strerror}): give a writable --output_dir"
        ) from error


def _differences(
    stored: Mapping[str, Any], config: Mapping[str, Any], may_grow: tuple[str, ...]
) -> list[str]:
    differing = []
    for name in sorted(stored.keys() | config.keys()):
        then, now = stored.get(name), config.get(name)
        if then != now and not (name in may_grow and _grown(then, now)):
            differing.append(f"{name} {then!r} then, {now!r} now")
    return differing


def _grown(then: Any, now: Any) -> bool:
    if isinstance(then, list) and isinstance(now, list):
        return set(then) <= set(now)
    return None not in (then, now) and now > then
