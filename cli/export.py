"""`seatrial export`: convert, quantize, prove, pack."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from . import ui


@click.command("export")
@click.argument("model")
@click.option(
    "--target",
    multiple=True,
    default=("onnxruntime",),
    show_default=True,
    help="onnxruntime, openvino, tflite. May be repeated; a comma list works too.",
)
@click.option("--precision", multiple=True, help="fp32 (default), fp16, bf16, int8; a .tflite or .xml is what it is.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The bundle's folder; of several, their parent.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="That the bundle ships with.")
@click.option("--allow-mismatch", is_flag=True, help="Pack in spite of a failed check; the manifest says so.")
@click.option("--bucket", multiple=True, metavar="AXIS=32,128", help="One bundle for each of these sizes.")
@click.option("--provider", default="", help="cuda, tensorrt, ... (onnxruntime); GPU, NPU, AUTO (openvino).")
@click.option(
    "--require-placement",
    type=ui.Percent(whole=True),
    default=0.0,
    metavar="95%",
    help="Share of the nodes that the provider must run.",
)
@click.option(
    "--cost", type=click.Path(path_type=Path), metavar="CSV", help="Cost matrix: its decision goes into the graph."
)
@click.option("--explain", is_flag=True, help="Show the error of each layer, also when all is well.")
@click.option("--create-env", is_flag=True, help="Make the environments that a route needs.")
@click.option("--in-process", is_flag=True, help="Run the model's own code in this process, for a debugger.")
@click.option("--dry-run", is_flag=True, help="Print routes, gaps known beforehand and what is missing; do nothing.")
@ui.source_options
def command(
    model: str,
    target: tuple[str, ...],
    precision: tuple[str, ...],
    output: Path | None,
    threads: int,
    allow_mismatch: bool,
    bucket: tuple[str, ...],
    provider: str,
    require_placement: float,
    cost: Path | None,
    explain: bool,
    create_env: bool,
    in_process: bool,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Export MODEL for one or more runtimes.

    MODEL is a .py with get_model() (FILE.py:function for another), a .pt2, .onnx, .keras or .h5 file, a SavedModel's
    folder, a .tflite or OpenVINO .xml, timm:NAME?weights=FILE (or random), or hf:DIR.

    Each bundle is proven on its real runtime before it is written; a failed check exits 1 and writes none.

    \b
    seatrial export model.py --target tflite
    seatrial export model.py --target onnxruntime,openvino --precision fp32,int8 --calibration photos/
    """
    from ..exporter import export

    arguments = ui.source_arguments(options)
    if dry_run:
        _dry_run(model, target, precision, arguments, as_json)
        return
    with ui.progress(animated=True) as say:
        made = export(
            model,
            target,
            precision=precision,
            output=output,
            threads=threads,
            allow_mismatch=allow_mismatch,
            bucket=bucket,
            provider=provider,
            require_placement=require_placement,
            cost=cost,
            explain=explain,
            create_env=create_env,
            in_process=in_process,
            say=say,
            **arguments,
        )
    if as_json:
        click.echo(json.dumps([{"bundle": str(e.bundle.path), **e.bundle.manifest} for e in made]))
        return
    _show(made)


def _show(made: list[Any]) -> None:
    from ..exporter.report import unverified, weak

    rows = []
    for one in made:
        proof, parity = one.proof, one.proof.parity
        sqnr = "-" if parity.sqnr_db is None else f"{parity.sqnr_db:.1f}"
        agreement = "-" if parity.agreement is None else f"{parity.agreement:.1%}"
        rows.append(
            [
                str(one.bundle.path),
                one.bundle.target,
                one.bundle.precision,
                proof.placement.get("precision", "?"),
                sqnr,
                agreement,
                f"{one.bundle.manifest['size_bytes'] / 1e6:.1f}",
                " · ".join(one.artifact.route) or "as it came",
            ]
        )
    ui.table(("bundle", "target", "asked", "ran", ">SQNR dB", ">agreement", ">MB", "route"), rows)
    host = made[0].bundle.manifest["proven_on"]
    for one in made:
        if one.proof.accuracy:
            click.echo(f"{one.bundle.path}: {one.proof.accuracy.note}")
        elif one.bundle.precision == "int8" or "evaluate" in one.bundle.manifest["data"]:
            click.echo(f"{one.bundle.path}: {unverified(one.bundle.manifest)}")
        if one.proof.parity.detections:
            click.echo(f"{one.bundle.path}: {one.proof.parity.detections.note}")
        for text in weak(one.bundle.manifest["proof"], one.bundle.manifest["tolerance"]["sqnr_db"]):
            click.echo(f"{one.bundle.path}: {text}")
        for lost in one.bundle.manifest["lost"]:
            click.echo(f"{one.bundle.path}: tried before, and lost: {lost}")
        for problem in one.proof.problems:
            click.echo(f"{one.bundle.path}: MISMATCH, packed because it was allowed: {problem}")
    click.echo(f"Proven on {host['cpu']}; on another machine run the bundle's selftest.py.")
    for one in made:
        if one.depth:
            _show_depth(one)
    paths = " ".join(str(one.bundle.path) for one in made)
    click.echo(f"Next: seatrial bench {paths}")


def _show_depth(one: Any) -> None:
    from ..exporter.api import picture_path
    from ..exporter.proof.layers.depth import HEAD, table

    click.echo(f"\n{one.bundle.path}, layer by layer on {', '.join(one.depth.samples)}:")
    ui.table(tuple(title.replace("SQNR", ">SQNR") for title in HEAD), table(one.depth))
    click.echo(f"Picture: {picture_path(one.bundle.path)}\n")


def _dry_run(
    model: str, target: tuple[str, ...], precision: tuple[str, ...], arguments: dict[str, Any], as_json: bool
) -> None:
    from ..exporter.plan import plan

    rows = plan(model, target, precision, arguments)
    if as_json:
        click.echo(json.dumps(rows))
        return
    ui.table(
        ("target", "route", "usable", "why not, and what to do", "operators"),
        [[r["target"], r["route"], "yes" if r["usable"] else "NO", r["reason"], r["operators"]] for r in rows],
    )
