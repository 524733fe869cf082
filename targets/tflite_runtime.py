"""`tflite-runtime` 2.14, the last of its name: what many boards still have.

It needs numpy 1, so beside the other runtimes it lives in an environment of its own; where it can be imported, as on a
board, it runs in this interpreter.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from ..core import environments
from .base import Missing, Settings, version_of
from .tflite import TfLite

_PACKAGE = "tflite-runtime"


class TfLiteRuntime(TfLite):
    """The target ``tflite-runtime``."""

    name = "tflite-runtime"
    environment = "tflite-runtime"
    modules = ("tflite_runtime",)
    imports = "    from tflite_runtime.interpreter import Interpreter, OpResolverType"

    def probe(self) -> Missing | None:
        """See `Target.probe`."""
        if _is_here() or environments.ready(self.environment):
            return None
        return Missing(*environments.missing(self.environment))

    def interpreter(self, settings: Settings) -> Path | None:
        """See `targets.interpreter`."""
        return None if _is_here() else environments.ready(self.environment)

    def version(self) -> str:
        """Of the one that would run: here, or in the environment."""
        if _is_here():
            return version_of(_PACKAGE)
        return environments.pinned(self.environment, _PACKAGE) if environments.ready(self.environment) else ""


def _is_here() -> bool:
    """Whether this interpreter can use it: with numpy 2 it imports, and fails when it opens a model."""
    return bool(importlib.util.find_spec("tflite_runtime")) and version_of("numpy").startswith("1.")
