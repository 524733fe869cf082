"""Runs in a child: a folder that the exporter can capture, moved or not: ``model.py``, its code, its weights."""

from __future__ import annotations

import hashlib
import pprint
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...core.errors import ChildFailed
from . import declare, elastic, graph
from .code import Code

FILE, WEIGHTS, CODE = "model.py", "weights.pt", "code"

_TEXT = '''"""A candidate of a search: its weights and the code that builds it lie beside this file."""

import importlib.util
import sys
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
CANDIDATE = {values}
WEIGHTS = "{digest}"  # of the tensors in {weights}


def _code():
    sys.path.insert(0, str(HERE / "{code}"))
    spec = importlib.util.spec_from_file_location("seatrial_user_study", HERE / "{code}" / "{file}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


CODE = _code()


def get_model():
    model = CODE.build({to_build})
    model.load_state_dict(torch.load(HERE / "{weights}", map_location="cpu", weights_only=True))
    return model.eval()


def get_args():
    return CODE.{args}
'''
_OPTIONS = "\nOPTIONS = {options}\n"
_DECLARED = "\n\ndef {name}():\n    return {value}\n"


def write(folder: Path, code: Code, values: Mapping[str, Any], model: Any) -> None:
    """Fill a folder with a candidate's source.

    The text says neither where it lies nor when it was made, so the same candidate with the same weights is the same
    source everywhere.
    """
    import torch

    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    torch.save(state, folder / WEIGHTS)
    family = code.family is not None
    own = Path(elastic.__file__) if family else code.path
    assert own
    beside = [] if family else declare.modules(own)
    for file in [own, *beside]:
        place = folder / CODE / file.resolve().relative_to(own.resolve().parent)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, place)
    takes = "CANDIDATE" if family or code.given_to_get_args(values) else ""
    text = _TEXT.format(
        values=_literal(dict(values)),
        digest=digest(state),
        weights=WEIGHTS,
        code=CODE,
        file=own.name,
        to_build="CANDIDATE, OPTIONS" if family else "CANDIDATE",
        args="example(OPTIONS)" if family else f"get_args({takes})",
    )
    if family:
        head, line, rest = text.partition("\nWEIGHTS = ")
        text = f"{head}{_OPTIONS.format(options=_literal(code.family)).rstrip()}{line}{rest}"
    labels, preprocess = code.declared
    classes = None if labels else graph.classes(model, code.args(values))
    labels = labels or ([str(i) for i in range(classes)] if classes else None)  # as the data's labels count them
    for name, value in (("get_labels", labels), ("get_preprocess", preprocess)):
        if value is not None:
            text += _DECLARED.format(name=name, value=_literal(value))
    (folder / FILE).write_text(text)


def load(folder: Path, code: Code, values: Mapping[str, Any]) -> Any:
    """A candidate's model with the weights of a folder that `write` filled."""
    model = code.build(values)
    model.load_state_dict(weights(folder))
    return model


def weights(folder: Path) -> dict[str, Any]:
    """The tensors by name."""
    import torch

    found: dict[str, Any] = torch.load(folder / WEIGHTS, map_location="cpu", weights_only=True)
    return found


def check_fits(code: Code, values: Mapping[str, Any], model: Any) -> None:
    """Refuse a trained model whose weights don't go into the candidate as it is built.

    Raises:
        ChildFailed: training gave another network.
    """
    fresh = code.build(values)
    try:
        fresh.load_state_dict(model.state_dict())
    except RuntimeError as error:
        found = f"it returns a model whose weights don't go into build()'s: {str(error).splitlines()[-1].strip()}"
        raise ChildFailed(f"train() of {code.path}", found, "train the model that is given") from None


def digest(state: Mapping[str, Any]) -> str:
    """Hex SHA-256 of named tensors: their bytes, not the file's."""
    import torch

    found = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def _literal(value: Any) -> str:
    return pprint.pformat(value, width=110, sort_dicts=False)
