"""A ``.tflite`` read by its schema, with the standard library alone: no interpreter runs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core.errors import UsageError
from ...core.specs import TensorSpec
from .flatbuffer import Broken, Table, root
from .graph import Dialect, Graph, Heavy, Op, Shape, Value, figures
from .tflite_names import OPERATORS, TYPES

MAGIC = b"TFL3"


def _conv(op: Op, inputs: Sequence[Sequence[int]], out: Sequence[int]) -> int:
    """Weights (O, H, W, I)."""
    return math.prod(out) * math.prod(inputs[1][1:])


def _depthwise(op: Op, inputs: Sequence[Sequence[int]], out: Sequence[int]) -> int:
    """Weights (1, H, W, O)."""
    return math.prod(out) * math.prod(inputs[1][1:-1])


def _transposed(op: Op, inputs: Sequence[Sequence[int]], out: Sequence[int]) -> int:
    """Weights (O, H, W, I): every number that goes in is spread over H, W and O."""
    return math.prod(inputs[0]) * math.prod(inputs[1][:-1])


def _conv_3d(op: Op, inputs: Sequence[Sequence[int]], out: Sequence[int]) -> int:
    """Weights (D, H, W, I, O)."""
    return math.prod(out) * math.prod(inputs[1][:-1])


def _linear(op: Op, inputs: Sequence[Sequence[int]], out: Sequence[int]) -> int:
    """Weights (O, I)."""
    return math.prod(out) * inputs[1][-1]


def _matmul(op: Op, inputs: Sequence[Sequence[int]], out: Sequence[int]) -> int:
    return math.prod(out) * inputs[0][-2 if op.attributes.get("adj_x") else -1]


DIALECT = Dialect(
    heavy={
        "CONV_2D": Heavy(_conv),
        "DEPTHWISE_CONV_2D": Heavy(_depthwise),
        "TRANSPOSE_CONV": Heavy(_transposed, data=2),
        "CONV_3D": Heavy(_conv_3d),
        "CONV_3D_TRANSPOSE": Heavy(None, data=2),
        "FULLY_CONNECTED": Heavy(_linear),
        "BATCH_MATMUL": Heavy(_matmul),
        "LSTM": Heavy(None),
        "UNIDIRECTIONAL_SEQUENCE_LSTM": Heavy(None),
        "BIDIRECTIONAL_SEQUENCE_LSTM": Heavy(None),
        "RNN": Heavy(None),
        "UNIDIRECTIONAL_SEQUENCE_RNN": Heavy(None),
        "BIDIRECTIONAL_SEQUENCE_RNN": Heavy(None),
        "SVDF": Heavy(None),
        "STABLEHLO_CONVOLUTION": Heavy(None),
        "STABLEHLO_DOT_GENERAL": Heavy(None),
    },
    # TFLite's tensors carry their type themselves; a DEQUANTIZE makes real floats.
    dequantize=frozenset(),
    movers=frozenset({"TRANSPOSE", "RESHAPE"}),
    carriers=frozenset({"DEQUANTIZE", "TRANSPOSE", "RESHAPE", "DENSIFY", "CAST"}),
)


@dataclass(frozen=True)
class Quantum:
    """How an integer tensor's numbers stand for real ones: ``(number - zero) * scale``."""

    scale: float
    zero: int


@dataclass(frozen=True)
class Contents:
    """A ``.tflite`` as its schema shows it.

    Attributes:
        graph: its first subgraph, with the names of its only signature where there is one.
        signatures: the names of its signatures.
        subgraphs: how many there are.
        custom: names of operators that are none of TFLite's own.
        quanta: of inputs and outputs with one scale, by name.
        opens_with: the sizes that inputs have when the file is opened, by name.
        facts: what else the file tells.
    """

    graph: Graph
    signatures: list[str]
    subgraphs: int
    custom: list[str]
    quanta: dict[str, Quantum]
    opens_with: dict[str, list[int]]
    facts: dict[str, Any]


def read(path: str) -> dict[str, Any]:
    """An `Inspection` of the file."""
    found = contents(Path(path))
    size = Path(path).stat().st_size
    notes = [f"custom operators: {', '.join(found.custom)}"] if found.custom else []
    if any(spec.is_free for spec in found.graph.inputs):
        notes.append("multiplications are counted at the sizes that the file opens with")
    if found.subgraphs > 1:
        notes.append(f"{found.subgraphs} subgraphs; inputs, outputs and figures are those of the first")
    return {
        "kind": "tflite",
        "path": path,
        "files": [{"name": Path(path).name, "size_bytes": size}],
        "size_bytes": size,
        **figures(found.graph, DIALECT),
        "made_by": found.facts,
        "notes": notes,
        "bundle": None,
    }


def contents(path: Path) -> Contents:
    """Read the schema's tables.

    Raises:
        UsageError: no TFLite file, or not a whole one.
    """
    asked = f"the model {path}"
    data = path.read_bytes()
    if data[4:8] != MAGIC:
        raise UsageError(asked, "it is not a TFLite file", "check the file; download or export it again")
    try:
        return _contents(root(data))
    except (Broken, IndexError) as error:
        todo = "check the file's size, and download or export it again"
        raise UsageError(asked, f"it is not a whole TFLite file: {error}", todo) from error


def _contents(model: Table) -> Contents:
    buffers = model.tables(4)
    stored = [i > 0 and (b.length(0) > 0 or b.number(2, "Q") > 1) for i, b in enumerate(buffers)]
    subgraphs = model.tables(2)
    if not subgraphs:
        raise Broken("it has no graph")
    codes = [_code(table) for table in model.tables(1)]
    tensors = subgraphs[0].tables(0)
    names = _names(tensors)
    graph = Graph(values={name: _value(t, stored) for name, t in zip(names, tensors, strict=True)})
    graph.ops = [_op(table, codes, names) for table in subgraphs[0].tables(3)]
    for other in subgraphs[1:]:
        graph.nested.update(codes[op.number(0, "I")] for op in other.tables(3))
        graph.values.update({f"{i}/{len(graph.values)}": _value(t, stored) for i, t in enumerate(other.tables(0))})
    signatures = model.tables(7)
    ends = _ends(subgraphs[0], signatures, names)
    graph.inputs, graph.outputs = ([_spec(label, tensors[i]) for label, i in side] for side in ends)
    quanta = {label: q for side in ends for label, i in side if (q := _quantum(tensors[i]))}
    opens = {label: list(tensors[i].numbers(0, "i")) for label, i in ends[0]}
    custom = sorted({table.text(1) for table in model.tables(1) if _builtin(table) == OPERATORS.index("CUSTOM")})
    labels = [table.text(2) for table in signatures]
    return Contents(graph, labels, len(subgraphs), custom, quanta, opens, _facts(model, labels))


def _facts(model: Table, signatures: list[str]) -> dict[str, Any]:
    versions = Counter(f"{_code(table)} v{table.number(2, 'i', 1)}" for table in model.tables(1))
    return {
        "schema": model.number(0, "I"),
        "description": model.text(3),
        "signatures": signatures,
        "metadata": [table.text(0) for table in model.tables(6)],
        "operator_versions": sorted(versions),
    }


def _builtin(table: Table) -> int:
    # Files older than 2020 have the byte alone; newer ones put 127 there for what doesn't fit.
    return max(table.number(0, "b"), table.number(3, "i"))


def _code(table: Table) -> str:
    code = _builtin(table)
    if not 0 <= code < len(OPERATORS):
        return f"operator {code}"
    return table.text(1) if OPERATORS[code] == "CUSTOM" else OPERATORS[code]


def _names(tensors: Sequence[Table]) -> list[str]:
    """The tensors' names; one that isn't unique gets its index, which keeps the graph's edges apart."""
    names = [t.text(3) for t in tensors]
    often = Counter(names)
    return [name if often[name] == 1 and name else f"{name}#{i}" for i, name in enumerate(names)]


def _type(tensor: Table) -> str:
    code = tensor.number(1, "b")
    return TYPES[code] if 0 <= code < len(TYPES) else f"type {code}"


def _shape(tensor: Table, label: str) -> Shape:
    sizes = tensor.numbers(7, "i") or tensor.numbers(0, "i")
    return tuple(size if size >= 0 else f"{label}.{axis}" for axis, size in enumerate(sizes))


def _value(tensor: Table, stored: Sequence[bool]) -> Value:
    # The sizes that the file opens with: 1 where one is free.
    return Value(_type(tensor), tuple(tensor.numbers(0, "i")), stored[tensor.number(2, "I")])


def _op(table: Table, codes: Sequence[str], names: Sequence[str]) -> Op:
    kind = codes[table.number(0, "I")]
    ins, outs = (tuple(names[i] if i >= 0 else "" for i in table.numbers(field, "i")) for field in (1, 2))
    options = table.table(4) if kind == "BATCH_MATMUL" else None
    return Op(kind, ins, outs, {"adj_x": bool(options.number(0, "b"))} if options else {})


def _ends(graph: Table, signatures: Sequence[Table], names: Sequence[str]) -> list[list[tuple[str, int]]]:
    """Label and tensor of each input and output: the signature's, where there is exactly one of this graph."""
    if len(signatures) == 1 and signatures[0].number(4, "I") == 0:
        return [[(m.text(0), m.number(1, "I")) for m in signatures[0].tables(side)] for side in (0, 1)]
    return [[(names[i], i) for i in graph.numbers(side, "i")] for side in (1, 2)]


def _spec(label: str, tensor: Table) -> TensorSpec:
    return TensorSpec(label, _type(tensor), _shape(tensor, label))


def _quantum(tensor: Table) -> Quantum | None:
    table = tensor.table(4)
    scales, zeros = (table.numbers(2, "f"), table.numbers(3, "q")) if table else ((), ())
    return Quantum(float(scales[0]), int(zeros[0]) if zeros else 0) if len(scales) == 1 else None
