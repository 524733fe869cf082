"""Every error that a user can meet, drawn as one tree; a class decides the exit code.

SeatrialError
├── UsageError            2    the command or a file that it names is wrong
├── CheckFailed           1    parity, accuracy, gate or verify said no
├── NothingMeasured       4    nothing, or nothing valid, was measured
├── Interrupted         130    Ctrl-C or SIGTERM
└── CannotDo              5    it can't be done here
    ├── MissingPart            a runtime or library is not installed
    ├── Unsupported            the model, or this step of it, is beyond a converter
    ├── ConverterFailed        a converter raised an error
    ├── ChildFailed            an isolated process ended badly: timeout, oom, signal, error
    └── NotWritten             the output could not be written: permission, disk
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class SeatrialError(Exception):
    """Base of all errors.

    Args:
        asked: what the user wanted, in their words.
        found: what stood in the way.
        todo: what to do next; a command where there is one.
        log: path of the log with the details, where one was kept.
    """

    exit_code = 5

    def __init__(self, asked: str, found: str, todo: str = "", log: str | None = None) -> None:
        super().__init__(asked, found, todo, log)
        self.asked, self.found, self.todo, self.log = asked, found, todo, log

    def __str__(self) -> str:
        lines = [self.asked, f"  found: {self.found}"]
        if self.todo:
            lines.append(f"  to do: {self.todo}")
        if self.log:
            lines.append(f"  log:   {self.log}")
        return "\n".join(lines)

    @property
    def one_line(self) -> str:
        """As a reason within another text."""
        return f"{self.asked}: {self.found}" + (f" ({self.todo})" if self.todo else "")

    def to_dict(self) -> dict[str, Any]:
        """The error as JSON data, to cross a process boundary."""
        return {"class": type(self).__name__, **self.__dict__}


class UsageError(SeatrialError):
    """A bad argument, or an input file that is missing, of the wrong kind or broken."""

    exit_code = 2


class CheckFailed(SeatrialError):
    """A check said no: parity, accuracy, a gate, a bundle's hashes."""

    exit_code = 1


class NothingMeasured(SeatrialError):
    """Nothing, or nothing valid, was measured."""

    exit_code = 4


class Interrupted(SeatrialError):
    """Ctrl-C or SIGTERM; children were ended and nothing half-written was left."""

    exit_code = 130


class CannotDo(SeatrialError):
    """It can't be done here."""


class MissingPart(CannotDo):
    """A runtime or a library is not installed."""


class Unsupported(CannotDo):
    """The model, or one step of it, is beyond what a converter can do."""


class ConverterFailed(CannotDo):
    """A converter raised an error of its own."""


class ChildFailed(CannotDo):
    """An isolated process ended badly.

    Args:
        kind: ``timeout``, ``oom``, ``signal`` or ``error``.
    """

    def __init__(
        self,
        asked: str,
        found: str,
        todo: str = "",
        log: str | None = None,
        kind: str = "error",
    ) -> None:
        super().__init__(asked, found, todo, log)
        self.kind = kind


class NotWritten(CannotDo):
    """The output could not be written: no permission, no room."""


def from_dict(data: Mapping[str, Any]) -> SeatrialError:
    """The inverse of `SeatrialError.to_dict`."""
    fields = {key: value for key, value in data.items() if key != "class"}
    return _classes()[data["class"]](**fields)


def _classes() -> dict[str, type[SeatrialError]]:
    found: dict[str, type[SeatrialError]] = {}
    todo = [SeatrialError]
    while todo:
        cls = todo.pop()
        found[cls.__name__] = cls
        todo += cls.__subclasses__()
    return found
