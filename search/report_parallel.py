"""Parallel coordinates for the report: all objectives of all candidates at once, the best of each at the same end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from .report_many import CHOSEN

MOST = 400
"""Lines of candidates that are on no front, at most: more would be one grey surface."""


@dataclass(frozen=True)
class Scale:
    """One objective's axis.

    Attributes:
        name: for people.
        worst: value at the one end.
        best: value at the other.
        texts: of both, worst first.
        log: by ratios.
    """

    name: str
    worst: float
    best: float
    texts: tuple[str, str]
    log: bool

    def share(self, value: float) -> float:
        """From 0 at the worst to 1 at the best."""
        if self.worst == self.best:
            return 0.5
        if self.log:
            return math.log(value / self.worst) / math.log(self.best / self.worst)
        return (value - self.worst) / (self.best - self.worst)


@dataclass(frozen=True)
class Line:
    """One candidate: a value for each scale, None where it isn't known; `standing` as in `report_many`."""

    id: str
    values: Sequence[float | None]
    colour: int
    standing: str
    tip: str = ""


def draw(scales: Sequence[Scale], lines: Sequence[Line], *, width: int, height: int) -> str:
    """One ``<svg>``: axes stand upright where the picture is wide, and lie below each other where it is narrow."""
    flat = width < 700
    places = _Places(scales, width, height, flat)
    rest = "".join(dict.fromkeys(places.path(line) for line in lines if not line.tip))
    parts = [f'<path class="rest" d="{rest}"/>' if rest else "", places.rails()]
    for line in sorted((line for line in lines if line.tip), key=lambda line: line.standing == CHOSEN):
        kind = f"point strand {line.standing} t{line.colour}"
        tip = escape(line.tip)
        parts.append(
            f'<a class="{kind}" href="#c-{escape(line.id)}" data-tip="{tip}"><title>{tip}</title>'
            f'<path class="mark" d="{places.path(line)}"/></a>'
        )
    parts.append(places.texts())
    name = escape(f"{len(lines)} candidates by {', '.join(scale.name for scale in scales)}")
    return f'<svg viewBox="0 0 {width} {height}" role="group" aria-label="{name}">{"".join(parts)}</svg>'


class _Places:
    """Where the axes and the values on them stand."""

    def __init__(self, scales: Sequence[Scale], width: int, height: int, flat: bool) -> None:
        self.scales, self.flat = scales, flat
        gaps = max(len(scales) - 1, 1)
        if flat:
            self.low, self.high = 14.0, width - 14.0
            self.at = [34 + k * (height - 62) / gaps for k in range(len(scales))]
        else:
            self.low, self.high = height - 30.0, 48.0
            self.at = [76 + k * (width - 152) / gaps for k in range(len(scales))]

    def path(self, line: Line) -> str:
        """A value that isn't known breaks the line."""
        parts, begun = [], False
        for scale, at, value in zip(self.scales, self.at, line.values, strict=True):
            if value is None:
                begun = False
                continue
            along = self.low + scale.share(value) * (self.high - self.low)
            x, y = (along, at) if self.flat else (at, along)
            parts.append(f"{'L' if begun else 'M'}{x:.0f},{y:.0f}")
            begun = True
        return "".join(parts)

    def rails(self) -> str:
        """The axes."""
        along, across = ("x", "y") if self.flat else ("y", "x")
        ends = f'{along}1="{self.low}" {along}2="{self.high}"'
        return "".join(f'<line class="rail" {ends} {across}1="{at:.1f}" {across}2="{at:.1f}"/>' for at in self.at)

    def texts(self) -> str:
        """Of each axis its name, with the best value at one end and the worst at the other."""
        parts = []
        for scale, at in zip(self.scales, self.at, strict=True):
            worst, best = scale.texts
            if self.flat:
                parts.append(_text("name", self.low, at - 8, "start", scale.name))
                parts.append(_text("tick halo", self.high, at - 8, "end", f"{worst} … {best}"))
            else:
                parts.append(_text("name", at, 16, "middle", scale.name))
                parts.append(_text("tick", at, 36, "middle", best))
                parts.append(_text("tick", at, self.low + 20, "middle", worst))
        return "".join(parts)


def _text(kind: str, x: float, y: float, anchor: str, words: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
