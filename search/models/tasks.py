"""What children do for `api.Models`: each function takes JSON and leaves its results as files, whole or not at all."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...core.errors import CannotDo, MissingPart, NotWritten, SeatrialError
from ...core.paths import whole_file, whole_folder
from ...exporter.data import ONLY, ROWS
from ...exporter.sources import user
from ..studyfile import Budget
from . import graph, shared, source, training
from .code import Code

Values = dict[str, Any]
Many = Sequence[tuple[Values, str]]
"""Candidates, each with the path that takes its result."""
RESULT = "result.json"
_SOME = 64


def own_failure(error: SeatrialError) -> bool:
    """Whether an error is of one candidate, so that the search goes on without it."""
    return isinstance(error, CannotDo) and not isinstance(error, NotWritten | MissingPart)


def _each(many: Many, do: Callable[[Values, Path], None]) -> dict[str, Any]:
    """Do it for all; the answer holds the error of each that failed, by its path."""
    failed = {}
    for values, out in many:
        try:
            do(values, Path(out))
        except SeatrialError as error:
            if not own_failure(error):
                raise
            failed[out] = error.to_dict()
    return {"failed": failed}


def facts(study: Mapping[str, Any], many: Many) -> dict[str, Any]:
    """Write the facts of each candidate's graph as JSON."""
    import torch

    torch.set_num_threads(1)
    code = Code(study)

    def do(values: Values, out: Path) -> None:
        model, args = code.build(values), code.args(values)
        try:
            found = graph.facts(model, args)
        except Exception as error:
            raise user.user_error(str(code.path), "the built model can't take what get_args() gives", error) from error
        _write(out, found)

    return _each(many, do)


def untrained(study: Mapping[str, Any], many: Many) -> dict[str, Any]:
    """Write each candidate's source with weights as they are before training, none of them degenerate."""
    import torch

    torch.set_num_threads(1)
    code = Code(study)
    inputs = code.data("train")[0][:_SOME]

    def do(values: Values, out: Path) -> None:
        model = code.build(values)
        graph.waken(model)
        # Else signals fade from layer to layer, and answers that are the same for every input prove nothing.
        training.recalibrate(model, inputs, len(inputs))
        with whole_folder(out) as folder:
            source.write(folder, code, values, model)

    return _each(many, do)


def train_shared(study: Mapping[str, Any], budget: Mapping[str, Any], state: str, out: str) -> dict[str, Any]:
    """Train the largest candidate and its parts together; its folder takes their weights."""
    code, asked = Code(study), Budget(**budget)
    training.prepare(asked)
    assert code.family is not None
    whole = shared.supernet(code.family)
    step = shared.sandwich(whole, code.family)
    course = training.run(whole, code.data("train"), asked, Path(state), step)
    with whole_folder(Path(out)) as folder:
        _save(folder, whole)
        _write(folder / RESULT, {**course.to_dict(), "budget": budget})
    Path(state).unlink(missing_ok=True)
    return {}


def _save(folder: Path, model: Any) -> None:
    import torch

    torch.save(model.state_dict(), folder / source.WEIGHTS)


def inherit(study: Mapping[str, Any], many: Many, whole: str, budget: Mapping[str, Any]) -> dict[str, Any]:
    """Give each candidate its part of the shared weights and statistics of its own, and judge it."""
    code, asked = Code(study), Budget(**budget)
    training.prepare(asked)
    weights = source.weights(Path(whole))
    inputs, valid = code.data("train")[0], code.data("valid")

    def do(values: Values, out: Path) -> None:
        begin = time.monotonic()
        model = code.build(values)
        model.load_state_dict(shared.inherited(model, weights))
        training.recalibrate(model, inputs, asked.batch)
        _finish(out, code, values, model, valid, {"seconds": time.monotonic() - begin, "epochs": 0, "loss": []})

    return _each(many, do)


def train(
    study: Mapping[str, Any], values: Values, budget: Mapping[str, Any], state: str, out: str, start: str | None
) -> dict[str, Any]:
    """Train one candidate, from scratch or from the weights of the folder `start`, and judge it."""
    code, asked = Code(study), Budget(**budget)
    training.prepare(asked)
    data, valid = code.data("train"), code.data("valid")
    model = source.load(Path(start), code, values) if start else code.build(values)
    if code.has("train"):
        model, course = _own_training(code, values, model, asked, state)
    else:
        course = training.run(model, data, asked, Path(state), training.plain_step(model)).to_dict()
    _finish(Path(out), code, values, model, valid, {**course, "budget": budget})
    Path(state).unlink(missing_ok=True)
    return {}


def _own_training(code: Code, values: Values, model: Any, budget: Budget, state: str) -> tuple[Any, dict[str, Any]]:
    """By the user's ``train``; it may keep what it likes in the file that ``budget["checkpoint"]`` names."""
    Path(state).parent.mkdir(parents=True, exist_ok=True)
    begin = time.monotonic()
    told = {**vars(budget), "checkpoint": state}
    found = code.call("train", model, dict(values), told)
    found = (model if found is None else found).eval()
    source.check_fits(code, values, found)
    return found, {"seconds": time.monotonic() - begin, "epochs": budget.epochs, "loss": []}


def _finish(out: Path, code: Code, values: Values, model: Any, valid: Any, more: Mapping[str, Any]) -> None:
    with whole_folder(out) as folder:
        judged = training.judged(model, valid, folder / "valid.npz")
        source.write(folder, code, values, model)
        _write(folder / RESULT, {**judged, **more})


def confirm(study: Mapping[str, Any], values: Values, folder: str, threads: int) -> dict[str, Any]:
    """Judge a trained candidate on examples that nothing was chosen by."""
    import torch

    torch.set_num_threads(threads)
    code = Code(study)
    model = source.load(Path(folder), code, values)
    judged = training.judged(model, code.data("test"), Path(folder, "test.npz"))
    _write(Path(folder, "test.json"), judged)
    return {}


def declared(study: Mapping[str, Any]) -> dict[str, Any]:
    """What ``get_labels()`` and ``get_preprocess()`` of the study file say; None where it has none."""
    labels, preprocess = Code(study).declared
    return {"labels": labels, "preprocess": preprocess}


def data(
    study: Mapping[str, Any], values: Values | None, parts: Sequence[tuple[str, int | None, str]]
) -> dict[str, Any]:
    """Write parts of the data as the exporter takes them: the model's input, ``labels`` but of "train", `ROWS` of some.

    Args:
        study: see `Code`.
        values: the candidate, where ``load_data`` gives each one data of its own.
        parts: name of each, how many of its examples at most, evenly over it, and the path that takes them.
    """
    import numpy as np

    code = Code(study)
    for part, most, out in parts:
        inputs, labels = code.data(part, values)
        # Nothing may be fitted to answers that a model was trained to give.
        arrays: dict[str, Any] = {ONLY: inputs, **({} if part == "train" else {"labels": labels})}
        if most and most < len(labels):
            rows = np.linspace(0, len(labels) - 1, most).round().astype(int)
            arrays = {**{name: array[rows] for name, array in arrays.items()}, ROWS: rows}
        with whole_file(Path(out)) as place, place.open("wb") as file:
            np.savez(file, **arrays)
    return {}


def _write(path: Path, data: Mapping[str, Any]) -> None:
    with whole_file(path) as part:
        part.write_text(json.dumps(data, allow_nan=False))
