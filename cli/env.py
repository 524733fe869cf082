"""`seatrial env`: make, list and remove environments."""

from __future__ import annotations

import json
from pathlib import Path

import click

from . import ui


@click.group("env")
def command() -> None:
    """Make, list and remove environments: Pythons of their own for runtimes that can't live beside the others."""


@command.command("create")
@click.argument("name")
@click.option("--python", type=click.Path(path_type=Path), help="Make it with this Python; one is looked for else.")
@click.option("--json", "as_json", is_flag=True, help="Print where it is as JSON.")
def create(name: str, python: Path | None, as_json: bool) -> None:
    """Make the environment NAME (`seatrial env list` shows them), or make a broken one again.

    \b
    seatrial env create onnx2tf
    seatrial env create tflite-runtime --python /usr/bin/python3.11
    """
    from ..devices.environments import make

    with ui.progress(animated=True) as say:
        made = make(name, python, say)
    click.echo(json.dumps({"name": name, "python": str(made)}) if as_json else f"{name} is ready: {made}")


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
def show(as_json: bool) -> None:
    """List all environments: what they are for, whether they are here, what they take."""
    from ..devices.environments import statuses

    rows = [status.to_dict() for status in statuses()]
    if as_json:
        click.echo(json.dumps(rows))
        return
    ui.table(
        ("name", "state", ">MB", "python", "what it is for", "path, or what to type"),
        [
            (row["name"], row["state"], str(row["disk_mb"]), row["python"] or "-", row["what"], _where(row))
            for row in rows
        ],
    )
    for row in rows:
        for text in _remarks(row):
            click.echo(f"{row['name']}: {text}")


@command.command("remove")
@click.argument("name")
def remove(name: str) -> None:
    """Remove the environment NAME, with what older versions of seatrial left of it."""
    from ..devices.environments import remove as take_away

    with ui.progress(animated=True) as say:
        gone = take_away(name, say)
    for folder in gone:
        click.echo(f"removed {folder}")


def _where(row: dict[str, str]) -> str:
    return row["path"] if row["state"] == "ready" else row["todo"]


def _remarks(row: dict[str, str]) -> list[str]:
    remarks = [f"broken: {row['detail']}"] if row["detail"] else []
    remarks += [row["untested"]] if row["untested"] else []
    old = [f"of an older version of seatrial: {folder}" for folder in row["old"]]
    return remarks + old + ([f"`seatrial env remove {row['name']}` takes it away"] if old else [])
