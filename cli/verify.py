"""`seatrial verify`: is this bundle what was packed, and does it still answer right here?"""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command("verify")
@click.argument("bundle", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def command(bundle: tuple[Path, ...], as_json: bool) -> None:
    """Check every hash of BUNDLE and replay its golden vectors on this machine's runtime. Exits 1 on a mismatch."""
    from ..exporter.run import verify

    results = {str(path): verify(path) for path in bundle}
    if as_json:
        click.echo(json.dumps(results))
        return
    for path, found in results.items():
        sqnr = found["sqnr_db"]
        words = "" if sqnr is None else (", equal to the bit" if sqnr >= 300 else f", {sqnr:.1f} dB or better")
        click.echo(f"{path}: ok, {found['files']} files, {found['vectors']} golden vectors{words}")
