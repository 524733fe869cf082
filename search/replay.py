"""Stored artifacts on new examples, and a user's own function over stored answers."""

from __future__ import annotations

import inspect
import secrets
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core import process, samples
from ..core.errors import ChildFailed, SeatrialError, UsageError
from ..core.ids import content_id, file_sha256, files_id
from ..core.paths import check_readable, writing
from ..devices.local import LocalDevice
from ..exporter.artifact import model_files
from ..exporter.data import Data
from ..exporter.program import Program
from ..exporter.sources import user
from .objectives import Estimate, mean
from .trials import Trial

if TYPE_CHECKING:
    from numpy import ndarray

Say = Callable[[str], None]


@dataclass(frozen=True)
class Examples:
    """Labelled examples that a study did not have.

    Attributes:
        name: for people.
        id: of the files as they were given.
        labels: class of each.
        names: of their files, where they have any.
        fed: the same as inputs of models, by `taken`: those of a pool may want pictures in other sizes, or call their
            input otherwise.
        refused: why, by `taken`, of models that can't take them.
    """

    name: str
    id: str
    labels: list[int]
    names: list[str] | None
    fed: Mapping[str, Data]
    refused: Mapping[str, str]


def taken(program: Program) -> str:
    """Id of what a model takes: its inputs, and how pictures become these."""
    preprocess = program.preprocess.to_dict() if program.preprocess else None
    return content_id([[spec.to_dict() for spec in program.inputs], preprocess])


def replay(
    folder: Path, data: Examples, trials: Sequence[Trial], program_of: Callable[[str], Program], say: Say
) -> tuple[int, dict[str, str]]:
    """Run each artifact over new examples, once for each target and precision; what was run before is left alone.

    Args:
        folder: the study's.
        data: the examples.
        trials: of any settings; the runtime's defaults with the fewest threads stand for the others.
        program_of: the source of a model.
        say: takes one line about each run.

    Returns:
        How many were run, and why, by label, of each that could not be.
    """
    place = _place(folder, data.id)
    place.mkdir(parents=True, exist_ok=True)
    ran, failed = 0, {}
    for key, (trial, kind) in _each(trials, program_of).items():
        if (place / key / "00.npz").exists():
            continue
        artifact = folder / str(trial.artifact)
        reason: str | None
        if kind in data.refused:
            reason = data.refused[kind]
        elif files_id(model_files(artifact)) != trial.artifact_id:
            reason = "its file is gone, or has changed"
        else:
            say(f"replaying {trial.candidate.target} {trial.candidate.precision} on {len(data.labels)} examples")
            reason = _run(trial, artifact, _written(place, data, kind), place / key)
        if reason is None:
            ran += 1
        else:
            failed[trial.candidate.label] = reason
    return ran, failed


def keep_examples(folder: Path, path: Path, data: Examples) -> None:
    """Keep the files of new examples with the study, for models that come later.

    Args:
        folder: the study's.
        path: of the examples.
        data: the same, read.
    """
    place, path = _place(folder, data.id), path.resolve()
    kept = place / "given"
    if kept.exists():
        return
    with writing(f"the study {folder}"):
        part = place / f"given-{secrets.token_hex(4)}.part"
        names = [*(data.names or ()), *(["labels.csv"] if (path / "labels.csv").is_file() else [])]
        for file in [path / name for name in names] or [path]:
            out = part / path.name / file.relative_to(path)
            out.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, out)
        try:
            part.rename(kept)
        except OSError:
            if not kept.exists():  # else another process kept the same
                raise
            shutil.rmtree(part)


def kept_examples(folder: Path, data: str) -> Path:
    """Where examples lie that a study keeps.

    Args:
        folder: the study's.
        data: their id.

    Raises:
        UsageError: they are gone.
    """
    found = list((_place(folder, data) / "given").glob("*"))
    if not found:
        asked = f"the new examples in {_place(folder, data)}"
        raise UsageError(asked, "they are not there", "add the objective again, by the same name")
    return found[0]


def _written(place: Path, data: Examples, kind: str) -> Path:
    """The examples as this kind of model takes them, in a file."""
    inputs = place / f"inputs-{kind}.npz"
    if not inputs.exists():
        samples.save(inputs, data.fed[kind].feeds)
    return inputs


def _run(trial: Trial, artifact: Path, inputs: Path, out: Path) -> str | None:
    """Let a device write an artifact's answers; why it gave none."""
    job = {
        "kind": "proof",
        "target": trial.candidate.target,
        "artifact": str(artifact),
        "runs": [{"settings": dict(trial.candidate.settings)}],
        "inputs": str(inputs),
        "out": str(out),
    }
    run = LocalDevice().run(job)["runs"][0]
    return str(run["error"]["found"]) if run["outputs"] is None else None


def _each(trials: Sequence[Trial], program_of: Callable[[str], Program]) -> dict[str, tuple[Trial, str]]:
    """One trial for each target and precision with what it takes, by the name of its outputs."""
    kinds = {model: taken(program_of(model)) for model in {t.candidate.model for t in trials if t.artifact}}
    found: dict[str, tuple[Trial, str]] = {}
    for trial in sorted(trials, key=plainness):
        if trial.artifact:
            kind = kinds[trial.candidate.model]
            found.setdefault(_key(trial, kind), (trial, kind))
    return found


def plainness(trial: Trial) -> tuple[bool, int, str]:
    """Orders trials of one artifact: the runtime's defaults with the fewest threads come first."""
    return not trial.candidate.is_default, dict(trial.candidate.settings)["threads"], trial.id


def _key(trial: Trial, kind: str) -> str:
    return content_id([trial.candidate.target, trial.artifact_id, trial.candidate.precision, kind])


def _place(folder: Path, data: str) -> Path:
    return folder / "work" / "replayed" / data


def replayed_file(folder: Path, data: str, trial: Trial, program: Program) -> Path:
    """Where the answers of a trial's artifact, made from a program, to new examples are."""
    return _place(folder, data) / _key(trial, taken(program)) / "00.npz"


def function_values(
    work: Path, function: Mapping[str, Any], answers: Mapping[str, tuple[ndarray, ndarray]]
) -> dict[str, Estimate]:
    """What a user's function says of each candidate's answers; it runs in a process of its own.

    Args:
        work: takes the process's files while it runs, and the log of one that failed.
        function: ``path``, ``name`` and ``sha256`` of the function's file: it takes outputs (n, classes) and labels
            (n,) and gives one number, or one for each example, whose mean counts.
        answers: outputs and labels by candidate.

    Raises:
        ChildFailed: it raised an error.
        UsageError: there is no such function, it gives something else, or its file isn't what it was.
    """
    import numpy as np

    asked = f"the objective {function['path']}:{function['name']}"
    check_readable(Path(function["path"]), asked)
    if file_sha256(function["path"]) != function["sha256"]:
        found = "its file has changed: scores of two functions would stand under one name"
        raise UsageError(asked, found, "add it anew under another name, or put the file back")
    # Each call has files of its own: another process may be asked the same at the same time.
    with tempfile.TemporaryDirectory(prefix="function-", dir=work) as place:
        given = Path(place) / "answers.npz"
        samples.save(given, [{"outputs": x, "labels": y} for x, y in answers.values()])
        values = _called(function, given, asked, work / "function.log")
    return {
        id: mean(np.array(value)) if isinstance(value, list) else Estimate(value, n=len(answers[id][1]))
        for id, value in zip(answers, values, strict=True)
    }


def _called(function: Mapping[str, Any], answers: Path, asked: str, log: Path) -> list[Any]:
    """What a function says of each; the log of a failure is kept."""
    args = {"path": function["path"], "name": function["name"], "answers": str(answers)}
    call = "seatrial.search.replay:call_function"
    try:
        found: list[Any] = process.call(call, args, workdir=answers.parent, label=asked)["values"]
    except SeatrialError as error:
        if error.log:
            error.log = str(Path(error.log).replace(log))
        raise
    return found


def call_function(path: str, name: str, answers: str) -> dict[str, Any]:
    """Answers with ``values``: for each feed a number, or a list of one for each example."""
    asked = f"the objective {path}:{name}"
    try:
        module = user.load(Path(path))
        function = getattr(module, name, None)
        if not callable(function):
            defined = ", ".join(n for n, v in vars(module).items() if inspect.isfunction(v)) or "nothing"
            raise UsageError(asked, f"there is no such function; the file defines {defined}", "give FILE.py:NAME")
        feeds = samples.load(answers)
        return {
            "values": [
                _numbers(asked, user.call(path, name, function, outputs=feed["outputs"], labels=feed["labels"]), feed)
                for feed in feeds
            ]
        }
    except ChildFailed as error:
        error.asked = asked
        raise


def _numbers(asked: str, value: Any, feed: Mapping[str, ndarray]) -> float | list[float]:
    import numpy as np

    todo = "return one number, or an array with one for each example"
    try:
        array = np.asarray(value, np.float64)
    except (TypeError, ValueError) as error:
        raise UsageError(asked, f"it returns {type(value).__name__}, which is no number", todo) from error
    if array.shape not in ((), (len(feed["labels"]),)) or not np.isfinite(array).all():
        what = f"an array of {list(array.shape)}" if array.ndim else f"{value}"
        raise UsageError(asked, f"it returns {what} for {len(feed['labels'])} examples", todo)
    return [float(x) for x in array] if array.ndim else float(array)
