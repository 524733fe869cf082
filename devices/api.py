"""The measuring verbs of the Python API; light to import."""

from __future__ import annotations

from .arms import Arm, Plan
from .bench import bench
from .compare import compare
from .gate import Verdict

__all__ = ["Arm", "Plan", "Verdict", "bench", "compare"]
