"""`seatrial study`: read a finished search again, and choose another candidate without measuring."""

from __future__ import annotations

import json
from pathlib import Path

import click

from . import ui
from .study_export import command as export
from .study_objectives import command as objectives
from .study_objectives import show_objectives
from .study_report import command as report


@click.group("study")
def command() -> None:
    """Read a finished search again: show it, select from it, judge it by something else, report it, export it."""


for each in (objectives, report, export):
    command.add_command(each)


@command.command("show")
@click.argument("study", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the whole document as JSON.")
def show(study: Path, as_json: bool) -> None:
    """Show the candidates of STUDY (the -o of a search), and why each was chosen or not; of many models the fronts."""
    from ..search.study import Study
    from . import search, search_models

    found = Study.read(study)
    if as_json:
        click.echo(json.dumps(found.document))
        return
    (search_models if "models" in found.document else search).show(found)
    show_objectives(found)


@command.command("select")
@click.argument("study", type=click.Path(path_type=Path))
@click.option("--subject-to", multiple=True, metavar='"latency_ms <= 5"', help="A bound. May be repeated.")
@click.option("--maximize", metavar="OBJECTIVE", help="accuracy, agreement, sqnr_db, ...")
@click.option("--minimize", metavar="OBJECTIVE", help="latency_ms (the default), size_bytes, load_ms, ...")
@click.option("--target", multiple=True, help="Only these runtimes; of a study's device tflite@one-core, @one-core.")
@click.option("--confidence", type=click.FloatRange(0, 1), help="With which bounds must be met. [point estimates]")
@click.option(
    "--cost", type=click.Path(path_type=Path), metavar="CSV", help="Cost matrix: its decision goes into the graph."
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Pack the selected candidate here.")
@click.option("--overwrite", is_flag=True, help="Replace an output that exists.")
@click.option("--json", "as_json", is_flag=True, help="Print the selected candidate as JSON.")
def select(
    study: Path,
    subject_to: tuple[str, ...],
    maximize: str | None,
    minimize: str | None,
    target: tuple[str, ...],
    confidence: float | None,
    cost: Path | None,
    output: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Select another candidate of STUDY from what is stored; nothing is measured again.

    \b
    seatrial study select out/ --subject-to "latency_ms <= 5" --maximize accuracy -o bundle/
    """
    from ..exporter.api import listed
    from ..search.candidate import place_of
    from ..search.choose import Bound
    from ..search.study import Study

    found = Study.read(study)
    chosen = found.select(subject_to, maximize, minimize, listed(target), confidence)
    if output:
        # By a cost matrix a candidate is chosen for what its decisions cost: they go into its graph.
        asked = [chosen["objective"]["name"], *(Bound.read(text).name for text in subject_to)]
        found.pack(chosen["id"], output, overwrite, cost or found.costs_of(asked, chosen["target"]))
    if as_json:
        click.echo(json.dumps(chosen))
        return
    click.echo(
        f"{place_of(chosen)} {chosen['precision']}, {ui.settings(chosen['settings'])}: {ui.interval(chosen)} ms, "
        f"accuracy {ui.percent(chosen['accuracy'])}, agreement {ui.percent(chosen['agreement'])}, "
        f"{ui.number(chosen['sqnr_db'])} dB, {chosen['size_bytes'] / 1e6:.1f} MB"
    )
    if chosen["objective"]["name"] not in chosen:
        click.echo(f"{chosen['objective']['name']}: {chosen['objective']['value']:.4g}")
    for bound in chosen["bounds"]:
        click.echo(f"{bound['bound']}: it has {bound['value']:.4g}, p = {bound['probability']:.3g}")
    click.echo(f"packed: {output}" if output else "add -o DIR to pack it")
