"""A TFLite model as objects: what goes in and out of it, and operations that are put before or behind it.

Uses the schema classes of `ai_edge_litert`, as the converters' environment has them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Port:
    """One input or output of a model's first signature.

    Attributes:
        side: ``inputs`` or ``outputs``.
        name: as the signature has it.
        tensor: its index in the graph.
        dtype: numpy's name.
        shape: all sizes fixed.
    """

    side: str
    name: str
    tensor: int
    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """How many there are."""
        return math.prod(self.shape)

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(map(str, self.shape))}]"


def read(path: Path) -> Any:
    """A ``.tflite`` file as a `ModelT`."""
    from ai_edge_litert import schema_py_generated as schema

    return schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)


def written(model: Any) -> bytes:
    """The inverse of `read`."""
    import flatbuffers

    builder = flatbuffers.Builder(1 << 20)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def ports(model: Any, side: str) -> list[Port]:
    """Inputs or outputs, by the names of the first signature."""
    return [_port(model, side, entry) for entry in getattr(model.signatureDefs[0], side) or []]


def _port(model: Any, side: str, entry: Any) -> Port:
    tensor = model.subgraphs[0].tensors[entry.tensorIndex]
    shape = tuple(int(size) for size in (tensor.shape if tensor.shape is not None else ()))
    return Port(side, entry.name.decode(), entry.tensorIndex, _dtype(tensor.type), shape)


def _dtype(kind: int) -> str:
    from ai_edge_litert import schema_py_generated as schema

    names = {value: name for name, value in vars(schema.TensorType).items() if not name.startswith("_")}
    return str(names[kind]).lower()


def custom_operators(model: Any) -> list[str]:
    """Names of the operators that aren't TFLite's own."""
    return [entry.customCode.decode() for entry in model.operatorCodes if entry.customCode]


def reshape_input(model: Any, port: Port, shape: Sequence[int]) -> None:
    """Let it take another shape with as many elements."""
    outside = _new_end(model, port, shape)
    operator = _operator(model, "RESHAPE", [outside, _constant(model, port.shape)], port.tensor)
    model.subgraphs[0].operators.insert(0, operator)


def reshape_output(model: Any, port: Port, shape: Sequence[int]) -> None:
    """Let it answer in another shape with as many elements."""
    outside = _new_end(model, port, shape)
    operator = _operator(model, "RESHAPE", [port.tensor, _constant(model, shape)], outside)
    model.subgraphs[0].operators.append(operator)


def transpose_output(model: Any, port: Port, order: Sequence[int]) -> None:
    """Let it answer with its axes in another order."""
    outside = _new_end(model, port, [port.shape[axis] for axis in order])
    operator = _operator(model, "TRANSPOSE", [port.tensor, _constant(model, order)], outside)
    model.subgraphs[0].operators.append(operator)


def _new_end(model: Any, port: Port, shape: Sequence[int]) -> int:
    """A tensor that takes the place of a port's, and its name; both the graph and the signature know it."""
    from ai_edge_litert import schema_py_generated as schema

    graph = model.subgraphs[0]
    inside = graph.tensors[port.tensor]
    outside = schema.TensorT()
    outside.shape, outside.type, outside.hasRank = [int(size) for size in shape], inside.type, True
    outside.name, inside.name = inside.name, inside.name + b"/inside"
    outside.buffer = _buffer(model, b"")
    graph.tensors.append(outside)
    index = len(graph.tensors) - 1
    ends = list(getattr(graph, port.side))
    setattr(graph, port.side, [index if end == port.tensor else end for end in ends])
    for entry in getattr(model.signatureDefs[0], port.side):
        if entry.name.decode() == port.name:
            entry.tensorIndex = index
    return index


def _constant(model: Any, values: Sequence[int]) -> int:
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema

    graph = model.subgraphs[0]
    tensor = schema.TensorT()
    tensor.shape, tensor.type, tensor.hasRank = [len(values)], schema.TensorType.INT32, True
    tensor.name = f"boundary/{len(graph.tensors)}".encode()
    tensor.buffer = _buffer(model, np.asarray(values, "<i4").tobytes())
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _buffer(model: Any, data: bytes) -> int:
    import numpy as np
    from ai_edge_litert import schema_py_generated as schema

    if not data:
        return 0  # the buffer that has nothing in it, by agreement
    buffer = schema.BufferT()
    buffer.data = np.frombuffer(data, np.uint8)
    model.buffers.append(buffer)
    return len(model.buffers) - 1


def _operator(model: Any, kind: str, inputs: Sequence[int], output: int) -> Any:
    from ai_edge_litert import schema_py_generated as schema

    code = getattr(schema.BuiltinOperator, kind)
    codes = [entry.builtinCode for entry in model.operatorCodes]
    if code not in codes:
        entry = schema.OperatorCodeT()
        entry.builtinCode = entry.deprecatedBuiltinCode = code
        entry.version = 1
        model.operatorCodes.append(entry)
        codes.append(code)
    operator = schema.OperatorT()
    operator.opcodeIndex = codes.index(code)
    operator.inputs, operator.outputs = list(inputs), [output]
    return operator
