"""A grid over models: threads, batches, streams and runtime settings, one arm for each combination."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from ..core.errors import UsageError
from .device_profile import DeviceProfile
from .feeds import Wishes


@dataclass(frozen=True)
class Grid:
    """What is asked of every model; nothing asked means as it comes.

    Attributes:
        threads: of a session, instead of a bundle's own.
        batches: sizes of the first axis of every input.
        streams: how many inferences run at the same time; none means one after the other, in one thread.
        settings: values of the runtimes' settings by ``KEY``, or by ``TARGET.KEY`` for the models of one target.
        wishes: what the inputs are.
        profile: how much of the device each model gets; its settings are replaced by those that are asked for.
        pythons: interpreters to open every model in, as `probe.interpreter` gives them; none leaves that to its target.
    """

    threads: Sequence[int] = ()
    batches: Sequence[int] = ()
    streams: Sequence[int] = ()
    settings: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    wishes: Wishes = field(default_factory=Wishes)
    profile: DeviceProfile | None = None
    pythons: Sequence[str] = ()

    def __post_init__(self) -> None:
        if "threads" in self.settings:
            raise UsageError("the setting threads", "it has an option of its own", "give --threads 1,2")
        numbers = [*self.threads, *self.batches, *self.streams]
        if any(number < 1 for number in numbers):
            raise UsageError(f"a grid with {min(numbers)}", "less than one", "threads, batches and streams from 1 up")

    @property
    def own_inputs(self) -> bool:
        """Whether the inputs are other ones than those that a bundle brings."""
        wishes = self.wishes
        return bool(self.batches or wishes.shapes or wishes.ranges or wishes.file)

    @property
    def limits(self) -> dict[str, Any]:
        """Of the profile."""
        return self.profile.limits if self.profile else {}

    def settings_of(self, target: str, usual: Mapping[str, Any]) -> list[tuple[list[str], dict[str, Any]]]:
        """All settings to try with models of a target, each with the words that tell it from the others."""
        axes = dict(self._axes(target))
        if self.threads:
            axes["threads"] = self.threads
        found = []
        for values in product(*axes.values()):
            chosen = dict(zip(axes, values, strict=True))
            words = [f"{key}={value}" for key, value in chosen.items() if len(axes[key]) > 1]
            found.append((words, {**usual, **(self.profile.settings_of(target) if self.profile else {}), **chosen}))
        return found

    def loads(self) -> Iterator[tuple[list[str], int | None, int | None]]:
        """All batches and streams, each with the words that tell it from the others."""
        for batch, streams in product(self.batches or (None,), self.streams or (None,)):
            words = [f"batch={batch}"] * (len(self.batches) > 1) + [f"streams={streams}"] * (len(self.streams) > 1)
            yield words, batch, streams

    def interpreters(self) -> Iterator[tuple[list[str], str]]:
        """All interpreters, each with the word that tells it from the others; an empty one where none was asked for."""
        several = len(self.pythons) > 1
        for python in self.pythons or ("",):
            yield [f"python={python}"] * several, python

    def _axes(self, target: str) -> Iterator[tuple[str, Sequence[Any]]]:
        from .. import targets

        for name, values in self.settings.items():
            owner, dot, key = name.rpartition(".")
            if dot:
                targets.get(owner)  # one that nobody knows is a slip of the pen
            if not dot or owner == target:
                yield key, values
