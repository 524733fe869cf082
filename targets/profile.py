"""What a runtime's own profiler tells of one model, in one shape for all runtimes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import NotRequired, Protocol, TypedDict

from .base import Session


class Operator(TypedDict):
    """One operator as the runtime ran it. `us` is the mean, over the profiled runs, of its calls in one inference."""

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

    `total_us` is the mean of one inference on the clock, with the profiler on; `unaccounted` the share of it that no
    operator holds. Where the runtime gives no times, `nodes` is empty and `why` says so.
    """

    nodes: list[Operator]
    total_us: float
    unaccounted: float
    runs: int
    source: str
    why: str


class Profiled(Session, Protocol):
    """A session that can tell what its operators took."""

    def profile(self, runs: int) -> Profile:
        """So many inferences over what was bound, in a second session, after one that isn't counted."""


def profile_of(nodes: Iterable[Operator], total_us: float, runs: int, source: str) -> Profile:
    """The operators sorted by time, with what is missing of the total."""
    ordered = sorted(nodes, key=lambda node: -node["us"])
    missing = 1 - sum(node["us"] for node in ordered) / total_us if total_us else 0.0
    return {
        "nodes": ordered,
        "total_us": total_us,
        "unaccounted": max(0.0, missing),
        "runs": runs,
        "source": source,
        "why": "",
    }


def without_times(why: str) -> Profile:
    """For a runtime that gives none, or where asking for them failed."""
    return {"nodes": [], "total_us": 0.0, "unaccounted": 1.0, "runs": 0, "source": "", "why": why}


def timed_us(step: Callable[[], None], runs: int) -> float:
    """Mean of so many steps, in µs."""
    start = time.perf_counter_ns()
    for _ in range(runs):
        step()
    return (time.perf_counter_ns() - start) / runs / 1e3
