"""An OpenVINO IR read from its XML with the standard library; the weights beside it are only measured."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core.errors import UsageError
from ...core.specs import TensorSpec
from .graph import Dialect, Graph, Heavy, Op, Shape, Value, figures, ordered


def _conv(op: Op, inputs: Sequence[Sequence[int]], out: Sequence[int]) -> int:
    """Weights (O, I, ...)."""
    return math.prod(out) * math.prod(inputs[1][1:])


def _grouped(op: Op, inputs: Sequence[Sequence[int]], out: Sequence[int]) -> int:
    """Weights (G, O / G, I / G, ...)."""
    return math.prod(out) * math.prod(inputs[1][2:])


def _transposed(op: Op, inputs: Sequence[Sequence[int]], out: Sequence[int]) -> int:
    """Weights (I, O, ...)."""
    return math.prod(inputs[0]) * math.prod(inputs[1][1:])


def _grouped_transposed(op: Op, inputs: Sequence[Sequence[int]], out: Sequence[int]) -> int:
    """Weights (G, I / G, O / G, ...)."""
    return math.prod(inputs[0]) * math.prod(inputs[1][2:])


def _matmul(op: Op, inputs: Sequence[Sequence[int]], out: Sequence[int]) -> int:
    return math.prod(out) * inputs[0][-2 if op.attributes.get("transpose_a") in ("true", "1") else -1]


_UNCOUNTED = (
    "LSTMSequence",
    "LSTMCell",
    "GRUSequence",
    "GRUCell",
    "RNNSequence",
    "RNNCell",
    "DeformableConvolution",
    "ScaledDotProductAttention",
    "Einsum",
)
DIALECT = Dialect(
    heavy={
        "Convolution": Heavy(_conv),
        "GroupConvolution": Heavy(_grouped),
        "ConvolutionBackpropData": Heavy(_transposed),
        "GroupConvolutionBackpropData": Heavy(_grouped_transposed),
        "MatMul": Heavy(_matmul),
        **{kind: Heavy(None) for kind in _UNCOUNTED},
    },
    dequantize=frozenset({"FakeQuantize"}),
    movers=frozenset({"Transpose", "Reshape", "Squeeze", "Unsqueeze", "MaxPool"}),
    # Compressed weights: Const → Convert → (Subtract) → Multiply → (Reshape) → operator.
    carriers=frozenset({"Convert", "Subtract", "Multiply", "Reshape", "Transpose", "Unsqueeze", "FakeQuantize"}),
)

_TYPES = {
    "f64": "float64",
    "f32": "float32",
    "f16": "float16",
    "bf16": "bfloat16",
    "i64": "int64",
    "i32": "int32",
    "i16": "int16",
    "i8": "int8",
    "i4": "int4",
    "u64": "uint64",
    "u32": "uint32",
    "u16": "uint16",
    "u8": "uint8",
    "u4": "uint4",
    "u2": "uint2",
    "boolean": "bool",
    # In ports, by older names.
    "fp64": "float64",
    "fp32": "float32",
    "fp16": "float16",
    "bool": "bool",
}


@dataclass(frozen=True)
class Contents:
    """An IR: its graph, the parsed XML, and how many bytes of weights it needs."""

    graph: Graph
    net: ET.Element
    weights_bytes: int


def read(path: str) -> dict[str, Any]:
    """An `Inspection` of the file."""
    found = contents(Path(path))
    weights = Path(path).with_suffix(".bin")
    files: list[dict[str, Any]] = [{"name": Path(path).name, "size_bytes": Path(path).stat().st_size}]
    notes = []
    if weights.is_file() or found.weights_bytes:
        size = weights.stat().st_size if weights.is_file() else None
        files.append({"name": weights.name, "size_bytes": size})
        if size is None or size < found.weights_bytes:
            state = "missing" if size is None else f"truncated: {size} of {found.weights_bytes} bytes"
            notes.append(f"its weights {weights.name} are {state}")
    return {
        "kind": "openvino",
        "path": path,
        "files": files,
        "size_bytes": sum(file["size_bytes"] or 0 for file in files),
        **figures(found.graph, DIALECT),
        "made_by": _facts(found.net),
        "notes": notes,
        "bundle": None,
    }


def contents(path: Path) -> Contents:
    """Parse the XML.

    Raises:
        UsageError: no IR, not a whole one, or one with XML entities, which no IR has.
    """
    asked = f"the model {path}"
    data = path.read_bytes()
    if b"<!DOCTYPE" in data or b"<!ENTITY" in data:
        raise UsageError(asked, "it declares XML entities, which no IR does", "check where the file comes from")
    try:
        net = ET.fromstring(data)
    except ET.ParseError as error:
        todo = "check the file's size, and download or convert it again"
        raise UsageError(asked, f"it is not a whole XML file: {error}", todo) from error
    layers = net.find("layers")
    if net.tag != "net" or layers is None:
        raise UsageError(asked, f"its root is <{net.tag}>: it is no OpenVINO IR", "give the .xml of an IR")
    try:
        graph = _graph(net, layers)
    except (KeyError, ValueError) as error:
        raise UsageError(asked, f"its XML is no IR that we know: {error!r}", "convert it again") from error
    return Contents(graph, net, _weights_bytes(net))


def _weights_bytes(net: ET.Element) -> int:
    ends = [
        int(data.get("offset", "0")) + int(data.get("size", "0"))
        for layer in net.iter("layer")
        if layer.get("type") == "Const"
        for data in layer.findall("data")
    ]
    return max(ends, default=0)


def _facts(net: ET.Element) -> dict[str, Any]:
    versions = Counter(layer.get("version", "?") for layer in net.iter("layer"))
    runtime = net.find("rt_info/Runtime_version")
    if runtime is None:
        runtime = net.find("rt_info/MO_version")
    return {
        "producer": f"OpenVINO {runtime.get('value')}" if runtime is not None else "",
        "ir_version": net.get("version", ""),
        "opset": ordered(versions),
        "nncf": net.find("rt_info/nncf") is not None,
    }


def _graph(net: ET.Element, layers: ET.Element) -> Graph:
    graph = Graph()
    ports: dict[tuple[str, str], str] = {}
    for layer in layers:
        for port in layer.findall("output/port"):
            name = _label(layer, port)
            ports[layer.attrib["id"], port.attrib["id"]] = name
            stored = layer.get("type") == "Const"
            graph.values[name] = Value(_type(port.get("precision", "")), _shape(port, name), stored)
    sources = {
        (edge.attrib["to-layer"], edge.attrib["to-port"]): ports[edge.attrib["from-layer"], edge.attrib["from-port"]]
        for edge in net.findall("edges/edge")
    }
    for layer in layers:
        _add(graph, layer, sources, ports)
    inside = [layer for body in _bodies(layers) for layer in body.iter("layer")]
    graph.nested = Counter(layer.get("type", "?") for layer in inside)
    return graph


def _add(
    graph: Graph, layer: ET.Element, sources: dict[tuple[str, str], str], ports: dict[tuple[str, str], str]
) -> None:
    key, kind = layer.attrib["id"], layer.attrib["type"]
    ins = tuple(sources.get((key, port.attrib["id"]), "") for port in layer.findall("input/port"))
    outs = tuple(ports[key, port.attrib["id"]] for port in layer.findall("output/port"))
    data = layer.find("data")
    if kind == "Parameter":
        value = graph.values[outs[0]]
        name = _first_name(layer)
        shape = tuple(a if isinstance(a, int) else f"{name}.{i}" for i, a in enumerate(value.shape or ()))
        graph.inputs.append(TensorSpec(name, value.dtype, shape))
    elif kind == "Result":
        graph.outputs.append(_result(graph, layer, ins[0]))
    else:
        graph.ops.append(Op(kind, ins, outs, dict(data.attrib) if data is not None else {}))


def _result(graph: Graph, layer: ET.Element, source: str) -> TensorSpec:
    value = graph.values[source]
    named = layer.get("output_names") or source
    name = named.split(",")[0]
    shape = tuple(a if isinstance(a, int) else f"{name}.{i}" for i, a in enumerate(value.shape or ()))
    return TensorSpec(name, value.dtype, shape)


def _bodies(layers: ET.Element) -> list[ET.Element]:
    tags = ("body", "then_body", "else_body")
    return [body for layer in layers for tag in tags for body in layer.findall(tag)]


def _first_name(layer: ET.Element) -> str:
    port = layer.find("output/port")
    names = port.get("names", "") if port is not None else ""
    return names.split(",")[0] or layer.get("name", "")


def _label(layer: ET.Element, port: ET.Element) -> str:
    """A tensor's first name; one without gets its layer's, which is unique."""
    names = port.get("names", "")
    return names.split(",")[0] if names else f"{layer.get('name')}:{port.get('id')}"


def _type(text: str) -> str:
    return _TYPES.get(text.lower(), text.lower())


def _shape(port: ET.Element, name: str) -> Shape:
    sizes = [(dim.text or "").strip() for dim in port.findall("dim")]
    return tuple(int(size) if size.isdecimal() else f"{name}.{axis}" for axis, size in enumerate(sizes))
