"""The measuring verbs of the Python API; light to import."""

from __future__ import annotations

from .engine import Arm, Plan, bench, compare
from .gate import Verdict

__all__ = ["Arm", "Plan", "Verdict", "bench", "compare"]
