"""Versions of what took part in making an artifact, written when it was made: at packing, others may be installed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from ..core import environments
from ..targets.base import version_of

FILE = "tools.json"
"""Beside the product of a converter or quantizer; holds what its source was made with, too."""


def versions(modules: Iterable[str]) -> dict[str, str]:
    """Installed versions, by distribution name; what is not installed is left out."""
    found = {name: version_of(name) for name in (module.replace("_", "-") for module in modules)}
    return {name: version for name, version in found.items() if version}


def read(model: Path) -> dict[str, str]:
    """What a model's file was made with; empty where it came as it is."""
    file = model.parent / FILE
    found: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
    return found


def write(folder: Path, modules: Iterable[str], source: Path, environment: str = "") -> None:
    """Record that these modules, or an environment's, made the product in `folder` out of `source`."""
    there = {environment: environments.pinned(environment, environment)} if environment else {}
    (folder / FILE).write_text(json.dumps({**read(source), **versions(modules), **there}))
