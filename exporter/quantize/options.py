"""What the three quantizers share: options held against a table, and a quantizer's own failure as ours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ...core.config import refuse_unknown
from ...core.errors import ConverterFailed, UsageError

Table = Mapping[str, Sequence[str]]


def checked(target: str, options: Mapping[str, str], table: Table) -> dict[str, str]:
    """All options in the order of the table of allowed values.

    Raises:
        UsageError: one is unknown, missing, or has no such value.
    """
    refuse_unknown(options, table, f"int8 options of {target}")
    for key, allowed in table.items():
        if key not in options:
            raise UsageError(f"int8 for {target}", f"undecided: {key}", "call resolve() first")
        if options[key] not in allowed:
            found = f"{key} = {options[key]!r}: no such value"
            raise UsageError(f"int8 options of {target}", found, f"allowed: {', '.join(allowed)}")
    return {key: options[key] for key in table}


def failed(asked: str, error: Exception) -> ConverterFailed:
    """The error for whatever a quantizer raised."""
    first = str(error).splitlines()[0] if str(error) else "no message"
    found = f"{type(error).__name__}: {first}"
    return ConverterFailed(asked, found, "export fp32 instead, or give samples of the exact shapes")
