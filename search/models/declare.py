"""Runs in a child: what a user's study file says as data, and which functions it defines."""

from __future__ import annotations

import ast
import inspect
import sys
import types
from pathlib import Path
from typing import Any

from ...core.config import refuse_unknown
from ...core.errors import UsageError
from ...core.ids import canonical_json, content_id, file_sha256
from ...exporter.sources import user
from ..studyfile import DATA, FUNCTIONS


def declare(path: str) -> dict[str, Any]:
    """The file's `data`, the `functions` that it defines, the `id` of its code, and whether data are `data_of_each`.

    Raises:
        UsageError: a name in lower case that isn't known, or data that isn't JSON.
    """
    file = Path(path)
    module = user.load(file)
    asked = f"the study file {path}"
    data, functions = {}, []
    for name, value in vars(module).items():
        if name in FUNCTIONS:
            if not callable(value):
                raise UsageError(f"{asked}: {name}", f"{value!r}", "define a function")
            functions.append(name)
        elif name in DATA or _is_data(name, value):
            data[name] = value
    refuse_unknown(data.keys(), DATA, asked)
    for name, value in data.items():
        try:
            canonical_json(value)
        except (TypeError, ValueError) as error:
            raise UsageError(f"{asked}: {name}", str(error), "write text, numbers, lists and tables") from None
    beside = [[str(p.relative_to(file.resolve().parent)), file_sha256(p)] for p in modules(file)]
    given = inspect.signature(module.load_data).parameters if "load_data" in functions else {}
    told = {"data": data, "functions": functions, "id": content_id([_code(file), beside])}
    return {**told, "data_of_each": len(given) > 1}


def _is_data(name: str, value: Any) -> bool:
    """A public name in lower case that holds neither code nor a module: names in capitals are the user's own."""
    if name.startswith("_") or name != name.lower():
        return False
    return not (callable(value) or isinstance(value, types.ModuleType) or type(value).__module__ == "__future__")


def _code(file: Path) -> str:
    """The file's code without comments, and without what it says as data: that counts by its values."""
    tree = ast.parse(file.read_text())
    return ast.dump(ast.Module([node for node in tree.body if _target(node) not in DATA], []))


def _target(node: ast.stmt) -> str:
    """The name that gets a value there; empty where it is no such line."""
    first: ast.expr | None = None
    if isinstance(node, ast.Assign):
        first = node.targets[0]
    elif isinstance(node, ast.AnnAssign) and node.value is not None:
        first = node.target
    return first.id if isinstance(first, ast.Name) else ""


def modules(file: Path) -> list[Path]:
    """The modules beside a user's file, or below its folder, that it has imported so far; without itself."""
    folder = file.resolve().parent
    found = set()
    for module in list(sys.modules.values()):
        place = Path(getattr(module, "__file__", None) or "/").resolve()
        # Not all that say a file have one: torch._classes is said to lie in the working folder.
        inside = place.is_relative_to(folder) and "site-packages" not in place.parts and place.is_file()
        if inside and place.suffix == ".py" and place != file.resolve() and not module.__name__.startswith("seatrial."):
            found.add(place)
    return sorted(found)
