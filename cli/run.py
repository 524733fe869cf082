"""`seatrial run`: one input through a bundle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click


@click.command("run")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--top", type=click.IntRange(1), default=5, show_default=True, help="Classes to show.")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write all outputs to this .npz.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(bundle: Path, file: Path, top: int, output: Path | None, as_json: bool) -> None:
    """Run FILE (a photo, or an .npz with an array per input) through BUNDLE and print what comes out."""
    from ..exporter.run import load

    model = load(bundle)
    feed = model.read(file)
    outputs, milliseconds = model.glance(feed)
    classes, batch = model.top(outputs, top), model.batch(outputs)
    if output:
        _write(output, outputs)
    if as_json:
        facts = {name: {"dtype": str(a.dtype), "shape": list(a.shape)} for name, a in outputs.items()}
        click.echo(json.dumps({"top": classes, "samples": batch, "outputs": facts, "milliseconds": milliseconds}))
        return
    for name, array in outputs.items():
        extent = f", from {array.min():.4g} to {array.max():.4g}" if array.size else ""
        click.echo(f"{name}: {array.dtype}{list(array.shape)}{extent}")
    if batch > 1:
        click.echo(f"the first of {batch} samples:")
    for label, chance in classes:
        click.echo(f"{chance:7.1%}  {label}")
    threads = model.bundle.settings.get("threads", 1)
    click.echo(
        f"{milliseconds:.2f} ms for one run, {threads} thread{'s' * (threads > 1)}, {model.bundle.target} "
        f"{model.bundle.precision} (a glance: `seatrial bench {bundle}` measures)"
    )


def _write(path: Path, outputs: dict[str, Any]) -> None:
    import numpy as np

    from ..core.paths import whole_file

    with whole_file(path) as part, part.open("wb") as file:
        np.savez(file, allow_pickle=False, **outputs)
