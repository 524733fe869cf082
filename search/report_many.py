"""What the report of a study of many models looks up: goals, values with intervals, where each candidate stands."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from typing import Any

from .candidate import key_text, place_of
from .choose import Bound
from .fronts import UNDECIDED
from .goals import LOGARITHMIC
from .objectives import BUILT_IN, TESTS, share
from .report_text import best_of, by_id, bytes_text, evaluated, finite, ms_text, name_of, percent_text, places_of

Candidate = Mapping[str, Any]
CHOSEN, FRONT, TIE, BEHIND, OUT = "chosen", "front", "tie", "behind", "out"
"""Where a candidate stands; OUT are those that can't be chosen: not proven, not timed, or against a constraint."""
ORDER = (CHOSEN, FRONT, TIE, BEHIND, OUT)
MOST, LEAST = 300, 40
"""Rows of a table, at most, and of each target, where there are many; all of them are in the CSV file."""
NAMES = {
    "latency_ms": "latency",
    "latency_p95_ms": "95th percentile of latency",
    "load_ms": "time to load",
    "macs": "MACs",
    "sqnr_db": "SQNR",
    "size_bytes": "size",
    "peak_memory_bytes": "peak memory",
    "throughput_per_s": "throughput",
}


class Many:
    """A study's document, looked at as one of many models."""

    def __init__(self, study: Mapping[str, Any]) -> None:
        self.study, self.models = study, study["models"]
        self.candidates: Sequence[Candidate] = study["candidates"]
        self.by_id = by_id(study)
        self.best = best_of(study)
        self.goals: list[str] = [each["name"] for each in study["goals"]["objectives"]]
        self.bounds = [Bound.read(text) for text in study["goals"]["constraints"]]
        # A bound is on the worse side, so it tells the better one, also of what is no objective and not built in.
        self.directions = {bound.name: "min" if bound.sign.startswith("<") else "max" for bound in self.bounds}
        self.directions |= {each["name"]: each["direction"] for each in study["goals"]["objectives"]}
        self.colours = places_of(study)
        self.places = list(dict.fromkeys([*study["fronts"], *self.colours]))
        self.chosen = {pick["id"]: place for place, pick in study["chosen"].get("per_target", {}).items()}
        self.on_front = {id for ids in study["fronts"].values() for id in ids}

    def of(self, place: str) -> list[Candidate]:
        """Its candidates; see `place_of`."""
        return [c for c in self.candidates if place_of(c) == place]

    def value(self, candidate: Candidate, name: str) -> float | None:
        """Of an objective or another figure; None where it isn't known."""
        found = candidate["latency_ms"] if name == "latency_ms" else candidate.get("values", {}).get(name)
        found = candidate.get(name) if found is None else found
        return float(found) if finite(found) else None

    def interval(self, candidate: Candidate, name: str) -> tuple[float, float] | None:
        """The 95 % interval of a value, where one is known."""
        if name == "latency_ms":
            low, high = candidate.get("latency_low_ms"), candidate.get("latency_high_ms")
            return (low, high) if finite(low) and finite(high) else None
        low, high = candidate.get("intervals", {}).get(name) or (None, None)
        if finite(low) and finite(high):
            return low, high
        n, value = evaluated(self.study), self.value(candidate, name)
        return _interval(round(value * n), n) if name == "accuracy" and n and value is not None else None

    def direction(self, name: str) -> str:
        """``max`` or ``min``."""
        return self.directions.get(name) or BUILT_IN[name].direction

    def standing(self, candidate: Candidate) -> str:
        """One of `ORDER`."""
        return self._standings[candidate["id"]]

    @cached_property
    def _standings(self) -> dict[str, str]:
        return {candidate["id"]: self._stands(candidate) for candidate in self.candidates}

    def _stands(self, candidate: Candidate) -> str:
        if candidate["id"] in self.chosen:
            return CHOSEN
        if candidate["id"] in self.on_front:
            return FRONT
        if candidate["status"] != "ok" or candidate["latency_ms"] is None or self._misses(candidate):
            return OUT
        return TIE if str(candidate.get("reason") or "").startswith(UNDECIDED) else BEHIND

    def _misses(self, candidate: Candidate) -> bool:
        values = [(bound, self.value(candidate, bound.name)) for bound in self.bounds]
        return any(value is None or not TESTS[bound.sign](value, bound.limit) for bound, value in values)

    def ranked(self, rows: Sequence[Candidate]) -> list[Candidate]:
        """Candidates by where they stand, the fast ones first."""
        return sorted(rows, key=lambda c: (ORDER.index(self.standing(c)), c["latency_ms"] or math.inf))

    @cached_property
    def shown(self) -> set[str]:
        """Ids of those that have a row, and markers that say what they are: the first of each place."""
        most = max(MOST // max(len(self.colours), 1), LEAST)
        return {c["id"] for place in self.colours for c in self.ranked(self.of(place))[:most]}

    @cached_property
    def axes(self) -> list[str]:
        """What is shown of all candidates: objectives, what is bounded, and what a model costs; each once."""
        own = [*self.goals, *(bound.name for bound in self.bounds)]
        names = dict.fromkeys([*own, "accuracy", "latency_ms", "macs", "parameters", "size_bytes"])
        return [name for name in names if any(self.value(c, name) is not None for c in self.candidates)]

    @property
    def score(self) -> str:
        """What latency is drawn against: the first other objective, or what stands for quality."""
        known = [name for name in self.axes if name != "latency_ms"]
        return next((name for name in [*self.goals, "accuracy", "agreement"] if name in known), "agreement")

    @cached_property
    def usual(self) -> set[str]:
        """Ids of candidates with the settings that most of their place and precision have: those of all models."""
        kinds: dict[tuple[str, str], Counter[str]] = {}
        for c in self.candidates:
            kinds.setdefault((place_of(c), c["precision"]), Counter())[_key(c)] += 1
        most = {kind: counts.most_common(1)[0][0] for kind, counts in kinds.items()}
        return {c["id"] for c in self.candidates if _key(c) == most[place_of(c), c["precision"]]}

    def name(self, candidate: Candidate) -> str:
        """``5e037573 TFLite int8``."""
        return f"{key_text(candidate['model'])} {name_of(candidate)}"

    @cached_property
    def varying(self) -> set[str]:
        """The variables that aren't the same in all models."""
        seen: dict[str, set[str]] = {}
        for one in self.models.values():
            for name, value in one["values"].items():
                seen.setdefault(name, set()).add(repr(value))
        return {name for name, values in seen.items() if len(values) > 1}

    def values_text(self, model: str) -> str:
        """What a model is: ``width 0.5 · depth 2``, of what isn't the same in all."""
        values = self.models[model]["values"]
        return (
            " · ".join(f"{name}\N{NO-BREAK SPACE}{value}" for name, value in values.items() if name in self.varying)
            or "–"
        )


@cache
def _interval(right: int, n: int) -> tuple[float, float] | None:
    found = share(right, n)
    return (found.low, found.high) if found.low is not None and found.high is not None else None


def _key(candidate: Candidate) -> str:
    return json.dumps(candidate["settings"], sort_keys=True)


def figure(name: str, value: float | None) -> str:
    """A value of an objective, with its unit."""
    if value is None or not finite(value):
        return "–"
    unit = BUILT_IN[name].unit if name in BUILT_IN else ""
    if unit == "ms":
        return f"{ms_text(value)}\N{NO-BREAK SPACE}ms"
    if unit == "share":
        return percent_text(value)
    if unit == "bytes":
        return bytes_text(value)
    return count_text(value) + (f"\N{NO-BREAK SPACE}{unit}" if unit else "")


def span_text(name: str, interval: tuple[float, float] | None) -> str:
    """``92.0 to 94.1 %``, or nothing."""
    if interval is None:
        return ""
    low, high = (figure(name, end) for end in interval)
    number, _, unit = low.partition("\N{NO-BREAK SPACE}")
    return f"{number if high.endswith(unit) else low} to {high}"


def count_text(value: float) -> str:
    """Four significant digits, with a letter for thousands, millions and billions."""
    for power, letter in ((9, "G"), (6, "M"), (3, "k")):
        if abs(value) >= 10**power:
            return f"{value / 10**power:.3g}\N{NO-BREAK SPACE}{letter}"
    return f"{value:.4g}"


def title_of(name: str) -> str:
    """An objective's name for people."""
    return NAMES.get(name, name.replace("_", " "))


def logarithmic(name: str, values: Sequence[float]) -> bool:
    """Whether values are drawn by their ratios."""
    return name in LOGARITHMIC and min(values) > 0


def disagreement(macs: Sequence[float], times: Sequence[float]) -> tuple[int, int] | None:
    """The pair (i, j) for which MACs mislead most: i has fewer of them and takes longer; None where there is none.

    Args:
        macs: of n candidates, above 0.
        times: of the same ones, above 0.
    """
    import numpy as np

    a, b = np.log(np.asarray(macs, float)), np.log(np.asarray(times, float))
    fewer, longer = a[None, :] - a[:, None], b[:, None] - b[None, :]
    wrong = np.minimum(fewer, longer)
    i, j = np.unravel_index(int(wrong.argmax()), wrong.shape)
    return (int(i), int(j)) if wrong[i, j] > math.log(1.02) else None
