"""The exporter: a model goes in, bundles that were proven on their runtime come out."""

from __future__ import annotations

from .api import Exported, export

__all__ = ["Exported", "export"]
