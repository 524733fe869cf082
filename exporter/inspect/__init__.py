"""What is inside a bundle or a raw model file: read without running it, in a process of its own."""

from __future__ import annotations

from .api import Inspection, inspect

__all__ = ["Inspection", "inspect"]
