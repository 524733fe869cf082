"""A scatter for the report of many models, as inline SVG: few of its points can be asked, all of them are drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from .report_many import BEHIND, CHOSEN, FRONT, OUT, TIE
from .report_plot import RADIUS, Box, linear_ticks, log_ticks, marker, place_labels, shape_of

SIZES = {CHOSEN: 6.5, FRONT: 5.5, TIE: 4.5, BEHIND: 3.6, OUT: 3.6}
RING = 5.0
"""Around a chosen one, beyond its marker."""
REACH, MOST = 160.0, 60
"""How far from its marker a label may stand, and the markers there that it makes way for, at most."""


@dataclass(frozen=True)
class Axis:
    """One of the two; values are divided by `unit` for its ticks.

    Attributes:
        text: its name, with the unit.
        low: the least value that is drawn; what lies beyond an end stands on it.
        high: the largest.
        log: drawn by ratios.
    """

    text: str
    low: float
    high: float
    log: bool = False
    unit: float = 1.0

    @classmethod
    def over(cls, text: str, values: Sequence[float], log: bool = False, unit: float = 1.0, most: float = 1.0) -> Axis:
        """Around values, with some room; a share never ends above `most`."""
        low, high = min(values), max(values)
        if log:
            room = max((high / low) ** 0.07, 1.05)
            return cls(text, low / room, high * room, True, unit)
        room = 0.09 * (high - low) or 0.05 * abs(high) or 1.0
        top = high + room
        return cls(text, low - room, min(top, most + 0.02 * room) if unit != 1 else top, False, unit)

    def share(self, value: float) -> float:
        """Where a value stands, from 0 at the low end to 1."""
        value = min(max(value, self.low), self.high)
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    def beyond(self, value: float) -> bool:
        """Whether a value is not on the picture."""
        return not self.low <= value <= self.high

    def ticks(self, most: int) -> list[tuple[float, str]]:
        """(value, text) of round values."""
        low, high = self.low / self.unit, self.high / self.unit
        found = log_ticks(low, high, most) if self.log else linear_ticks(low, high, most)
        if self.log:
            return [(tick * self.unit, short(tick)) for tick in found]
        step = found[1] - found[0] if len(found) > 1 else 1.0
        digits = max(0, -math.floor(math.log10(step) + 1e-9))
        return [(tick * self.unit, f"{tick:.{digits}f}" if abs(tick) < 1e4 else short(tick)) for tick in found]


@dataclass(frozen=True)
class Mark:
    """One candidate; `standing` is one of `report_many.ORDER`, `colour` an index of the page's palette."""

    id: str
    x: float
    y: float
    colour: int
    precision: str
    standing: str
    tip: str = ""
    label: str = ""
    across: tuple[float, float] | None = None
    along: tuple[float, float] | None = None


def draw(
    marks: Sequence[Mark],
    x: Axis,
    y: Axis,
    *,
    width: int,
    height: int,
    name: str,
    steps: bool = False,
    bounds: Sequence[tuple[str, float]] = (),
) -> str:
    """One ``<svg>``. Those with a tip are links to their rows; the others are dots of one path.

    Args:
        marks: of the candidates.
        x: to the right.
        y: upwards.
        width: of the picture.
        height: of the picture.
        name: what it is, for those who hear it.
        steps: whether the front is a line of steps: it has no other objectives than the axes.
        bounds: constraints: ``x`` or ``y`` and the limit.
    """
    plane = Plane(x, y, Box(64, 14, width - 12, height - 46) if width < 700 else Box(64, 16, width - 16, height - 50))
    asked = sorted((m for m in marks if m.tip), key=lambda m: (m.standing == CHOSEN, m.standing in (FRONT, TIE)))
    parts = [_axes(plane, width, height), _bounds(plane, bounds), _dots([m for m in marks if not m.tip], plane)]
    if steps:
        parts.append(_steps(marks, plane))
    parts += [_bars(mark, plane) for mark in asked]
    parts += [_point(mark, plane) for mark in asked]
    parts.append(_labels(asked, plane))
    return f'<svg viewBox="0 0 {width} {height}" role="group" aria-label="{escape(name)}">{"".join(parts)}</svg>'


@dataclass(frozen=True)
class Plane:
    """The drawing area and its axes."""

    across: Axis
    up: Axis
    area: Box

    def x(self, value: float) -> float:
        """Where a value stands."""
        return self.area.left + self.across.share(value) * (self.area.right - self.area.left)

    def y(self, value: float) -> float:
        """Where a value stands."""
        return self.area.bottom - self.up.share(value) * (self.area.bottom - self.area.top)

    def spot(self, mark: Mark) -> tuple[float, float]:
        """Of a marker."""
        return self.x(mark.x), self.y(mark.y)


def _axes(plane: Plane, width: int, height: int) -> str:
    area, narrow, parts = plane.area, width < 700, []
    for value, text in plane.across.ticks(6 if narrow else 12):
        x = plane.x(value)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{area.top}" y2="{area.bottom}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{area.bottom + 17}" text-anchor="middle">{text}</text>')
    for value, text in plane.up.ticks(6):
        y = plane.y(value)
        parts.append(f'<line class="grid" x1="{area.left}" x2="{area.right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{area.left - 8}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
    middle, turn = (area.left + area.right) / 2, f"translate(13 {(area.top + area.bottom) / 2:.0f}) rotate(-90)"
    across = f'x="{middle:.0f}" y="{height - 7}" text-anchor="middle"'
    parts.append(f'<text class="axis" {across}>{escape(plane.across.text)}</text>')
    parts.append(f'<text class="axis" transform="{turn}" text-anchor="middle">{escape(plane.up.text)}</text>')
    return "".join(parts)


def _bounds(plane: Plane, bounds: Sequence[tuple[str, float]]) -> str:
    parts, area = [], plane.area
    for axis, limit in bounds:
        if axis == "x" and not plane.across.beyond(limit):
            parts.append(f'x1="{plane.x(limit):.1f}" x2="{plane.x(limit):.1f}" y1="{area.top}" y2="{area.bottom}"')
        if axis == "y" and not plane.up.beyond(limit):
            parts.append(f'x1="{area.left}" x2="{area.right}" y1="{plane.y(limit):.1f}" y2="{plane.y(limit):.1f}"')
    return "".join(f'<line class="bound" {part}/>' for part in parts)


def _dots(marks: Sequence[Mark], plane: Plane) -> str:
    """All of a colour as one path of lines without length, whose round ends are dots: a dozen bytes for each."""
    parts = []
    for colour in sorted({mark.colour for mark in marks}):
        spots = dict.fromkeys(
            f"M{plane.x(m.x):.0f},{plane.y(m.y):.0f}h0" for m in marks if m.colour == colour and m.standing != OUT
        )
        out = dict.fromkeys(
            f"M{plane.x(m.x):.0f},{plane.y(m.y):.0f}h0" for m in marks if m.colour == colour and m.standing == OUT
        )
        for kind, found in (("dots", spots), ("dots out", out)):
            if found:
                parts.append(f'<path class="{kind} t{colour}" d="{"".join(found)}"/>')
    return "".join(parts)


def _steps(marks: Sequence[Mark], plane: Plane) -> str:
    front = sorted((m for m in marks if m.standing in (CHOSEN, FRONT)), key=lambda m: m.x)
    if not front:
        return ""
    path = f"M{plane.x(front[0].x):.1f},{plane.y(front[0].y):.1f}"
    return f'<path class="front" d="{path}{"".join(f"H{plane.x(m.x):.1f}V{plane.y(m.y):.1f}" for m in front[1:])}"/>'


def _bars(mark: Mark, plane: Plane) -> str:
    (x, y), parts = plane.spot(mark), []
    if mark.across:
        low, high = (plane.x(end) for end in mark.across)
        parts.append(f'<line class="bar t{mark.colour}" x1="{low:.1f}" x2="{high:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
    if mark.along:
        low, high = (plane.y(end) for end in mark.along)
        parts.append(f'<line class="bar t{mark.colour}" x1="{x:.1f}" x2="{x:.1f}" y1="{low:.1f}" y2="{high:.1f}"/>')
    return "".join(parts)


def _point(mark: Mark, plane: Plane) -> str:
    (x, y), size = plane.spot(mark), SIZES[mark.standing]
    ring = ""
    if mark.standing == CHOSEN:
        ring = f'<circle class="ring" cx="{x:.1f}" cy="{y:.1f}" r="{size + RING:.1f}"/>'
    shape = marker(shape_of(mark.precision), x, y, size, 'class="mark"')
    return (
        f'<a class="point {mark.standing} t{mark.colour}" href="#c-{escape(mark.id)}" data-tip="{escape(mark.tip)}">'
        f"<title>{escape(mark.tip)}</title>{ring}{shape}</a>"
    )


def _labels(marks: Sequence[Mark], plane: Plane) -> str:
    """The names of those that have one, each with a line to its marker where it stands apart from it."""
    named = sorted((m for m in marks if m.label), key=lambda m: (m.standing != CHOSEN, plane.spot(m)[1]))
    near = [m for m in marks if any(math.dist(plane.spot(m), plane.spot(n)) < REACH for n in named)][-MOST:]
    taken = [_around(*plane.spot(m), SIZES[m.standing] + (RING if m.standing == CHOSEN else 1)) for m in near]
    taken += [_bar(plane, m) for m in near if m.along]
    wanted = [(_around(*plane.spot(m), RADIUS + RING), 6.9 * len(m.label) + 8) for m in named]
    parts = []
    for mark, box in zip(named, place_labels(wanted, taken, plane.area, 17), strict=True):
        x, y = plane.spot(mark)
        tox, toy = box.nearest(x, y)
        far, reach = math.hypot(tox - x, toy - y), RADIUS + RING
        if far > reach + 12:
            fromx, fromy = x + (tox - x) * reach / far, y + (toy - y) * reach / far
            parts.append(f'<path class="leader" d="M{fromx:.1f},{fromy:.1f}L{tox:.1f},{toy:.1f}"/>')
        kind = "name" if mark.standing == CHOSEN else "name lesser"
        place = f'x="{box.centre[0]:.1f}" y="{box.bottom - 5:.1f}" text-anchor="middle"'
        parts.append(f'<text class="{kind}" {place}>{escape(mark.label)}</text>')
    return "".join(parts)


def _bar(plane: Plane, mark: Mark) -> Box:
    low, high = (plane.y(end) for end in mark.along or (mark.y, mark.y))
    return Box(plane.x(mark.x) - 3, high, plane.x(mark.x) + 3, low)


def _around(x: float, y: float, reach: float) -> Box:
    return Box(x - reach, y - reach, x + reach, y + reach)


def short(value: float) -> str:
    """For a tick: ``0.005``, ``20k``."""
    for power, letter in ((9, "G"), (6, "M"), (3, "k")):
        if abs(value) >= 10**power:
            return f"{value / 10**power:.3g}{letter}"
    return f"{value:.3g}"
