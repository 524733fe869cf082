"""`seatrial search study.py`: the part of the command that searches the models of a study file."""

from __future__ import annotations

import ast
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
ALONE = ("evaluations", "minutes", "sampler", "objective", "subject_to", "store")


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
    names = {t.id for node in body if isinstance(node, ast.Assign) for t in node.targets if isinstance(t, ast.Name)}
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
            limits=ui.limits(options["timeout"], options["memory"]),
            command=command,
            say=say,
        )


def show(study: Study) -> None:
    """The fronts, what was chosen and what to know."""
    goals = [each["name"] for each in study.document["goals"]["objectives"]]
    chosen = {id: name for name, id in reversed(study.winners.items())}
    for target, ids in study.document["fronts"].items():
        rows = []
        for id in [*ids, *(id for id, name in chosen.items() if name in (target, "best") and id not in ids)]:
            c = study.candidate(id)
            if c["target"] == target:
                values = study.document["models"][c["model"]]["values"]
                rows.append([chosen.get(id, ""), c["model"][:8], c["precision"], ui.settings(c["settings"]),
                             *(_figure(c, name) for name in goals), _values(values)])  # fmt: skip
        ui.table(
            (f"{target}: chosen", "model", "precision", "settings", *(f">{name}" for name in goals), "what it is"), rows
        )
    models = study.document["models"].values()
    failed = [one for one in models if one["status"] != "ok"]
    trainings = study.document["trainings"]
    told = ", ".join(f"{count} {what}" for what, count in trainings.items() if count)
    click.echo(f"{len(models)} models, {len(failed)} failed; trainings: {told or 'none'}")
    for reason in dict.fromkeys(str(one["reason"]) for one in failed):
        click.echo(f"failed: {reason}")
    for each in study.document["comparisons"]:
        click.echo(each["text"])
    for note in study.document["notes"]:
        click.echo(f"note: {note}")


def _figure(row: dict[str, Any], name: str) -> str:
    if name == "latency_ms":
        return ui.interval(row)
    value = row["values"].get(name)
    return "-" if value is None else (ui.percent(value) if name == "accuracy" else f"{value:.4g}")


def _values(values: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in values.items())
