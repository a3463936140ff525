"""How an experiment runs from the command line: its options become flags, the paper's values their
defaults.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from antisgd.study import Place, Settings, cli
from experiments.pictures import Pictures

__all__ = ["options", "run"]


def options(name: str, *own: Any, pictures: Any = None, **changed: Any) -> tuple[Any, ...]:
    """The options of an experiment with the shared flags: settings, pictures, place, its own.

    Args:
        name: of its default run folder.
        *own: options beside the shared ones.
        pictures: other defaults of the pictures.
        **changed: settings whose default is not the paper's main experiment's.
    """
    settings = dataclasses.replace(Settings(), **changed)
    return settings, pictures or Pictures(), Place(output_dir=f"runs/{name}"), *own


def run(main: Callable[..., None], *defaults: Any) -> None:
    """Runs an experiment's main on its options, see `antisgd.study.cli.run`."""
    cli.run(main, *defaults)
