"""The candidates of a deployment search: target × precision × threads × what each runtime lets one choose."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..core.ids import content_id
from ..targets import get


@dataclass(frozen=True)
class Candidate:
    """Frozen values with a stable id.

    Attributes:
        target: name of the runtime.
        precision: of the recipe.
        settings: the runtime's, as sorted pairs.
    """

    target: str
    precision: str
    settings: tuple[tuple[str, Any], ...]

    @classmethod
    def of(cls, target: str, precision: str, settings: Mapping[str, Any]) -> Candidate:
        """From a mapping of settings."""
        return cls(target, precision, tuple(sorted(settings.items())))

    @property
    def id(self) -> str:
        """The same values have the same id, everywhere."""
        return content_id([self.target, self.precision, self.settings])

    @property
    def is_default(self) -> bool:
        """Whether all but threads is as the runtime ships for this precision."""
        settings = dict(self.settings)
        return settings == get(self.target).settings(self.precision, settings["threads"])

    @property
    def label(self) -> str:
        """For people: ``openvino int8 × 2``, with settings that differ from the default."""
        settings = dict(self.settings)
        default = get(self.target).settings(self.precision, settings["threads"])
        other = [f"{key}={value}" for key, value in self.settings if default.get(key) != value]
        return " ".join([self.target, self.precision, f"× {settings['threads']}", *other])


def candidates(
    targets: Sequence[str], precisions: Sequence[str], threads: Sequence[int], flags: Sequence[str]
) -> list[Candidate]:
    """All candidates that a CPU with these flags can run; defaults of each target and precision come first."""
    found = []
    for name in targets:
        target = get(name)
        for precision in (p for p in precisions if p in target.precisions(flags)):
            choices = target.choices()
            for values in itertools.product(*choices.values()):
                for count in threads:
                    settings = target.settings(precision, count) | dict(zip(choices, values, strict=True))
                    found.append(Candidate.of(name, precision, settings))
    return found
