"""What a converter can't do, asked of its own tables before it converts. Runs in the converter's process.

The module of a converter may have a function ``gaps(source, program) -> list[str]`` beside the converter itself:
`source` is the file that would be converted, `program` the JSON file of the Program (empty where there is none yet).
Each text names an operator and where it stands. A gap that isn't one costs a route that works, so only what is
certain is a gap: an operator that the converter may get rid of on its way (by a decomposition, by folding) is none.
"""

from __future__ import annotations

import importlib
import traceback
from typing import Any

from ...core.errors import Unsupported

TODO = "replace the operator in the model, or choose another --target"


def gaps(function: str, source: str, program: str) -> list[str] | None:
    """The reasons why a converter (``module:function``) can't convert a file; None where it has no way to tell.

    A table that another version of a library has elsewhere doesn't stop a conversion: then, too, nothing is known.
    """
    ask = getattr(importlib.import_module(function.partition(":")[0]), "gaps", None)
    if ask is None:
        return None
    try:
        return list(ask(source, program))
    except Exception:
        traceback.print_exc()
        return None


def convert(function: str, label: str, source: str, out: str, program: str) -> dict[str, Any]:
    """Run a converter, unless it can be told before that it can't do this file.

    Raises:
        Unsupported: gaps; each is named.
    """
    found = gaps(function, source, program)
    if found:
        raise Unsupported(f"the conversion {label}", "; ".join(found), TODO)
    module, _, name = function.partition(":")
    answer: dict[str, Any] = getattr(importlib.import_module(module), name)(source, out, program)
    return answer


def tell(function: str, source: str) -> dict[str, Any]:
    """The gaps of a converter for a file of the user's own that was not read yet: ``{"gaps": list or None}``."""
    return {"gaps": gaps(function, source, "")}
