"""`seatrial doctor --devices`: what can be measured on, and what may disturb it."""

from __future__ import annotations

import sys
from typing import Any

import click

from . import ui


def facts() -> dict[str, Any]:
    """This machine, the runtimes of every environment in it, and the profiles that restrict it."""
    from dataclasses import asdict

    from ..devices.device_profile import device_profile, names
    from ..devices.facts import host_facts
    from ..devices.lease import holder

    local = {**host_facts(), "name": "local", "runtimes": _runtimes(), "held": holder("local")}
    return {"devices": [local], "profiles": [{"name": name, **asdict(device_profile(name))} for name in names()]}


def _runtimes() -> list[dict[str, str]]:
    """Of this interpreter, and of the environments that are ready."""
    from .. import targets
    from ..core import environments

    found = [
        {"environment": "this one", "python": sys.executable, "runtime": name, "version": targets.get(name).version()}
        for name in targets.names()
        if targets.get(name).probe() is None
    ]
    for env in environments.TABLE.values():
        python = environments.ready(env.name)
        # An environment that is named after a runtime is there to run it; others convert.
        if python and any(pin.startswith(f"{env.name}==") for pin in env.pins):
            version = environments.pinned(env.name, env.name)
            found.append({"environment": env.name, "python": str(python), "runtime": env.name, "version": version})
    return found


def show(found: dict[str, Any]) -> None:
    """As text."""
    for device in found["devices"]:
        identity, moment = device["identity"], device["moment"]
        click.echo(f"device {device['name']}: {identity['cpu']}, {identity['os']} {identity['machine']}")
        gpus = [("GPU", f"{g['name']}, {g['memory_gib']} GiB, driver {g['driver']}") for g in device["gpus"]]
        for what, value in _lines(identity, moment, device["held"]) + gpus:
            click.echo(f"  {what:15} {value}")
        rows = [[r["runtime"], r["version"], r["environment"], r["python"]] for r in device["runtimes"]]
        click.echo()
        ui.table(("runtime", "version", "environment", "python"), rows)
    click.echo()
    rows = [[p["name"], p["description"]] for p in found["profiles"]]
    ui.table(("profile (bench --device)", "what a session gets"), rows)


def _lines(identity: dict[str, Any], moment: dict[str, Any], held: str | None) -> list[tuple[str, str]]:
    load = f"{moment['load'][0]:.2f} runnable in the last minute" if moment["load"] else "unknown"
    busy = bool(moment["load"]) and moment["load"][0] > identity["cores"] / 2
    return [
        ("cores", f"{identity['cores']} ({', '.join(map(str, moment['cores']))})"),
        ("memory", f"{identity['memory_gib']} GiB"),
        ("vectors", ", ".join(identity["flags"]) or "none known"),
        ("governor", moment["governor"] or "not told"),
        ("virtualisation", moment["virtualisation"] or "none seen"),
        ("CPU quota", moment["cgroup_cpu_max"] or "none"),
        ("load", f"{load}: `seatrial noise` says what can be resolved" if busy else load),
        ("lease", held or "free"),
    ]
