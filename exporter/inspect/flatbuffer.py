"""As much of FlatBuffers as reading a table takes; every offset is held against the file's size.

See https://flatbuffers.dev/internals/: a table begins with the distance to its vtable, which holds for each field the
distance from the table, or nothing for a default.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any


class Broken(ValueError):
    """The file ends before what it promises, or points outside itself."""


@dataclass(frozen=True)
class Table:
    """One table at byte `at`; fields are called by their number in the schema."""

    data: bytes
    at: int

    def number(self, field: int, code: str, default: int = 0) -> int:
        """A scalar; `code` is `struct`'s."""
        where = self._where(field)
        return int(_unpack(self.data, where, code)[0]) if where else default

    def text(self, field: int) -> str:
        """A string, empty where there is none."""
        start, length = self._vector(field, 1)
        return self.data[start : start + length].decode(errors="replace")

    def length(self, field: int) -> int:
        """How many entries a vector of bytes has."""
        return self._vector(field, 1)[1]

    def numbers(self, field: int, code: str) -> tuple[Any, ...]:
        """A vector of scalars."""
        start, length = self._vector(field, struct.calcsize(code))
        return _unpack(self.data, start, f"{length}{code}") if length else ()

    def table(self, field: int) -> Table | None:
        """A table, where there is one."""
        where = self._where(field)
        return _table(self.data, _follow(self.data, where)) if where else None

    def tables(self, field: int) -> list[Table]:
        """A vector of tables."""
        start, length = self._vector(field, 4)
        return [_table(self.data, _follow(self.data, start + 4 * i)) for i in range(length)]

    def _where(self, field: int) -> int:
        """The byte where a field lies; 0 where it isn't given."""
        vtable = self.at - _unpack(self.data, self.at, "i")[0]
        size = _unpack(self.data, vtable, "H")[0]
        place = 4 + 2 * field
        if place + 2 > size:
            return 0
        offset = _unpack(self.data, vtable + place, "H")[0]
        return self.at + int(offset) if offset else 0

    def _vector(self, field: int, width: int) -> tuple[int, int]:
        """First byte and number of entries."""
        where = self._where(field)
        if not where:
            return 0, 0
        start = _follow(self.data, where)
        length = int(_unpack(self.data, start, "I")[0])
        if start + 4 + length * width > len(self.data):
            raise Broken(f"the file ends at byte {len(self.data)}, {start + 4 + length * width} are needed")
        return start + 4, length


def root(data: bytes) -> Table:
    """The table that a file begins with."""
    return _table(data, _follow(data, 0))


def _table(data: bytes, at: int) -> Table:
    _unpack(data, at, "i")
    return Table(data, at)


def _follow(data: bytes, at: int) -> int:
    return at + int(_unpack(data, at, "I")[0])


def _unpack(data: bytes, at: int, code: str) -> tuple[Any, ...]:
    if at < 0:
        raise Broken("an offset points before its beginning")
    try:
        return struct.unpack_from(f"<{code}", data, at)
    except struct.error as error:
        raise Broken(f"the file ends at byte {len(data)}, more are needed at {at}") from error
