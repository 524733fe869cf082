"""A user's ``.py`` with ``get_model()`` and ``get_args()``: loaded, checked, captured. Runs in a torch process."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...core import samples
from ...core.errors import ChildFailed, SeatrialError, Unsupported, UsageError
from ...core.ids import content_id, file_sha256
from ...core.samples import Feed
from ...core.specs import TensorSpec
from ..images import Preprocess
from ..program import Program
from ..proof import parity
from .common import fill

# The module's name ends up in tensor names and metadata, so it is the same for everybody.
USER_MODULE = "seatrial_user_model"

_captured: dict[str, Any] = {}


def captured(pt2: str) -> Any:
    """The exported program behind a ``.pt2``; the very object, where this process captured it."""
    import torch

    return _captured[pt2] if pt2 in _captured else torch.export.load(pt2)


def capture(
    path: str,
    name: str,
    args: Mapping[str, str],
    folder: str,
    data: Mapping[str, str],
    then: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Capture a user's model into the Program `folder`, then run converters of the torch family in this process.

    Args:
        path: the user's file.
        name: what people call it.
        args: texts for the parameters of ``get_model``.
        folder: where the Program goes.
        data: paths of the user's data, by use.
        then: converters as ``{"function": "module:name", "args": {...}, "label": "..."}``.

    Returns:
        ``{"steps": [...]}``: for each converter None, or its error as data.
    """
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = _load(Path(path))
    model = _call(path, "get_model", _function(module, path, "get_model"), **_arguments(module, path, args))
    _check_model(path, model)
    given = _call(path, "get_args", _function(module, path, "get_args"))
    names, tensors = _inputs(path, model, given)
    labels, preprocess = _declared(module, path)
    wrapper = _flat(model, names if isinstance(given, Mapping) else None)
    with torch.no_grad():
        _check_fit(path, wrapper, tensors)
        inputs = [TensorSpec(n, _dtype(t), tuple(t.shape)) for n, t in zip(names, tensors, strict=True)]
        example = {n: t.detach().numpy() for n, t in zip(names, tensors, strict=True)}

        def run(feed: Feed) -> Feed:
            return _run(wrapper, wrapper.output_names, names, feed)

        answers = fill(Path(folder), f"the model {path}", run, inputs, example, preprocess, data)
        program = _export(path, wrapper, tensors)
        feeds, reference = (samples.load(Path(folder) / f"main_{side}.npz") for side in ("in", "out"))
        found = [_run(program.module(), wrapper.output_names, names, feed) for feed in feeds]
    check = parity.compare("fp32", answers.main, reference, found)
    pt2 = Path(folder) / "model.pt2"
    torch.export.save(program, str(pt2))
    _captured[str(pt2)] = program
    result = Program(
        folder=Path(folder),
        name=name,
        kind="torch",
        model="model.pt2",
        source_id=_source_id(Path(path), args, model),
        reference="torch eager, fp32, one thread",
        inputs=inputs,
        outputs=answers.outputs,
        main=answers.main,
        edges=answers.edges,
        data=answers.data,
        labels=labels,
        preprocess=preprocess,
        capture_db=check.sqnr_db,
        tools={"torch": torch.__version__},
    )
    result.save()
    return {"steps": [_then(step) for step in then]}


def _then(step: Mapping[str, Any]) -> dict[str, Any] | None:
    module, _, name = step["function"].partition(":")
    try:
        getattr(importlib.import_module(module), name)(**step["args"])
    except SeatrialError as error:
        traceback.print_exc()
        return error.to_dict()
    except Exception as error:
        traceback.print_exc()
        found = f"{type(error).__name__}: {str(error).strip()[:2000]}"
        return ChildFailed(step["label"], found, "the last lines of the log tell more").to_dict()
    return None


def _load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(USER_MODULE, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[USER_MODULE] = module
    sys.path.insert(0, str(path.resolve().parent))
    sys.dont_write_bytecode = True  # the user's folder stays as it is
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise _user_error(str(path), "the file raises an error when it is loaded", error) from error
    return module


def _user_error(path: str, what: str, error: BaseException) -> ChildFailed:
    """An error of the user's code, with the lines of their own file."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if Path(f.filename).resolve() == Path(path).resolve()]
    lines = [f"{Path(f.filename).name}:{f.lineno} in {f.name}: {f.line}" for f in own]
    if isinstance(error, SyntaxError):
        lines.append(f"{Path(path).name}:{error.lineno}: {(error.text or '').strip()}")
    text = str(error).strip().splitlines()
    head = f"{type(error).__name__}: {text[0] if text else ''}".rstrip(": ")
    found = "\n         ".join([f"{what}: {head}", *lines])
    return ChildFailed(f"the model {path}", found, "mend it; `python FILE` shows the whole", trace="\n".join(lines))


def _function(module: Any, path: str, name: str) -> Callable[..., Any]:
    function = getattr(module, name, None)
    if callable(function):
        return function  # type: ignore[no-any-return]
    defined = [n for n, v in vars(module).items() if inspect.isfunction(v) and v.__module__ == USER_MODULE]
    found = f"it defines {', '.join(defined)}" if defined else "it defines no functions"
    todo = f"define {name}(); `seatrial init` writes an example"
    raise UsageError(f"{name}() of {path}", f"there is none: {found}", todo)


def _call(path: str, name: str, function: Callable[..., Any], **kwargs: Any) -> Any:
    try:
        return function(**kwargs)
    except (Exception, SystemExit) as error:
        raise _user_error(path, f"{name}() raises an error", error) from error


def _arguments(module: Any, path: str, args: Mapping[str, str]) -> dict[str, str]:
    parameters = inspect.signature(_function(module, path, "get_model")).parameters
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    for name in args:
        if name not in parameters and not takes_any:
            known = ", ".join(parameters) or "none"
            raise UsageError(f"--arg {name}=...", f"get_model() has no parameter {name!r}", f"it has: {known}")
    variable = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and parameter.kind not in variable and name not in args:
            raise UsageError(
                f"the model {path}", f"get_model() needs {name}", f"add --arg {name}=..., or give a default"
            )
    return dict(args)


def _check_model(path: str, model: Any) -> None:
    import torch

    if not isinstance(model, torch.nn.Module):
        found = f"it returns {type(model).__module__}.{type(model).__qualname__}"
        raise UsageError(f"get_model() of {path}", found, "return a torch.nn.Module")
    training = [name or "the model" for name, part in model.named_modules() if part.training]
    if training:
        found = f"{training[0]} is in train mode" + (f" (and {len(training) - 1} more)" * (len(training) > 1))
        raise UsageError(f"the model {path}", found, "call model.eval() in get_model()")


def _inputs(path: str, model: Any, args: Any) -> tuple[list[str], list[Any]]:
    """Names and tensors of the example inputs, in the order of the model's parameters."""
    import torch

    if isinstance(args, torch.Tensor):
        args = (args,)
    if isinstance(args, Mapping):
        names, values = [str(key) for key in args], list(args.values())
    elif isinstance(args, Sequence):
        values = list(args)
        names = _parameter_names(model, len(values))
    else:
        found = f"it returns {type(args).__qualname__}"
        raise UsageError(f"get_args() of {path}", found, "return a tuple of tensors, or a dict by parameter name")
    for name, value in zip(names, values, strict=True):
        if not isinstance(value, torch.Tensor):
            todo = "return tensors only; fix other arguments inside the model"
            raise UsageError(f"get_args() of {path}", f"{name} is {type(value).__qualname__}, not a tensor", todo)
    return names, values


def _parameter_names(model: Any, count: int) -> list[str]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(model.forward).parameters.values()
    names = [p.name for p in parameters if p.kind in kinds]
    return [names[i] if i < len(names) else f"input_{i}" for i in range(count)]


def _declared(module: Any, path: str) -> tuple[list[str] | None, Preprocess | None]:
    labels = preprocess = None
    if hasattr(module, "get_labels"):
        labels = _call(path, "get_labels", module.get_labels)
        if not isinstance(labels, Sequence) or isinstance(labels, str):
            found = f"it returns {type(labels).__qualname__}"
            raise UsageError(f"get_labels() of {path}", found, "return a list of class names")
        labels = [str(label) for label in labels]
    if hasattr(module, "get_preprocess"):
        data = _call(path, "get_preprocess", module.get_preprocess)
        if not isinstance(data, Mapping):
            raise UsageError(f"get_preprocess() of {path}", f"it returns {type(data).__qualname__}", "return a dict")
        preprocess = Preprocess.from_dict(data, f"get_preprocess() of {path}")
    return labels, preprocess


def _flat(model: Any, keywords: list[str] | None) -> Any:
    """The model with tensors in and a flat tuple of tensors out; the first run fills its `output_names`."""
    import torch
    from torch.utils import _pytree

    class Flat(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.output_names: list[str] = []

        def forward(self, *tensors: Any) -> Any:
            if keywords is None:
                outputs = self.model(*tensors)
            else:
                outputs = self.model(**dict(zip(keywords, tensors, strict=True)))
            pairs, _ = _pytree.tree_flatten_with_path(outputs)
            if not self.output_names:
                self.output_names = [_output_name(path) for path, _ in pairs]
            return tuple(value for _, value in pairs)

    return Flat().eval()


def _output_name(path: Sequence[Any]) -> str:
    """``output`` for a lone tensor, a dict's key, ``output_0`` for a tuple's first."""
    parts = [str(getattr(key, "key", getattr(key, "idx", getattr(key, "name", key)))) for key in path]
    if not parts:
        return "output"
    name = ".".join(parts)
    return f"output_{name}" if name[0].isdigit() else name


def _check_fit(path: str, wrapper: Any, tensors: Sequence[Any]) -> None:
    import torch

    try:
        outputs = wrapper(*tensors)
    except Exception as error:
        shapes = ", ".join(f"{_dtype(t)}{list(t.shape)}" for t in tensors)
        raise _user_error(path, f"the model can't take what get_args() gives ({shapes})", error) from error
    wrong = [n for n, v in zip(wrapper.output_names, outputs, strict=True) if not isinstance(v, torch.Tensor)]
    if wrong or not outputs:
        found = f"output {wrong[0]} is not a tensor" if wrong else "it returns nothing"
        raise UsageError(f"the model {path}", found, "return tensors: one, a tuple or a dict of them")


def _dtype(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _run(function: Any, outputs: Sequence[str], names: Sequence[str], feed: Feed) -> Feed:
    import torch

    answers = function(*(torch.from_numpy(feed[name].copy()) for name in names))
    return {n: v.detach().numpy().copy() for n, v in zip(outputs, answers, strict=True)}


def _export(path: str, wrapper: Any, tensors: Sequence[Any]) -> Any:
    import torch

    try:
        return torch.export.export(wrapper, tuple(tensors), strict=False)
    except Exception as error:
        raise _capture_error(path, error) from error


def _capture_error(path: str, error: Exception) -> SeatrialError:
    data_dependent = "data-dependent" in str(error) or "GuardOnDataDependent" in type(error).__name__
    if not data_dependent:
        failure = _user_error(path, "torch.export can't capture the model", error)
        return Unsupported(failure.asked, failure.found, "the log has torch's own words")
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if Path(f.filename).resolve() == Path(path).resolve()]
    line = f"\n         {Path(path).name}:{own[-1].lineno}: {own[-1].line}" if own else ""
    todo = "compute both sides and choose with torch.where, or use torch.cond"
    return Unsupported(f"the model {path}", f"a branch or a size depends on the data of a tensor{line}", todo)


def _source_id(path: Path, args: Mapping[str, str], model: Any) -> str:
    """From the file's bytes, its arguments (a file counts by its bytes) and the weights."""
    import hashlib

    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    given = {k: file_sha256(v) if Path(v).is_file() else v for k, v in args.items()}
    return content_id([file_sha256(path), given, digest.hexdigest()])
