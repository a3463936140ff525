"""Fields of settings: what they are called and may be, and how they are checked and written."""

import dataclasses
from typing import Any

__all__ = ["check_bounds", "setting", "to_json"]


def setting(default: Any, words: str, **constraints: Any) -> Any:
    """A field of a settings class.

    Args:
        default: where it is not given.
        words: for --help.
        **constraints: `least`, the smallest value; `choices`, all values; `decides` False where
            the numbers do not depend on it; `kind`, its type where the default does not tell.
    """
    return dataclasses.field(default=default, metadata={"words": words, **constraints})


def to_json(options: Any) -> dict[str, Any]:
    """The fields of a settings class that decide numbers, as JSON values."""
    return {
        field.name: list(value) if isinstance(value, tuple) else value
        for field in dataclasses.fields(options)
        if field.metadata.get("decides", True)
        for value in [getattr(options, field.name)]
    }


def check_bounds(options: Any) -> None:
    """Checks every field against its smallest value and its choices.

    Raises:
        ValueError: naming the setting and what it may be.
    """
    for field in dataclasses.fields(options):
        value, allowed = getattr(options, field.name), field.metadata.get("choices")
        least = field.metadata.get("least")
        if least is not None and value is not None and not value >= least:
            raise ValueError(f"--{field.name}={value} is below {least}")
        given = value if isinstance(value, tuple) else (value,)
        if allowed and not set(given) <= set(allowed):
            raise ValueError(f"--{field.name}={value}: choose from {', '.join(allowed)}")
