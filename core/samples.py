"""A Samples file: a list of feeds (or of results) in one `.npz`, each with its own shapes."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import UsageError

if TYPE_CHECKING:
    from numpy import ndarray

Feed = dict[str, "ndarray"]


def save(path: Path | str, feeds: Iterable[Mapping[str, ndarray]]) -> None:
    """Write feeds under the keys ``"{index:04d}/{name}"``; the file appears whole or not at all."""
    import numpy as np

    arrays: dict[str, Any] = {
        f"{i:04d}/{name}": np.asarray(array) for i, feed in enumerate(feeds) for name, array in feed.items()
    }
    for key, array in arrays.items():
        if array.dtype.hasobject:  # savez would pickle it; only numpy 2.1 can be told not to
            raise ValueError(f"{key} holds objects")
    part = Path(f"{path}.{secrets.token_hex(4)}.part")  # another process may write the same
    try:
        with open(part, "wb") as file:
            np.savez(file, **arrays)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def arrays(path: Path, asked: str) -> Feed:
    """The arrays of a user's own ``.npz``. Never unpickles.

    Raises:
        UsageError: it is missing, broken, holds objects, or is no ``.npz``.
    """
    import numpy as np

    todo = "give an .npz of plain arrays, as numpy.savez writes it"
    try:
        file = np.load(path, allow_pickle=False)
        if isinstance(file, np.ndarray):
            raise UsageError(asked, "it is a single array (.npy), without a name", todo)
        with file:
            return {name: file[name] for name in file.files}
    except UsageError:
        raise
    except FileNotFoundError:
        raise UsageError(asked, "no such file", "check the path") from None
    except Exception as error:  # zipfile, zlib, tokenize and ast each have errors of their own for broken bytes
        raise UsageError(asked, f"it can't be read: {error or type(error).__name__}", todo) from error


def load(path: Path | str) -> list[Feed]:
    """Read what `save` wrote. Never unpickles."""
    import numpy as np

    feeds: dict[str, Feed] = {}
    with np.load(path, allow_pickle=False) as file:
        for key in sorted(file.files):
            index, name = key.split("/", 1)
            feeds.setdefault(index, {})[name] = file[key]
    return [feeds[index] for index in sorted(feeds, key=int)]


def column(path: Path | str, name: str, start: int, end: int) -> list[ndarray]:
    """One array of each of the feeds from `start` up to `end`, without reading the others."""
    import numpy as np

    with np.load(path, allow_pickle=False) as file:
        return [file[f"{i:04d}/{name}"] for i in range(start, end)]
