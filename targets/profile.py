"""What a runtime's own profiler tells of one model, in one shape for all runtimes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import NamedTuple, NotRequired, Protocol, TypedDict

from .base import Session

PARTS = 5


class Operator(TypedDict):
    """One operator as the runtime ran it. `us` is the mean over a profile's runs of all its calls in one inference."""

    name: str
    """As in the model's file where the runtime keeps that; it joins with a bundle's ``names.json``."""
    op: str
    where: str
    """Provider, delegate or device."""
    precision: str
    """Empty where the runtime doesn't tell it, or the operator has none: it moves data."""
    us: float
    calls: float
    """In one inference."""
    module: NotRequired[str]
    """Path of the source's module, where a bundle tells it; a runtime doesn't know it."""


class Profile(TypedDict):
    """What the operators took, the slowest first, in the quietest fifth of the inferences that were run.

    `total_us` is the mean of one of its `runs` on the clock, with the profiler on; `unaccounted` the share of it that
    no operator holds. Where the runtime gives no times, `nodes` is empty and `why` says so.
    """

    nodes: list[Operator]
    total_us: float
    unaccounted: float
    runs: int
    source: str
    why: str


class Part(NamedTuple):
    """Some inferences in a row: which is the first, how many, and the mean of one in µs."""

    first: int
    count: int
    us: float


class Profiled(Session, Protocol):
    """A session that can tell what its operators took."""

    def profile(self, runs: int) -> Profile:
        """So many inferences over what was bound, in a second session, after one that isn't counted."""


def profile_of(nodes: Iterable[Operator], part: Part, source: str) -> Profile:
    """The operators sorted by time, with what is missing of the total."""
    ordered = sorted(nodes, key=lambda node: -node["us"])
    return {
        "nodes": ordered,
        "total_us": part.us,
        "unaccounted": max(0.0, 1 - sum(node["us"] for node in ordered) / part.us),
        "runs": part.count,
        "source": source,
        "why": "",
    }


def without_times(why: str) -> Profile:
    """For a runtime that gives none, or where asking for them failed."""
    return {"nodes": [], "total_us": 0.0, "unaccounted": 1.0, "runs": 0, "source": "", "why": why}


def quietest(step: Callable[[], None], runs: int, after: Callable[[], None] = lambda: None) -> Part:
    """Step about so often, in five parts; which of them was the fastest. `after` is called after each, off the clock.

    On a busy machine one interruption lasts as long as hundreds of operators: in a mean over all it would stand at
    whichever it hit.
    """
    count = max(1, runs // PARTS)
    found = []
    for part in range(PARTS):
        start = time.perf_counter_ns()
        for _ in range(count):
            step()
        found.append(Part(part * count, count, (time.perf_counter_ns() - start) / count / 1e3))
        after()
    return min(found, key=lambda part: part.us)
