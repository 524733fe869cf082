"""`seatrial doctor`: what can be used here, what is known to break, and what to type for the rest."""

from __future__ import annotations

import json
import platform
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from . import ui


@click.command("doctor")
@click.option("--devices", is_flag=True, help="Only what can be measured on: this machine, its runtimes, profiles.")
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
def command(devices: bool, as_json: bool) -> int:
    """Say which runtimes, sources and converters can be used here, which versions are known to break, what to type.

    Exits 1 where a combination of versions is known to be broken; what is merely missing is no failure.
    """
    if devices:
        from . import doctor_devices

        found = doctor_devices.facts()
        if as_json:
            click.echo(json.dumps(found))
        else:
            doctor_devices.show(found)
        return 0
    facts = _facts()
    broken = any(problem["level"] == "broken" for problem in facts["problems"])
    if as_json:
        click.echo(json.dumps(facts))
    else:
        _show(facts)
    return int(broken)


def _facts() -> dict[str, Any]:
    from ..devices.environments import statuses
    from ..devices.facts import host_facts
    from . import versions

    found = versions.installed()
    return {
        "host": host_facts(),
        "accelerators": _accelerators(),
        "targets": _targets(),
        "sources": _sources(),
        "converters": _converters(),
        "environments": [status.to_dict() for status in statuses()],
        "problems": [*versions.known_bad(found), *versions.conflicts(found)],
    }


def _show(facts: dict[str, Any]) -> None:
    host = facts["host"]["identity"]
    click.echo(f"seatrial {metadata.version('seatrial')}, Python {platform.python_version()}, {sys.executable}")
    click.echo(f"{host['cpu']}, {host['cores']} cores, {host['memory_gib']} GiB, {host['os']} {host['machine']}")
    click.echo(f"vector instructions: {', '.join(host['flags']) or 'none known'}")
    click.echo(f"accelerators: {', '.join(facts['accelerators']) or 'none seen'}")
    _table(
        ("target", "version", "precisions here", "to do"),
        [[t["name"], t["version"] or "-", ", ".join(t["precisions"]) or "-", t["todo"]] for t in facts["targets"]],
    )
    for title in ("source", "converter"):
        rows = [[row["name"], "yes" if row["usable"] else "no", row["todo"]] for row in facts[f"{title}s"]]
        _table((title, "usable", "to do"), rows)
    _table(
        ("environment", "state", "MB on disk", "to do"),
        [[e["name"], e["state"], str(e["disk_mb"]), e["todo"]] for e in facts["environments"]],
    )
    if not facts["problems"]:
        click.echo("\nno version here is known to break anything")
    for problem in facts["problems"]:
        click.echo(
            f"\n{'BROKEN' if problem['level'] == 'broken' else 'careful'}: {problem['found']}: {problem['what']}"
        )
        click.echo(f"  to do: {problem['todo']}\n  source: {' '.join(problem['source'])}")


def _table(columns: tuple[str, ...], rows: list[list[str]]) -> None:
    click.echo()
    ui.table(columns, rows)


def _targets() -> list[dict[str, Any]]:
    from .. import targets
    from ..devices.facts import cpu_flags

    found = []
    for name in targets.names():
        target = targets.get(name)
        missing = target.probe()
        precisions = [] if missing else list(target.precisions(cpu_flags()))
        todo = missing.todo if missing else ""
        found.append({"name": name, "version": target.version(), "precisions": precisions, "todo": todo})
    return found


def _sources() -> list[dict[str, Any]]:
    from ..exporter.sources import KINDS

    return [_row(name, kind.needs, kind.extra) for name, kind in KINDS.items()]


def _converters() -> list[dict[str, Any]]:
    from ..exporter.convert import STEPS

    return [_row(step.label, step.needs, step.extra) for step in STEPS]


def _row(name: str, needs: tuple[str, ...], extra: str) -> dict[str, Any]:
    missing = [module for module in needs if find_spec(module) is None]
    todo = f'pip install "seatrial[{extra}]"' if missing else ""
    return {"name": name, "usable": not missing, "missing": missing, "todo": todo}


def _accelerators() -> list[str]:
    """Device files of graphics and neural processors; whether a runtime can use one, `--provider` tells."""
    patterns = ("nvidia[0-9]*", "dri/renderD*", "accel/accel*", "kfd")
    return [str(path) for pattern in patterns for path in sorted(Path("/dev").glob(pattern))]
