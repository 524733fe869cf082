"""An ``.onnx`` read by the onnx library, without its external data. Runs in a process of its own."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ...core.specs import TensorSpec
from .. import onnx_text
from .graph import Dialect, Graph, Heavy, Op, Shape, Value, figures

LARGEST_INFERRED = 1_500_000_000
"""Bytes of a file whose shapes are still inferred: the model is copied for it, and protobuf ends at 2 GiB."""


def _conv(op: Op, inputs: Sequence[Sequence[int]], out: Sequence[int]) -> int:
    """Weights (O, I / groups, ...)."""
    return math.prod(out) * math.prod(inputs[1][1:])


def _transposed(op: Op, inputs: Sequence[Sequence[int]], out: Sequence[int]) -> int:
    """Weights (I, O / groups, ...)."""
    return math.prod(inputs[0]) * math.prod(inputs[1][1:])


def _matmul(op: Op, inputs: Sequence[Sequence[int]], out: Sequence[int]) -> int:
    return math.prod(out) * inputs[0][-2 if op.attributes.get("transA") else -1]


DIALECT = Dialect(
    heavy={
        "Conv": Heavy(_conv),
        "ConvTranspose": Heavy(_transposed),
        "MatMul": Heavy(_matmul),
        "Gemm": Heavy(_matmul),
        "ConvInteger": Heavy(_conv, integer=True),
        "MatMulInteger": Heavy(_matmul, integer=True),
        "QLinearConv": Heavy(_conv, weights=3, integer=True),
        "QLinearMatMul": Heavy(_matmul, weights=3, integer=True),
        "com.microsoft.QGemm": Heavy(_matmul, weights=3, integer=True),
        "com.microsoft.FusedConv": Heavy(_conv),
        "com.microsoft.FusedMatMul": Heavy(_matmul),
        "com.microsoft.FusedGemm": Heavy(_matmul),
        "com.microsoft.MatMulNBits": Heavy(None),
        "com.microsoft.Attention": Heavy(None),
        "com.microsoft.MultiHeadAttention": Heavy(None),
        "Attention": Heavy(None),
        "DeformConv": Heavy(None),
        "Einsum": Heavy(None),
        "LSTM": Heavy(None),
        "GRU": Heavy(None),
        "RNN": Heavy(None),
    },
    dequantize=frozenset({"DequantizeLinear", "com.microsoft.DequantizeLinear"}),
    movers=frozenset({"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"}),
    carriers=frozenset(
        {
            "DequantizeLinear",
            "com.microsoft.DequantizeLinear",
            "Transpose",
            "Reshape",
            "Squeeze",
            "Unsqueeze",
            "Identity",
            "Cast",
        }
    ),
)


def read(path: str) -> dict[str, Any]:
    """An `Inspection` of the file."""
    model = onnx_text.read(Path(path))
    notes: list[str] = []
    graph = _graph(model, Path(path), notes)
    files = _files(model, Path(path), notes)
    return {
        "kind": "onnx",
        "path": path,
        "files": files,
        "size_bytes": sum(file["size_bytes"] or 0 for file in files),
        **figures(graph, DIALECT),
        "made_by": {
            "producer": " ".join(part for part in (model.producer_name, model.producer_version) if part),
            "ir_version": model.ir_version,
            "opset": {entry.domain or "ai.onnx": entry.version for entry in model.opset_import},
            "functions": len(model.functions),
            "metadata": sorted(entry.key for entry in model.metadata_props),
        },
        "notes": notes,
        "bundle": None,
    }


def _graph(model: Any, path: Path, notes: list[str]) -> Graph:
    stored = {tensor.name for tensor in model.graph.initializer}
    inputs = [spec for info in model.graph.input if info.name not in stored for spec in [_spec(info)]]
    outputs = [_spec(info) for info in model.graph.output]
    graph = Graph(inputs, outputs)
    for info in _known(model, path, inputs, notes):
        graph.values[info.name] = _value(info)
    for tensor in _stored(model.graph):
        graph.values[tensor.name] = Value(_dtype(tensor.data_type), tuple(tensor.dims), stored=True)
    for i, tensor in enumerate(t for owner in (*_inner(model.graph), *model.functions) for t in _stored(owner)):
        graph.values[f"nested/{i}"] = Value(_dtype(tensor.data_type), tuple(tensor.dims), stored=True)
    graph.ops = [_op(node) for node in model.graph.node]
    graph.nested = Counter(_kind(node) for owner in (*_inner(model.graph), *model.functions) for node in owner.node)
    return graph


def _known(model: Any, path: Path, inputs: Sequence[TensorSpec], notes: list[str]) -> list[Any]:
    """All values whose type or shape is told, or can be inferred."""
    import onnx

    told = [*model.graph.input, *model.graph.value_info, *model.graph.output]
    if path.stat().st_size > LARGEST_INFERRED:
        notes.append("shapes were not inferred: the file is too large")
        return told
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if _set_batch(copy, inputs):
        notes.append("multiplications are counted with a batch of 1")
    try:
        inferred = onnx.shape_inference.infer_shapes(copy, data_prop=True).graph
    except Exception as error:
        notes.append(f"shapes can't be inferred: {str(error).splitlines()[0][:200]}")
        return told
    return [*inferred.input, *inferred.value_info, *inferred.output]


def _set_batch(model: Any, inputs: Sequence[TensorSpec]) -> bool:
    """Let a batch that is the only free dimension be 1; whether it was done."""
    free = [(spec.name, axis) for spec in inputs for axis, size in enumerate(spec.shape) if isinstance(size, str)]
    if not free or any(axis for _, axis in free):
        return False
    names = {name for name, _ in free}
    for info in model.graph.input:
        if info.name in names:
            info.type.tensor_type.shape.dim[0].dim_value = 1
    # What was told of other values holds for the free batch.
    del model.graph.value_info[:]
    for info in model.graph.output:
        info.type.tensor_type.ClearField("shape")
    return True


def _stored(owner: Any) -> Iterator[Any]:
    """The tensors that a graph holds: initializers, and those of Constant nodes under their output's name."""
    yield from getattr(owner, "initializer", ())
    for sparse in getattr(owner, "sparse_initializer", ()):
        yield sparse.values
    for node in owner.node:
        for attribute in node.attribute if node.op_type == "Constant" and not node.domain else ():
            if attribute.HasField("t"):
                attribute.t.name = node.output[0]
                yield attribute.t


def _inner(owner: Any) -> list[Any]:
    """The graphs in branches and loop bodies, however deep."""
    direct = [g for n in owner.node for a in n.attribute for g in (a.g, *a.graphs) if g.node or g.initializer]
    return [*direct, *(deeper for graph in direct for deeper in _inner(graph))]


def _kind(node: Any) -> str:
    return f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else str(node.op_type)


def _op(node: Any) -> Op:
    attributes = {a.name: a.i for a in node.attribute if a.name == "transA"}
    return Op(_kind(node), tuple(node.input), tuple(node.output), attributes)


def _dtype(code: int) -> str:
    import onnx

    name = str(onnx.TensorProto.DataType.Name(code)).lower() if code in onnx.TensorProto.DataType.values() else "?"
    return {"float": "float32", "double": "float64"}.get(name, name)


def _shape(info: Any) -> Shape | None:
    tensor = info.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(_size(info.name, axis, dim) for axis, dim in enumerate(tensor.shape.dim))


def _size(name: str, axis: int, dim: Any) -> int | str:
    # Older exporters write -1 for a free dimension.
    if dim.HasField("dim_value") and dim.dim_value >= 0:
        return int(dim.dim_value)
    return dim.dim_param or f"{name}.{axis}"


def _value(info: Any) -> Value:
    return Value(_dtype(info.type.tensor_type.elem_type), _shape(info))


def _spec(info: Any) -> TensorSpec:
    return TensorSpec(info.name, _dtype(info.type.tensor_type.elem_type), _shape(info) or ())


def _files(model: Any, path: Path, notes: list[str]) -> list[dict[str, Any]]:
    """The model's file and those of its external data; those outside its folder aren't looked at."""
    names = {
        entry.value
        for owner in (model.graph, *_inner(model.graph), *model.functions)
        for tensor in _stored(owner)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    files: list[dict[str, Any]] = [{"name": path.name, "size_bytes": path.stat().st_size}]
    for name in sorted(names):
        where = PurePosixPath(name)
        outside = where.is_absolute() or ".." in where.parts or "\\" in name
        there = not outside and (path.parent / name).is_file()
        if not there:
            notes.append(f"its data {name!r} lie outside its folder" if outside else f"its data {name!r} are missing")
        files.append({"name": name, "size_bytes": (path.parent / name).stat().st_size if there else None})
    return files
