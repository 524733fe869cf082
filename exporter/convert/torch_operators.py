"""The operators of a ``.pt2``, read from its JSON: loading it needs the code of every operator, and runs pickles."""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from typing import Any

from ...core.errors import ConverterFailed, Unsupported
from .look import TODO

PREFIX = "torch.ops."
UNTRANSLATED = ("No ONNX function found", "Lowering not found")
WRAPPERS = ("inner", "model", "inner")
"""Modules of ours around the user's: see `torch_args.flat`, and `pt2_file`."""

ALONE = "seatrial"
"""Key of a stack that `leave_paths_alone` wrote."""


def operators(pt2: str) -> dict[str, list[str]]:
    """Each operator (``aten.relu.default``) with the paths of the modules that use it, in their order."""
    found: dict[str, dict[str, None]] = {}
    with zipfile.ZipFile(pt2) as archive:
        for name in archive.namelist():
            if fnmatch(name, "*/models/*.json"):
                for node in _nodes(json.loads(archive.read(name))):
                    target = node["target"].removeprefix(PREFIX)
                    if target != node["target"] and not target.startswith("higher_order."):
                        found.setdefault(target, {})[_path(node)] = None
    return {target: list(paths) for target, paths in found.items()}


def unknown(pt2: str, knows: Callable[[Any], bool], who: str) -> list[str]:
    """The operators that this process doesn't have, or that neither `knows` nor torch can take apart, as reasons."""
    reasons = []
    for target, paths in operators(pt2).items():
        operator = _overload(target)
        if operator is None:
            found = "is defined by the model's own code, which a .pt2 doesn't hold"
            reasons.append(f"the operator {_named(target, paths)} {found}")
        elif not knows(operator) and not _taken_apart(operator):
            reasons.append(f"{who} has no translation of the operator {_named(target, paths)}")
    return reasons


@contextmanager
def telling(label: str, who: str, graph: Any = None) -> Iterator[None]:
    """Let a converter's failure name the operator that it was at, with the path of its module.

    Args:
        label: opens the error.
        who: the converter.
        graph: the captured graph, for a converter that captures it again, which loses the paths.

    Raises:
        Unsupported: the operator is one that it has no translation of.
        ConverterFailed: it failed at that operator for another reason.
    """
    try:
        yield
    except Exception as error:
        chain = list(_chain(error))
        operator = next(filter(None, (_at(each, graph) for each in reversed(chain))), "")
        if not operator:
            raise
        if any(text in str(each) for each in chain for text in UNTRANSLATED):
            raise Unsupported(label, f"{who} has no translation of the operator {operator}", TODO) from error
        lines = str(chain[-1]).strip().splitlines()
        found = f"{who} failed at the operator {operator}: {type(chain[-1]).__name__}: {lines[0] if lines else ''}"
        raise ConverterFailed(label, found[:600], TODO) from error


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error, and those that led to it."""
    seen: BaseException | None = error
    while seen:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _at(error: BaseException, graph: Any) -> str:
    """The operator in the innermost frame that has a node of a torch graph."""
    found, trace = "", error.__traceback__
    while trace:
        node: Any = trace.tb_frame.f_locals.get("node")
        if getattr(node, "op", "") == "call_function" and str(node.target).count(".") == 2:
            found = _named(str(node.target), [module_of(node) or module_of(_origin(node, graph))])
        trace = trace.tb_next
    return found


def module_of(node: Any) -> str:
    """Path in the user's model of the innermost module around a node of a torch graph; empty for the model itself."""
    stack = node.meta.get("nn_module_stack", {}) if node is not None else {}
    if ALONE in stack:
        return str(stack[ALONE][1])
    return _outside(list(stack.values())[-1][0]) if stack else ""


def leave_paths_alone(graph: Any) -> set[str]:
    """Let each node's stack of modules be the path of the innermost one, and nothing else; all of these paths.

    For litert-torch, which calls a tensor after the classes in the stack, each with the last word of its path.
    """
    paths = {node: module_of(node) for node in graph.nodes if node.op == "call_function"}
    for node, path in paths.items():
        node.meta["nn_module_stack"] = {ALONE: ("", path or "model")}
    return set(paths.values()) - {""}


def _origin(node: Any, graph: Any) -> Any:
    """The node of the captured graph that one of a second capture comes from, by its line in the generated code."""
    lines = re.findall(r"^\s*(\w+) = torch\.ops\.", node.meta.get("stack_trace") or "", re.MULTILINE)
    by_name = {each.name: each for each in graph.nodes} if graph is not None else {}
    return by_name.get(lines[-1]) if lines else None


def _nodes(data: Any) -> Iterator[dict[str, Any]]:
    """Calls, those in branches and loop bodies too."""
    if isinstance(data, dict):
        if isinstance(data.get("target"), str) and "metadata" in data:
            yield data
        for value in data.values():
            yield from _nodes(value)
    elif isinstance(data, list):
        for value in data:
            yield from _nodes(value)


def _path(node: dict[str, Any]) -> str:
    """Path of the innermost module around a call; its stack reads ``key,path,class;key,path,class``."""
    stack = node["metadata"].get("nn_module_stack", "")
    return _outside(stack.rpartition(";")[2].split(",")[1] if "," in stack else "")


def _outside(path: str) -> str:
    """A module's path in the user's model."""
    for wrapper in WRAPPERS:
        path = "" if path == wrapper else path.removeprefix(f"{wrapper}.")
    return path


def _named(target: str, paths: list[str]) -> str:
    """``twist::spin (body.1, head and 3 more)``."""
    space, name, overload = target.split(".", 2)
    shown = [path or "the model itself" for path in paths[:2]]
    more = f" and {len(paths) - 2} more" * (len(paths) > 2)
    return f"{space}::{name}" + f".{overload}" * (overload != "default") + f" ({', '.join(shown)}{more})"


def _overload(target: str) -> Any:
    """The operator in this process, or None."""
    import torch

    found: Any = torch.ops
    for part in target.split("."):
        found = getattr(found, part, None)
    return found


def _taken_apart(operator: Any) -> bool:
    """Whether torch may replace it before a converter sees it: by others, out of place, or by nothing."""
    import torch

    schema = operator._schema
    in_place = schema.is_mutable and operator.namespace == "aten"
    return bool(
        not schema.returns  # an assertion
        or in_place
        or operator in torch._decomp.decomposition_table
        or operator._can_decompose()
    )
