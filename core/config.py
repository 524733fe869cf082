"""Data from outside into frozen dataclasses, and the one TOML dialect: unknown keys are refused by name."""

from __future__ import annotations

import dataclasses
import difflib
import tomllib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from .errors import UsageError

T = TypeVar("T")


def refuse_unknown(keys: Collection[str], allowed: Collection[str], where: str) -> None:
    """Raise a `UsageError` that lists the allowed keys, where one of `keys` isn't among them."""
    for key in keys:
        if key not in allowed:
            near = difflib.get_close_matches(key, list(allowed), n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise UsageError(where, f"unknown key {key!r}", f"{hint}allowed: {', '.join(sorted(allowed))}")


def from_mapping(cls: type[T], data: Mapping[str, Any], where: str) -> T:
    """A frozen dataclass from a mapping; lists become tuples.

    Raises:
        UsageError: an unknown key, a missing one, or a value that the class refuses.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    refuse_unknown(data.keys(), fields.keys(), where)
    missing = [
        name
        for name, field in fields.items()
        if name not in data and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise UsageError(where, f"missing key {missing[0]!r}", f"needed: {', '.join(missing)}")
    values = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
    try:
        return cls(**values)
    except (TypeError, ValueError) as error:
        raise UsageError(where, str(error), "put that value right") from error


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file's data.

    Raises:
        UsageError: it can't be read, or isn't TOML.
    """
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise UsageError(str(path), error.strerror or str(error), "check the path") from error
    except ValueError as error:
        raise UsageError(str(path), f"not valid TOML: {error}", "mend that line") from error
