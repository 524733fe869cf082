"""A user's own ``.py``: loaded under one fixed name, its functions called, its errors told by its own lines."""

from __future__ import annotations

import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...core.errors import ChildFailed, UsageError
from ..images import Preprocess
from ..proof import detections

# The module's name ends up in tensor names and metadata, so it is the same for everybody.
USER_MODULE = "seatrial_user_model"


def load(path: Path) -> Any:
    """The module behind a file; its folder can be imported from, as when Python runs it."""
    spec = importlib.util.spec_from_file_location(USER_MODULE, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[USER_MODULE] = module
    sys.path.insert(0, str(path.resolve().parent))
    sys.dont_write_bytecode = True  # the user's folder stays as it is
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise user_error(str(path), "the file raises an error when it is loaded", error) from error
    return module


def user_error(path: str, what: str, error: BaseException) -> ChildFailed:
    """An error of the user's code, with the lines of their own file."""
    own = own_frames(path, error)
    lines = [f"{Path(f.filename).name}:{f.lineno} in {f.name}: {f.line}" for f in own]
    if isinstance(error, SyntaxError):
        lines.append(f"{Path(path).name}:{error.lineno}: {(error.text or '').strip()}")
    text = str(error).strip().splitlines()
    head = f"{type(error).__name__}: {text[0] if text else ''}".rstrip(": ")
    found = "\n         ".join([f"{what}: {head}", *lines])
    return ChildFailed(f"the model {path}", found, "mend it; the log has the whole traceback")


def own_frames(path: str, error: BaseException) -> list[traceback.FrameSummary]:
    """The frames of a traceback that stand in the user's file."""
    frames = traceback.extract_tb(error.__traceback__)
    return [f for f in frames if Path(f.filename).resolve() == Path(path).resolve()]


def function(module: Any, path: str, name: str) -> Callable[..., Any]:
    """A function of the user's module.

    Raises:
        UsageError: there is none; the error lists what there is.
    """
    found = getattr(module, name, None)
    if callable(found):
        return found  # type: ignore[no-any-return]
    defined = [n for n, v in vars(module).items() if inspect.isfunction(v) and v.__module__ == USER_MODULE]
    words = f"it defines {', '.join(defined)}" if defined else "it defines no functions"
    todo = f"define {name}(); `seatrial init` writes an example"
    raise UsageError(f"{name}() of {path}", f"there is none: {words}", todo)


def call(path: str, name: str, function: Callable[..., Any], **kwargs: Any) -> Any:
    """Call a function of the user's; its errors become ours, with their lines."""
    try:
        return function(**kwargs)
    except (Exception, SystemExit) as error:
        raise user_error(path, f"{name}() raises an error", error) from error


def arguments(function: Callable[..., Any], path: str, args: Mapping[str, str]) -> dict[str, str]:
    """The ``--arg`` texts, held against the function's parameters."""
    name = function.__name__
    parameters = inspect.signature(function).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    for given in args:
        if given not in parameters and not takes_any:
            known = ", ".join(parameters) or "none"
            raise UsageError(f"--arg {given}=...", f"{name}() has no parameter {given!r}", f"it has: {known}")
    variable = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    for each, parameter in parameters.items():
        if parameter.default is parameter.empty and parameter.kind not in variable and each not in args:
            todo = f"add --arg {each}=..., or give a default"
            raise UsageError(f"the model {path}", f"{name}() needs {each}", todo)
    return dict(args)


def declared_detections(module: Any, path: str) -> dict[str, Any]:
    """What ``get_detections()`` says, where it is: the outputs that hold boxes, scores and classes."""
    if not hasattr(module, "get_detections"):
        return {}
    data = call(path, "get_detections", module.get_detections)
    asked = f"get_detections() of {path}"
    if not isinstance(data, Mapping):
        raise UsageError(asked, f"it returns {type(data).__qualname__}", "return a dict")
    return detections.read(data, asked)


def declared(module: Any, path: str) -> tuple[list[str] | None, Preprocess | None]:
    """What ``get_labels()`` and ``get_preprocess()`` say, where they are."""
    labels = preprocess = None
    if hasattr(module, "get_labels"):
        labels = call(path, "get_labels", module.get_labels)
        if not isinstance(labels, Sequence) or isinstance(labels, str):
            found = f"it returns {type(labels).__qualname__}"
            raise UsageError(f"get_labels() of {path}", found, "return a list of class names")
        labels = [str(label) for label in labels]
    if hasattr(module, "get_preprocess"):
        data = call(path, "get_preprocess", module.get_preprocess)
        if not isinstance(data, Mapping):
            raise UsageError(f"get_preprocess() of {path}", f"it returns {type(data).__qualname__}", "return a dict")
        preprocess = Preprocess.from_dict(data, f"get_preprocess() of {path}")
    return labels, preprocess
