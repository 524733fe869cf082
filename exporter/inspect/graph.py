"""A model's graph in the few words that all formats share, and what is counted in it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...core.specs import TensorSpec

Shape = tuple[int | str, ...]

SIZES_BITS = {
    "float64": 64,
    "float32": 32,
    "float16": 16,
    "bfloat16": 16,
    "int64": 64,
    "uint64": 64,
    "int32": 32,
    "uint32": 32,
    "int16": 16,
    "uint16": 16,
    "int8": 8,
    "uint8": 8,
    "bool": 8,
    "int4": 4,
    "uint4": 4,
    "int2": 2,
    "uint2": 2,
    "complex64": 64,
    "complex128": 128,
}
"""Bits of one element; 8 for what isn't listed (the 8-bit floats)."""

_WORDS = {"float64": "fp64", "float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "uint8": "int8", "uint4": "int4"}


@dataclass(frozen=True)
class Value:
    """A tensor: `shape` is None where the file doesn't tell it; `stored` where the file holds its numbers."""

    dtype: str
    shape: Shape | None
    stored: bool = False

    @property
    def count(self) -> int | None:
        """Its elements, where all sizes are known."""
        sizes = _sizes(self.shape)
        return None if sizes is None else math.prod(sizes)


@dataclass(frozen=True)
class Op:
    """One operator; an input that isn't given is an empty name."""

    kind: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class Graph:
    """A model's main graph; `nested` counts the operators of branches, loop bodies and functions."""

    inputs: list[TensorSpec] = field(default_factory=list)
    outputs: list[TensorSpec] = field(default_factory=list)
    values: dict[str, Value] = field(default_factory=dict)
    ops: list[Op] = field(default_factory=list)
    nested: Counter[str] = field(default_factory=Counter)


Macs = Callable[[Op, Sequence[Sequence[int]], Sequence[int]], int]
"""Of an operator with the sizes of its inputs and of its first output."""


@dataclass(frozen=True)
class Heavy:
    """How to read an operator that does arithmetic: where its two factors are, and what it costs."""

    macs: Macs | None
    data: int = 0
    weights: int = 1
    integer: bool = False


@dataclass(frozen=True)
class Dialect:
    """What operators of one format mean.

    Attributes:
        heavy: the operators that do a network's arithmetic.
        dequantize: its output stands for the quantized numbers that go into it, or that it makes of them.
        movers: change the layout, or pick, and leave the numbers as they are.
        carriers: what may lie between stored weights and the operator that uses them.
    """

    heavy: Mapping[str, Heavy]
    dequantize: frozenset[str]
    movers: frozenset[str]
    carriers: frozenset[str]


@dataclass(frozen=True)
class Counts:
    """What `count` found; see `Inspection`."""

    ops: dict[str, int]
    heavy: dict[str, int]
    precision: str
    macs: int | None
    macs_not_counted: dict[str, int]


def figures(graph: Graph, dialect: Dialect) -> dict[str, Any]:
    """What an `Inspection` says of a graph, whatever the format of its file."""
    counts = count(graph, dialect)
    return {
        "inputs": [spec.to_dict() for spec in graph.inputs],
        "outputs": [spec.to_dict() for spec in graph.outputs],
        "parameters": parameters(graph.values.values()),
        "precision": counts.precision,
        "heavy": counts.heavy,
        "ops": counts.ops,
        "nested_ops": ordered(graph.nested),
        "macs": counts.macs,
        "macs_not_counted": counts.macs_not_counted,
    }


def count(graph: Graph, dialect: Dialect) -> Counts:
    """Operators, precisions and multiplications of a graph."""
    makers = {name: op for op in graph.ops for name in op.outputs}
    heavy: Counter[str] = Counter()
    missed: Counter[str] = Counter({kind: n for kind, n in graph.nested.items() if kind in dialect.heavy})
    done: list[int] = []
    for op in graph.ops:
        rule = dialect.heavy.get(op.kind)
        if rule is None:
            continue
        heavy[_precision(graph, makers, dialect, op, rule)] += 1
        found = _macs(graph, op, rule)
        if found is None:
            missed[op.kind] += 1
        else:
            done.append(found)
    precision = "" if not heavy else next(iter(heavy)) if len(heavy) == 1 else "mixed"
    macs = sum(done) if done or not missed else None
    return Counts(ordered(Counter(op.kind for op in graph.ops)), ordered(heavy), precision, macs, ordered(missed))


def parameters(values: Iterable[Value]) -> dict[str, Any]:
    """All stored numbers, by element type."""
    by_dtype: dict[str, dict[str, int]] = {}
    for value in values:
        if value.stored and value.count:
            row = by_dtype.setdefault(value.dtype, {"count": 0, "size_bytes": 0})
            row["count"] += value.count
            row["size_bytes"] += (value.count * SIZES_BITS.get(value.dtype, 8) + 7) // 8
    ordered = dict(sorted(by_dtype.items(), key=lambda item: -item[1]["size_bytes"]))
    total = {key: sum(row[key] for row in ordered.values()) for key in ("count", "size_bytes")}
    return {**total, "by_dtype": ordered}


def ordered(counts: Mapping[str, int]) -> dict[str, int]:
    """The largest first."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _sizes(shape: Shape | None) -> list[int] | None:
    sizes = [axis for axis in shape or () if isinstance(axis, int) and axis >= 0]
    return sizes if shape is not None and len(sizes) == len(shape) else None


def _macs(graph: Graph, op: Op, rule: Heavy) -> int | None:
    if rule.macs is None:
        return None
    needed = [op.inputs[i] if i < len(op.inputs) else "" for i in (rule.data, rule.weights)]
    values = [graph.values.get(name) for name in (*needed, op.outputs[0])]
    sizes = [_sizes(value.shape) if value else None for value in values]
    if any(size is None for size in sizes):
        return None
    try:
        return rule.macs(op, [s for s in sizes[:2] if s is not None], sizes[2] or [])
    except (IndexError, ZeroDivisionError):
        return None  # shapes that this operator can't have: the file is odd, the count would be too


def _precision(graph: Graph, makers: Mapping[str, Op], dialect: Dialect, op: Op, rule: Heavy) -> str:
    if rule.integer:
        return "int8"
    first, second = (op.inputs[i] if i < len(op.inputs) else "" for i in (rule.data, rule.weights))
    data = _data_type(graph, makers, dialect, first)
    stored = _stored_type(graph, makers, dialect, second)
    return _word(data, stored or _data_type(graph, makers, dialect, second) or data)


def _data_type(graph: Graph, makers: Mapping[str, Op], dialect: Dialect, name: str) -> str:
    """The element type that an activation has, or stands for."""
    at, seen = name, set[str]()
    while (op := makers.get(at)) and at not in seen:
        seen.add(at)
        if op.kind in dialect.dequantize:
            return "int8"
        if op.kind not in dialect.movers or not op.inputs:
            break
        at = op.inputs[0]
    value = graph.values.get(name)
    return value.dtype if value else ""


def _stored_type(graph: Graph, makers: Mapping[str, Op], dialect: Dialect, name: str) -> str:
    """The element type in which the file stores these weights; empty where they are computed."""
    seen: set[str] = set()
    while name not in seen:
        seen.add(name)
        value = graph.values.get(name)
        if value and value.stored:
            return value.dtype
        op = makers.get(name)
        if op is None or not op.inputs or op.kind not in dialect.carriers:
            return ""
        name = op.inputs[0]
    return ""


def _word(data: str, weights: str) -> str:
    a, b = _WORDS.get(data, data), _WORDS.get(weights, weights)
    if a == b or not a:
        return b
    if a == "int16" and b == "int8":
        return "int16 and int8"
    return f"{b} weights" if a in ("fp32", "fp16", "bf16") and b != "fp32" else a
