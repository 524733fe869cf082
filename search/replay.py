"""Stored artifacts on new examples, and a user's own function over stored answers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core import process, samples
from ..core.errors import ChildFailed, UsageError
from ..core.ids import content_id, files_id
from ..devices.local import LocalDevice
from ..exporter.artifact import model_files
from ..exporter.data import Data
from ..exporter.sources import user
from .objectives import Estimate, mean
from .trials import Trial

if TYPE_CHECKING:
    from numpy import ndarray

Say = Callable[[str], None]


def replay(folder: Path, data: Data, trials: Sequence[Trial], say: Say) -> dict[str, str]:
    """Run each artifact over new examples, once for each target and precision; what was run before is left alone.

    Args:
        folder: the study's.
        data: examples for the study's model.
        trials: of any settings; the runtime's defaults with the fewest threads stand for the others.
        say: takes one line about each run.

    Returns:
        Why, by label, of each that could not be run.
    """
    place = _place(folder, data.id)
    place.mkdir(parents=True, exist_ok=True)
    inputs = place / "inputs.npz"
    if not inputs.exists():
        samples.save(inputs, data.feeds)
    failed = {}
    for key, trial in _each(trials).items():
        if (place / key / "00.npz").exists():
            continue
        artifact = folder / str(trial.artifact)
        if files_id(model_files(artifact)) != trial.artifact_id:
            failed[trial.candidate.label] = "its file is gone, or has changed"
            continue
        say(f"replaying {trial.candidate.target} {trial.candidate.precision} on {len(data)} examples")
        job = {
            "kind": "proof",
            "target": trial.candidate.target,
            "artifact": str(artifact),
            "runs": [{"settings": dict(trial.candidate.settings)}],
            "inputs": str(inputs),
            "out": str(place / key),
        }
        run = LocalDevice().run(job)["runs"][0]
        if run["outputs"] is None:
            failed[trial.candidate.label] = run["error"]["found"]
    return failed


def _each(trials: Sequence[Trial]) -> dict[str, Trial]:
    """One trial for each target and precision, by the name of its outputs."""
    found: dict[str, Trial] = {}
    order = sorted(trials, key=lambda t: (not t.candidate.is_default, dict(t.candidate.settings)["threads"], t.id))
    for trial in order:
        if trial.artifact:
            found.setdefault(_key(trial), trial)
    return found


def _key(trial: Trial) -> str:
    return content_id([trial.candidate.target, trial.artifact_id, trial.candidate.precision])


def _place(folder: Path, data: str) -> Path:
    return folder / "work" / "replayed" / data


def replayed_file(folder: Path, data: str, trial: Trial) -> Path:
    """Where the answers of a trial's artifact to new examples are."""
    return _place(folder, data) / _key(trial) / "00.npz"


def function_values(
    work: Path, function: Mapping[str, Any], answers: Mapping[str, tuple[ndarray, ndarray]]
) -> dict[str, Estimate]:
    """What a user's function says of each candidate's answers; it runs in a process of its own.

    Args:
        work: takes the process's files.
        function: ``path`` and ``name`` of the function: it takes outputs (n, classes) and labels (n,) and gives one
            number, or one for each example, whose mean counts.
        answers: outputs and labels by candidate.

    Raises:
        ChildFailed: it raised an error.
        UsageError: there is no such function, or it gives something else.
    """
    import numpy as np

    place = work / "function"
    place.mkdir(parents=True, exist_ok=True)
    samples.save(place / "answers.npz", [{"outputs": x, "labels": y} for x, y in answers.values()])
    args = {"path": function["path"], "name": function["name"], "answers": str(place / "answers.npz")}
    asked = f"the objective {function['path']}:{function['name']}"
    found = process.call("seatrial.search.replay:call_function", args, workdir=place, label=asked)["values"]
    return {
        id: mean(np.array(values)) if isinstance(values, list) else Estimate(values, n=len(answers[id][1]))
        for id, values in zip(answers, found, strict=True)
    }


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
