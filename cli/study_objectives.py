"""`seatrial study objectives`: judge a finished search by something else, and choose again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import ui

if TYPE_CHECKING:
    from ..search.again import Added
    from ..search.objectives import Estimate
    from ..search.study import Study

_BEFORE = ("latency_ms", "size_bytes", "accuracy")
"""What every study was searched by, or tells of each candidate."""
_TIMES = {"latency_ms": "time", "size_bytes": "size"}
"""Told as a multiple, and of what."""


@click.group("objectives")
def command() -> None:
    """Add an objective to a finished search, or list those that it has. Nothing is trained or converted again."""


@command.command("add")
@click.argument("study", type=click.Path(path_type=Path))
@click.argument("name")
@click.option("--measure", help="accuracy (the default), macro_f1, worst_recall, calibration_error; or a device's.")
@click.option("--cost", type=click.Path(path_type=Path), metavar="CSV", help="Cost matrix: mean cost of its decisions.")
@click.option("--function", metavar="FILE.py:NAME", help="Your own: outputs (n, classes) and labels (n,) to a number.")
@click.option("--direction", type=click.Choice(("max", "min")), help="Of --function. [max]")
@click.option("--data", type=click.Path(path_type=Path), help="Labelled examples that the study did not have.")
@click.option("--slice", metavar="NAME=FILE", help="Only these examples; class=NAME for those of one class.")
@click.option("--device", metavar="PROFILE", help="Time on it: one-core, small, or a .toml's path; as `bench`.")
@click.option("--target", multiple=True, help="Only these runtimes; one not tried before is converted and timed.")
@click.option("--subject-to", multiple=True, metavar='"latency_ms <= 5"', help="A bound. May be repeated.")
@click.option("--confidence", type=click.FloatRange(0, 1), help="With which bounds must be met. [point estimates]")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Pack the best candidate here.")
@click.option("--overwrite", is_flag=True, help="Replace an output that exists.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def add(
    study: Path,
    name: str,
    target: tuple[str, ...],
    subject_to: tuple[str, ...],
    confidence: float | None,
    output: Path | None,
    overwrite: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Score every candidate of STUDY by the objective NAME, from stored answers, and say which is best for it.

    With --data the stored artifacts are run on the new examples, once; with --device they are timed as it restricts
    them. Nothing is trained; nothing is converted but for a --target that STUDY did not try.

    \b
    seatrial study objectives add out/ missed --cost costs.csv --subject-to "latency_ms <= 5" -o bundle/
    seatrial study objectives add out/ failures --data failed/
    seatrial study objectives add out/ one_core_ms --device one-core
    """
    from ..core.paths import check_free
    from ..exporter.api import listed
    from ..search.study import Study

    found = Study.read(study)
    if output:
        check_free(output, overwrite)
    old, before = found.winners.get("best"), {c["id"] for c in found.candidates}
    with ui.progress() as say:
        added = found.add_objective(name, targets=listed(target), say=say, **options)
    better = {"maximize" if added.objective.direction == "max" else "minimize": name}
    if not as_json:
        _show(found, added, old)
    chosen = found.select(subject_to, confidence=confidence, **better)
    if output:
        found.pack(chosen["id"], output, overwrite, cost=added.objective.matrix)
    if as_json:
        click.echo(json.dumps(_data(found, added, chosen, old)))
        return
    for line in _verdict(found, added, chosen, old, chosen["id"] in before):
        click.echo(line)
    click.echo(f"packed: {output}" if output else "add -o DIR to pack it")
    click.echo(f"to see it in the report: seatrial study report {study}")


@command.command("list")
@click.argument("study", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def list_(study: Path, as_json: bool) -> None:
    """List the objectives of STUDY: those that every study has, and those that were added."""
    from ..search.objectives import BUILT_IN
    from ..search.study import Study

    own = Study.read(study).objectives
    rows = [[name, each.direction, each.unit, "every study has it"] for name, each in BUILT_IN.items()]
    rows += [[name, each.direction, "", each.text] for name, each in own.items()]
    if as_json:
        keys = ("name", "direction", "unit", "what")
        click.echo(json.dumps([dict(zip(keys, row, strict=True)) for row in rows]))
        return
    ui.table(("objective", "better", "unit", "what"), rows)


def show_objectives(study: Study) -> None:
    """The objectives that were added to a study, each with who is best for it; nothing where there are none."""
    from ..core.errors import SeatrialError
    from ..search.choose import label

    try:
        found = study.standings()
    except SeatrialError as error:  # on a disk that can only be read, or where a function's file is gone
        click.echo(f"note: the objectives that were added are not shown: {error.one_line}")
        return
    rows = [
        [objective.name, objective.text, label(best) if best else "-", span(value) if value else "-"]
        for objective, best, value in found
    ]
    if rows:
        ui.table(("added objective", "what", "best", ">value [95 %]"), rows)


def _show(study: Study, added: Added, old: str | None) -> None:
    from ..search.choose import label

    click.echo(f"{added.objective.name}: {added.objective.text}")
    rows = []
    sign = -1 if added.objective.direction == "max" else 1
    able = [c for c in study.candidates if c["id"] in added.estimates and c["status"] == "ok"]
    for c in sorted(able, key=lambda c: sign * added.estimates[c["id"]].value):
        mark = "the old winner" if c["id"] == added.stands_for.get(str(old), old) else ""
        rows.append([label(c), span(added.estimates[c["id"]]), ui.interval(c), ui.percent(c["accuracy"]),
                     f"{c['size_bytes'] / 1e6:.2f}", mark])  # fmt: skip
    ui.table(("candidate", f">{added.objective.name} [95 %]", ">latency ms", ">accuracy", ">MB", ""), rows)
    where = f"on {added.objective.device['name']}" if added.objective.device else "on the new examples"
    for text, why in added.failed.items():
        click.echo(f"not run {where}: {text}: {why}")
    for note in added.notes:
        click.echo(f"note: {note}")
    click.echo(
        f"retrainings: {added.retrainings}, conversions: {added.conversions}, artifacts run on new examples: "
        f"{added.replays}, launches timed: {added.launches}, {added.seconds:.1f} s"
    )


def _verdict(study: Study, added: Added, chosen: dict[str, Any], old: str | None, known: bool) -> list[str]:
    """Who is best, whether it meets the demand and was `known` before, and what it costs against the old winner."""
    from ..search.choose import label

    name = added.objective.name
    bounds = ", ".join(f"{b['bound']} with p = {b['probability']:.3g}" for b in chosen["bounds"])
    who = "an old trial" if known else "a new trial"
    lines = [f"{who} meets the demand ({bounds}): {label(chosen)}"] if bounds else []
    lines.append(f"best for {name}: {label(chosen)}, {span(added.estimates[chosen['id']])}")
    other = _compared(study, added, chosen, old)
    if other and other["id"] == chosen["id"]:
        same = "it is the old winner, as this device runs it" if added.stands_for else "it is the old winner, too"
        lines.append(same)
    elif other:
        lines.append(f"against the old winner: {_against(other['objectives'])}")
        if other["difference"]:
            lines.append(f"difference over the same examples: {_decided(other['difference'], 0)}")
        if other["ratio"]:
            lines.append(f"its time there over the old winner's: {_decided(other['ratio'], 1)}")
    if added.objective.matrix:
        lines += _costs(study, added, chosen, other["id"] if other and other["id"] in added.estimates else None)
    return lines


def _compared(study: Study, added: Added, chosen: dict[str, Any], old: str | None) -> dict[str, Any] | None:
    """The chosen candidate beside the old winner; None where there was none.

    Of both what the study was searched by, too. ``difference`` is that of the added objective over the same examples,
    ``ratio`` that of the times on its device; None where it is no such objective, the old winner isn't known by it, or
    both are the same candidate.
    """
    id, name = added.stands_for.get(str(old), str(old)), added.objective.name
    if id not in {c["id"] for c in study.candidates}:
        return None
    known = {}
    for who, row in (("chosen", chosen), ("old_winner", study.candidate(id))):
        asked = {name: added.estimates[row["id"]].value} if row["id"] in added.estimates else {}
        mine = asked | {each: row[each] for each in _BEFORE}
        known[who] = mine | {each: value for each, value in row.get("values", {}).items() if each not in mine}
    objectives = {each: {who: held.get(each) for who, held in known.items()} for each in known["chosen"]}
    other = id != chosen["id"] and id in added.estimates
    timed = added.objective.device and added.objective.measure == "latency_ms"
    return {
        "id": id,
        "objectives": {each: both for each, both in objectives.items() if None not in both.values()},
        "difference": study.difference(name, chosen["id"], id) if other else None,
        "ratio": study.ratio(name, chosen["id"], id) if other and timed else None,
    }


def _decided(found: Estimate, at: float) -> str:
    """A value with its interval, and whether that says on which side of `at` it is."""
    sure = found.low is not None and found.high is not None and (found.low > at or found.high < at)
    return span(found) + ("" if sure else ": NOT decided, chance can explain it")


def _against(objectives: dict[str, dict[str, float]]) -> str:
    """Each objective of the chosen candidate beside the old winner's, in words."""
    words = []
    for name, both in objectives.items():
        new, old = both["chosen"], both["old_winner"]
        if name in _TIMES:
            words.append(f"{new / old:.2f} × its {_TIMES[name]}")
        elif name == "accuracy":
            words.append(f"accuracy {new - old:+.1%}")
        else:
            words.append(f"{name} {new:.4g} instead of {old:.4g}")
    return ", ".join(words)


def _costs(study: Study, added: Added, chosen: dict[str, Any], old: str | None) -> list[str]:
    """What the old winner costs where its largest score decides, and the chosen one with the rule."""
    lines = []
    before = study.cost_of(added.objective.name, old) if old else {}
    for group, found in study.cost_of(added.objective.name, chosen["id"]).items():
        plain = before.get(group, {}).get("plain")
        words = f"mean cost on {group!r} ({found['rule'].n} examples): {span(found['rule'])} with its decision rule"
        lines.append(words + (f"; the old winner's largest score: {span(plain)}" if plain else ""))
    return lines


def span(estimate: Estimate) -> str:
    """A value with its interval."""
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.4g}"
    return f"{estimate.value:.4g} [{estimate.low:.4g}, {estimate.high:.4g}]"


def _data(study: Study, added: Added, chosen: dict[str, Any], old: str | None) -> dict[str, Any]:
    from dataclasses import asdict

    costs = study.cost_of(added.objective.name, chosen["id"]) if added.objective.matrix else None
    other = _compared(study, added, chosen, old)
    if other:
        other |= {key: _plain(other[key]) for key in ("difference", "ratio") if other[key]}
    return {
        "objective": asdict(added.objective),
        "estimates": {id: _plain(e) for id, e in added.estimates.items()},
        "chosen": chosen,
        "old_winner": other,
        "costs": {g: {k: _plain(e) for k, e in each.items()} for g, each in costs.items()} if costs else None,
        "failed": added.failed,
        "retrainings": added.retrainings,
        "conversions": added.conversions,
        "replays": added.replays,
        "launches": added.launches,
        "seconds": added.seconds,
    }


def _plain(estimate: Estimate) -> dict[str, Any]:
    return {key: getattr(estimate, key) for key in ("value", "low", "high", "n")}
