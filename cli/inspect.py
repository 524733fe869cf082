"""`seatrial inspect`: what is inside a bundle or a model file, without running it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from . import ui

MOST_OPS = 12


@click.command("inspect")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print all facts as JSON.")
def command(path: Path, as_json: bool) -> None:
    """Say what is inside PATH: a bundle, an .onnx, a .tflite or an OpenVINO IR (.xml).

    Inputs and outputs, sizes, precision, operators, and for a bundle its settings, its proof and where it comes from.
    Nothing in the file is run.
    """
    from ..exporter.inspect import inspect

    found = inspect(path)
    if as_json:
        click.echo(json.dumps(found))
        return
    _show(found)


def _show(found: Mapping[str, Any]) -> None:
    files = ", ".join(f"{f['name']} {_size(f['size_bytes'])}" for f in found["files"])
    click.echo(f"{found['path']}: {found['kind']}, {_size(found['size_bytes'])} ({files})")
    for key, value in found["made_by"].items():
        if value and key != "operator_versions":
            click.echo(f"{key.replace('_', ' ')}: {_words(value)}")
    if found["inputs"]:
        click.echo()
        rows = [[side[:-1], s["name"], s["dtype"], _shape(s)] for side in ("inputs", "outputs") for s in found[side]]
        ui.table(("", "name", "dtype", "shape"), rows)
    _show_numbers(found)
    if found["bundle"]:
        _show_bundle(found["bundle"])
    for note in found["notes"]:
        click.echo(f"note: {note}")


def _show_numbers(found: Mapping[str, Any]) -> None:
    stored = found["parameters"]
    if stored is None:
        return
    kinds = ", ".join(f"{dtype} {row['count']:,}" for dtype, row in stored["by_dtype"].items())
    click.echo(f"\nparameters: {stored['count']:,} in {_size(stored['size_bytes'])}" + (f" ({kinds})" if kinds else ""))
    if found["heavy"]:
        heavy = ", ".join(f"{name}: {n}" for name, n in found["heavy"].items())
        click.echo(f"precision: {found['precision']} (operators that do the arithmetic: {heavy})")
    if found["macs"] is not None:
        missed = found["macs_not_counted"]
        more = f"; not counted: {_counts(missed)}" if missed else ""
        click.echo(f"multiply-adds: {found['macs'] / 1e6:,.1f} million{more}")
    elif found["macs_not_counted"]:
        click.echo(f"multiply-adds: unknown, the sizes are not all fixed ({_counts(found['macs_not_counted'])})")
    click.echo(f"operators: {sum(found['ops'].values())} ({_counts(found['ops'])})")
    if found["nested_ops"]:
        click.echo(f"in branches and loops: {sum(found['nested_ops'].values())} ({_counts(found['nested_ops'])})")


def _show_bundle(bundle: Mapping[str, Any]) -> None:
    parity, source = bundle["parity"], bundle["source"] or {}
    click.echo(f"\nbundle: {bundle['name']} for {bundle['target']}, {bundle['precision']}; hashes {bundle['hashes']}")
    click.echo(f"settings: {ui.settings({'threads': 1, **(bundle['settings'] or {})})}")
    click.echo(f"source: {source.get('kind')} {source.get('id')}, reference: {source.get('reference')}")
    click.echo(f"route: {' · '.join(bundle['route'] or []) or 'as it came'}")
    click.echo(f"tools: {_words(bundle['tools'] or {})}")
    sqnr = "-" if parity["sqnr_db"] is None else f"{parity['sqnr_db']:.1f} dB"
    verdict = "ok" if parity["ok"] else "FAILED"
    agreement = "" if parity["agreement"] is None else f", top-1 agreement {parity['agreement']:.1%}"
    click.echo(f"parity: {verdict}, {sqnr} over {parity['samples']} samples{agreement}")
    click.echo(f"proven on: {', '.join(str(v) for v in bundle['proven_on'].values() if v) or 'not said'}")
    for use, data in (bundle["data"] or {}).items():
        click.echo(f"{use.replace('_', ' ')} data: {data['name']}, {data['n']} samples, {data['id']}")
    for problem in bundle["problems"]:
        click.echo(f"MISMATCH, packed because it was allowed: {problem}")
    click.echo(f"licence of the weights: {bundle['licence'] or 'not stated'}")


def _size(count: int | None) -> str:
    if count is None:
        return "MISSING"
    return f"{count:,} B" if count < 10_000 else f"{count / 1e6:.2f} MB"


def _shape(spec: Mapping[str, Any]) -> str:
    limits = "" if spec.get("low") is None else f", {spec['low']} to {spec['high'] - 1}"
    return f"[{', '.join(map(str, spec['shape']))}]{limits}"


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {text}" for key, text in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _counts(counts: Mapping[str, int]) -> str:
    shown = [f"{kind} {n}" for kind, n in list(counts.items())[:MOST_OPS]]
    more = len(counts) - len(shown)
    return ", ".join(shown) + (f", and {more} more types" if more > 0 else "")
