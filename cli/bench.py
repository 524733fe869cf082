"""`seatrial bench`: time models beside each other, and say which is faster where that is decided."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import ui

if TYPE_CHECKING:
    from ..devices.arms import Arm
    from ..devices.results import BenchResult

UNITS_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@click.command("bench")
@click.argument("models", nargs=-1, metavar="BUNDLE...")
@click.option("--threads", metavar="1,2", help="Threads of every model, instead of each bundle's own.")
@click.option("--batch", metavar="1,8", help="Size of the first axis of every input.")
@click.option("--set", "settings", multiple=True, metavar="KEY=A,B", help="Runtime settings to try; or TARGET.KEY=A,B.")
@click.option(
    "--concurrency", metavar="1,2,4", help="So many inferences at once, each on --threads threads: how many/s."
)
@click.option("--shape", multiple=True, metavar="NAME=1,128", help="Sizes of an input that leaves them free.")
@click.option("--range", "ranges", multiple=True, metavar="NAME=LOW:HIGH", help="Of an integer input of a raw file.")
@click.option("--inputs", type=click.Path(path_type=Path), help="Arrays to time with: an .npz, one for each input.")
@click.option("--device", metavar="PROFILE", help="Limits of every model: one-core, small, or a .toml's path.")
@click.option("--python", multiple=True, metavar="PATH", help="Open the models in this interpreter. May be repeated.")
@click.option("--deadline", metavar="33ms", help="Say how many inferences took longer; exit 1 where that is too many.")
@click.option("--miss", type=ui.Percent(), default="1%", show_default=True, help="Share that may miss the deadline.")
@click.option("--strict", is_flag=True, help="Exit 3 where nothing is proven about the deadline.")
@click.option("--percentiles", metavar="50,99,99.9", help="Show these, where there are enough samples for them.")
@click.option("--profile", is_flag=True, help="Also show which operators took the time, as each runtime tells it.")
@click.option("--launches", type=click.IntRange(2), help="Fresh processes for all models so often. [6, --quick: 4]")
@click.option(
    "--rounds", type=click.IntRange(1), help="In a launch, of 40 ms a model, split where it can be. [12, --quick: 6]"
)
@click.option("--quick", is_flag=True, help="Fewer launches and rounds: wider intervals.")
@click.option("--seed", type=int, help="Of the order of rounds, and of the inputs of raw model files.")
@click.option("--store", metavar="URL", help="Keep all measurements there: a SQLite file or a database's URL.")
@click.option("--history", is_flag=True, help="Time nothing: show the figures in --store over time, and changes.")
@click.option("--picture", type=click.Path(path_type=Path), help="Draw distributions and intervals into this .svg.")
@click.option("--json", "as_json", is_flag=True, help="Print results and raw samples as JSON, the table on stderr.")
def command(
    models: tuple[str, ...], picture: Path | None, strict: bool, as_json: bool, history: bool, **options: Any
) -> None:
    """Time bundles, or raw .onnx, .tflite and .xml files, interleaved in fresh processes.

    The table is ordered by speed and shows the precision that really ran. A model that fails is reported and
    the others are measured. Several threads, batches, settings or concurrencies make a grid: each combination
    is timed beside the others.

    Exit: 0 measured, 4 nothing valid was measured. With --deadline also 1 where a model is proven to miss it more
    often than --miss, 3 where neither is proven (--strict), 4 where a model failed.

    \b
    seatrial bench out/onnxruntime out/openvino out/tflite --deadline 33ms
    seatrial bench model.onnx --shape ids=1,128 --range ids=0:30000 --threads 1,2
    """
    from ..devices.bench import bench
    from .bench_history import bench_history
    from .bench_text import show
    from .profile_text import profiles

    if picture:
        _check_picture(picture)
    if history:
        bench_history(models, options["store"], as_json)
        return
    if not models:
        raise click.UsageError("give bundles or model files to time, or --history with --store")
    arguments = _arguments(options)
    with ui.progress() as say:
        result = bench(models, **arguments, macs=_macs(), progress=say)
    if as_json:
        click.echo(json.dumps(result.to_dict()))
    show(result, to_stderr=as_json)
    profiles(result, to_stderr=as_json)
    if picture:
        _draw(result, picture)
    code = exit_code(result, strict)
    if code:
        raise SystemExit(code)


def exit_code(result: BenchResult, strict: bool) -> int:
    """See the command's help."""
    good = [arm for arm in result.arms if arm.ok]
    if not result.valid or not good:
        return 4
    verdicts = {arm.late.verdict for arm in good if arm.late}
    if "LATE" in verdicts:
        return 1
    if verdicts and len(good) < len(result.arms):
        return 4
    return 3 if strict and "INCONCLUSIVE" in verdicts else 0


def _arguments(options: dict[str, Any]) -> dict[str, Any]:
    """Options as arguments of `devices.bench.bench`."""
    for name in ("threads", "batch", "concurrency"):
        options[name] = ui.counts(options[name], f"--{name}") if options[name] else None
    deadline, percentiles, shapes = (options.pop(name) for name in ("deadline", "percentiles", "shape"))
    return {
        **options,
        "settings": {key: _values(text) for key, text in ui.pairs(options["settings"], "--set").items()},
        "shapes": ui.shapes(shapes),
        "ranges": ui.ranges(options["ranges"]),
        "deadline_ms": _ms(deadline) if deadline else None,
        "percentiles": _percents(percentiles) if percentiles else (),
    }


def _values(text: str) -> list[str | int]:
    """What the options of runtimes take: whole numbers and words."""
    return [int(value) if value.isdecimal() else value for value in text.split(",")]


def _ms(text: str) -> float:
    number = text.rstrip("usm ")
    unit = text[len(number) :].strip() or "ms"
    try:
        return float(number) * UNITS_MS[unit]
    except (KeyError, ValueError):
        raise click.UsageError(f"--deadline {text}: write 33ms, 1.5s or 800us") from None


def _percents(text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise click.UsageError(f"--percentiles {text}: write numbers with ',' between them, as 50,99,99.9") from None


def _macs() -> Callable[[Arm], float | None]:
    """Multiply-adds of one inference, where the file tells all its sizes."""
    from ..core.errors import SeatrialError
    from ..exporter.inspect import inspect

    @cache
    def found(artifact: str) -> tuple[int | None, Sequence[Any]]:
        try:
            inside = inspect(artifact)
        except SeatrialError:  # it can't be read here: then its share of the limit isn't known
            return None, ()
        counted = inside["macs"] if not inside["macs_not_counted"] else None
        return counted, inside["inputs"][0]["shape"] if inside["inputs"] else ()

    def macs(arm: Arm) -> float | None:
        count, shape = found(arm.artifact)
        if count is None or arm.batch is None or not shape:
            return count
        return count * arm.batch / shape[0] if isinstance(shape[0], int) else None

    return macs


def _check_picture(file: Path) -> None:
    """Before minutes are spent."""
    from ..core.errors import UsageError

    if file.suffix != ".svg":
        raise UsageError(
            f"--picture {file}", f"a file {file.suffix or 'without a suffix'}", "give a name that ends in .svg"
        )
    if not file.absolute().parent.is_dir():
        raise UsageError(f"--picture {file}", "its folder isn't there", "make the folder, or give another name")


def _draw(result: BenchResult, file: Path) -> None:
    from ..core.paths import whole_file
    from .bench_picture import picture

    with whole_file(file) as part:
        part.write_text(picture(result))
    click.echo(f"Picture: {file}", err=True)
