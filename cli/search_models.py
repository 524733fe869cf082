"""`seatrial search study.py`: the part of the command that searches the models of a study file."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from . import ui

if TYPE_CHECKING:
    from ..search.study import Study

SAYS = {"space", "family"}
"""What a study file says and a model's file does not."""
IN_FILE = {
    "target": "targets", "precision": "precisions", "threads": "search = {threads = N}", "confirm": "load_data()",
    "calibration": "load_data()", "evaluate": "load_data()", "max_drop": "constraints", "arg": "space",
}  # fmt: skip
"""Options of a search over one model, and what says the same in a study file."""
MOST = 12
"""Lines of a front, and reasons of failures, at most."""
ALONE = ("evaluations", "minutes", "sampler", "objective", "subject_to", "tune", "store")


def is_study(model: str) -> bool:
    """Whether a file is a study's: a .toml, or a .py that says a space or a family and has no get_model()."""
    path = Path(model)
    if path.suffix == ".toml":
        return True
    if path.suffix != ".py" or not path.is_file():
        return False
    try:
        body = ast.parse(path.read_bytes()).body
    except (SyntaxError, ValueError):
        return False  # the error is told where the file is run
    targets = [t for node in body if isinstance(node, ast.Assign) for t in node.targets]
    targets += [node.target for node in body if isinstance(node, ast.AnnAssign) and node.value is not None]
    names = {target.id for target in targets if isinstance(target, ast.Name)}
    functions = {node.name for node in body if isinstance(node, ast.FunctionDef)}
    return bool(names & SAYS) and "get_model" not in functions


def check_options(context: click.Context, study: bool, options: Mapping[str, Any]) -> None:
    """Refuse options that the other kind of search has.

    Raises:
        UsageError: which, and what to do.
    """
    from click.core import ParameterSource

    from ..core.errors import UsageError

    given = [name for name in options if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    for name in given:
        option = f"--{name.rstrip('_').replace('_', '-')}"
        if study and name not in (*ALONE, "seed", "output", "overwrite", "as_json", "timeout", "memory", "model"):
            todo = f"say it in the study file: {IN_FILE[name]}" if name in IN_FILE else "leave it out"
            raise UsageError(option, "it is for the search over one model", todo)
        if not study and name in ALONE:
            todo = "give a study file, see docs/architecture.md"
            raise UsageError(option, "it is for the search over the models of a study file", todo)


def run(model: str, output: Path, command: str, options: Mapping[str, Any]) -> Study:
    """Search the models of a study file."""
    from ..exporter.api import listed
    from ..search.explore import explore

    effort = {name: options[name] for name in ("evaluations", "minutes", "sampler", "seed")}
    with ui.progress() as say:
        return explore(
            model,
            output=output,
            effort=effort,
            objectives=listed(options["objective"]),
            subject_to=options["subject_to"],
            store=options["store"],
            overwrite=options["overwrite"],
            tune=options["tune"],
            limits=ui.limits(options["timeout"], options["memory"]),
            command=command,
            say=say,
        )


def show(study: Study) -> None:
    """The fronts, what was chosen and what to know."""
    from ..search.roster import TUNED

    for place in study.document["fronts"]:
        _show_front(study, place)
    models = study.document["models"]
    failed = [one for one in models.values() if one["status"] != "ok"]
    trainings = study.document["trainings"]
    told = ", ".join(f"{count} {what}" for what, count in trainings.items() if count)
    tried = sum(not key.endswith(TUNED) for key in models)  # one that was trained further is no other model
    click.echo(f"{tried} models, {len(failed)} failed; trainings: {told or 'none'}")
    for reason, count in Counter(str(one["reason"]) for one in failed).most_common(MOST):
        click.echo(f"failed: {reason}" + (f" ({count} models)" if count > 1 else ""))
    for each in study.document["comparisons"]:
        click.echo(each["text"])
    for note in study.document["notes"]:
        click.echo(f"note: {note}")


def _show_front(study: Study, at: str) -> None:
    """Of a long front the chosen one and some, evenly."""
    from ..search.candidate import Candidate, key_text, place_of

    front, chosen = study.document["fronts"][at], {id: name for name, id in reversed(study.winners.items())}
    mine = [id for id in chosen if id not in front and place_of(study.candidate(id)) == at]
    step = max(1, -(-len(front) // MOST))
    ids = [id for place, id in enumerate(front) if place % step == 0 or id == front[-1] or id in chosen] + mine
    rows = [study.candidate(id) for id in ids]
    goals = [each["name"] for each in study.document["goals"]["objectives"]]
    # Their settings are worth a column only where they aren't all the target's own.
    one = {c["settings"]["threads"] for c in rows}
    plain = len(one) == 1 and all(Candidate.of(c["target"], c["precision"], c["settings"]).is_default for c in rows)
    title = f"{at}, {_threads(one.pop())}" if plain else at
    columns = (title, "model", "precision", *([] if plain else ["settings"]), *(f">{g}" for g in goals), "what it is")
    lines = []
    for c in rows:
        words = [] if plain else [ui.settings(c["settings"])]
        figures = (_figure(c, name) for name in goals)
        what = _values(study.document["models"][c["model"]]["values"])
        lines.append([chosen.get(c["id"], ""), key_text(c["model"]), c["precision"], *words, *figures, what])
    ui.table(columns, lines, width=120)
    if len(ids) < len(front):
        click.echo(f"{len(ids)} of the {len(front)} on this front; all of them: seatrial study export {study.folder}")


def _threads(count: int) -> str:
    """``2 threads``."""
    return f"{count} thread{'s' * (count != 1)}"


def _figure(row: dict[str, Any], name: str) -> str:
    if name == "latency_ms":
        return ui.interval(row)
    value = row["values"].get(name)
    return "-" if value is None else (ui.percent(value) if name == "accuracy" else f"{value:.4g}")


def _values(values: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in values.items())
