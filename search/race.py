"""Racing: all candidates get one launch, those near their target's fastest get more until it is decided.

Pure functions over launches: what to do next follows from what is stored, so a killed race goes on where it stopped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..devices.launches import Launch
from ..devices.results import effects
from ..devices.stats import t_interval

REFERENCE = "reference"
SCREEN_ROUNDS = 4
RACE_ROUNDS = 8
ARMS_PER_LAUNCH = 6
FAR = math.log(1.15)
"""After one launch: so much slower than the fastest that noise, about 1 % a launch, can't explain it."""
TIE = math.log(1.01)
CONFIDENCE = 0.99
FEWEST = 3
MOST = 6


@dataclass(frozen=True)
class Next:
    """The candidates of the next launch, and its rounds; no candidates where the race is over."""

    ids: list[str]
    rounds: int = 0


def plan(launches: Sequence[Launch], groups: Mapping[str, Sequence[str]]) -> Next:
    """What to launch next.

    Args:
        launches: all so far; each holds `REFERENCE` and candidates by id.
        groups: ids by target; the race is for the fastest of each.
    """
    # Where the reference failed, nothing was learned of the others.
    seen = {name for launch in launches if launch.arms[REFERENCE].ok for name in launch.arms}
    failed = failures(launches)
    new = [each for ids in groups.values() for each in ids if each not in seen and each not in failed]
    if new:
        return Next(new[:ARMS_PER_LAUNCH], SCREEN_ROUNDS)
    fields = [field for ids in groups.values() if (field := _field(launches, ids))]
    chosen: list[str] = []
    for best, rivals in sorted(fields, key=lambda field: field[1][0][0]):
        # A rival without its leader, or the other way round, would decide nothing.
        room = ARMS_PER_LAUNCH - len(chosen) - 1
        if room > 0:
            chosen += [best, *(name for _, name in rivals[:room])]
    return Next(chosen, RACE_ROUNDS)


def failures(launches: Sequence[Launch]) -> dict[str, str]:
    """Why, of every candidate that failed in the last of its launches: it isn't launched again, nor chosen.

    One that was given another chance, say more memory, and took it has not failed.
    """
    found: dict[str, str] = {}
    for launch in sorted(launches, key=lambda launch: launch.started):
        for name, run in launch.arms.items():
            if run.ok:
                found.pop(name, None)
            else:
                found[name] = run.reason or run.status
    return found


def leader(launches: Sequence[Launch], ids: Sequence[str]) -> str | None:
    """The fastest on average, against the reference; None where none was measured."""
    failed = failures(launches)
    means = {each: sum(t) / len(t) for each in ids if each not in failed and (t := _times(launches, each))}
    return min(means, key=lambda each: means[each]) if means else None


def gap(launches: Sequence[Launch], a: str, b: str) -> list[float]:
    """Log of b over a, over launches that hold both; from the reference where no launch does."""
    direct = effects(launches, a, b, "median")
    if direct:
        return direct
    one, other = _times(launches, a), _times(launches, b)
    return [sum(other) / len(other) - sum(one) / len(one)] if one and other else []


def _times(launches: Sequence[Launch], name: str) -> list[float]:
    return effects(launches, REFERENCE, name, "median")


def _field(launches: Sequence[Launch], ids: Sequence[str]) -> tuple[str, list[tuple[int, str]]] | None:
    """The leader of one target and those that may yet be faster, each with its launches, fewest first."""
    best = leader(launches, ids)
    if best is None:
        return None
    failed = failures(launches)
    rivals = [each for each in ids if each != best and each not in failed and _undecided(launches, best, each)]
    return (best, sorted((len(_times(launches, each)), each) for each in rivals)) if rivals else None


def _undecided(launches: Sequence[Launch], best: str, other: str) -> bool:
    together = effects(launches, best, other, "median")
    found = together or gap(launches, best, other)
    if not found or sum(found) / len(found) > FAR:
        return False  # not measured, or far behind
    if len(together) < FEWEST:
        # A candidate may have met another leader so often that it had its share of launches.
        return len(_times(launches, other)) < MOST
    if len(together) >= MOST:
        return False
    interval = t_interval(together, CONFIDENCE)
    settled = interval.low > 0 or interval.high < 0
    return not settled and interval.half_width > TIE
