"""The deployments that a search tries: model × target × precision × threads × what each runtime lets one choose."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from ..core.ids import content_id
from ..devices.device_profile import DeviceProfile
from ..targets import get

LOCAL = "local"
"""The device that is this machine, with nothing restricted."""


@dataclass(frozen=True)
class Candidate:
    """Frozen values with a stable id.

    Attributes:
        target: name of the runtime.
        precision: of the recipe.
        settings: the runtime's, as sorted pairs.
        model: key of the model, where a study has several; empty for the only one.
        device: name of the profile that restricts this machine for it; `LOCAL` for none.
        restricts: that profile's ``cores`` and ``memory_mb``, as sorted pairs; its settings are among `settings`.
    """

    target: str
    precision: str
    settings: tuple[tuple[str, Any], ...]
    model: str = ""
    device: str = LOCAL
    restricts: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(cls, target: str, precision: str, settings: Mapping[str, Any], model: str = "") -> Candidate:
        """From a mapping of settings."""
        return cls(target, precision, tuple(sorted(settings.items())), model)

    def on(self, device: str, profile: DeviceProfile) -> Candidate:
        """The same where a profile restricts this machine, and says some of the settings."""
        settings = {**dict(self.settings), **profile.settings_of(self.target)}
        restricts = {"cores": profile.cores, "memory_mb": profile.memory_mb}
        pairs = tuple(sorted((name, value) for name, value in restricts.items() if value))
        return replace(self, settings=tuple(sorted(settings.items())), device=device, restricts=pairs)

    @cached_property
    def id(self) -> str:
        """The same values have the same id, everywhere."""
        values: list[Any] = [self.target, self.precision, self.settings]
        values += [self.model] if self.model else []
        return content_id(values if self.device == LOCAL else [*values, self.device, self.restricts])

    @property
    def place(self) -> str:
        """Where it runs; see `place_of`."""
        return place_of(vars(self))

    @property
    def limits(self) -> dict[str, Any]:
        """What its worker sets on itself; see `DeviceProfile.limits`."""
        found = dict(self.restricts)
        return DeviceProfile("", cores=found.get("cores"), memory_mb=found.get("memory_mb")).limits

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
        words += [f"on {self.device}"] if self.device != LOCAL else []
        return " ".join([key_text(self.model), *words] if self.model else words)


def place_of(candidate: Mapping[str, Any]) -> str:
    """Runtime and device of a candidate's facts, ``tflite@one-core``; of this machine as it is ``tflite``.

    Who is on a front, and who is chosen, is asked for each of them.
    """
    target, device = str(candidate["target"]), candidate.get("device", LOCAL)
    return target if device == LOCAL else f"{target}@{device}"


def names_of(candidate: Mapping[str, Any]) -> set[str]:
    """What a candidate's facts may be asked for by: its runtime, ``@`` and its device, and both."""
    target, device = str(candidate["target"]), candidate.get("device", LOCAL)
    return {target, f"@{device}", f"{target}@{device}"}


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
