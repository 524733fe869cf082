"""Choose again: an objective added to a finished study, from stored answers or stored artifacts; nothing is trained."""

from __future__ import annotations

import ast
import re
import symtable
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core.errors import UsageError
from ..core.ids import content_id, file_sha256
from ..core.paths import check_readable
from ..exporter import data as loader
from ..exporter.decision import check_costs, read_costs
from ..exporter.program import Program
from . import on_device
from .objectives import BUILT_IN, MEASURES, TIMED, Estimate, Objective, costs, mean
from .replay import Examples, keep_examples, replay, taken
from .trials import Trial
from .views import Views

Say = Callable[[str], None]


@dataclass(frozen=True)
class Added:
    """An objective that a study has now.

    Attributes:
        objective: what it is.
        estimates: by candidate id.
        failed: why, by label, of candidates that could not be run on the new examples, or on the device.
        replays: how many artifacts were run on new examples; those that were run before aren't counted.
        seconds: what it took.
        retrainings: none: answers and artifacts are stored.
        conversions: files that were made, quantized ones too: none without a runtime that the study did not try.
        launches: how often such a runtime's candidates were timed, or candidates on a device.
        stands_for: of each candidate that is another one on the device, that one's id, which was timed.
        notes: what a reader should know.
    """

    objective: Objective
    estimates: dict[str, Estimate]
    failed: dict[str, str]
    replays: int
    seconds: float
    retrainings: int = 0
    conversions: int = 0
    launches: int = 0
    stands_for: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def add(
    views: Views,
    name: str,
    measure: str | None = None,
    cost: Path | None = None,
    data: Path | None = None,
    slice: str | None = None,
    function: str | None = None,
    direction: str | None = None,
    targets: Sequence[str] = (),
    device: str | None = None,
    say: Say = lambda text: None,
) -> Added:
    """Add an objective to the study that `views` looks at; see `Study.add_objective`."""
    start = time.monotonic()
    able = [views.trials[c["id"]] for c in views.document["candidates"] if c["status"] == "ok"]
    given = examples_of(data, [views.program_of(model) for model in _models(able)]) if data else None
    objective = described(views.program, name, measure, cost, given, slice, function, direction, targets, device)
    replays = 0
    failed: dict[str, str] = {}
    more: dict[str, Any] = {}
    if given:
        assert data
        keep_examples(views.folder, data, given)
        replays, failed = replay(views.folder, given, able, views.program_of, say)
    if objective.device:
        timed = on_device.time_all(views.folder, str(views.document["key"]), objective, able, say)
        failed, more = timed.failed, {"launches": timed.launches, "notes": timed.notes, "stands_for": timed.stands_for}
    say(f"scoring {name}")
    estimates = views.scored(objective)
    views.kept.add(objective)
    return Added(objective, estimates, failed, replays, time.monotonic() - start, **more)


def described(
    program: Program,
    name: str,
    measure: str | None = None,
    cost: Path | None = None,
    given: Examples | None = None,
    slice: str | None = None,
    function: str | None = None,
    direction: str | None = None,
    targets: Sequence[str] = (),
    device: str | None = None,
) -> Objective:
    """An objective as data; see `Study.add_objective`. `given` are examples that the study did not have.

    Raises:
        UsageError: bad arguments or data, or a model that declares no classes where its answers count.
        CannotDo: the device has more cores than there are here.
    """
    if device:
        _check_timed(device, measure, bool(cost or function or given or slice))
    if (device or targets) and not (measure or cost or function or given or slice):
        measure = "latency_ms"
    what, better = _measure(measure, cost, function, direction, device)
    if what not in TIMED and not program.classes:
        found = "the model declares no classes (a .py does, by get_labels())"
        raise UsageError(f"the objective {name!r}", found, "search with a model that does")
    return Objective(
        name,
        what,
        better,
        costs=read_costs(cost, program.labels).to_dict() if cost else None,
        slice=_slice(slice, program, given) if slice else None,
        data={"name": given.name, "id": given.id, "labels": given.labels} if given else None,
        function=_function(function) if function else None,
        targets=list(targets) or None,
        device=on_device.described(device) if device else None,
    )


def _check_timed(device: str, measure: str | None, answers: bool) -> None:
    if answers or (measure and measure not in TIMED):
        found = "what is measured on a device is time or memory; answers are the same everywhere"
        raise UsageError(f"--device {device}", found, f"give it alone, or with --measure: {', '.join(TIMED)}")


def check_name(name: str) -> None:
    """Refuse what no objective may be called, before work starts.

    Raises:
        UsageError: no word, or the name of an objective that every study has.
    """
    if not re.fullmatch(r"[A-Za-z_]\w{0,63}", name):
        raise UsageError(f"the objective {name!r}", "no name", "write letters, digits and _, 64 at most")
    if name in BUILT_IN:
        raise UsageError(f"the objective {name!r}", "every study has it already", "choose another name")


def check_files(
    measure: str | None = None,
    cost: Path | None = None,
    slice: str | None = None,
    function: str | None = None,
    direction: str | None = None,
) -> None:
    """Refuse what is wrong with an objective whatever the model, before work starts; see `Study.add_objective`.

    Raises:
        UsageError: an unknown measure, or a file that can't be read, is no cost matrix, or defines no such function.
    """
    _measure(measure, cost, function, direction)
    if cost:
        check_costs(cost)
    if function:
        _function(function)
    if slice:
        name, rest = _halves(slice)
        if name != "class":
            _lines(f"--slice {slice}", Path(rest))


def _measure(
    measure: str | None, cost: Path | None, function: str | None, direction: str | None, device: str | None = None
) -> tuple[str, str]:
    """What is measured, and its better direction."""
    given = [x for x in (measure, cost and "expected_cost", function and "function") if x]
    if len(given) > 1:
        raise UsageError(" and ".join(given), "an objective measures one thing", "add one objective for each")
    what = given[0] if given else "accuracy"
    if what not in (*MEASURES, *TIMED, "expected_cost", "function"):
        known = f"known: {', '.join(MEASURES)}; with --device {', '.join(TIMED)}"
        raise UsageError(f"--measure {what}", "no such measure", known)
    if what in TIMED[1:] and not device:
        raise UsageError(f"--measure {what}", "every study has it already", "add --device, or select by it")
    if direction not in (None, "max", "min"):
        raise UsageError(f"--direction {direction}", "no direction", "write max or min")
    natural = {"expected_cost": "min", "function": direction or "max", **dict.fromkeys(TIMED, "min")}.get(what)
    natural = natural or MEASURES[what][1]
    if direction and direction != natural:
        found = f"{'lower' if natural == 'min' else 'higher'} is better there"
        raise UsageError(f"--direction {direction} for {what}", found, "it is for --function alone")
    return what, natural


def _models(able: Sequence[Trial]) -> list[str]:
    return list(dict.fromkeys(trial.candidate.model for trial in able))


def examples_of(path: Path, programs: Sequence[Program]) -> Examples:
    """Labelled examples, in a folder or an ``.npz``, as each model takes them.

    Raises:
        UsageError: they have no labels, or no model can take them.
    """
    asked = f"new data {path}"
    check_readable(path, asked)
    kinds = {taken(program): program for program in programs}
    fed: dict[str, loader.Data] = {}
    refused: dict[str, UsageError] = {}
    for kind, program in kinds.items():
        try:
            fed[kind] = _fed(path, program, asked)
        except UsageError as error:
            refused[kind] = error
    if not fed:
        raise next(iter(refused.values()))
    given = next(iter(fed.values()))
    if given.labels is None:
        todo = "add a labels.csv (file,label), one folder per class, or an array `labels` in the .npz"
        raise UsageError(asked, "it has no labels", todo)
    _check_range(asked, given.labels, programs[0])
    files = [path] if path.is_file() else [path / name for name in given.names or ()]
    id = content_id([[str(file.relative_to(path)), file_sha256(file)] for file in files])
    why = {kind: f"{error.found}; {error.todo}" for kind, error in refused.items()}
    return Examples(given.name, id, given.labels, given.names, fed, why)


def _fed(path: Path, program: Program, asked: str) -> loader.Data:
    if path.is_dir() and program.preprocess is None:
        found = (
            f"pictures, and the search had no get_preprocess(): how they become inputs of {program.name} is not known"
        )
        only = len(program.inputs) == 1
        arrays = [f"{loader.ONLY if only else s.name} (n, {', '.join(map(str, s.shape[1:]))})" for s in program.inputs]
        todo = f"give an .npz of ready inputs: {', '.join(arrays)} and labels (n,); or declare it and search anew"
        raise UsageError(asked, found, todo)
    return loader.load(path, program.inputs, program.preprocess, "new", program.labels)


def _check_range(asked: str, labels: Sequence[int], program: Program) -> None:
    most = len(program.labels or ()) - 1
    wrong = sorted({y for y in labels if not 0 <= y <= most})
    if wrong:
        raise UsageError(asked, f"labels {', '.join(map(str, wrong[:5]))}", f"the model's classes are 0 to {most}")


def _function(text: str) -> dict[str, Any]:
    path, colon, name = text.rpartition(":")
    if not colon or not name.isidentifier():
        raise UsageError(f"--function {text}", "no function is named", "write FILE.py:NAME")
    asked = f"the function {text}"
    check_readable(Path(path), asked)
    _check_defines(Path(path), name, asked)
    return {"path": str(Path(path).resolve()), "name": name, "sha256": file_sha256(path)}


def _check_defines(path: Path, name: str, asked: str) -> None:
    """Refuse a file that surely gives no such name; it is not run for that."""
    try:
        text = path.read_text()
        table = symtable.symtable(text, str(path), "exec")
    except (OSError, ValueError, SyntaxError) as error:
        raise UsageError(asked, f"it can't be read as Python: {error}", "correct the file") from error
    imports = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)]
    given = {each.get_name() for each in table.get_symbols() if each.is_assigned() or each.is_imported()}
    if name not in given and not any(each.name == "*" for node in imports for each in node.names):
        defined = ", ".join(each.get_name() for each in table.get_symbols() if each.is_namespace()) or "nothing"
        raise UsageError(asked, f"there is no such function; the file defines {defined}", "give FILE.py:NAME")


def _halves(slice: str) -> tuple[str, str]:
    """``class`` and a class's name, or a slice's name and a file."""
    name, equals, rest = slice.partition("=")
    if not equals or not name or not rest:
        todo = "write class=NAME, or NAME=FILE with one index or name a line"
        raise UsageError(f"--slice {slice}", "it can't be read", todo)
    return name, rest


def _slice(text: str, program: Program, given: Examples | None) -> dict[str, Any]:
    """``class=cat``, or ``NAME=FILE`` with an index or a file's name on each line."""
    asked = f"--slice {text}"
    name, rest = _halves(text)
    own: Mapping[str, Any] = program.data.get("evaluate", {})
    labels, names = (given.labels, given.names) if given else (own.get("labels"), own.get("names"))
    if not labels:
        raise UsageError(asked, "the study has no labelled data", "add --data, or search with --evaluate")
    if name != "class":
        found, of = _indices(asked, Path(rest), len(labels), names, None if given else own.get(loader.ROWS))
        return {"name": name, "indices": found, **({"of": of} if of > len(found) else {})}
    classes = program.labels or []
    if rest not in classes:
        raise UsageError(asked, "no such class", f"known: {', '.join(classes)}")
    found = [i for i, y in enumerate(labels) if y == classes.index(rest)]
    if not found:
        raise UsageError(asked, "no example is in it", "choose another slice")
    return {"name": rest, "indices": found}


def _lines(asked: str, path: Path) -> list[str]:
    """What a slice's file names, at least one example."""
    check_readable(path, asked)
    if path.is_dir():
        raise UsageError(asked, "a folder", "give a file with one index or name a line")
    lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
    if not lines:
        raise UsageError(asked, "no example is in it", "write one index or name a line")
    return lines


def _indices(
    asked: str, path: Path, n: int, names: Sequence[str] | None, rows: Sequence[int] | None
) -> tuple[list[int], int]:
    """Which of `n` examples a file names, and how many it names.

    Args:
        asked: for errors.
        path: of the file.
        n: how many there are.
        names: of their files, where they have any.
        rows: of these examples in the whole data, where some of it was left out: indices count the whole.
    """
    lines = list(dict.fromkeys(_lines(asked, path)))
    whole = max(rows) + 1 if rows else n
    if all(line.isdigit() for line in lines):
        places, known = {str(row): i for i, row in enumerate(rows or range(n))}, {str(i) for i in range(whole)}
    elif names is None:
        raise UsageError(asked, "the examples have no names", f"give indices from 0 to {whole - 1}")
    else:
        places, known = {name: i for i, name in enumerate(names)}, set(names)
    unknown = [line for line in lines if line not in known]
    if unknown:
        found = f"no such example: {', '.join(unknown[:5])}" + (" ..." if len(unknown) > 5 else "")
        raise UsageError(
            asked, found, f"there are {whole}: indices from 0, or the files' names within the data's folder"
        )
    judged = sorted(places[line] for line in lines if line in places)
    if not judged:
        found = f"none of its {len(lines)} examples is among the {n} of {whole} that were judged"
        raise UsageError(asked, found, "name others, or search anew with more: search = {examples = N}")
    return judged, len(lines)


def before_and_after(views: Views, objective: Objective, id: str) -> dict[str, dict[str, Estimate]]:
    """Mean cost of a candidate by data: where the largest score decides (``plain``), and by the rule (``rule``).

    ``confirm`` are labelled examples that nothing was chosen by and no temperature fitted to.
    """
    trial = views.trials[id]
    rule = views.rule(objective, trial)
    groups = ["new"] if objective.data else [g for g in ("evaluate", "confirm") if views.labels(g) is not None]
    found: dict[str, dict[str, Estimate]] = {}
    for group in groups:
        answers = views.answers(objective, trial, "evaluate" if group == "new" else group)
        found[group] = {"rule": mean(costs(rule, *answers))}
        if rule.costs.of_class is not None:
            found[group]["plain"] = mean(costs(rule, *answers, plain=True))
    return found
