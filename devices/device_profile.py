"""Profiles: how much of a device its sessions get, as data. One TOML file each; ours lie beside this module.

A profile restricts this machine; it doesn't make it another one: 512 MB and one core of a server are no small board.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import targets
from ..core.config import from_mapping, read_toml, refuse_unknown
from ..core.errors import CannotDo, UsageError
from .facts import cores_given

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class DeviceProfile:
    """What every worker of a session gets.

    Attributes:
        description: in words.
        threads: of a session; ``all`` for one a core.
        cores: how many cores a worker may use, the first of those given to us; all by default.
        memory_mb: data that a worker's process may allocate; more is an error of its arm.
        settings: by target, settings of the runtime.
    """

    description: str
    threads: int | str | None = None
    cores: int | None = None
    memory_mb: int | None = None
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("threads", "cores", "memory_mb"):
            value = getattr(self, name)
            if value is None or (name == "threads" and value == "all"):
                continue
            if type(value) is not int or value < 1:
                raise ValueError(f"{name} is {value!r}, wanted a whole number from 1 up")

    @property
    def core_set(self) -> list[int]:
        """The cores that a worker gets.

        Raises:
            CannotDo: there are fewer.
        """
        given = cores_given()
        if self.cores and self.cores > len(given):
            todo = "choose a profile with fewer cores, or another machine"
            raise CannotDo(f"a profile of {self.cores} cores", f"this process has {len(given)}", todo)
        return given[: self.cores]

    @property
    def limits(self) -> dict[str, Any]:
        """What a worker sets on itself: ``cores``, ``memory_bytes``; empty where nothing is restricted."""
        found: dict[str, Any] = {"cores": self.core_set} if self.cores else {}
        return found | ({"memory_bytes": self.memory_mb << 20} if self.memory_mb else {})

    def settings_of(self, target: str) -> dict[str, Any]:
        """Settings of a runtime, threads among them."""
        threads = len(self.core_set) if self.threads == "all" else self.threads
        return {**self.settings.get(target, {}), **({"threads": threads} if threads else {})}


def names() -> list[str]:
    """Of the profiles that are shipped."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def device_profile(name: str) -> DeviceProfile:
    """A profile by its name, or from a TOML file by its path.

    Raises:
        UsageError: no such profile or file, or a key or value that it can't have.
    """
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    if not name.endswith(".toml") and name not in names():
        raise UsageError(f"the profile {name!r}", "no such profile", f"known: {', '.join(names())}; or a .toml's path")
    where = f"the profile {name}"
    found = from_mapping(DeviceProfile, read_toml(path), where)
    _check_settings(found.settings, f"{where}: settings")
    return found


def _check_settings(settings: Any, where: str) -> None:
    todo = f"write a table for a target, such as [settings.{targets.names()[0]}]"
    if not isinstance(settings, Mapping):
        raise UsageError(where, f"{settings!r} is no table", todo)
    refuse_unknown(settings, targets.names(), where)
    for target, values in settings.items():
        if not isinstance(values, Mapping):
            raise UsageError(f"{where}: {target}", f"{values!r} is no table", todo)
