"""Content ids: what is the same has the same id, wherever and whenever it was made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def file_sha256(path: Path | str) -> str:
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def canonical_json(data: Any) -> str:
    """JSON text that is equal for equal data: sorted keys, no spaces, no NaN."""
    return _ENCODER.encode(data)


def content_id(data: Any) -> str:
    """The first 16 hex digits of the SHA-256 of canonical JSON."""
    return hashlib.sha256(canonical_json(data).encode()).hexdigest()[:16]


def files_id(paths: Iterable[Path | str]) -> str:
    """The id of several files: their names (without folder) and bytes, in any order."""
    return content_id(sorted((Path(path).name, file_sha256(path)) for path in paths))


def by_content(args: Mapping[str, str]) -> dict[str, str]:
    """A user's arguments for an id: one that names a file counts by the file's bytes."""
    return {key: file_sha256(value) if Path(value).is_file() else value for key, value in args.items()}
