"""The error along the depth of a network as one SVG that needs nothing beside it, for light and dark pages."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from .depth import Depth, Row

WIDTH, HEIGHT = 960, 352
LEFT, RIGHT, TOP, BOTTOM = 52, 16, 58, 66
_LETTER = 6.6
"""About the width of one letter, in the picture's units."""

STYLE = """
.depth{--ink:#1f2328;--soft:#6a737d;--rule:#e3e6ea;--page:#fff;--line:#1f6feb;--bad:#cf222e;--bar:#9a6700}
@media(prefers-color-scheme:dark){
.depth{--ink:#e6edf3;--soft:#9198a1;--rule:#30363d;--page:#0d1117;--line:#58a6ff;--bad:#ff7b72;--bar:#e3b341}}
.depth text{font:12px system-ui,sans-serif;fill:var(--soft)}
.depth .title{font-weight:600;fill:var(--ink)}
.depth .page{fill:var(--page)}
.depth .rule{stroke:var(--rule)}
.depth .line{fill:none;stroke:var(--line);stroke-width:1.6}
.depth .dot{fill:var(--line)}
.depth .bar{stroke:var(--bar);stroke-dasharray:5 4}
.depth .needed{fill:var(--bar)}
.depth .bad{stroke:var(--bad)}
.depth .mark{fill:var(--bad)}
.depth .name{fill:var(--bad);font-weight:600}
"""


def picture(depth: Depth) -> str:
    """One ``<svg>``: SQNR in dB of each layer in the order of execution, the bar, and the culprit.

    Layers that a converter folded into others have no dot; a layer's name shows when the pointer rests on its dot.
    """
    scale = _Scale(depth)
    name = f"SQNR along the depth of the network, {depth.target}, {depth.precision}"
    parts = [
        f'<rect class="page" width="{WIDTH}" height="{HEIGHT}"/>',
        f'<text class="title" x="{LEFT}" y="18">{escape(name)}</text>',
        _rules(scale),
        _stages(depth.rows, scale),
        _bar(depth, scale),
        _line(depth.rows, scale),
        _culprit(depth, scale),
    ]
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" class="depth" {size} role="img" aria-label="{escape(name)}">'
    return f"{head}<style>{STYLE}</style>{''.join(parts)}</svg>"


class _Scale:
    """Where a row and an SQNR stand."""

    def __init__(self, depth: Depth) -> None:
        values = [row.sqnr_db for row in depth.rows if row.sqnr_db is not None]
        # Equal to the bit is written as 300 dB, and nothing is learned below zero.
        usual = [value for value in values if value < 200]
        self.low = 10 * math.floor(max(min([0.0, *values]), -20) / 10)
        self.high = 20 * math.ceil((max([depth.bar_db, *usual]) + 10) / 20)
        self.step = 20 if self.high - self.low > 80 else 10
        self.count = max(len(depth.rows), 2)

    def x(self, index: int) -> float:
        return LEFT + 8 + index * (WIDTH - LEFT - RIGHT - 16) / (self.count - 1)

    def y(self, value_db: float) -> float:
        inside = min(max(value_db, self.low), self.high)
        return HEIGHT - BOTTOM - (inside - self.low) * (HEIGHT - TOP - BOTTOM) / (self.high - self.low)


def _rules(scale: _Scale) -> str:
    parts = [f'<text x="{LEFT - 8}" y="{TOP - 12}" text-anchor="end">dB</text>']
    for value in range(scale.low, scale.high + 1, scale.step):
        y = scale.y(value)
        parts.append(f'<line class="rule" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value}</text>')
    return "".join(parts)


def _stages(rows: Sequence[Row], scale: _Scale) -> str:
    """Names of the network's parts under the picture, where they begin and there is room."""
    parts, free, before = [], 0.0, ""
    y = HEIGHT - BOTTOM
    for i, stage in enumerate(_stage_names(rows)):
        x = scale.x(i)
        if stage and stage != before:
            parts.append(f'<line class="rule" x1="{x:.1f}" x2="{x:.1f}" y1="{y}" y2="{y + 6}"/>')
            if x >= free and x + len(stage) * _LETTER < WIDTH:
                parts.append(f'<text x="{x:.1f}" y="{y + 20}">{escape(stage)}</text>')
                free = x + (len(stage) + 1.5) * _LETTER
        before = stage or before
    parts.append(f'<text x="{LEFT}" y="{HEIGHT - 12}">depth: modules in the order of execution →</text>')
    return "".join(parts)


def _stage_names(rows: Sequence[Row]) -> list[str]:
    """The beginning of each row's path: one part of it, and another while one name covers much of the network."""
    parts = [row.path.replace("/", ".").strip(".").split(".") for row in rows]
    names = [path[0] for path in parts]
    for level in (2, 3):
        many = {name for name in names if names.count(name) > 0.4 * len(names)}
        names = [".".join(path[:level]) if name in many else name for path, name in zip(parts, names, strict=True)]
    return [name[:28] for name in names]


def _bar(depth: Depth, scale: _Scale) -> str:
    y = scale.y(depth.bar_db)
    text = f"the outputs' bar: {depth.bar_db:g} dB"
    return (
        f'<line class="bar" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="needed" x="{LEFT + 4}" y="{y - 5:.1f}">{text}</text>'
    )


def _line(rows: Sequence[Row], scale: _Scale) -> str:
    spots = [(scale.x(i), row.sqnr_db, row) for i, row in enumerate(rows) if row.sqnr_db is not None]
    if not spots:
        return ""
    path = "M" + "L".join(f"{x:.1f},{scale.y(value):.1f}" for x, value, _ in spots)
    dots = [
        f'<circle class="dot" cx="{x:.1f}" cy="{scale.y(value):.1f}" r="2.6">'
        f"<title>{escape(f'{row.path} {row.type}: {value:.1f} dB')}</title></circle>"
        for x, value, row in spots
    ]
    return f'<path class="line" d="{path}"/>{"".join(dots)}'


def _culprit(depth: Depth, scale: _Scale) -> str:
    """A line where the culprit stands, and its name above the picture, on the side that has room."""
    found = depth.culprit
    if not found:
        return ""
    x = scale.x(found.row)
    text = f"{depth.mark}: {found.path or 'the model'}, {found.type}"
    wide = len(text) * _LETTER * 1.1
    left = min(max(x - wide / 2, LEFT), WIDTH - RIGHT - wide)
    tip = f"{x:.1f},{TOP - 2} {x - 5:.1f},{TOP - 10} {x + 5:.1f},{TOP - 10}"
    return (
        f'<line class="bad" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 2}" y2="{HEIGHT - BOTTOM}"/>'
        f'<polygon class="mark" points="{tip}"/>'
        f'<text class="name" x="{left:.1f}" y="{TOP - 14}">{escape(text)}</text>'
    )
