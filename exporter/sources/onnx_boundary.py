"""Another layout, or preprocessing, at the boundary of an ONNX graph: nodes put in front and behind, names kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ...core.errors import Unsupported
from ...core.specs import TensorSpec
from .boundary import TO, Boundary, affine

BROADCASTS = 7
"""The first opset whose Mul and Add broadcast."""


def change(model: Any, edge: Boundary, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
    """Change a model in place, by operators that its opset has; its inputs and outputs keep their names and free sizes.

    Args:
        model: an ONNX model.
        edge: what changes.
        inputs: what it takes now.
        outputs: what it gives now.

    Raises:
        Unsupported: preprocessing for an opset below 7.
    """
    opsets = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if edge.embed and min(opsets, default=BROADCASTS) < BROADCASTS:
        todo = "convert it with onnx.version_converter, and export that"
        raise Unsupported("--embed-preprocessing", f"the model has opset {min(opsets)}, needed: {BROADCASTS}", todo)
    graph = model.graph
    takes, gives = ({s.name for s in side if len(s.shape) == 4} for side in (inputs, outputs))
    first: list[Any] = []
    last: list[Any] = []
    for port in graph.input:
        if port.name in takes:
            inner = _renamed(graph, port.name)
            first += _pixels(graph, edge, port, inner) if edge.embed else [_turn(port, port.name, inner, edge.own)]
            _reorder(port, "nhwc" if edge.embed else edge.layout, edge.own)
    for port in graph.output:
        # One that is an input too stands outside, as that does.
        if edge.layout and port.name in gives - takes:
            last.append(_turn(port, _renamed(graph, port.name), port.name, edge.layout))
            _reorder(port, edge.layout, edge.own)
    middle = list(graph.node)
    del graph.node[:]
    graph.node.extend([*first, *middle, *last])


def _turn(port: Any, start: str, end: str, layout: str) -> Any:
    import onnx

    return onnx.helper.make_node("Transpose", [start], [end], name=f"{port.name}/to_{layout}", perm=TO[layout])


def _pixels(graph: Any, edge: Boundary, port: Any, inner: str) -> list[Any]:
    """What makes the graph's own input of pixels."""
    import onnx

    assert edge.embed
    name = port.name
    cast, scaled, ready, scale, shift = (
        _free(graph, f"{name}/{part}") for part in ("float", "scaled", "ready", "scale", "shift")
    )
    for key, numbers in zip((scale, shift), affine(edge.embed), strict=True):
        graph.initializer.append(onnx.numpy_helper.from_array(numbers, key))
    turns = edge.own == "nchw"
    port.type.tensor_type.elem_type = onnx.TensorProto.UINT8
    nodes = [
        onnx.helper.make_node("Cast", [name], [cast], name=f"{name}/to_float", to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node("Mul", [cast, scale], [scaled], name=f"{name}/scale_pixels"),
        onnx.helper.make_node("Add", [scaled, shift], [ready if turns else inner], name=f"{name}/shift_pixels"),
    ]
    return [*nodes, _turn(port, ready, inner, "nchw")] if turns else nodes


def _reorder(port: Any, layout: str, own: str) -> None:
    """A port's sizes, which may be free, in the other layout."""
    shape = port.type.tensor_type.shape
    if layout == own or len(shape.dim) != 4:
        return
    moved = [type(shape.dim[0]).FromString(shape.dim[axis].SerializeToString()) for axis in TO[layout]]
    del shape.dim[:]
    shape.dim.extend(moved)


def _renamed(graph: Any, name: str) -> str:
    """Give a tensor another name wherever a node knows it; the ports of the model keep theirs."""
    new = _free(graph, f"{name}/inside")
    for owner in _graphs(graph):
        for node in owner.node:
            for side in (node.input, node.output):
                if name in side:
                    side[:] = [new if other == name else other for other in side]
        ports = () if owner is graph else owner.output
        for named in (*owner.initializer, *owner.value_info, *ports):
            if named.name == name:
                named.name = new
    return new


def _free(graph: Any, name: str) -> str:
    """The name, or one like it that no tensor has."""
    taken = {
        known
        for owner in _graphs(graph)
        for known in (
            *(n for node in owner.node for n in (*node.input, *node.output)),
            *(port.name for port in (*owner.input, *owner.output, *owner.initializer)),
        )
    }
    while name in taken:
        name += "_"
    return name


def _graphs(graph: Any) -> Iterator[Any]:
    """A graph with those in its branches and loop bodies."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from _graphs(inner)
