"""What a runtime's own profiler tells of one model, in one shape for all runtimes."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from statistics import median
from typing import Any, NamedTuple, NotRequired, Protocol, TypedDict

from .base import Session

PARTS = 10
"""That a profile's inferences are cut into."""


class Operator(TypedDict):
    """One operator as the runtime ran it. `us` is of all its calls in one inference: the median of the parts' means."""

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
    """What the operators took, the slowest first.

    On a busy machine one interruption lasts as long as hundreds of operators and would stand, in a mean, at whichever
    it hit; medians over parts of the run leave it out. `total_us` is the mean of one inference on the clock, with the
    profiler on, in the fastest part; `unaccounted` the share of it that no operator holds. Where the runtime gives no
    times, `nodes` is empty and `why` says so.
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
    runs: int
    us: float


class Profiled(Session, Protocol):
    """A session that can tell what its operators took."""

    def profile(self, runs: int) -> Profile:
        """So many inferences over what was bound, in a second session, after one that isn't counted."""


def profile_of(found: Sequence[Iterable[Operator]], parts: Sequence[Part], source: str) -> Profile:
    """The operators of all parts put together and sorted by time, with what is missing of the total."""
    times: defaultdict[tuple[Any, ...], list[float]] = defaultdict(list)
    first: dict[tuple[Any, ...], Operator] = {}
    for nodes in found:
        seen: Counter[tuple[Any, ...]] = Counter()
        for node in nodes:
            what = (node["name"], node["op"], node["where"], node["precision"])
            key = (*what, seen[what])  # a name may stand for several
            seen[what] += 1
            times[key].append(node["us"])
            first.setdefault(key, node)
    merged: list[Operator] = [{**node, "us": median(times[key])} for key, node in first.items()]
    total_us = min(part.us for part in parts)
    return {
        "nodes": sorted(merged, key=lambda node: -node["us"]),
        "total_us": total_us,
        "unaccounted": max(0.0, 1 - sum(node["us"] for node in merged) / total_us),
        "runs": sum(part.runs for part in parts),
        "source": source,
        "why": "",
    }


def without_times(why: str) -> Profile:
    """For a runtime that gives none, or where asking for them failed."""
    return {"nodes": [], "total_us": 0.0, "unaccounted": 1.0, "runs": 0, "source": "", "why": why}


def in_parts(step: Callable[[], None], runs: int, after: Callable[[], None] = lambda: None) -> list[Part]:
    """Step about so often, in `PARTS` parts; `after` is called after each, off the clock."""
    count = max(1, runs // PARTS)
    found = []
    for part in range(PARTS):
        start = time.perf_counter_ns()
        for _ in range(count):
            step()
        found.append(Part(part * count, count, (time.perf_counter_ns() - start) / count / 1e3))
        after()
    return found
