"""`seatrial noise`: what a latency gate can resolve on this machine."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from . import ui

if TYPE_CHECKING:
    from ..devices.noise import Kind, Noise

VERDICTS = ("PASS", "REGRESS", "INCONCLUSIVE", "INVALID")


@click.command("noise")
@click.argument("model", required=False, type=click.Path(path_type=Path), metavar="[BUNDLE]")
@click.option("--sessions", type=click.IntRange(1), default=10, show_default=True, help="Of each kind, in all runs.")
@click.option("--slower", type=ui.Percent(), multiple=True, help="A true slowdown to be caught; repeat it. [5%]")
@click.option("--tolerate", type=ui.Percent(), default="1%", show_default=True, help="As in compare.")
@click.option("--detect", type=ui.Percent(), help="As in compare. [5%, --quick: 10%]")
@click.option("--quick", is_flag=True, help="Sessions as of compare --quick.")
@click.option("--threads", type=click.IntRange(1), help="Of every model.")
@click.option("--busy", type=click.IntRange(0), default=0, help="Processes that keep the machine busy meanwhile.")
@click.option("--file", type=click.Path(path_type=Path), help="Where sessions add up, instead of the cache folder.")
@click.option("--json", "as_json", is_flag=True, help="Print results as JSON, the table on stderr.")
def command(
    model: Path | None,
    sessions: int,
    slower: tuple[float, ...],
    tolerate: float,
    detect: float | None,
    quick: bool,
    threads: int | None,
    busy: int,
    file: Path | None,
    as_json: bool,
) -> None:
    """How often would `seatrial compare` be wrong on this machine?

    Compares a model with itself (BUNDLE, or a chain of equal blocks) and the chain with one that has exactly so many
    blocks more. Sessions add up over runs: stop it when you like, and the same command goes on.
    """
    from ..devices.noise import Setup, noise

    wanted = dict.fromkeys((0.0, *(slower or (0.05,))), sessions)
    with ui.progress() as say:
        found = noise(
            wanted,
            model=model,
            setup=Setup(tolerate, detect, quick, threads, busy),
            file=file,
            progress=say,
        )
    if as_json:
        click.echo(json.dumps(found.to_dict()))
    _show(found, as_json)


def _show(found: Noise, to_stderr: bool) -> None:
    columns = ("sessions", ">n", *(f">{v}" for v in VERDICTS), ">right, 95 %", ">off by", ">half-width", ">launches")
    ui.table(columns, [_row(kind) for kind in found.kinds], to_stderr)
    for line in _words(found):
        click.echo(line, err=to_stderr)


def _row(kind: Kind) -> list[str]:
    counts = [str(kind.verdicts.get(verdict, 0)) for verdict in VERDICTS]
    right = f"{kind.right.low:.0%} to {kind.right.high:.0%}"
    off = f"{kind.off[0]:.2%}, at most {kind.off[1]:.2%}" if kind.off else "-"
    width = f"± {kind.half_width:.2%}" if kind.half_width is not None else "-"
    return [kind.name, str(kind.sessions), *counts, right, off, width, f"{kind.launches:.1f}"]


def _words(found: Noise) -> list[str]:
    lines = []
    for kind in found.kinds:
        if not kind.sessions:
            continue
        count, most = kind.verdicts.get("REGRESS", 0), kind.share("REGRESS")
        if kind.slower:
            lines.append(f"+{kind.slower:.0%} was caught in {count} of {kind.sessions}: in {most.low:.0%} at least.")
        else:
            lines.append(f"False alarms: {count} of {kind.sessions}; the true rate is {most.high:.1%} at most.")
    silent = sum(kind.verdicts.get(word, 0) for kind in found.kinds for word in ("INVALID", "INCONCLUSIVE"))
    if silent:
        lines.append(f"{silent} sessions said nothing: a quieter machine decides more.")
    host = found.about["host"]
    runtimes = ", ".join(f"{name} {version}" for name, version in found.about["runtimes"].items())
    busy = found.about["setup"]["busy"]
    load = f", {busy} kept busy by other processes" if busy else ""
    minutes = sum(kind.minutes for kind in found.kinds)
    lines.append(f"{host['cpu']}, {host['cores']} cores{load}; {runtimes}; {minutes:.0f} minutes in all.")
    return lines
