"""What operators took: with the module paths of a bundle, and two profiles beside each other."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..targets.profile import Operator, Profile
from .onnx_names import makers

NAMES = "names.json"
RUNS = 10, 200
"""Fewest and most inferences of a profile."""
# What runtimes hang onto a node's name when they rewrite it: layouts, quantized twins, fused neighbours.
_REWRITTEN = re.compile(r"(_token_\d+|_nchwc|_quant|/.+)+$")
# Names that are counted, as `MatMul_7` or `node_Conv_865`: one more operator gives all behind it another number.
_COUNTED = re.compile(r"(^[A-Z]\w*_|_token_|^node_\w+_|;)\d+(/.*)?$")


@dataclass(frozen=True)
class Change:
    """One operator, or all of one kind where names tell nothing, in two profiles; µs are None where it isn't there."""

    name: str
    module: str
    op: str
    base_us: float | None
    candidate_us: float | None
    base_precision: str = ""
    candidate_precision: str = ""

    @property
    def more_us(self) -> float:
        """How much longer it takes in the candidate."""
        return (self.candidate_us or 0.0) - (self.base_us or 0.0)

    @property
    def text(self) -> str:
        """In words."""
        called = self.module or self.name
        what = f"{called} ({self.op})" if called else self.op
        one, other = (None if us is None else f"{us:.0f} us" for us in (self.base_us, self.candidate_us))
        times = f"new, {other}" if one is None else f"gone, {one}" if other is None else f"{one} → {other}"
        precisions = [p for p in (self.base_precision, self.candidate_precision) if p]
        changed = f", {' → '.join(precisions)}" if len(set(precisions)) > 1 else ""
        return f"{self.more_us:+.0f} us  {what}: {times}{changed}"

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "more_us": self.more_us}


def with_modules(profile: Profile, artifact: Path) -> Profile:
    """The profile with the module path of each operator, where the artifact's bundle tells it."""
    names: dict[str, str] = {}
    with suppress(OSError, ValueError):
        names = json.loads(artifact.with_name(NAMES).read_text())
        if artifact.suffix == ".onnx":  # ONNX Runtime calls what it rewrites after a tensor
            names |= {tensor: names[node] for tensor, node in makers(artifact).items() if node in names}
    nodes: list[Operator] = [{**node, "module": module_of(node["name"], names)} for node in profile["nodes"]]
    return {**profile, "nodes": nodes}


def module_of(name: str, names: Mapping[str, str]) -> str:
    """The module path of a runtime's operator; empty where it isn't known."""
    bare = name.removeprefix("fused ")
    return names.get(name) or names.get(bare) or names.get(_REWRITTEN.sub("", bare)) or ""


def changes(base: Profile, candidate: Profile) -> list[Change]:
    """What differs between two profiles, the largest increase first and what became faster last.

    Operators are joined by module, else by name. Those without a partner are put together by kind, where both sides
    have such; else they are new or gone.
    """
    keep = _counted(base) == _counted(candidate)
    one, other = _joinable(base, keep), _joinable(candidate, keep)
    found = [_change(one[name], other[name]) for name in one if name in other]
    left = _by_op([node for name, nodes in one.items() if name not in other for node in nodes])
    right = _by_op([node for name, nodes in other.items() if name not in one for node in nodes])
    for op in left.keys() | right.keys():
        if op in left and op in right:
            found.append(_change(left[op], right[op], kind=True))
        else:
            found += [_change([node], []) for node in left.get(op, [])]
            found += [_change([], [node]) for node in right.get(op, [])]
    return sorted(found, key=lambda change: (-change.more_us, change.name, change.op))


def _counted(profile: Profile) -> set[str]:
    names = {node["name"] for node in profile["nodes"] if not node.get("module")}
    return {name for name in names if _COUNTED.search(name)}


def _joinable(profile: Profile, counted: bool) -> dict[str, list[Operator]]:
    """By module or name, counted names only where both sides have the same; each without one stands for itself."""
    found: defaultdict[str, list[Operator]] = defaultdict(list)
    for i, node in enumerate(profile["nodes"]):
        name = node["name"] if counted or not _COUNTED.search(node["name"]) else ""
        found[node.get("module") or name or f"{id(profile)} {i}"].append(node)
    return found


def _by_op(nodes: Sequence[Operator]) -> dict[str, list[Operator]]:
    found: defaultdict[str, list[Operator]] = defaultdict(list)
    for node in nodes:
        found[node["op"]].append(node)
    return found


def _change(one: Sequence[Operator], other: Sequence[Operator], kind: bool = False) -> Change:
    """Of the same operator, or with `kind` of all of a kind."""
    shown = (other or one)[0]
    ops = list(dict.fromkeys(node["op"] for node in (*one, *other)))
    return Change(
        "" if kind else shown["name"],
        "" if kind else shown.get("module", ""),
        f"{len(one)} and {len(other)} {ops[0]}" if kind else " → ".join(ops),
        sum(node["us"] for node in one) if one else None,
        sum(node["us"] for node in other) if other else None,
        *(", ".join(sorted({node["precision"] for node in side} - {""})) for side in (one, other)),
    )


def runs_of(k: int | None) -> int:
    """How often to run for a profile, from the iterations of a timed block: ten such blocks, within `RUNS`."""
    fewest, most = RUNS
    return max(fewest, min(most, 10 * (k or 1)))
