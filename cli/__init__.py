"""The command line: one module per command, loaded when it is called; errors become exit codes here."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from typing import Any

import click

# Name → one line of help. The modules are imported only when a command runs: `--help` stays fast.
COMMANDS = {
    "init": "Write a model.py to fill in for your own checkpoint.",
    "export": "Convert, quantize, prove and pack a model for a runtime.",
    "inspect": "Say what is inside a bundle, an .onnx, a .tflite or an OpenVINO IR.",
    "run": "Run one input (a photo or an .npz) through a bundle.",
    "verify": "Check a bundle's hashes and replay its golden vectors here.",
    "bench": "Time bundles side by side, interleaved, with intervals.",
    "compare": "Say whether a candidate is slower than a baseline: a gate for CI.",
    "noise": "Say how often compare would be wrong on this machine.",
    "search": "Find the best proven form of a model, or of a study's models.",
    "study": "Use a finished search: show, select, report, export, objectives.",
    "env": "Make, list and remove environments of runtimes that can't live beside the others.",
    "doctor": "Say what can be used here, and what to type for the rest.",
}

DEFAULTS = "seatrial.toml"
"""In the working folder: a table per command with defaults for its options."""

EPILOG = (
    "Exit codes: 0 ok, 1 a check failed, 2 usage, 3 inconclusive (--strict), 4 nothing measured, "
    "5 can't be done here, 130 interrupted."
)


class Lazy(click.Group):
    """A group that knows its commands by name and imports them when they run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of use, not of the alphabet."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The real command when it runs; a name with a line of help when all are listed."""
        if cmd_name not in COMMANDS:
            return None
        if ctx.meta.get("listing"):
            return click.Command(cmd_name, help=COMMANDS[cmd_name])
        module = importlib.import_module(f".{cmd_name}", __name__)
        command: click.Command = module.command
        if os.path.exists(DEFAULTS):
            ctx.default_map = {cmd_name: _defaults(command)}
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List all commands without importing one."""
        ctx.meta["listing"] = True
        super().format_commands(ctx, formatter)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Suggest the nearest name for one that isn't there."""
        import difflib

        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0], list(COMMANDS), n=1)
            hint = f" Did you mean {near[0]!r}?" if near else f" Known: {', '.join(COMMANDS)}."
            raise click.UsageError(f"No such command {args[0]!r}.{hint}", ctx)
        return super().resolve_command(ctx, args)


def _defaults(command: click.Command) -> dict[str, Any]:
    """The command's table in ``seatrial.toml``: names of long options and their values."""
    from pathlib import Path

    from ..core.config import read_toml, refuse_unknown
    from ..core.errors import UsageError

    tables = read_toml(Path(DEFAULTS))
    refuse_unknown(tables, COMMANDS, DEFAULTS)
    options = [p for p in command.params if isinstance(p, click.Option)]
    named = {word.removeprefix("--"): p for p in options for word in p.opts if word.startswith("--")}
    where = f"[{command.name}] of {DEFAULTS}"
    table = tables.get(str(command.name), {})
    if not isinstance(table, dict):
        raise UsageError(where, f"it is {table!r}, not a table", f"write [{command.name}], and its options below it")
    if getattr(command, "has_entries", False):
        table = {key: value for key, value in table.items() if not isinstance(value, dict)}
    refuse_unknown(table, named, where)
    return {str(named[key].name): _default(named[key], value) for key, value in table.items()}


def _default(option: click.Option, value: Any) -> Any:
    """A lone value of an option that repeats counts as one use of it, as on the command line."""
    return [value] if option.multiple and not isinstance(value, list) else value


@click.group(
    cls=Lazy,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.option("--debug", is_flag=True, help="Show tracebacks of errors.")
@click.version_option(package_name="seatrial")
def cli(debug: bool) -> None:
    """A model goes in; a deployable that has been proven on the real runtime comes out."""


def main(argv: list[str] | None = None) -> None:
    """Run a command and leave with its exit code."""
    from ..core.errors import Interrupted, SeatrialError

    argv = sys.argv[1:] if argv is None else argv
    debug = "--debug" in argv
    if debug:  # it may stand anywhere
        argv = ["--debug", *(word for word in argv if word != "--debug")]
    signal.signal(signal.SIGTERM, _terminate)
    try:
        code = cli.main(args=argv, prog_name="seatrial", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        _end(Interrupted("interrupted", "children were ended, nothing half-written was left"), debug)
    except SeatrialError as error:
        _end(error, debug)
    except BrokenPipeError:
        # Whoever read our output has gone; Python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        if debug:
            raise
        todo = "this is a fault of seatrial: run it again with --debug and report what it prints"
        _end(SeatrialError("an unexpected error", f"{type(error).__name__}: {error}", todo), debug)


def _terminate(signum: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _end(error: Any, debug: bool) -> None:
    from ..core.process import end_all

    end_all()
    if debug:
        import traceback

        traceback.print_exc()
    click.echo(f"error: {error}" if error.exit_code != 130 else "interrupted", err=True)
    sys.exit(error.exit_code)
