"""Which node of an ``.onnx`` file makes which tensor, read without the library `onnx`, which a board needn't have."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

_GRAPH, _NODE, _OUTPUT, _NAME = 7, 1, 2, 3
"""Fields of ModelProto, GraphProto and NodeProto."""
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def makers(path: Path) -> dict[str, str]:
    """Output tensor → name of the node that makes it, of the main graph.

    Raises:
        ValueError: this is no such file.
        OSError: it can't be read.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        found = {}
        for graph in _fields(data, 0, len(data), _GRAPH):
            for node in _fields(data, *graph, _NODE):
                name = next((data[slice(*at)].decode() for at in _fields(data, *node, _NAME)), "")
                found.update({data[slice(*at)].decode(): name for at in _fields(data, *node, _OUTPUT)})
        return found


def _fields(data: mmap.mmap, start: int, end: int, wanted: int) -> Iterator[tuple[int, int]]:
    """Where the contents of a message's fields of that number begin and end; weights and others are skipped."""
    while start < end:
        key, start = _varint(data, start, end)
        kind, size = key & 7, 0
        if kind == _VARINT:
            _, start = _varint(data, start, end)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        elif kind == _BYTES:
            size, start = _varint(data, start, end)
        else:
            raise ValueError(f"no protobuf: wire type {kind}")
        if start + size > end:
            raise ValueError("no protobuf: it ends early")
        if kind == _BYTES and key >> 3 == wanted:
            yield start, start + size
        start += size


def _varint(data: mmap.mmap, at: int, end: int) -> tuple[int, int]:
    """A number of seven bits a byte, and where it ends."""
    value = shift = 0
    while at < end:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
    raise ValueError("no protobuf: it ends early")
