"""The words of a run of `seatrial compare`: what each verdict owes the reader."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .gate_result import Benchmark, Run
from .profile_text import slower

if TYPE_CHECKING:
    from ..devices.results import ArmSummary, Comparison


def report(run: Run) -> list[str]:
    """All lines, for a terminal or a CI log."""
    if len(run.benchmarks) == 1:
        return _one(run.benchmarks[0], run)
    lines: list[str] = []
    for one in run.benchmarks:
        first, *rest = _one(one, run)
        lines += [f"{one.name}: {first}", *(f"  {line}" for line in rest)]
    return [*lines, *summary(run)]


def summary(run: Run) -> list[str]:
    """How many came out how, and what their number costs in power."""
    titles = [one.title for one in run.benchmarks]
    counts = ", ".join(f"{titles.count(title)} {title}" for title in dict.fromkeys(titles))
    seconds = sum(one.comparison.seconds for one in run.benchmarks)
    return [f"{len(titles)} benchmarks: {counts}; {seconds:.0f} s", *power(run), *_left_out(run)]


def power(run: Run) -> list[str]:
    """What Holm's correction costs, in slowdowns that are proven; nothing for a lone benchmark."""
    from ..devices.gate import provable

    if run.family == 1:
        return []
    found = [one.comparison for one in run.benchmarks if one.comparison.decision.effect]
    seen = sorted(
        (provable(c.decision.effect, c.rule, 1), provable(c.decision.effect, c.rule, c.rule.family))
        for c in found
        if c.decision.effect
    )
    alpha = f"{run.benchmarks[0].comparison.rule.alpha:.1%}"
    text = f"{run.family} benchmarks share the {alpha} of false alarms (Holm)"
    if seen:
        alone, shared = seen[len(seen) // 2]
        text += f": the middle one proves {_size(shared)} 9 times in 10, and alone would prove {_size(alone)}"
    looks = {len(c.rule.looks) for c in found} == {1} and not run.quick
    return [text + ("; one look, since a first of two would prove next to nothing" if looks else "")]


def _left_out(run: Run) -> list[str]:
    new = [one.name for one in run.benchmarks if one.verdict == "NEW"]
    return [f"NEW, and left out of the verdict by --allow-new: {', '.join(new)}"] if new and run.allow_new else []


def _one(one: Benchmark, run: Run) -> list[str]:
    result, decision = one.comparison, one.comparison.decision
    lines = [f"{one.title}: {decision.reason}"]
    if one.note:
        lines.append(one.note)
    lines += [_arm("base", result.base), _arm("candidate", result.candidate)]
    if decision.canary:
        centre, low, high = (100 * x for x in (decision.canary.centre, decision.canary.low, decision.canary.high))
        lines.append(f"canary     {centre:+.2f} % [{low:+.2f}, {high:+.2f}] between the base and its duplicate")
    lines += [f"warning: {warning}" for warning in decision.warnings]
    lines += advice(one, run.strict)
    if result.launches:
        weaker = "; --quick: fewer launches and rounds, so it sees less" if run.quick else ""
        size = f"{len(result.launches)} launches of {result.launches[-1].rounds} rounds"
        lines.append(f"{size}, seed {result.seed}, {result.seconds:.0f} s{weaker}")
    return lines


def detectable(result: Comparison) -> str:
    """The slowdown that a session like this one proves, in words."""
    found = result.decision.detectable
    return _size(found) if found is not None else "no size at all"


def _size(found: float) -> str:
    return f"{found:.1%}" if found < 10 else "no size at all"


def advice(one: Benchmark, strict: bool) -> list[str]:
    """What the verdict means for the reader, and what to do."""
    verdict = one.verdict
    power = f"A session like this one proves a slowdown of {detectable(one.comparison)} 9 times in 10."
    if verdict == "PASS":
        return [power]
    if verdict == "REGRESS":
        tail = [] if one.accepted else [f"accept it: {one.accept}"]
        return [*changes(one.comparison), f"reproduce: {one.reproduce}", *tail]
    if verdict == "INCONCLUSIVE":
        lax = "" if strict else "; exits 0 only because --strict was not given"
        return [
            f"NOT GREEN: nothing is proven either way{lax}.",
            f"{power} A quieter machine decides more.",
        ]
    if verdict == "INVALID":
        return ["Nothing valid was compared. Run it again when the machine is quieter."]
    if verdict == "NEW":
        return ["Nothing was compared. Keep a bundle there as the baseline, or check the path."]
    return ["Nothing was compared."]


def changes(result: Comparison) -> list[str]:
    """Operators and places whose counts changed, and operators that take longer; items are indented."""
    from ..devices.compare import differences

    lines = [f"  {name}: {one} nodes in the base, {other} in the candidate" for name, one, other in differences(result)]
    counts = ["what ran differs:", *lines] if lines else ["the same operators ran at the same places"]
    return [*counts, *slower(result)]


def _arm(role: str, arm: ArmSummary) -> str:
    if arm.latency is None:
        return f"{role:10} {arm.arm.name or '-'}: {arm.status}"
    low, high = arm.latency.low, arm.latency.high
    ran = f"{arm.arm.target} {arm.version or ''}, {arm.ran_precision or 'unknown precision'}"
    return f"{role:10} {arm.arm.name} ({ran}): {arm.latency.centre:.3f} ms [{low:.3f}, {high:.3f}]"
