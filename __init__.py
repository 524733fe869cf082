"""seatrial: a model goes in, a deployable that has been proven on the real runtime comes out."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .core.bundle import Bundle as Bundle
    from .core.errors import SeatrialError as SeatrialError
    from .devices.api import bench as bench
    from .devices.api import compare as compare
    from .exporter import export as export
    from .exporter.inspect import inspect as inspect
    from .exporter.run import load as load
    from .search import search as search
    from .search.explore import explore as explore

__version__ = "0.1.0"

# Resolved on first use: `import seatrial` itself must stay cheap.
_PUBLIC = {
    "Bundle": ".core.bundle",
    "SeatrialError": ".core.errors",
    "bench": ".devices.api",
    "compare": ".devices.api",
    "explore": ".search.explore",
    "export": ".exporter",
    "inspect": ".exporter.inspect",
    "load": ".exporter.run",
    "search": ".search",
}

__all__ = ["Bundle", "SeatrialError", "bench", "compare", "explore", "export", "inspect", "load", "search"]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(_PUBLIC[name], __name__)
    value = getattr(module, name, module)  # `search` is its package itself, which can be called
    globals()[name] = value
    return value
