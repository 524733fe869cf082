"""Installed versions held against known-bad ones, and against what installed packages say that they need."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "known_bad.toml"
_ALONE = "tflite-runtime"
"""An extra that is for an environment of its own: its pins hold only where its package is installed."""


def installed() -> dict[str, str]:
    """The version of every installed package, by normalised name."""
    from packaging.utils import canonicalize_name

    found: dict[str, str] = {}
    for one in metadata.distributions():
        name = one.metadata["Name"]
        if name:
            found.setdefault(canonicalize_name(name), one.version)  # the first on the path is imported
    return found


def known_bad(versions: Mapping[str, str]) -> list[dict[str, Any]]:
    """Entries of the table that hold for these versions, each with ``found``: the versions that it holds for."""
    entries: list[dict[str, Any]] = tomllib.loads(FILE.read_text(encoding="utf-8"))["known"]
    rows = []
    for entry in entries:
        names = [_holds(condition, versions) for condition in entry["when"]]
        if not all(names) or not _built(entry.get("local", {}), versions):
            continue
        found = ", ".join(f"{name} {versions[name]}" for name in names)
        rows.append({"found": found, **{key: entry[key] for key in ("level", "what", "todo", "source")}})
    return rows


def _holds(condition: str, versions: Mapping[str, str]) -> str:
    """The package that a condition holds for; empty where it doesn't."""
    from packaging.requirements import Requirement

    *others, last = condition.split("|")
    wanted = Requirement(last)
    for name in (*others, wanted.name):
        # A build of a development version counts as the version that it leads to.
        if name in versions and wanted.specifier.contains(_public(versions[name]), prereleases=True):
            return name
    return ""


def _public(version: str) -> str:
    return version.partition("+")[0]


def _built(local: Mapping[str, str], versions: Mapping[str, str]) -> bool:
    return all(versions[name].partition("+")[2] == label for name, label in local.items())


def conflicts(versions: Mapping[str, str]) -> list[dict[str, Any]]:
    """Needs of seatrial's libraries, and of what they need directly, that the installed versions don't meet."""
    rows = []
    for owner, text in _needs(versions):
        name, wanted = text
        have = versions.get(name)
        if have is not None and wanted.contains(_public(have), prereleases=True):
            continue
        if have is None and owner == "seatrial":
            continue  # an extra that isn't used here
        rows.append(
            {
                "found": f"{name} {have}" if have else f"{name} is not installed",
                "level": "careful",
                "what": f"{owner} needs {name}{wanted}",
                "todo": f'pip install "{name}{wanted}"',
                "source": [f"the metadata of {owner} {versions[owner]}"],
            }
        )
    return rows


def _needs(versions: Mapping[str, str]) -> Iterable[tuple[str, tuple[str, Any]]]:
    """Who needs what: of seatrial with all its extras, and of each of those packages."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    ours = metadata.metadata("seatrial").get_all("Provides-Extra") or []
    extras = ["", *(extra for extra in ours if extra != _ALONE or _ALONE in versions)]
    todo, seen = ["seatrial"], {"seatrial"}
    while todo:
        owner = todo.pop()
        for text in metadata.requires(owner) or []:
            need = Requirement(text)
            name = canonicalize_name(need.name)
            asked = extras if owner == "seatrial" else [""]
            if name == "seatrial" or (need.marker and not any(need.marker.evaluate({"extra": e}) for e in asked)):
                continue
            yield owner, (name, need.specifier)
            if owner == "seatrial" and name in versions and name not in seen:
                seen.add(name)
                todo.append(name)
