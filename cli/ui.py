"""What commands share: progress on stderr, options that repeat, JSON output."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console


@contextmanager
def progress(animated: bool = False) -> Iterator[Callable[[str], None]]:
    """The running step on one line of a terminal, below what lasts; a line per step elsewhere; always on stderr.

    Args:
        animated: a spinner that redraws itself; never while something is timed, which it would disturb.
    """
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    screen = console(True)
    start = time.monotonic()
    if not screen.is_terminal:
        yield lambda text: click.echo(f"[{time.monotonic() - start:6.1f} s] {text}", err=True)
        return
    step = TextColumn("{task.description}", markup=False)
    columns = (*([SpinnerColumn()] if animated else []), step, TimeElapsedColumn())
    with Progress(*columns, console=screen, auto_refresh=animated, transient=True) as bar:
        task = bar.add_task("starting", total=None)

        def say(text: str) -> None:
            if getattr(text, "lasting", False):
                screen.print(text)
            else:
                bar.update(task, description=text, refresh=True)

        yield say


class Percent(click.ParamType[float]):
    """`5%` or `0.05`; a bare `5` could mean either and is refused."""

    name = "percent"

    def __init__(self, whole: bool = False) -> None:
        self.whole = whole  # whether 100 % makes sense

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """To a fraction."""
        text = str(value).strip()
        try:
            number = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            self.fail(f"{value!r} is not a share; write 5% or 0.05", param, ctx)
        if not (0 <= number < 1 or (self.whole and number == 1)):
            self.fail(f"{value!r} is not between 0 and 100 %; write 5% or 0.05", param, ctx)
        return number


def pairs(values: Sequence[str], option: str) -> dict[str, str]:
    """``("a=1", "b=2")`` as a mapping."""
    found = {}
    for value in values:
        name, equals, text = value.partition("=")
        if not equals or not name:
            raise click.UsageError(f"{option} {value}: write NAME=VALUE")
        found[name] = text
    return found


def shapes(values: Sequence[str]) -> dict[str, list[int]]:
    """``("ids=1,128",)`` as a mapping to sizes."""
    return {name: _numbers(text, ",", f"--shape {name}={text}") for name, text in pairs(values, "--shape").items()}


def ranges(values: Sequence[str]) -> dict[str, list[int]]:
    """``("ids=0:30000",)`` as a mapping to low and high."""
    found = {name: _numbers(text, ":", f"--range {name}={text}") for name, text in pairs(values, "--range").items()}
    for name, limits in found.items():
        if len(limits) != 2 or limits[0] >= limits[1]:
            raise click.UsageError(f"--range {name}: write LOW:HIGH with LOW < HIGH")
    return found


def _numbers(text: str, separator: str, asked: str) -> list[int]:
    try:
        return [int(part) for part in text.split(separator)]
    except ValueError:
        raise click.UsageError(f"{asked}: whole numbers with {separator!r} between them") from None


def limits(timeout_s: float, memory_gib: float | None) -> Any:
    """The limits of converters' processes from ``--timeout`` and ``--memory``."""
    from ..core.process import GIB, Limits

    return Limits(timeout_s, int(memory_gib * GIB) if memory_gib else None)


def source_options(function: Any) -> Any:
    """The options that tell how to read a model, shared by `export` and `search`."""
    for option in reversed(
        [
            click.option("--arg", multiple=True, metavar="NAME=VALUE", help="Given to get_model(). May be repeated."),
            click.option(
                "--inputs", type=click.Path(path_type=Path), help="Example inputs, where none are known: .npz."
            ),
            click.option("--shape", multiple=True, metavar="NAME=1,128", help="Shape to try for an input."),
            click.option("--range", "range_", multiple=True, metavar="NAME=LOW:HIGH", help="Of an integer input."),
            click.option("--dynamic", multiple=True, metavar="AXIS=LOW:HIGH", help="Keep batch, or ids.1, free."),
            click.option("--io-layout", type=click.Choice(("nchw", "nhwc")), help="Of pictures at the boundary."),
            click.option("--embed-preprocessing", is_flag=True, help="Into the graph: it takes uint8 pixels, NHWC."),
            click.option("--detections", default="", metavar="boxes=NAME,scores=NAME", help="Outputs of a detector."),
            click.option("--calibration", type=click.Path(path_type=Path), help="Pictures or .npz; int8 needs it."),
            click.option("--evaluate", type=click.Path(path_type=Path), help="Labelled pictures or .npz."),
            click.option(
                "--max-drop",
                type=click.FloatRange(0, 1),
                default=0.01,
                show_default=True,
                help="Accuracy that int8 may lose.",
            ),
            click.option(
                "--timeout",
                type=click.FloatRange(0, min_open=True),
                default=1800.0,
                show_default=True,
                help="Seconds that a converter may run.",
            ),
            click.option("--memory", type=click.FloatRange(0, min_open=True), help="GiB that a converter may use."),
            click.option("--overwrite", is_flag=True, help="Replace an output that exists, once the new one is whole."),
            click.option("--json", "as_json", is_flag=True, help="Print results as JSON."),
        ]
    ):
        function = option(function)
    return function


def source_arguments(options: dict[str, Any]) -> dict[str, Any]:
    """What `source_options` took, as arguments of the Python API."""
    return {
        "args": pairs(options["arg"], "--arg"),
        "inputs": options["inputs"],
        "shapes": shapes(options["shape"]),
        "ranges": ranges(options["range_"]),
        "dynamic": options["dynamic"],
        "layout": options["io_layout"] or "",
        "embed": options["embed_preprocessing"],
        "detections": options["detections"],
        "calibration": options["calibration"],
        "evaluate": options["evaluate"],
        "max_drop": options["max_drop"],
        "overwrite": options["overwrite"],
        "limits": limits(options["timeout"], options["memory"]),
    }


def console(to_stderr: bool = False, width: int = 160) -> Console:
    """A console that prints text as it is: brackets and colons in a user's text are no markup.

    Elsewhere than on a terminal, which has a width of its own, its lines have `width` letters at most.
    """
    from functools import partial

    from rich.console import Console

    make = partial(Console, stderr=to_stderr, markup=False, emoji=False, highlight=False)
    found = make()
    return found if found.is_terminal else make(width=width)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], to_stderr: bool = False, width: int = 160) -> None:
    """Print a table; a column whose title begins with ``>`` is aligned to the right. For `width` see `console`."""
    from rich.table import Table

    drawn = Table(box=None, pad_edge=False, header_style="bold")
    for title in columns:
        drawn.add_column(title.removeprefix(">"), justify="right" if title.startswith(">") else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*row)
    console(to_stderr, width).print(drawn)


def counts(text: str, option: str) -> list[int]:
    """``"1,2"`` as positive numbers."""
    found = _numbers(text, ",", f"{option} {text}")
    if any(n < 1 for n in found):
        raise click.UsageError(f"{option} {text}: numbers from 1 up")
    return found


def settings(data: dict[str, Any]) -> str:
    """Runtime settings in few words, threads first."""
    rest = [f"{key}={value}" for key, value in sorted(data.items()) if key != "threads"]
    return " ".join([f"{data['threads']} thread{'s' * (data['threads'] > 1)}", *rest])


def interval(candidate: dict[str, Any]) -> str:
    """Latency with its interval where there is one."""
    if candidate["latency_ms"] is None:
        return "-"
    ms = candidate["latency_ms"]
    digits = 2 if ms >= 1 else 4 if ms >= 0.01 or ms <= 0 else 2 - math.floor(math.log10(ms))
    text = f"{candidate['latency_ms']:.{digits}f}"
    if candidate["latency_low_ms"] is None:
        return text
    return f"{text} [{candidate['latency_low_ms']:.{digits}f}, {candidate['latency_high_ms']:.{digits}f}]"


def percent(value: float | None) -> str:
    """A share, or a dash."""
    return "-" if value is None else f"{value:.1%}"


def number(value: float | None) -> str:
    """One decimal, or a dash."""
    return "-" if value is None else f"{value:.1f}"
