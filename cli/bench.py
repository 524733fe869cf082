"""`seatrial bench`: time models beside each other, and say which is faster where that is decided."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import TYPE_CHECKING

import click

from . import ui

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..devices.results import ArmSummary, BenchResult

NUMBERS = ("median ms", "interval", "min", "p90", "load ms", "first ms", "peak MB", "launches", "spread")


@click.command("bench")
@click.argument("models", nargs=-1, required=True, metavar="BUNDLE...")
@click.option("--threads", type=click.IntRange(1), help="Threads of every model, instead of each bundle's own.")
@click.option("--launches", type=click.IntRange(2), help="Fresh processes for all models so often. [6, --quick: 4]")
@click.option("--rounds", type=click.IntRange(1), help="Blocks of every model in a launch. [12, --quick: 6]")
@click.option("--quick", is_flag=True, help="Fewer launches and rounds: wider intervals.")
@click.option("--seed", type=int, help="Of the order of rounds, and of the inputs of raw model files.")
@click.option("--store", metavar="URL", help="Keep all measurements there: a SQLite file or a database's URL.")
@click.option("--json", "as_json", is_flag=True, help="Print results and raw samples as JSON, the table on stderr.")
def command(
    models: tuple[str, ...],
    threads: int | None,
    launches: int | None,
    rounds: int | None,
    quick: bool,
    seed: int | None,
    store: str | None,
    as_json: bool,
) -> None:
    """Time bundles, or raw .onnx, .tflite and .xml files, interleaved in fresh processes.

    The table is ordered by speed and shows the precision that really ran. A model that fails is reported and
    the others are measured. Exit: 0 measured, 4 nothing valid was measured.
    """
    from ..devices.bench import bench

    with ui.progress() as say:
        result = bench(
            models,
            threads=threads,
            launches=launches,
            rounds=rounds,
            quick=quick,
            seed=seed,
            store=store,
            progress=say,
        )
    if as_json:
        click.echo(json.dumps(result.to_dict()))
    _show(result, to_stderr=as_json)
    if not result.valid or not any(arm.ok for arm in result.arms):
        raise SystemExit(4)


def _show(result: BenchResult, to_stderr: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(stderr=to_stderr, highlight=False)
    if not console.is_terminal:
        console = Console(stderr=to_stderr, highlight=False, width=150)
    good = [arm for arm in result.arms if arm.ok]
    if good:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for title in ("model", "runtime", "ran"):
            table.add_column(title, overflow="fold")
        for title in NUMBERS:
            table.add_column(title, justify="right", no_wrap=True)
        for arm in good:
            table.add_row(*_row(arm))
        console.print(table)
    for pair in _neighbours(result, good):
        console.print(pair, markup=False, soft_wrap=True)
    for arm in result.arms:
        if not arm.ok:
            console.print(f"FAILED {arm.arm.name} ({arm.status}): {arm.reason}", markup=False, soft_wrap=True)
    console.print(_footer(result, good), markup=False, soft_wrap=True)


def _row(arm: ArmSummary) -> list[str]:
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
    ]


def _neighbours(result: BenchResult, good: list[ArmSummary]) -> Iterator[str]:
    """The order of each model and the next slower one; all pairs stand in the JSON."""
    for one, other in pairwise(good):
        for pair in result.pairs:
            if {pair.a, pair.b} == {one.arm.name, other.arm.name}:
                yield pair.text


def _footer(result: BenchResult, good: list[ArmSummary]) -> str:
    if not good:
        return "NOTHING MEASURED: every model failed"
    lines = []
    if not result.valid and result.canary:
        off = 100 * result.canary.centre
        lines.append(
            f"INVALID: a duplicate of the first model came out {off:+.2f} % off, so no order is given. "
            "Run it again when the machine is quieter."
        )
    cpu = result.facts["identity"]["cpu"]
    share = good[0].latency.confidence if good[0].latency else 0.0
    lines.append(
        f"Intervals of {share:.1%} over launch medians, valid for this session on {cpu}; orders at 1 % for "
        f"all pairs together. {len(result.launches)} launches of {result.plan.rounds} rounds, "
        f"seed {result.seed}, {result.seconds:.0f} s."
    )
    return "\n".join(lines)
