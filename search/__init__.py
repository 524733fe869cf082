"""Search: candidates timed on the real runtimes, the chosen ones packed for each.

`seatrial.search` is this package and the verb of the Python API at once: calling it runs a search.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .run import search as search


class _Callable(ModuleType):
    """A package that can be called: importing a module of it must not hide the verb of the same name."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from .run import search

        return search(*args, **kwargs)


sys.modules[__name__].__class__ = _Callable
