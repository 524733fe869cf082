"""What `seatrial bench --profile` prints of each model, and what a red `seatrial compare` says of two."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from . import ui

if TYPE_CHECKING:
    from ..devices.results import ArmSummary, BenchResult, Comparison
    from ..targets.profile import Operator, Profile

TOP, CHANGES = 10, 5
"""Operators of a model, and of a comparison; all stand in the JSON."""
WIDTH = 60


def profiles(result: BenchResult, to_stderr: bool) -> None:
    """The slowest operators of each model that was profiled."""
    for arm in result.arms:
        if arm.profile:
            click.echo(f"\n{_title(arm, arm.profile)}", err=to_stderr)
            if arm.profile["nodes"]:
                total = arm.profile["total_us"]
                rows = [_row(node, total) for node in arm.profile["nodes"][:TOP]]
                ui.table(("operator", "name", ">us", ">share", "where", "precision"), rows, to_stderr)


def _title(arm: ArmSummary, profile: Profile) -> str:
    if not profile["nodes"]:
        return f"{arm.arm.name}: no times of operators, {profile['why']}; {_counts(arm)}"
    count = len(profile["nodes"])
    return (
        f"{arm.arm.name}: the {min(TOP, count)} slowest of {count} operators; {profile['total_us'] / 1e3:.3f} ms, "
        f"{profile['unaccounted']:.1%} of it in no operator, by {profile['source']} over "
        f"{profile['runs']} runs"
    )


def _counts(arm: ArmSummary) -> str:
    """What ran and where, by number alone."""
    placed = arm.placement or {}
    where, ops = placed.get("where", {}), placed.get("ops", {})
    most = sorted(ops.items(), key=lambda item: -item[1])[:TOP]
    ran = ", ".join(f"{count} {name}" for name, count in most)
    return f"it ran {' and '.join(f'{count} operators on {name}' for name, count in where.items())}: {ran}"


def _row(node: Operator, total_us: float) -> list[str]:
    calls = f" × {node['calls']:g}" if node["calls"] != 1 else ""
    called = short(node.get("module", "") or node["name"])
    share = ui.percent(node["us"] / total_us if total_us else None)
    return [f"{node['op']}{calls}", called, f"{node['us']:.0f}", share, node["where"], node["precision"] or "-"]


def short(name: str) -> str:
    """The end of a long name: the parts that tell its operators apart stand there."""
    return name if len(name) <= WIDTH else f"…{name[1 - WIDTH :]}"


def slower(result: Comparison) -> list[str]:
    """Which operators take longer in the candidate; nothing where neither was profiled."""
    from ..devices.operators import changes

    one, other = result.base.profile, result.candidate.profile
    if not one or not other:
        return []
    if not one["nodes"] or not other["nodes"]:
        return [f"no times of operators: {one['why'] or other['why']}"]
    found = changes(one, other)
    lines = [f"  {change.text}" for change in found[:CHANGES] if change.more_us > 0]
    size = f"{one['total_us'] / 1e3:.3f} → {other['total_us'] / 1e3:.3f} ms by {other['source']}"
    rest = sum(change.more_us for change in found[len(lines) :])
    return [f"operators that take longer ({size}):", *lines, f"  {rest:+.0f} us  all {len(found) - len(lines)} others"]
