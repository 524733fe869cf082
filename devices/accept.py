"""Accepted slowdowns: dated entries with a reason in a committed file, each of which expires."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path

from ..core.config import from_mapping, read_toml, refuse_unknown
from ..core.errors import UsageError
from ..core.paths import whole_file
from .gate import Decision, Verdict

FILE = "seatrial.accept.toml"
_KEYS = ("benchmark", "ratio", "until", "reason", "made", "base")
_HEAD = "# Slowdowns that were accepted: written by `seatrial compare accept`; the last entry of a benchmark counts.\n"


@dataclass(frozen=True)
class Acceptance:
    """A slowdown that doesn't fail until it expires.

    Attributes:
        benchmark: its name.
        ratio: of the candidate's time to the base's that is accepted, such as 1.08.
        until: the last day on which it counts (UTC).
        reason: why.
        made: the day of writing.
        base: content id of the base's artifact; where given, it counts against that base only, and so ends when the
            accepted change has become the base.
    """

    benchmark: str
    ratio: float
    until: date
    reason: str
    made: date
    base: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.ratio, (int, float)) or not 1 < self.ratio < math.inf:
            raise ValueError(f"ratio {self.ratio!r}: write 1.08 for a slowdown of 8 %")
        for name in ("until", "made"):
            if type(getattr(self, name)) is not date:
                raise ValueError(f"{name} must be a date, such as 2026-12-31")
        if not str(self.reason).strip():
            raise ValueError("the reason is empty")

    def toml(self) -> str:
        """As it stands in the file."""
        lines = [f"benchmark = {_text(self.benchmark)}", f"ratio = {self.ratio:.4f}", f"until = {self.until}"]
        lines += [f"reason = {_text(self.reason)}", f"made = {self.made}"]
        return "\n".join(["[[accept]]", *lines, *([f"base = {_text(self.base)}"] if self.base else [])]) + "\n"


def today() -> date:
    """The day by which entries expire, in UTC: the same for everyone."""
    return datetime.now(UTC).date()


def read(path: Path) -> list[Acceptance]:
    """The file's entries, in its order; of a file that isn't there, none.

    Raises:
        UsageError: it isn't TOML, or an entry is wrong.
    """
    if not path.exists():
        return []
    data = read_toml(path)
    refuse_unknown(data, ("accept",), str(path))
    found = data.get("accept", [])
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        raise UsageError(str(path), "`accept` is no list of tables", "write [[accept]] above each entry")
    for entry in found:
        refuse_unknown(entry, _KEYS, f"[[accept]] of {path}")
    return [from_mapping(Acceptance, entry, f"[[accept]] of {path}") for entry in found]


def append(path: Path, entry: Acceptance) -> None:
    """Add an entry; those that are there stay, as a record.

    Raises:
        UsageError: what is there can't be read.
        NotWritten: the file can't be written.
    """
    read(path)
    before = path.read_text() if path.exists() else _HEAD
    with whole_file(path) as part:
        part.write_text(f"{before}\n{entry.toml()}")


def applied(
    entries: Sequence[Acceptance], benchmark: str, base: str, decision: Decision, day: date
) -> tuple[bool, str]:
    """Whether a REGRESS is accepted on this day, and what to say of the benchmark's entry; nothing where it has none.

    A slowdown is covered unless it is proven to be larger than the accepted one.
    """
    entry = next((e for e in reversed(entries) if e.benchmark == benchmark), None)
    if entry is None or decision.verdict != Verdict.REGRESS or decision.effect is None:
        return False, ""
    what = f"a slowdown of {entry.ratio - 1:.1%} was accepted on {entry.made}"
    if day > entry.until:
        return False, f"{what}, and that expired on {entry.until} ({entry.reason})"
    if entry.base and entry.base != base:
        return False, f"{what} against another base, {entry.base}; this one is {base} ({entry.reason})"
    if decision.effect.low > math.log(entry.ratio):
        return False, f"{what}, and this is proven to be more ({entry.reason})"
    return True, f"accepted until {entry.until}, up to {entry.ratio - 1:.1%}: {entry.reason}"


def _text(text: str) -> str:
    """A TOML string: JSON's, which escapes all that TOML forbids but one character."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
