"""Choosing among candidates: bounds with their probability, the best under them, the nearest where nobody is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..core.errors import CheckFailed, UsageError
from .candidate import LOCAL, key_text
from .objectives import BUILT_IN, Estimate
from .views import Views

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Bound:
    """``name sign limit``, such as ``latency_ms <= 5``."""

    name: str
    sign: str
    limit: float

    @classmethod
    def read(cls, text: str) -> Bound:
        """From text.

        Raises:
            UsageError: it can't be read.
        """
        todo = 'write "latency_ms <= 5"'
        match = re.fullmatch(r"\s*(\w+)\s*(<=|>=|==|<|>)\s*([-+.\deE]+)\s*", text)
        if not match:
            raise UsageError(f"--subject-to {text!r}", "it can't be read", todo)
        name, sign, number = match.groups()
        try:
            return cls(name, sign, float(number))
        except ValueError:
            raise UsageError(f"--subject-to {text!r}", f"{number!r} is no number", todo) from None

    def __str__(self) -> str:
        return f"{self.name} {self.sign} {str(self.limit).removesuffix('.0')}"  # `read` gives the very same again


@dataclass(frozen=True)
class Demand:
    """What is asked of a candidate.

    Attributes:
        name: the objective that decides.
        direction: ``max`` or ``min``.
        bounds: what it must keep to.
        confidence: probability with which a bound must be met; None takes the point estimates.
    """

    name: str
    direction: str
    bounds: Sequence[Bound] = ()
    confidence: float | None = None

    @property
    def text(self) -> str:
        """In words."""
        words = f"the {'highest' if self.direction == 'max' else 'lowest'} {self.name}"
        words += f" where {' and '.join(map(str, self.bounds))}" if self.bounds else ""
        return words + (f" with a probability of {self.confidence:.0%}" if self.confidence and self.bounds else "")

    def meets(self, bound: Bound, estimate: Estimate | None) -> bool:
        """Whether a bound is met, as far as it is asked for."""
        if estimate is None:
            return False
        if self.confidence is None:
            return estimate.meets(bound.sign, bound.limit)
        return estimate.probability(bound.sign, bound.limit) >= self.confidence


def best(able: Sequence[Row], views: Views, demand: Demand) -> dict[str, Any]:
    """The best of the candidates that meet all bounds; ties go to the faster one.

    Returns:
        Its facts, with ``objective`` (name, value and interval) and for each of ``bounds`` the value and the
        probability that it is met.

    Raises:
        CheckFailed: nobody meets the bounds; the nearest is named, and what binds.
    """
    views.direction(demand.name)
    known = {name: views.estimates(name) for name in dict.fromkeys([*(b.name for b in demand.bounds), demand.name])}

    def fits(row: Row) -> bool:
        return all(demand.meets(b, known[b.name].get(row["id"])) for b in demand.bounds)

    usable = [row for row in able if row["id"] in known[demand.name] and fits(row)]
    if not usable:
        raise CheckFailed(demand.text, *nearest(able, known, demand))
    sign = -1 if demand.direction == "max" else 1
    row = min(usable, key=lambda row: (sign * known[demand.name][row["id"]].value, row["latency_ms"]))
    estimate = known[demand.name][row["id"]]
    bounds = [{"bound": str(b), **_met(b, known[b.name][row["id"]])} for b in demand.bounds]
    objective = {"name": demand.name, "value": estimate.value, "low": estimate.low, "high": estimate.high}
    return {**row, "objective": objective, "bounds": bounds}


def _met(bound: Bound, estimate: Estimate) -> dict[str, float]:
    return {"value": estimate.value, "probability": estimate.probability(bound.sign, bound.limit)}


def nearest(able: Sequence[Row], known: Mapping[str, Mapping[str, Estimate]], demand: Demand) -> tuple[str, str]:
    """What was found, and what to do, where nobody meets the bounds."""
    for name, found in known.items():
        if not any(row["id"] in found for row in able):
            needs = BUILT_IN[name].needs if name in BUILT_IN else ""
            return f"no candidate has {name}", f"{needs}choose another objective"
    able = [row for row in able if row["id"] in known[demand.name]]
    for bound in demand.bounds:
        if not any(row["id"] in known[bound.name] for row in able):
            return f"no candidate that has {demand.name} has {bound.name}", "choose another objective, or leave it out"
    for bound in demand.bounds:
        seen = [(row, e) for row in able if (e := known[bound.name].get(row["id"]))]
        if not any(demand.meets(bound, e) for _, e in seen):
            return _out_of_reach(bound, seen, demand.confidence), "loosen that bound"
    row, binding = _least_violation(able, known, demand)
    values = ", ".join(
        f"{b.name} {known[b.name][row['id']].value:.4g}" for b in demand.bounds if row["id"] in known[b.name]
    )
    found_text = "each bound is met by somebody, all together by nobody; the nearest, "
    found_text += f"{label(row)}, has {values}: {' and '.join(map(str, binding))} binds"
    return found_text, "loosen one of them"


def _out_of_reach(bound: Bound, seen: Sequence[tuple[Row, Estimate]], confidence: float | None) -> str:
    if confidence is None:
        row, near = min(seen, key=lambda each: abs(each[1].value - bound.limit))
        return f"nobody has {bound}; the nearest has {near.value:.4g}: {label(row)}"

    def closeness(each: tuple[Row, Estimate]) -> tuple[float, float]:
        return each[1].probability(bound.sign, bound.limit), -abs(each[1].value - bound.limit)

    row, near = max(seen, key=closeness)
    chance, _ = closeness((row, near))
    return f"nobody surely has {bound}; the nearest has {near.value:.4g}, p = {chance:.2g}: {label(row)}"


def _least_violation(
    able: Sequence[Row], known: Mapping[str, Mapping[str, Estimate]], demand: Demand
) -> tuple[Row, list[Bound]]:
    """The candidate whose worst violation is the smallest, each as a share of what the candidates span."""

    def violation(row: Row, bound: Bound) -> float:
        estimate = known[bound.name].get(row["id"])
        if demand.meets(bound, estimate):
            return 0.0
        if estimate is None:
            return float("inf")
        values = [e.value for e in known[bound.name].values()]
        return max(abs(estimate.value - bound.limit) / ((max(values) - min(values)) or 1.0), 1e-12)

    row = min(able, key=lambda row: (max(violation(row, b) for b in demand.bounds), row["latency_ms"]))
    return row, [b for b in demand.bounds if violation(row, b)]


def label(row: Row) -> str:
    """A candidate for people: ``openvino int8 × 2``; with the model's key where a study has several."""
    rest = [f"{k}={v}" for k, v in sorted(row["settings"].items()) if k != "threads"]
    model = [key_text(row["model"])] if row.get("model") else []
    device = row.get("device", LOCAL)
    rest += [f"on {device}"] if device != LOCAL else []
    return " ".join([*model, row["target"], row["precision"], f"× {row['settings']['threads']}", *rest])
