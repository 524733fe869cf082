"""The deployments that a search tries: model × target × precision × threads × what each runtime lets one choose."""

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
        model: key of the model, where a study has several; empty for the only one.
    """

    target: str
    precision: str
    settings: tuple[tuple[str, Any], ...]
    model: str = ""

    @classmethod
    def of(cls, target: str, precision: str, settings: Mapping[str, Any], model: str = "") -> Candidate:
        """From a mapping of settings."""
        return cls(target, precision, tuple(sorted(settings.items())), model)

    @property
    def id(self) -> str:
        """The same values have the same id, everywhere."""
        values = [self.target, self.precision, self.settings]
        return content_id([*values, self.model] if self.model else values)

    @property
    def is_default(self) -> bool:
        """Whether all but threads is as the runtime ships for this precision."""
        settings = dict(self.settings)
        return settings == get(self.target).settings(self.precision, settings["threads"])

    @property
    def label(self) -> str:
        """For people: ``openvino int8 × 2``, with the model's key and settings that differ from the default."""
        settings = dict(self.settings)
        default = get(self.target).settings(self.precision, settings["threads"])
        other = [f"{key}={value}" for key, value in self.settings if default.get(key) != value]
        words = [self.target, self.precision, f"× {settings['threads']}", *other]
        return " ".join([key_text(self.model), *words] if self.model else words)


def key_text(model: str) -> str:
    """A model's key for people: eight letters, and what it is besides: ``5e037573-tuned``."""
    key, dash, what = model.partition("-")
    return f"{key[:8]}{dash}{what}"


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
