"""The report's scatter as inline SVG: latency (log) against a score, with intervals and the front."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

MARKERS = {"fp32": "circle", "fp16": "square", "bf16": "triangle", "int8": "diamond"}
RADIUS = 6.0


@dataclass(frozen=True)
class Point:
    """One measured candidate; `score` is a share (0 to 1), `colour` an index of the page's palette."""

    id: str
    latency_ms: float
    low_ms: float
    high_ms: float
    score: float
    colour: int
    precision: str
    label: str
    tip: str
    feasible: bool = True
    front: bool = False
    chosen: bool = False
    best: bool = False


@dataclass(frozen=True)
class Box:
    """A rectangle on the picture, in its units: left, top, right, bottom."""

    left: float
    top: float
    right: float
    bottom: float

    @property
    def centre(self) -> tuple[float, float]:
        """The middle."""
        return (self.left + self.right) / 2, (self.top + self.bottom) / 2

    def nearest(self, x: float, y: float) -> tuple[float, float]:
        """The point of the rectangle that is nearest to x, y."""
        return min(max(x, self.left), self.right), min(max(y, self.top), self.bottom)

    def overlap(self, other: Box) -> float:
        """Shared area, 0 when they don't touch."""
        wide = min(self.right, other.right) - max(self.left, other.left)
        high = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(wide, 0.0) * max(high, 0.0)

    def outside(self, area: Box) -> float:
        """How far the rectangle sticks out of `area`."""
        return (
            max(area.left - self.left, 0.0)
            + max(self.right - area.right, 0.0)
            + max(area.top - self.top, 0.0)
            + max(self.bottom - area.bottom, 0.0)
        )


@dataclass(frozen=True)
class Frame:
    """The drawing area and its two scales."""

    area: Box
    low_ms: float
    high_ms: float
    low: float
    high: float

    def x(self, latency_ms: float) -> float:
        """Where a latency stands."""
        share = math.log(latency_ms / self.low_ms) / math.log(self.high_ms / self.low_ms)
        return self.area.left + share * (self.area.right - self.area.left)

    def y(self, score: float) -> float:
        """Where a score stands; one below the picture stands on its lower edge."""
        share = (max(score, self.low) - self.low) / (self.high - self.low)
        return self.area.bottom - share * (self.area.bottom - self.area.top)


def draw(
    points: Sequence[Point],
    *,
    width: int,
    height: int,
    score_name: str,
    lines: Sequence[tuple[float, str]] = (),
    floor: float | None = None,
) -> str:
    """One `<svg>`; `lines` are (score, name) to draw across, below `floor` the picture is shaded."""
    frame = _frame(points, [score for score, _ in lines], width, height)
    spots = _spread(points, frame)
    parts = [_shade(frame, floor), _axes(frame, score_name, width, height), _across(frame, lines)]
    parts.append(_front(points, frame))
    order = sorted(points, key=lambda point: (point.best, point.chosen, point.front))
    parts += [_marker(point, spots[point.id], frame) for point in order]
    parts.append(_labels(points, spots, frame))
    name = escape(f"{len(points)} candidates: latency in ms against {score_name}")
    return f'<svg viewBox="0 0 {width} {height}" role="group" aria-label="{name}">{"".join(parts)}</svg>'


def marker(shape: str, x: float, y: float, radius: float, attributes: str) -> str:
    """One marker centred on x, y; the shapes have about the same area."""
    if shape == "circle":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" {attributes}/>'
    corners = {
        "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
        "diamond": [(0.0, -1.25), (1.25, 0.0), (0.0, 1.25), (-1.25, 0.0)],
        "triangle": [(0.0, -1.25), (1.2, 0.9), (-1.2, 0.9)],
    }.get(shape, [(0.0, 1.25), (1.2, -0.9), (-1.2, -0.9)])
    path = " ".join(f"{x + radius * across:.1f},{y + radius * down:.1f}" for across, down in corners)
    return f'<polygon points="{path}" {attributes}/>'


def shape_of(precision: str) -> str:
    """The marker of a precision; one that has none of its own gets a triangle that stands on its tip."""
    return MARKERS.get(precision, "tip")


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """Round values between low and high for a log scale: at least two, at most `most`."""
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    fine = (1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)
    best: list[float] = []
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7), fine, [1 + step / 10 for step in range(90)]):
        found = [step * 10.0**power for power in decades for step in steps]
        found = [value for value in found if low <= value <= high]
        if len(found) > most:
            break
        best = found
    return best if len(best) > 1 else [low, high]


def linear_ticks(low: float, high: float, most: int) -> list[float]:
    """Round values between low and high: steps of 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(power * factor for factor in (1, 2, 5, 10) if (high - low) / (power * factor) <= most)
    first = math.ceil(low / step - 1e-9)
    return [index * step for index in range(first, math.floor(high / step + 1e-9) + 1)]


def place_labels(spots: Sequence[tuple[Box, float]], taken: Sequence[Box], area: Box, height: float) -> list[Box]:
    """A place for each label, given (the box of its marker, the width of its text): near, inside, on nothing.

    Greedy: each label tries places around its marker, farther and farther, and takes the cheapest. Covering
    another label costs most, then leaving the picture, then covering what is `taken`, then a line
    to the marker that crosses something, then distance.
    """
    placed: list[Box] = []
    for spot, wide in spots:
        tries = [(_cost(box, far, spot, taken, placed, area), box) for far, box in _tries(spot, wide, height)]
        placed.append(min(tries, key=lambda entry: entry[0])[1])
    return placed


def _tries(spot: Box, wide: float, height: float) -> list[tuple[float, Box]]:
    """(distance, box) for places around a marker, nearest first."""
    cx, cy = spot.centre
    tries = []
    for far in (2.0, 10.0, 20.0, 32.0, 46.0, 62.0, 80.0, 100.0):
        left, right = spot.left - far - wide, spot.right + far
        above, below = spot.top - far - height, spot.bottom + far
        for top in (above, below):
            places = (cx - wide / 2, spot.left, spot.right - wide, right, left)
            tries += [(far, Box(at, top, at + wide, top + height)) for at in places]
        beside = cy - height / 2
        tries += [(far, Box(at, beside, at + wide, beside + height)) for at in (right, left)]
    return tries


def _cost(box: Box, far: float, spot: Box, taken: Sequence[Box], placed: Sequence[Box], area: Box) -> float:
    cost = far + box.outside(area) * 100 + sum(1000 * box.overlap(other) for other in placed)
    cost += sum(2 * box.overlap(other) for other in taken)
    (x, y), (tox, toy) = spot.centre, box.nearest(*spot.centre)
    steps = [_around(x + (tox - x) * step / 8, y + (toy - y) * step / 8, 1) for step in range(1, 8)]
    others = [other for other in (*taken, *placed) if other.overlap(spot) == 0]
    return cost + 25 * sum(any(other.overlap(step) for step in steps) for other in others)


def _frame(points: Sequence[Point], lines: Sequence[float], width: int, height: int) -> Frame:
    narrow, words = width < 700, 116 if lines else 12  # the names of the lines stand right of the picture
    area = Box(46, 16, width - 12, height - 48) if narrow else Box(64, 18, width - words, height - 54)
    low_ms = min(min(point.low_ms, point.latency_ms) for point in points)
    high_ms = max(max(point.high_ms, point.latency_ms) for point in points)
    margin = max((high_ms / low_ms) ** 0.07, 1.06)
    good = [point.score for point in points if point.feasible] or [point.score for point in points]
    low, high = min([*good, *lines]), max([*good, *lines])
    # One candidate that collapsed to 0 would press all others into a line: far below is pinned to the edge.
    reach = low - max(0.05, 1.5 * (high - low))
    low = min([low, *(point.score for point in points if point.score >= reach)])
    room = max((high - low) * 0.14, 0.008)
    return Frame(area, low_ms / margin, high_ms * margin, low - room, high + 2 * room)


def _spread(points: Sequence[Point], frame: Frame) -> dict[str, tuple[float, float]]:
    """Where each marker is drawn: those of (nearly) equal score that would hide each other are moved apart.

    Only those: moving a marker past one of another score would show the two in the wrong order.
    """
    spots: dict[str, tuple[float, float]] = {}
    level = {point.id: frame.y(point.score) for point in points}
    reach = {point.id: _ring(point) + 1 if point.chosen else 0.9 * RADIUS for point in points}
    order = sorted(points, key=lambda p: (not p.best, not p.chosen, not p.front, p.latency_ms))
    for point in order:
        x, y = frame.x(point.latency_ms), level[point.id]
        near = [(spot, reach[key]) for key, spot in spots.items() if abs(level[key] - y) < RADIUS / 2]
        for step in (0, 1, -1, 2, -2, 3, -3, 4, -4, 5, -5, 6, -6):
            there = min(max(y - step * 1.9 * RADIUS, frame.area.top), frame.area.bottom)
            if all(math.dist((x, there), spot) >= reach[point.id] + other for spot, other in near):
                break
        else:
            there = y
        spots[point.id] = (x, there)
    return spots


def _ring(point: Point) -> float:
    return RADIUS + (8 if point.best else 4.5)


def _shade(frame: Frame, floor: float | None) -> str:
    if floor is None or floor <= frame.low:
        return ""
    area, top = frame.area, frame.y(min(floor, frame.high))
    return (
        f'<rect class="below" x="{area.left}" y="{top:.1f}" width="{area.right - area.left}" '
        f'height="{area.bottom - top:.1f}"/>'
    )


def _axes(frame: Frame, score_name: str, width: int, height: int) -> str:
    area, narrow, parts = frame.area, width < 700, []
    for tick in log_ticks(frame.low_ms, frame.high_ms, 6 if narrow else 12):
        x = frame.x(tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{area.top}" y2="{area.bottom}"/>')
        parts.append(f'<text class="tick" x="{x:.1f}" y="{area.bottom + 18}" text-anchor="middle">{tick:.3g}</text>')
    ticks = linear_ticks(100 * frame.low, min(100 * frame.high, 100), 6)
    digits = max(0, -math.floor(math.log10(ticks[1] - ticks[0]) + 1e-9)) if len(ticks) > 1 else 1
    for tick in ticks:
        y = frame.y(tick / 100)
        parts.append(f'<line class="grid" x1="{area.left}" x2="{area.right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        place = f'x="{area.left - 8}" y="{y + 4:.1f}" text-anchor="end"'
        parts.append(f'<text class="tick" {place}>{tick:.{digits}f}</text>')
    middle = (area.left + area.right) / 2
    parts.append(
        f'<text class="axis" x="{middle:.0f}" y="{height - 8}" text-anchor="middle">latency, ms (log) · faster ←</text>'
    )
    turn = f"translate(13 {(area.top + area.bottom) / 2:.0f}) rotate(-90)"
    parts.append(f'<text class="axis" transform="{turn}" text-anchor="middle">{escape(score_name)}, %</text>')
    return "".join(parts)


def _across(frame: Frame, lines: Sequence[tuple[float, str]]) -> str:
    parts, last = [], -math.inf
    for score, name in sorted(lines, reverse=True):
        y = frame.y(score)
        parts.append(f'<line class="bound" x1="{frame.area.left}" x2="{frame.area.right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        if frame.area.left > 60:  # a narrow picture has no margin for words; the caption names its lines
            last = max(y + 4, last + 14)
            parts.append(f'<text class="tick" x="{frame.area.right + 8}" y="{last:.1f}">{escape(name)}</text>')
    return "".join(parts)


def _front(points: Sequence[Point], frame: Frame) -> str:
    front = sorted((point for point in points if point.front), key=lambda point: point.latency_ms)
    if not front:
        return ""
    path = f"M{frame.x(front[0].latency_ms):.1f},{frame.y(front[0].score):.1f}"
    for point in front[1:]:
        path += f"H{frame.x(point.latency_ms):.1f}V{frame.y(point.score):.1f}"
    return f'<path class="front" d="{path}"/>'


def _marker(point: Point, spot: tuple[float, float], frame: Frame) -> str:
    x, y = spot
    kind = f"t{point.colour}" + ("" if point.feasible else " out")
    parts = [
        f'<line class="interval" x1="{frame.x(point.low_ms):.1f}" x2="{frame.x(point.high_ms):.1f}" '
        f'y1="{y:.1f}" y2="{y:.1f}"/>'
    ]
    if point.chosen:
        parts.append(f'<circle class="ring" cx="{x:.1f}" cy="{y:.1f}" r="{_ring(point):.1f}"/>')
    parts.append(marker(shape_of(point.precision), x, y, RADIUS, 'class="mark"'))
    if point.score < frame.low:
        parts.append(f'<path class="down" d="M{x:.1f},{y + 8:.1f}v9m-4,-4l4,4l4,-4"/>')
    return (
        f'<a class="point {kind}" href="#c-{escape(point.id)}" data-tip="{escape(point.tip)}">'
        f"<title>{escape(point.tip)}</title>{''.join(parts)}</a>"
    )


def _labels(points: Sequence[Point], spots: dict[str, tuple[float, float]], frame: Frame) -> str:
    """The names of the chosen ones, each with a line to its marker where it stands apart from it."""
    # The topmost first: what lies above it is free, and the lines of the others don't have to cross it.
    chosen = sorted((point for point in points if point.chosen), key=lambda point: spots[point.id][1])
    taken = [_around(*spots[point.id], (_ring(point) if point.chosen else RADIUS) + 2) for point in points]
    taken += [_bar(point, spots[point.id], frame) for point in points]
    wanted = [(_around(*spots[point.id], _ring(point) + 2), 6.9 * len(point.label) + 8) for point in chosen]
    parts = []
    for point, box in zip(chosen, place_labels(wanted, taken, frame.area, 18), strict=True):
        x, y = spots[point.id]
        tox, toy = box.nearest(x, y)
        far, reach = math.hypot(tox - x, toy - y), _ring(point)
        if far > reach + 12:
            fromx, fromy = x + (tox - x) * reach / far, y + (toy - y) * reach / far
            parts.append(f'<path class="leader" d="M{fromx:.1f},{fromy:.1f}L{tox:.1f},{toy:.1f}"/>')
        parts.append(
            f'<text class="name" x="{box.centre[0]:.1f}" y="{box.bottom - 5:.1f}" '
            f'text-anchor="middle">{escape(point.label)}</text>'
        )
    return "".join(parts)


def _bar(point: Point, spot: tuple[float, float], frame: Frame) -> Box:
    return Box(frame.x(point.low_ms), spot[1] - 2, frame.x(point.high_ms), spot[1] + 2)


def _around(x: float, y: float, reach: float) -> Box:
    return Box(x - reach, y - reach, x + reach, y + reach)


def log_share(ratio: float, reach: float) -> float:
    """Where a ratio stands on a log scale from 1 / reach to reach, in percent: 1 stands at 50."""
    return 50 + 50 * math.log(ratio) / math.log(reach)
