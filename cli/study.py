"""`seatrial study`: read a finished search again, and choose another candidate without measuring."""

from __future__ import annotations

import json
from pathlib import Path

import click

from . import ui


@click.group("study")
def command() -> None:
    """Read a finished search again: show it, select another bundle from it."""


@command.command("show")
@click.argument("study", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the whole document as JSON.")
def show(study: Path, as_json: bool) -> None:
    """Show every candidate of STUDY (the -o of a search), and why it was chosen or not."""
    from ..search.study import Study
    from .search import show as show_study

    found = Study.read(study)
    if as_json:
        click.echo(json.dumps(found.document))
        return
    show_study(found)


@command.command("select")
@click.argument("study", type=click.Path(path_type=Path))
@click.option("--subject-to", multiple=True, metavar='"latency_ms <= 5"', help="A bound. May be repeated.")
@click.option("--maximize", metavar="OBJECTIVE", help="accuracy, agreement, sqnr_db, ...")
@click.option("--minimize", metavar="OBJECTIVE", help="latency_ms (the default), size_bytes, load_ms, ...")
@click.option("--target", multiple=True, help="Only these runtimes.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Pack the selected candidate here.")
@click.option("--overwrite", is_flag=True, help="Replace an output that exists.")
@click.option("--json", "as_json", is_flag=True, help="Print the selected candidate as JSON.")
def select(
    study: Path,
    subject_to: tuple[str, ...],
    maximize: str | None,
    minimize: str | None,
    target: tuple[str, ...],
    output: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Select another candidate of STUDY from what is stored; nothing is measured again.

    \b
    seatrial study select out/ --subject-to "latency_ms <= 5" --maximize accuracy -o bundle/
    """
    from ..exporter.api import listed
    from ..search.study import Study

    found = Study.read(study)
    chosen = found.select(subject_to, maximize, minimize, listed(target))
    if output:
        found.pack(chosen["id"], output, overwrite)
    if as_json:
        click.echo(json.dumps(chosen))
        return
    click.echo(
        f"{chosen['target']} {chosen['precision']}, {ui.settings(chosen['settings'])}: {ui.interval(chosen)} ms, "
        f"accuracy {ui.percent(chosen['accuracy'])}, agreement {ui.percent(chosen['agreement'])}, "
        f"{ui.number(chosen['sqnr_db'])} dB, {chosen['size_bytes'] / 1e6:.1f} MB"
    )
    click.echo(f"packed: {output}" if output else "add -o DIR to pack it")
