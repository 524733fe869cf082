"""What `seatrial bench` prints: a table by speed, then what is decided and what isn't."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from rich.table import Table

from . import ui

if TYPE_CHECKING:
    from ..devices.results import ArmSummary, BenchResult

NUMBERS = ("median ms", "interval", "min", "p90", "load ms", "first ms", "peak MB", "launches", "spread", "% limit")
RATES = ("samples/s", "interval")
WIDTH = 160


def show(result: BenchResult, to_stderr: bool) -> None:
    """Print a result; on stderr where stdout holds the JSON."""
    good = [arm for arm in result.arms if arm.ok]
    rates = any(arm.arm.batch or arm.throughput for arm in good)
    console = ui.console(to_stderr, WIDTH + 30 * rates)
    if good:
        gpu = any(arm.gpu_bytes for arm in good)
        titles = (*NUMBERS, *("GPU MB",) * gpu, *RATES * rates)
        console.print(_table(titles, [_row(arm, rates, gpu) for arm in good]))
    for line in _neighbours(result, good):
        console.print(line, soft_wrap=True)
    for arm in result.arms:
        if not arm.ok:
            console.print(f"FAILED {arm.arm.name} ({arm.status}): {arm.reason}", soft_wrap=True)
    percents = [p.percent for p in good[0].percentiles] if good else []
    if percents:
        rows = [[arm.arm.name, *("-" if p.ms is None else f"{p.ms:.3f}" for p in arm.percentiles)] for arm in good]
        console.print()
        console.print(_table(("ms", *(f"p{p:g}" for p in percents)), rows, texts=1))
    for line in (*_missing(result, good), *_deadline(good), *_footer(result, good)):
        console.print(line, soft_wrap=True)


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 3) -> Table:
    """With names on the left; of the first table also runtime and precision."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    titles = titles if texts == 1 else ("model", "runtime", "ran", *titles)
    for i, title in enumerate(titles):
        name = i < texts
        table.add_column(title, justify="left" if name else "right", no_wrap=not name, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _row(arm: ArmSummary, rates: bool, gpu: bool) -> list[str]:
    latency = arm.latency
    if latency is None:
        return [arm.arm.name]
    peak = f"{arm.peak_rss_bytes / 1e6:.0f}" if arm.peak_rss_bytes else "-"
    return [
        arm.arm.name,
        f"{arm.arm.target} {arm.version or ''} × {arm.arm.settings.get('threads', '?')}",
        arm.ran_precision or "unknown",
        f"{latency.centre:.3f}",
        f"{latency.low:.3f} to {latency.high:.3f}",
        f"{arm.samples_ms['min_ms']:.3f}",
        f"{arm.samples_ms['p90_ms']:.3f}",
        f"{arm.load_ms:.1f}",
        f"{arm.first_ms:.2f}",
        peak,
        str(arm.launches),
        f"{arm.spread:.1%}",
        "-" if arm.limit is None else f"{arm.limit:.0%}",
        *([f"{sum(arm.gpu_bytes.values()) / 1e6:.0f}" if arm.gpu_bytes else "-"] if gpu else ()),
        *(_rates(arm) if rates else ()),
    ]


def _rates(arm: ArmSummary) -> tuple[str, str]:
    """Samples in a second with their interval: of concurrent streams counted, else what the latency makes of them."""
    batch = arm.arm.batch or 1
    if arm.throughput:
        centre, low, high = (batch * x for x in (arm.throughput.centre, arm.throughput.low, arm.throughput.high))
    elif arm.latency:
        centre, low, high = (1e3 * batch / x for x in (arm.latency.centre, arm.latency.high, arm.latency.low))
    else:
        return "-", "-"
    return f"{centre:.1f}", f"{low:.1f} to {high:.1f}"


def _neighbours(result: BenchResult, good: Sequence[ArmSummary]) -> Iterator[str]:
    """The order of each model and the next slower one that does the same work; all pairs stand in the JSON."""
    loads = dict.fromkeys((arm.arm.batch, arm.arm.streams) for arm in good)
    for load in loads:
        for one, other in pairwise([arm for arm in good if (arm.arm.batch, arm.arm.streams) == load]):
            for pair in result.pairs:
                if {pair.a, pair.b} == {one.arm.name, other.arm.name}:
                    yield pair.text


def _missing(result: BenchResult, good: Sequence[ArmSummary]) -> Iterator[str]:
    """Which percentiles have too few samples, and what brings them."""
    for percent in [p.percent for p in good[0].percentiles] if good else []:
        short = [(arm, p) for arm in good for p in arm.percentiles if p.percent == percent and p.ms is None]
        if short:
            arm, least = min(short, key=lambda entry: entry[1].samples)
            launches = math.ceil(least.needed * arm.launches / least.samples)
            yield (
                f"p{percent:g} needs {least.needed} samples and {arm.arm.name} has {least.samples}: "
                f"give --launches {launches}, or more --rounds"
            )


def _deadline(good: Sequence[ArmSummary]) -> Iterator[str]:
    for arm in good:
        if arm.late:
            found, share = arm.late, arm.late.share
            means = {
                "LATE": "proven to be more",
                "ON TIME": "proven to be less",
                "INCONCLUSIVE": "NOT PROVEN either way, give more --launches",
            }[found.verdict]
            yield (
                f"{found.verdict} {arm.arm.name}: {found.late} of {found.samples} inferences took longer than "
                f"{found.deadline_ms:g} ms, {share.centre:.2%} [{share.low:.2%}, {share.high:.2%}], "
                f"{found.allowed:.2%} allowed: {means}"
            )


def _footer(result: BenchResult, good: Sequence[ArmSummary]) -> Iterator[str]:
    if not good:
        yield "NOTHING MEASURED: every model failed"
        return
    if not result.valid and result.canary:
        off = 100 * result.canary.centre
        yield (
            f"INVALID: a duplicate of the first model came out {off:+.2f} % off, so no order is given. "
            "Run it again when the machine is quieter."
        )
    alternating = sum(launch.alternating for launch in result.launches)
    if alternating:
        yield (
            f"The models don't fit into memory together: in {alternating} launches they took turns (A B B A), "
            "which cancels a drift of the machine and not a disturbance of one turn."
        )
    where = " and ".join(
        [result.facts["identity"]["cpu"], *dict.fromkeys(name for arm in good for name in arm.gpu_bytes)]
    )
    share = good[0].latency.confidence if good[0].latency else 0.0
    for threads, rate in sorted(result.peaks.items()):
        yield (
            f"% limit: multiply-adds per second, of the {rate / 1e9:.1f} G/s that numpy's float32 matrix product "
            f"reached here on {threads} thread{'s' * (threads > 1)}; only fp32 is told"
        )
    yield (
        f"Intervals of {share:.1%} over launch medians, valid for this session on {where}; orders at 1 % for "
        f"all pairs together. {len(result.launches)} launches of {result.launches[-1].rounds} rounds, "
        f"seed {result.seed}, {result.seconds:.0f} s."
    )
