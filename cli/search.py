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
@click.option("--evaluations", type=click.IntRange(1), help="Models of a study file at most. [the file's, or 40]")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), help="After so many no other model is begun.")
@click.option("--sampler", help="model (the default), random, exhaustive, tpe, tpe-independent or nsga2.")
@click.option("--objective", multiple=True, help="Instead of a study file's, the first decides; added ones, too.")
@click.option("--subject-to", multiple=True, metavar='"latency_ms <= 5"', help="Instead of a study file's constraints.")
@click.option("--tune", is_flag=True, help="Train chosen inherited weights further, though no model came since.")
@click.option("--store", metavar="URL", help="Facts of a study file in a database: postgresql+psycopg://...")
@click.option("--seed", type=int, help="Of the sampler and of the order of measurements. [the file's, or 0]")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The study's folder.")
@ui.source_options
def command(
    model: str,
    target: tuple[str, ...],
    precision: tuple[str, ...],
    threads: str | None,
    confirm: Path | None,
    seed: int | None,
    output: Path,
    as_json: bool,
    **options: Any,
) -> None:
    """Search runtimes, precisions, threads and optimisation levels for the fastest proven form of MODEL.

    Where MODEL is a study file, its models are searched too, by its objectives and constraints, for each
    target and device.
    Writes OUTPUT/best and one bundle per target, report.html and study.json. The same command again goes on
    where it stopped.

    \b
    seatrial search model.py --calibration photos/ --evaluate labelled/ -o out/
    seatrial search study.py --evaluations 40 -o out/
    """
    from . import search_models

    of_study = search_models.is_study(model)
    context = click.get_current_context()
    search_models.check_options(context, of_study, context.params)
    called = shlex.join(["seatrial", *sys.argv[1:]])
    if of_study:
        found = search_models.run(model, output, called, {**options, "seed": seed})
        if as_json:
            click.echo(json.dumps(found.document))
            return
        search_models.show(found)
        click.echo(f"Report: {output / 'report.html'}")
        click.echo(f"Next: seatrial verify {output / 'best'}, or seatrial study select {output} --help")
        return
    from ..search.run import search

    for name in search_models.ALONE:
        options.pop(name)
    counts = ui.counts(threads, "--threads") if threads else None
    with ui.progress() as say:
        study = search(
            model,
            target,
            output=output,
            precision=precision or None,
            threads=counts,
            confirm=confirm,
            seed=seed or 0,
            command=called,
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
