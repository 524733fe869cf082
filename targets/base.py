"""What a deployment runtime must be able to do: the contract of `Target` and `Session`."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..core.errors import UsageError
from ..core.specs import TensorSpec

if TYPE_CHECKING:
    from numpy import ndarray

Settings = Mapping[str, Any]
"""Flat JSON data; ``threads`` is always among it."""


@dataclass(frozen=True)
class Missing:
    """Why a target can't be used here: what is missing, and the command that brings it."""

    what: str
    todo: str


class Session(Protocol):
    """A model opened in a runtime with its settings."""

    inputs: list[TensorSpec]
    outputs: list[TensorSpec]

    def run(self, feed: Mapping[str, ndarray]) -> dict[str, ndarray]:
        """Outputs by name, as arrays that stay valid after the next run."""

    def bind(self, feed: Mapping[str, ndarray]) -> None:
        """Place inputs (and outputs, where the runtime can) once, so that `step` copies nothing more."""

    def step(self) -> None:
        """One inference over what was bound; returns when it is done."""

    def placement(self) -> dict[str, Any]:
        """What really ran: ``precision`` (of the heavy operators), ``asked`` (the provider that should),
        ``where`` (provider → nodes), ``ops``."""

    def close(self) -> None:
        """Let go of the runtime's memory."""


class Streams(Session, Protocol):
    """A session that can run beside others of its kind; without it a target has no concurrency."""

    def streams(self, count: int) -> list[Session]:
        """So many sessions of this one's artifact and settings, each with that many threads, for a thread each.

        They share what the runtime recommends to share, and are bound and stepped at the same time.
        """


class Target(Protocol):
    """One deployment runtime and the file format that it loads."""

    name: str
    format: str
    suffix: str

    def probe(self) -> Missing | None:
        """None where it is usable in this interpreter. Imports nothing heavy."""

    def version(self) -> str:
        """The runtime's version, or an empty string where it is missing."""

    def precisions(self, flags: Sequence[str]) -> tuple[str, ...]:
        """What can run on a CPU with these flags."""

    def settings(self, precision: str, threads: int = 1) -> dict[str, Any]:
        """The settings that an artifact of this precision ships with: fp32 means fp32."""

    def strict(self, precision: str) -> dict[str, Any]:
        """Settings with as little optimisation as the runtime knows, to tell conversion from runtime errors."""

    def choices(self) -> dict[str, tuple[Any, ...]]:
        """The settings, besides threads and precision, that a search may vary; the first value is the default."""

    def example(self, settings: Settings) -> str:
        """Python source of ``open_model(path)`` → ``run(feed) -> dict``, for a bundle's own scripts."""

    def on(self, provider: str) -> dict[str, Any]:
        """Settings that put a model on a provider or device: ``cuda``, ``GPU``.

        Raises:
            Unsupported: this runtime has no such thing.
        """

    def open(self, path: Path, settings: Settings) -> Session:
        """Load a model's main file."""


HEAVY = {"conv", "gemm", "matmul", "fullyconnected", "fully_connected", "convolution", "deconvolution"}
"""Words in the names of operators that do a network's arithmetic; a precision is named after these."""


def is_heavy(op: str) -> bool:
    """Whether an operator of that name does a network's arithmetic."""
    lowered = op.lower()
    return "convert" not in lowered and any(word in lowered for word in HEAVY)


def installed(module: str, pip: str) -> Missing | None:
    """None where a top-level module is there; says what to type otherwise."""
    if importlib.util.find_spec(module):
        return None
    return Missing(f"the module {module} is not installed", f'pip install "seatrial[{pip}]"')


def version_of(package: str) -> str:
    """An installed package's version, or an empty string."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def checked(target: str, settings: Settings, allowed: Mapping[str, Sequence[Any] | None]) -> dict[str, Any]:
    """The settings, after a look at keys and values; a value list of None takes any positive integer.

    Raises:
        UsageError: a key or a value that the target doesn't know.
    """
    for key, value in settings.items():
        if key not in allowed:
            raise UsageError(f"setting {key!r} of {target}", "no such setting", f"known: {', '.join(allowed)}")
        values = allowed[key]
        if values is None:
            if type(value) is not int or value < 1:  # True is an int too
                raise UsageError(f"{target}: {key}={value!r}", "not a whole number from 1 up", "give 1 or more")
        elif value not in values:
            raise UsageError(f"{target}: {key}={value!r}", "no such value", f"known: {', '.join(map(str, values))}")
    return dict(settings)


def majority(weights: Mapping[str, float], default: str) -> str:
    """The key of the largest weight."""
    return max(weights, key=lambda key: weights[key]) if weights else default
