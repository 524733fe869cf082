"""`seatrial search`: the fastest proven candidate for each runtime."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import click

from . import ui


@click.command("search")
@click.argument("model")
@click.option(
    "--target",
    multiple=True,
    default=("onnxruntime,openvino,tflite",),
    show_default=True,
    help="May be repeated; a comma list works too.",
)
@click.option("--precision", multiple=True, help="fp32, bf16, int8. [all that can run here]")
@click.option("--threads", help="Counts to try, such as 1,2. [1 and all cores given]")
@click.option("--confirm", type=click.Path(path_type=Path), help="Labelled data that nothing is chosen by.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the order of measurements.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The study's folder.")
@ui.source_options
def command(
    model: str,
    target: tuple[str, ...],
    precision: tuple[str, ...],
    threads: str | None,
    confirm: Path | None,
    seed: int,
    output: Path,
    as_json: bool,
    **options: Any,
) -> None:
    """Search runtimes, precisions, threads and optimisation levels for the fastest proven form of MODEL.

    Writes OUTPUT/best and one bundle per target, report.html and study.json. The same command again goes on
    where it stopped.

    \b
    seatrial search model.py --calibration photos/ --evaluate labelled/ -o out/
    """
    from ..search.run import search

    counts = ui.counts(threads, "--threads") if threads else None
    with ui.progress() as say:
        study = search(
            model,
            target,
            output=output,
            precision=precision or None,
            threads=counts,
            confirm=confirm,
            seed=seed,
            command=shlex.join(["seatrial", *sys.argv[1:]]),
            say=say,
            **ui.source_arguments(options),
        )
    if as_json:
        click.echo(json.dumps(study.document))
        return
    show(study)
    click.echo(f"Report: {output / 'report.html'}")
    click.echo(f"Next: seatrial run {output / 'best'} photo.jpg, or seatrial study select {output} --help")


def show(study: Any) -> None:
    """The table of candidates, what was chosen and what to know."""
    rows = []
    names = {each: name for name, each in reversed(study.winners.items())}
    for c in study.candidates:
        mark = names.get(c["id"], "front" if c["front"] else "")
        rows.append([mark, c["target"], c["precision"], c["ran_precision"] or "-", ui.settings(c["settings"]),
                     ui.interval(c), ui.percent(c["accuracy"]), ui.percent(c["agreement"]),
                     ui.number(c["sqnr_db"]), c["reason"] or ""])  # fmt: skip
    ui.table(
        (
            "chosen",
            "target",
            "asked",
            "ran",
            "settings",
            ">latency ms",
            ">accuracy",
            ">agreement",
            ">dB",
            "why not",
        ),
        rows,
    )
    for each in study.document["comparisons"]:
        click.echo(each["text"])
    for note in study.document["notes"]:
        click.echo(f"note: {note}")
