"""`seatrial doctor`: what can be used here, and what to type for the rest."""

from __future__ import annotations

import json
import platform
import sys
from importlib import metadata
from typing import Any

import click

from . import ui

LIBRARIES = {
    "torch": "torch",
    "onnx": "torch",
    "onnxscript": "torch",
    "litert-torch": "litert-torch",
    "nncf": "openvino",
    "ai-edge-quantizer": "tflite",
    "timm": "timm",
}
"""Libraries that converters need → the extra of ours that brings them."""


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Print the facts as JSON.")
def command(as_json: bool) -> None:
    """Say which runtimes and converters are here, what this machine is, and what to type for what is missing."""
    from ..devices.facts import host_facts

    facts: dict[str, Any] = {"host": host_facts(), "targets": _targets(), "libraries": _libraries()}
    if as_json:
        click.echo(json.dumps(facts))
        return
    host = facts["host"]["identity"]
    click.echo(f"seatrial {metadata.version('seatrial')}, Python {platform.python_version()}, {sys.executable}")
    click.echo(f"{host['cpu']}, {host['cores']} cores, {host['memory_gib']} GiB, {host['os']} {host['machine']}")
    click.echo(f"vector instructions: {', '.join(host['flags']) or 'none known'}\n")
    ui.table(
        ("target", "version", "precisions here", "to do"),
        [[t["name"], t["version"] or "-", ", ".join(t["precisions"]), t["todo"]] for t in facts["targets"]],
    )
    click.echo()
    ui.table(
        ("library", "version", "to do"),
        [[p["name"], p["version"] or "-", p["todo"]] for p in facts["libraries"]],
    )


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


def _libraries() -> list[dict[str, Any]]:
    from ..targets.base import version_of

    rows = []
    for name, extra in LIBRARIES.items():
        version = version_of(name)
        rows.append({"name": name, "version": version, "todo": "" if version else f'pip install "seatrial[{extra}]"'})
    return rows
