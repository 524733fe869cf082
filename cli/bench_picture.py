"""What `bench` found as one SVG that needs nothing beside it, for light and dark pages: distribution and interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING

from ..devices.stats import block_stat
from ..search.report_plot import linear_ticks, log_ticks

if TYPE_CHECKING:
    from ..devices.results import ArmSummary, BenchResult

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 960, 24, 24, 58, 66
ROW, SHAPE, UNDER = 104, 52, 20
"""Of each model: its height, that of its distribution, and the room below for launches and interval."""
BINS = 180
_LETTER = 6.9

STYLE = """
.bench{--ink:#1f2328;--soft:#6a737d;--rule:#e3e6ea;--page:#fff;--line:#1f6feb;--fill:#1f6feb2e;--bad:#cf222e}
@media(prefers-color-scheme:dark){
.bench{--ink:#e6edf3;--soft:#9198a1;--rule:#30363d;--page:#0d1117;--line:#58a6ff;--fill:#58a6ff33;--bad:#ff7b72}}
.bench text{font:12px system-ui,sans-serif;fill:var(--soft);paint-order:stroke;stroke:var(--page);stroke-width:4px}
.bench .title,.bench .name,.bench .value{font-weight:600;fill:var(--ink)}
.bench .page{fill:var(--page)}
.bench .rule{stroke:var(--rule)}
.bench .shape{fill:var(--fill);stroke:var(--line);stroke-width:1.2;stroke-linejoin:round}
.bench .launch{fill:none;stroke:var(--line);stroke-width:1.2}
.bench .interval{stroke:var(--ink);stroke-width:2.4}
.bench .median{fill:var(--ink)}
.bench .deadline{stroke:var(--bad);stroke-dasharray:5 4}
.bench .late,.bench .failed{fill:var(--bad)}
.bench .over{fill:var(--bad);opacity:.06}
"""


def picture(result: BenchResult) -> str:
    """One ``<svg>``: of each model all timed inferences, the medians of its launches, and the interval.

    Times stand on one scale, logarithmic where the models are far apart. What is beyond the picture is counted.
    """
    good, bad = [arm for arm in result.arms if arm.ok], [arm for arm in result.arms if not arm.ok]
    scale = _Scale(result, good) if good else None
    bottom = TOP + ROW * len(good)
    height = bottom + (BOTTOM if good else 0) + 22 * len(bad) + 12
    models = f"{len(good)} model{'s' * (len(good) != 1)}"
    name = f"Latency of {models}, {result.facts['identity']['cpu']}"
    parts = [
        f'<rect class="page" width="{WIDTH}" height="{height}"/>',
        f'<text class="title" x="{LEFT}" y="24">{escape(name)}</text>',
    ]
    if scale:
        parts.append(_axis(scale, bottom))
        parts.append(_deadline(good, scale, bottom))
        parts += [_row(result, arm, TOP + ROW * i, scale) for i, arm in enumerate(good)]
        parts.append(_legend(result, good, bottom))
    for i, arm in enumerate(bad):
        text = f"{arm.arm.name}: {arm.status}, {arm.reason}"[:130]
        parts.append(
            f'<text class="failed" x="{LEFT}" y="{height - 14 - 22 * (len(bad) - 1 - i)}">{escape(text)}</text>'
        )
    size = f'viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" class="bench" {size} role="img" aria-label="{escape(name)}">'
    return f"{head}<style>{STYLE}</style>{''.join(parts)}</svg>\n"


class _Scale:
    """Where a time stands."""

    def __init__(self, result: BenchResult, good: Sequence[ArmSummary]) -> None:
        lows, highs = [], []
        for arm in good:
            samples = sorted(_samples(result, arm))
            lows.append(samples[len(samples) // 200])
            highs.append(samples[min(len(samples) - 1, math.ceil(0.98 * len(samples)))])
            if arm.latency:
                highs.append(arm.latency.high)
        low, high = min(lows), max(highs)
        for arm in good:
            if arm.late and arm.late.deadline_ms < 1.5 * high:
                low, high = min(low, arm.late.deadline_ms), max(high, arm.late.deadline_ms)
        self.log = high / low > 4
        margin = 0.04 * (math.log(high / low) if self.log else high - low) or 0.01 * low
        self.low = low / math.exp(margin) if self.log else max(low - margin, 0.0)
        self.high = high * math.exp(margin) if self.log else high + margin

    def x(self, ms: float) -> float:
        if self.log:
            share = math.log(max(ms, self.low) / self.low) / math.log(self.high / self.low)
        else:
            share = (ms - self.low) / (self.high - self.low)
        return LEFT + min(max(share, 0.0), 1.0) * (WIDTH - LEFT - RIGHT)

    def ticks(self) -> list[float]:
        return log_ticks(self.low, self.high, 12) if self.log else linear_ticks(self.low, self.high, 10)


def _samples(result: BenchResult, arm: ArmSummary) -> list[float]:
    """All timed inferences, in ms."""
    return [ns / 1e6 for launch in _launches(result, arm) for ns in launch]


def _launches(result: BenchResult, arm: ArmSummary) -> list[list[int]]:
    runs = [launch.arms[arm.arm.name] for launch in result.launches if arm.arm.name in launch.arms]
    return [[ns for block in run.blocks for ns in block] for run in runs if run.ok]


def _axis(scale: _Scale, bottom: int) -> str:
    parts = []
    ticks = scale.ticks()
    step = min(b - a for a, b in pairwise(ticks)) if len(ticks) > 1 else 1.0
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    for tick in ticks:
        x = scale.x(tick)
        label = f"{tick:.3g}" if scale.log else f"{tick:.{digits}f}"
        parts.append(f'<line class="rule" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 8}" y2="{bottom}"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 18}" text-anchor="middle">{label}</text>')
    words = "ms of one inference" + (", on a logarithmic scale" if scale.log else "")
    parts.append(f'<text x="{LEFT}" y="{bottom + 40}">{words} · faster ←</text>')
    return "".join(parts)


def _row(result: BenchResult, arm: ArmSummary, top: int, scale: _Scale) -> str:
    samples, found = _samples(result, arm), arm.latency
    if found is None:
        return ""
    base = top + 24 + SHAPE
    y = base + UNDER / 2
    ran = f"{arm.arm.target} {arm.version or ''}, {arm.ran_precision or 'unknown precision'}"
    ran += f" · {arm.late.share.centre:.2%} later than {arm.late.deadline_ms:g} ms" if arm.late else ""
    digits = 2 if found.centre >= 1 else 4
    value = f"{found.centre:.{digits}f} ms [{found.low:.{digits}f}, {found.high:.{digits}f}]"
    value += f" · {arm.throughput.centre:.1f} / s" if arm.throughput else ""
    name = arm.arm.name if len(arm.arm.name) < 70 else f"{arm.arm.name[:68]}…"
    dots = [
        f'<circle class="launch" cx="{scale.x(block_stat(launch) / 1e6):.1f}" cy="{y}" r="3.4"/>'
        for launch in _launches(result, arm)
    ]
    low, centre, high = (scale.x(x) for x in (found.low, found.centre, found.high))
    beyond = [ms for ms in samples if ms > scale.high]
    far = f"{len(beyond)} of {len(samples)} beyond, up to {max(beyond):.3g} ms →" if beyond else ""
    return (
        f'<g><text x="{LEFT}" y="{top + 12}"><tspan class="name">{escape(name)}</tspan>'
        f'<tspan dx="12">{escape(ran)}</tspan></text>'
        f'<text class="value" x="{WIDTH - RIGHT}" y="{top + 12}" text-anchor="end">{value}</text>'
        f'<path class="shape" d="{_shape(samples, scale, base)}"/>'
        f'<text x="{WIDTH - RIGHT}" y="{y + 4}" text-anchor="end">{far}</text>'
        f'{"".join(dots)}<line class="interval" x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}"/>'
        f'<path class="median" d="M{centre:.1f},{y - 6}l4.5,6l-4.5,6l-4.5,-6z"/></g>'
    )


def _shape(samples: Sequence[float], scale: _Scale, base: int) -> str:
    """The distribution as a smoothed histogram on the picture's own scale, as high as there is room."""
    wide = (WIDTH - LEFT - RIGHT) / BINS
    counts = [0.0] * BINS
    for ms in samples:
        if scale.low <= ms <= scale.high:
            counts[min(int((scale.x(ms) - LEFT) / wide), BINS - 1)] += 1
    kernel = [math.exp(-((i / 1.6) ** 2) / 2) for i in range(-5, 6)]
    smooth = [
        sum(weight * counts[i + j - 5] for j, weight in enumerate(kernel) if 0 <= i + j - 5 < BINS) for i in range(BINS)
    ]
    most = max(smooth) or 1.0
    used = [i for i, value in enumerate(smooth) if value > 0.004 * most] or [0]
    first, last = used[0], used[-1]
    points = [f"{LEFT + (i + 0.5) * wide:.1f},{base - SHAPE * smooth[i] / most:.1f}" for i in range(first, last + 1)]
    start, end = LEFT + (first + 0.5) * wide, LEFT + (last + 0.5) * wide
    return f"M{start:.1f},{base}L{'L'.join(points)}L{end:.1f},{base}z"


def _deadline(good: Sequence[ArmSummary], scale: _Scale, bottom: int) -> str:
    deadline = next((arm.late.deadline_ms for arm in good if arm.late), None)
    if deadline is None:
        return ""
    x = scale.x(deadline)
    text = f"deadline {deadline:g} ms" + (" →" if deadline > scale.high else "")
    left = x + len(text) * _LETTER > WIDTH - RIGHT
    place = f'x="{x - 5:.1f}" text-anchor="end"' if left else f'x="{x + 5:.1f}"'
    # Not across the names and numbers above each row.
    below = "".join(f"M{x:.1f},{TOP + ROW * i + 18}V{TOP + ROW * (i + 1) - 2}" for i in range(len(good)))
    line = (
        f'<rect class="over" x="{x:.1f}" width="{WIDTH - x:.1f}" y="{TOP - 8}" height="{bottom - TOP + 8}"/>'
        f'<path class="deadline" d="M{x:.1f},{TOP - 22}V{TOP - 2}{below}"/>'
    )
    return f'{line if deadline <= scale.high else ""}<text class="late" {place} y="{TOP - 14}">{text}</text>'


def _legend(result: BenchResult, good: Sequence[ArmSummary], bottom: int) -> str:
    share = good[0].latency.confidence if good[0].latency else 0.0
    words = (
        f"area: all inferences · circles: medians of launches · diamond and bar: their median, interval of {share:.1%}"
    )
    if not result.valid:
        words = f"INVALID: a duplicate of the first differed · {words}"
    return f'<text x="{LEFT}" y="{bottom + 58}">{words}</text>'
