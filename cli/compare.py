"""`seatrial compare`: a gate on latency, red only for a proven slowdown and never green by silence."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from . import ui

if TYPE_CHECKING:
    from ..devices.results import ArmSummary, Comparison

EXIT = {"PASS": 0, "REGRESS": 1, "INCONCLUSIVE": 0, "INVALID": 4, "NEW": 4, "MISSING": 4}
EXIT_STRICT = {**EXIT, "INCONCLUSIVE": 3}


@click.command("compare")
@click.argument("base")
@click.argument("candidate")
@click.option("--tolerate", type=ui.Percent(), default="1%", show_default=True, help="Red when proven slower by more.")
@click.option("--detect", type=ui.Percent(), help="Green only when such a slowdown is excluded. [5%, --quick: 10%]")
@click.option("--quick", is_flag=True, help="One look at 5 launches of fewer rounds: weaker.")
@click.option("--strict", is_flag=True, help="INCONCLUSIVE exits 3 instead of 0.")
@click.option("--threads", type=click.IntRange(1), help="Threads of both, instead of each bundle's own.")
@click.option("--seed", type=int, help="Of the order of rounds, and of the inputs of raw model files.")
@click.option("--store", metavar="URL", help="Keep all measurements there: a SQLite file or a database's URL.")
@click.option("--json", "as_json", is_flag=True, help="Print verdict and raw samples as JSON, the report on stderr.")
def command(
    base: str,
    candidate: str,
    tolerate: float,
    detect: float | None,
    quick: bool,
    strict: bool,
    threads: int | None,
    seed: int | None,
    store: str | None,
    as_json: bool,
) -> None:
    """Is CANDIDATE slower than BASE? Both are measured here and now, beside a duplicate of BASE as a canary.

    PASS exits 0, REGRESS 1. INCONCLUSIVE exits 0 and says so, or 3 with --strict. INVALID (the canary
    failed), MISSING (one of them didn't run) and NEW (BASE isn't there) exit 4: nothing valid was compared.
    """
    from ..devices.compare import compare

    with ui.progress() as say:
        result = compare(
            base,
            candidate,
            tolerate=tolerate,
            detect=detect,
            quick=quick,
            threads=threads,
            seed=seed,
            store=store,
            progress=say,
        )
    again = _reproduce(base, candidate, result, quick, strict, threads)
    exit_code = (EXIT_STRICT if strict else EXIT)[result.verdict]
    if as_json:
        data = {**result.to_dict(), "strict": strict, "exit_code": exit_code, "reproduce": again}
        click.echo(json.dumps(data))
    click.echo("\n".join(_report(result, again, quick)), err=as_json)
    if exit_code:
        raise SystemExit(exit_code)


def _report(result: Comparison, again: str, quick: bool) -> list[str]:
    decision = result.decision
    lines = [f"{result.verdict}: {decision.reason}"]
    lines += [_arm("base", result.base), _arm("candidate", result.candidate)]
    if decision.canary:
        centre, low, high = (100 * x for x in (decision.canary.centre, decision.canary.low, decision.canary.high))
        lines.append(f"canary     {centre:+.2f} % [{low:+.2f}, {high:+.2f}] between the base and its duplicate")
    lines += [f"warning: {warning}" for warning in decision.warnings]
    lines += _advice(result, again)
    weaker = "; --quick: fewer launches and rounds, so it sees less" if quick else ""
    launches = len(result.launches)
    size = f"{launches} launches of {result.plan.rounds} rounds"
    lines.append(f"{size}, seed {result.seed}, {result.seconds:.0f} s{weaker}")
    return lines


def _advice(result: Comparison, again: str) -> list[str]:
    """What each verdict owes the reader."""
    found = result.decision.detectable
    known = f"{found:.1%}" if found is not None and found < 10 else "no size at all"
    power = f"A session like this one proves a slowdown of {known} 9 times in 10."
    if result.verdict == "PASS":
        return [power]
    if result.verdict == "REGRESS":
        return [*_differences(result), f"reproduce: {again}"]
    if result.verdict == "INCONCLUSIVE":
        return [
            "NOT GREEN: nothing is proven either way; exits 0 only because --strict was not given.",
            f"{power} A quieter machine or a larger --detect decides more.",
        ]
    if result.verdict == "INVALID":
        return ["Nothing valid was compared. Run it again when the machine is quieter."]
    if result.verdict == "NEW":
        return ["Nothing was compared. Keep a bundle there as the baseline, or check the path."]
    return ["Nothing was compared."]


def _differences(result: Comparison) -> list[str]:
    """Operators and places whose counts changed: the first thing to look at when something got slower."""
    lines = []
    for what in ("where", "ops"):
        one, other = ((arm.placement or {}).get(what, {}) for arm in (result.base, result.candidate))
        for name in sorted(one.keys() | other.keys()):
            if one.get(name, 0) != other.get(name, 0):
                lines.append(f"  {name}: {one.get(name, 0)} nodes in the base, {other.get(name, 0)} in the candidate")
    return ["what ran differs:", *lines] if lines else ["the same operators ran at the same places"]


def _arm(role: str, arm: ArmSummary) -> str:
    if arm.latency is None:
        return f"{role:10} {arm.arm.name}: {arm.status}"
    low, high = arm.latency.low, arm.latency.high
    ran = f"{arm.arm.target} {arm.version or ''}, {arm.ran_precision or 'unknown precision'}"
    return f"{role:10} {arm.arm.name} ({ran}): {arm.latency.centre:.3f} ms [{low:.3f}, {high:.3f}]"


def _reproduce(base: str, candidate: str, result: Comparison, quick: bool, strict: bool, threads: int | None) -> str:
    import shlex

    rule = result.rule
    words = ["seatrial", "compare", base, candidate]
    words += ["--tolerate", f"{100 * rule.tolerate:g}%", "--detect", f"{100 * rule.detect:g}%"]
    words += ["--quick"] * quick + ["--strict"] * strict + (["--threads", str(threads)] if threads else [])
    return shlex.join([*words, "--seed", str(result.seed)])
