"""Files for CI: JSON with raw samples, JUnit XML, a Markdown summary, and what github-action-benchmark reads."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from ..core.paths import whole_file
from .gate_result import Benchmark, Run
from .gate_text import advice, changes, detectable, power

_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def write(path: Path, text: str, add: bool = False) -> None:
    """Write a report whole, or after what is there, as GitHub's step summary wants it.

    Raises:
        NotWritten: it can't be.
    """
    before = path.read_text() if add and path.is_file() else ""
    with whole_file(path) as part:
        part.write_text(before + text)


def as_json(run: Run) -> str:
    """`Run.to_dict` as JSON."""
    return json.dumps(run.to_dict()) + "\n"


def junit(run: Run) -> str:
    """A test case for each benchmark: a failure is what is proven, an error what wasn't measured.

    INCONCLUSIVE is "skipped" without ``--strict``, so that no page shows it as passed.
    """
    cases = [(one, _outcome(one, run)) for one in run.benchmarks]
    seconds = f"{sum(one.comparison.seconds for one in run.benchmarks):.3f}"
    counts = {
        name: str(sum(found == tag for _, found in cases))
        for name, tag in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped"))
    }
    root = ElementTree.Element("testsuites")
    about = {"name": "seatrial compare", "tests": str(len(cases)), **counts, "time": seconds}
    suite = ElementTree.SubElement(root, "testsuite", about)
    for one, outcome in cases:
        words = {"classname": "seatrial.compare", "name": _xml(one.name), "time": f"{one.comparison.seconds:.3f}"}
        case = ElementTree.SubElement(suite, "testcase", words)
        reason = f"{one.title}: {one.comparison.decision.reason}"
        if outcome:
            found = ElementTree.SubElement(case, outcome, {"message": _xml(reason)})
            if outcome != "skipped":
                found.set("type", one.verdict)
            found.text = _xml("\n".join(_details(one)))
        ElementTree.SubElement(case, "system-out").text = _xml("\n".join(filter(None, (reason, one.note))))
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _outcome(one: Benchmark, run: Run) -> str:
    code = run.code(one)
    if code is None or (one.verdict == "INCONCLUSIVE" and not code):
        return "skipped"
    return {0: "", 1: "failure", 3: "failure", 4: "error"}[code]


def _details(one: Benchmark) -> list[str]:
    found = [*changes(one.comparison), f"accept it: {one.accept}"] if one.verdict == "REGRESS" else []
    return [*found, f"reproduce: {one.reproduce}"]


def markdown(run: Run) -> str:
    """A table of all benchmarks, then for each that isn't green what to know and do."""
    bad = run.exit_code
    says = "failed" if bad else "no slowdown"
    if not bad and any(one.verdict == "INCONCLUSIVE" for one in run.benchmarks):
        says = "NOT GREEN: not everything was decided"
    lines = [f"### Latency: {says}", ""]
    lines += ["| benchmark | verdict | time, candidate : base | base ms | candidate ms | proves from |"]
    lines += ["|---|---|---|---|---|---|", *(_row(one) for one in run.benchmarks), ""]
    for one in run.benchmarks:
        lines += _below(one, run.strict)
    facts = next((one.comparison.facts for one in run.benchmarks if one.comparison.facts), {}).get("identity", {})
    where = f"{facts.get('cpu', '?')}, {facts.get('cores', '?')} cores" if facts else ""
    lines += [f"{line}.  " for line in power(run)]
    lines += ["*proves from*: a session like this one proves such a slowdown 9 times in 10. " + where]
    return "\n".join(lines) + "\n"


def _row(one: Benchmark) -> str:
    ratio, base, candidate = one.comparison.decision.ratio, one.comparison.base, one.comparison.candidate
    times = [f"{arm.latency.centre:.3f}" if arm.latency else "-" for arm in (base, candidate)]
    span = f"{ratio[0]:.3f} [{ratio[1]:.3f}, {ratio[2]:.3f}]" if ratio else "-"
    seen = f"+{detectable(one.comparison)}" if ratio else "-"
    title = one.title if one.verdict == "PASS" else f"**{one.title}**"
    return f"| {_md(one.name)} | {title} | {span} | {' | '.join(times)} | {seen} |"


def _below(one: Benchmark, strict: bool) -> list[str]:
    if one.verdict == "PASS":
        return []
    lines = [f"**{_md(one.name)}** {one.title}: {_md(one.comparison.decision.reason)}  "]
    lines += [f"{_md(one.note)}  "] if one.note else []
    if one.verdict == "REGRESS":
        for line in changes(one.comparison):
            lines += [f"- {_md(line.strip())}"] if line.startswith("  ") else ["", f"{_md(line)}", ""]
        commands = [one.reproduce] if one.accepted else [one.reproduce, one.accept]
        lines += ["", "```", *commands, "```"]
    else:
        lines += [f"{_md(line)}  " for line in advice(one, strict)]
    return [*lines, ""]


def github_benchmark(run: Run) -> str:
    """The list that github-action-benchmark reads with ``tool: customSmallerIsBetter``: for trends, not for a gate."""
    rows: list[dict[str, Any]] = []
    for one in run.benchmarks:
        candidate, ratio = one.comparison.candidate, one.comparison.decision.ratio
        if candidate.latency is None or one.verdict == "INVALID":
            continue
        extra = [one.title, f"{candidate.arm.target} {candidate.version or ''}".strip()]
        extra += [f"candidate : base {ratio[0]:.4f}"] if ratio else []
        extra.append(str(one.comparison.facts["identity"]["cpu"]))
        rows.append(
            {
                "name": one.name,
                "unit": "ms",
                "value": round(candidate.latency.centre, 6),
                "range": f"± {candidate.latency.half_width:.6f}",
                "extra": "\n".join(extra),
            }
        )
    return json.dumps(rows, indent=1) + "\n"


def _md(text: str) -> str:
    """Text that can't break a table."""
    return text.replace("|", "\\|").replace("\n", " ").replace("<", "&lt;")


def _xml(text: str) -> str:
    """Without the characters that XML can't hold: a path or a runtime's message may have them."""
    return _NOT_XML.sub("?", text)
