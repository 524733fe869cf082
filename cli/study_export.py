"""`seatrial study export`: every candidate of a finished search as a CSV file, or as trials in an Optuna storage."""

from __future__ import annotations

import json
from pathlib import Path

import click

from . import ui


@click.command("export")
@click.argument("study", type=click.Path(path_type=Path))
@click.option("--csv", type=click.Path(path_type=Path), metavar="FILE", help="A table with one row for each candidate.")
@click.option("--optuna", metavar="URL", help="An Optuna study for each target and device: sqlite:///study.db")
@click.option("--name", help="The Optuna studies are NAME-TARGET or NAME-TARGET@DEVICE. [the study's title]")
@click.option("--overwrite", is_flag=True, help="Replace Optuna studies of these names.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def command(
    study: Path, csv: Path | None, optuna: str | None, name: str | None, overwrite: bool, as_json: bool
) -> None:
    """Write every candidate of STUDY, with the objectives that were added to it, for other tools.

    \b
    seatrial study export out/ --csv candidates.csv
    seatrial study export out/ --optuna sqlite:///study.db && optuna-dashboard sqlite:///study.db
    """
    from ..core.errors import UsageError
    from ..search.study import Study
    from ..search.to_csv import write_csv
    from ..search.to_optuna import write_optuna

    if not csv and not optuna:
        raise UsageError("seatrial study export", "nowhere to write", "add --csv FILE or --optuna URL")
    found, written = Study.read(study), {}
    if csv:
        written["csv"] = {str(csv): write_csv(found, csv)}
    if optuna:
        with ui.progress() as say:
            written["optuna"] = write_optuna(found, optuna, name, overwrite, say)
    if as_json:
        click.echo(json.dumps(written))
        return
    for kind, counts in written.items():
        for where, count in counts.items():
            click.echo(f"{kind}: {where}, {count} {'rows' if kind == 'csv' else 'trials'}")
