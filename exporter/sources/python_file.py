"""A user's ``.py``: its ``get_model()`` gives a torch module or a Keras model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...core.errors import UsageError
from ...core.ids import file_sha256
from . import keras_model, torch_model, torchvision, user
from .job import Job


def capture(job: dict[str, Any]) -> dict[str, Any]:
    """Capture what ``get_model()`` returns; see `torch_model.capture` and `keras_model.capture_model`."""
    asked = Job.from_dict(job)
    path = asked.path
    text = Path(path).read_text(errors="replace")
    if "torch" in text:  # its import takes seconds, which a Keras file needn't wait
        torch_model.prepare()
    if "keras" in text:
        keras_model.prepare()
    if any(name in text for name in ("timm", "transformers", "torchvision")):
        torchvision.load()
    module = user.load(Path(path))
    make = user.function(module, path, asked.function)
    model = user.call(path, asked.function, make, **user.arguments(make, path, asked.args))
    asked = replace(asked, detections=asked.detections or user.declared_detections(module, path))
    kinds = {f"{base.__module__.partition('.')[0]}.{base.__name__}" for base in type(model).__mro__}
    if "torch.Module" in kinds:
        return _torch(asked, module, model)
    if {"keras.Model", "keras.Layer"} & kinds:
        return _keras(asked, module, model)
    found = f"it returns {type(model).__module__}.{type(model).__qualname__}"
    raise UsageError(f"{asked.function}() of {path}", found, "return a torch.nn.Module or a Keras model")


def _torch(job: Job, module: Any, model: Any) -> dict[str, Any]:
    if job.inputs or job.shapes:
        todo = "let get_args() give the example inputs"
        raise UsageError("--inputs or --shape", f"{job.path} has get_args() for that", todo)
    args = user.call(job.path, "get_args", user.function(module, job.path, "get_args"))
    labels, preprocess = user.declared(module, job.path)
    given = torch_model.Given(model, args, [file_sha256(job.path)], labels, preprocess)
    given.calibration = _calibration(job, module)
    return torch_model.capture(job, given)


def _calibration(job: Job, module: Any) -> Any:
    if "calibration" in job.data or not hasattr(module, "get_calibration"):
        return None
    return user.call(job.path, "get_calibration", lambda: list(module.get_calibration()))


def _keras(job: Job, module: Any, model: Any) -> dict[str, Any]:
    example = None
    if hasattr(module, "get_args"):
        example = user.call(job.path, "get_args", module.get_args)
        if not isinstance(example, Mapping):
            example = list(example) if isinstance(example, list | tuple) else [example]
    labels, preprocess = user.declared(module, job.path)
    own = _calibration(job, module)
    return keras_model.capture_model(job, model, example, labels, preprocess, [file_sha256(job.path)], own)
