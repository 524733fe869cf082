"""`seatrial compare`: a gate on latency, red only for a proven slowdown and never green by silence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import ui

if TYPE_CHECKING:
    from ..devices.family import Case
    from ..devices.results import Comparison
    from .gate_cases import Entry, Given
    from .gate_result import Benchmark, Run

_FILE = click.Path(path_type=Path, dir_okay=False, allow_dash=True)
_OF_THE_EXPORT = ("target", "precision", "calibration", "arg")


class Compare(click.Command):
    """The gate itself, or with ``accept`` as its first word the command of that name."""

    has_entries = True  # tables below [compare] in seatrial.toml are benchmarks, no options

    def make_context(self, info_name: str | None, args: list[str], *rest: Any, **extra: Any) -> click.Context:
        """The context of the command that is meant."""
        if args[:1] == ["accept"]:
            from .gate_accept import command as accept

            return accept.make_context(f"{info_name} accept", args[1:], *rest, **extra)
        return super().make_context(info_name, args, *rest, **extra)


@click.command("compare", cls=Compare)
@click.argument("paths", nargs=-1, metavar="[BASE] [CANDIDATE]")
@click.option("--base-ref", metavar="REF", help="Build the same model at this git ref as the base.")
@click.option("--base-hash", metavar="HASH", help="The base is the stored bundle whose manifest.sha256 begins so.")
@click.option("--baselines", type=click.Path(path_type=Path), help="The folder of stored bundles.")
@click.option("--only", multiple=True, metavar="NAME", help="Of the entries in seatrial.toml. May be repeated.")
@click.option("--tolerate", type=ui.Percent(), default="1%", show_default=True, help="Red when proven slower by more.")
@click.option("--detect", type=ui.Percent(), help="Green only when such a slowdown is excluded. [5%, --quick: 10%]")
@click.option("--quick", is_flag=True, help="One look at 5 launches of fewer rounds: weaker.")
@click.option("--strict", is_flag=True, help="INCONCLUSIVE exits 3 instead of 0.")
@click.option("--allow-new", is_flag=True, help="NEW doesn't fail where another benchmark was compared.")
@click.option("--threads", type=click.IntRange(1), help="Threads of both, instead of each bundle's own.")
@click.option("--device", metavar="PROFILE", help="Limits of both: one-core, small, or a .toml's path.")
@click.option("--python", metavar="PATH", help="Open both in this interpreter.")
@click.option("--base-python", metavar="PATH", help="Open the base in this one: what does an upgrade cost?")
@click.option("--seed", type=int, help="Of the order of rounds, and of the inputs of raw model files.")
@click.option("--store", metavar="URL", help="Keep all measurements there: a SQLite file or a database's URL.")
@click.option("--target", multiple=True, help="With --base-ref: as in export, like the next three.")
@click.option("--precision", multiple=True, help="fp32 (default), fp16, bf16, int8.")
@click.option("--calibration", type=click.Path(path_type=Path), help="Pictures or .npz; int8 needs it.")
@click.option("--arg", multiple=True, metavar="NAME=VALUE", help="Given to get_model(). May be repeated.")
@click.option("--json", "json_file", type=_FILE, metavar="FILE", help="Verdicts and raw samples; - prints them.")
@click.option("--junit", type=_FILE, metavar="FILE", help="JUnit XML.")
@click.option("--markdown", type=_FILE, metavar="FILE", help="A summary, added to what FILE holds.")
@click.option("--github-benchmark", type=_FILE, metavar="FILE", help="What github-action-benchmark reads.")
def command(paths: tuple[str, ...], **options: Any) -> None:
    """Is CANDIDATE slower than BASE? Both are measured here and now, beside a duplicate of BASE as a canary.

    \b
    seatrial compare BASE CANDIDATE              two bundles or model files
    seatrial compare --base-ref main model.py    a model against itself at a git ref; both are exported now
    seatrial compare --base-hash 1a2b3c BUNDLE   against a bundle of --baselines
    seatrial compare                             the [compare.NAME] entries of seatrial.toml
    seatrial compare accept NAME ...             accept a slowdown for a while

    PASS exits 0, REGRESS 1. INCONCLUSIVE exits 0 and says so, or 3 with --strict. INVALID (the canary failed), MISSING
    (one of them didn't run) and NEW (there is no base) exit 4: nothing valid was compared. Of several benchmarks, 1
    comes before 4, and 4 before 3.
    """
    from ..devices.accept import FILE, read
    from ..devices.family import compare_all

    accepted = read(Path(FILE))
    with ui.progress() as say, _cases(paths, options, say) as (cases, again):
        found = compare_all(cases, quick=options["quick"], seed=options["seed"], store=options["store"], progress=say)
    from .gate_result import Run

    named = [
        _judged(case.name, one, f"{again(case)} --seed {one.seed}", accepted)
        for case, one in zip(cases, found, strict=True)
    ]
    run = Run(named, options["strict"], options["allow_new"], options["quick"])
    _write(run, options)
    if run.exit_code:
        raise SystemExit(run.exit_code)


def _write(run: Run, options: dict[str, Any]) -> None:
    """All reports that are asked for; the words go to stderr where one of them is printed."""
    from . import gate_reports
    from .gate_text import report

    makers = {
        "json_file": gate_reports.as_json,
        "junit": gate_reports.junit,
        "markdown": gate_reports.markdown,
        "github_benchmark": gate_reports.github_benchmark,
    }
    printed = False
    for name, make in makers.items():
        file = options[name]
        if file is None:
            continue
        if str(file) == "-":
            printed = True
            click.echo(make(run), nl=False)
        else:
            gate_reports.write(file, make(run), add=name == "markdown")
    click.echo("\n".join(report(run)), err=printed)


def _judged(name: str, result: Comparison, reproduce: str, accepted: Any) -> Benchmark:
    from ..devices.accept import applied, today
    from .gate_result import Benchmark

    green, note = applied(accepted, name, result.base.arm.artifact_id, result.decision, today())
    return Benchmark(name, result, reproduce, green, note)


@contextmanager
def _cases(paths: tuple[str, ...], options: dict[str, Any], say: Any) -> Iterator[Any]:
    """The cases, and a function that gives the command which repeats one of them."""
    from ..devices.family import Case
    from . import gate_cases

    ctx = click.get_current_context()
    base = [name for name in ("base_ref", "base_hash") if options[name]]
    _check(ctx, paths, options, base)
    if len(paths) == 2:
        margins = {name: options[name] for name in gate_cases.MEASURING}
        case = Case(Path(paths[1]).name, paths[0], paths[1], **margins)
        yield [case], lambda each: _command(paths, options, _rule(each, options["quick"]))
        return
    given = _given(ctx, options)
    found = [_lone(paths[0], options)] if paths else gate_cases.entries()
    wanted = gate_cases.only(found, options["only"])
    with gate_cases.cases(found, wanted, given, say) as cases:
        yield cases, lambda each: _command(paths or each, options, _rule(each, options["quick"]))


def _check(ctx: click.Context, paths: tuple[str, ...], options: dict[str, Any], base: list[str]) -> None:
    """Refuse words that don't go together."""
    typed = _typed(ctx, (*base, *_OF_THE_EXPORT, "only"))
    if len(paths) > 2:
        raise click.UsageError(f"{len(paths)} paths; give BASE and CANDIDATE")
    if len(paths) == 1 and not base:
        raise click.UsageError("one path; give BASE and CANDIDATE, or --base-ref REF with a MODEL")
    if len(paths) == 2 and typed:
        raise click.UsageError(f"--{sorted(typed)[0].replace('_', '-')} with both BASE and CANDIDATE: leave one away")
    if len(paths) != 1 and typed & set(_OF_THE_EXPORT):
        option = sorted(typed & set(_OF_THE_EXPORT))[0]
        raise click.UsageError(f"--{option} goes with --base-ref and a MODEL; entries have keys of their own")
    if len(paths) == 1 and len(base) > 1:
        raise click.UsageError("--base-ref and --base-hash: give one")


def _typed(ctx: click.Context, names: tuple[str, ...]) -> frozenset[str]:
    """Those of these options that stand on the command line."""
    source = click.core.ParameterSource.COMMANDLINE
    return frozenset(name for name in names if ctx.get_parameter_source(name) == source)


def _given(ctx: click.Context, options: dict[str, Any]) -> Given:
    from .gate_cases import MEASURING, Given

    overruling = (*MEASURING, "base_ref", "base_hash")
    plain = {name: options[name] for name in (*overruling, "baselines")}
    return Given(**plain, typed=_typed(ctx, overruling))


def _lone(path: str, options: dict[str, Any]) -> Entry:
    """A MODEL to build at a ref and here, or a CANDIDATE beside a stored bundle, as an entry."""
    from .gate_cases import entry, named

    if not options["base_ref"]:
        return entry(Path(path).name, {"candidate": path})
    table = {name: options[name] for name in _OF_THE_EXPORT if options[name]}
    return entry(named(path), {"model": path, **{k: _plain(v) for k, v in table.items()}})


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _rule(case: Case, quick: bool) -> list[str]:
    from ..devices.family import HOW, rule_for

    rule = rule_for(quick, case.tolerate, case.detect)
    words = ["--tolerate", f"{100 * rule.tolerate:g}%", "--detect", f"{100 * rule.detect:g}%"]
    for name in HOW:
        value = getattr(case, name)
        words += [f"--{name.replace('_', '-')}", str(value)] if value else []
    return words


def _command(what: tuple[str, ...] | Case, options: dict[str, Any], rule: list[str]) -> str:
    """The command line that repeats one comparison."""
    import shlex

    words = ["seatrial", "compare", *(what if isinstance(what, tuple) else ("--only", what.name))]
    for name in ("base_ref", "base_hash", "baselines"):
        words += [f"--{name.replace('_', '-')}", str(options[name])] if options[name] else []
    for name in _OF_THE_EXPORT if isinstance(what, tuple) else ():  # an entry has them from seatrial.toml
        given = options[name] or ()
        for value in given if isinstance(given, tuple) else (given,):
            words += [f"--{name}", str(value)]
    flags = [f"--{name}" for name in ("quick", "strict") if options[name]]
    return shlex.join([*words, *rule, *flags])
