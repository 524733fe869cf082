"""SavedModel → ONNX by tf2onnx. Runs in a TensorFlow process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ...core.errors import Unsupported
from ...core.specs import TensorSpec
from ..onnx_text import store
from ..program import Program
from ..sources.tf_graph import canonical, load

LABEL = "the conversion savedmodel → onnx"
OPSET = 18  # the highest that tf2onnx writes
DOMAINS = {"", "ai.onnx", "ai.onnx.ml"}


def convert(source: str, out: str, program: str) -> dict[str, Any]:
    """Convert a Program's SavedModel into an ONNX file, and write ``names.json`` (node → layer) beside it.

    Raises:
        Unsupported: operators that ONNX doesn't have; each is named.
    """
    read = Program.load(Path(program).parent)
    inputs, outputs = read.inputs, read.outputs
    model = _converted(source, [s.name for s in inputs], [s.name for s in outputs])
    foreign = sorted({f"{n.op_type} ({n.name})" for n in _nodes(model.graph) if not _is_known(n)})
    if foreign:
        found = f"ONNX has no operator {', '.join(foreign)}"
        raise Unsupported(LABEL, found, "replace it in the model, or choose another --target")
    for ports, specs in ((model.graph.input, inputs), (model.graph.output, outputs)):
        _arrange(ports, specs)
    layers = {node.name: layer(node.name) for node in model.graph.node}
    (Path(out).parent / "names.json").write_text(json.dumps(layers, indent=1, sort_keys=True))
    store(model, Path(out))
    return {"opset": OPSET}


def _arrange(ports: Any, specs: Sequence[TensorSpec]) -> None:
    """The ports in the program's order, and with its sizes: tf2onnx invents names for those it doesn't know."""
    by_name = {port.name: port for port in ports}
    ordered = [by_name[spec.name] for spec in specs]
    for port, spec in zip(ordered, specs, strict=True):
        del port.type.tensor_type.shape.dim[:]
        for axis in spec.shape:
            port.type.tensor_type.shape.dim.add(**{"dim_value" if isinstance(axis, int) else "dim_param": axis})
    del ports[:]
    ports.extend(ordered)


def _converted(source: str, inputs: Sequence[str], outputs: Sequence[str]) -> Any:
    import tf2onnx
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    signature = load(source)
    frozen = convert_variables_to_constants_v2(signature, lower_control_flow=False, aggressive_inlining=True)
    graph = canonical(frozen.graph.as_graph_def())
    # TensorFlow orders a signature's inputs and outputs by name.
    starts, stops = (
        {tensor.name: name for tensor, name in zip(tensors, sorted(wanted), strict=True)}
        for tensors, wanted in ((frozen.inputs, inputs), (frozen.outputs, outputs))
    )
    # Both decide names and the order of nodes: a counter, and sets of nodes, ordered by their addresses.
    tf2onnx.utils.INTERNAL_NAME = 1
    tf2onnx.graph.Node.__hash__ = lambda node: hash(node.name)
    model, _ = tf2onnx.convert.from_graph_def(
        graph,
        input_names=list(starts),
        output_names=list(stops),
        opset=OPSET,
        tensors_to_rename={**starts, **stops},
        custom_op_handlers=dict(_HANDLERS),
    )
    return model


def _rewritten(graph: Any, node: Any, op: str, flip: bool) -> None:
    """Put ``op(x) - 1`` in a node's place, or ``1 - op(x)``."""
    import numpy as np

    kind, shape = graph.get_dtype(node.output[0]), graph.get_shape(node.output[0])
    dtype = {1: np.float32, 10: np.float16, 11: np.float64}[kind]  # TensorProto's numbers
    one = graph.make_const(f"{node.name}/one", np.ones((), dtype))
    inner = graph.make_node(op, node.input, name=f"{node.name}/{op}", shapes=[shape], dtypes=[kind])
    outputs = node.output
    graph.remove_node(node.name)
    ends = [one.output[0], inner.output[0]] if flip else [inner.output[0], one.output[0]]
    graph.make_node("Sub", ends, name=node.name, outputs=outputs, shapes=[shape], dtypes=[kind])


# What Keras writes (GELU, CELU) and tf2onnx doesn't know.
_HANDLERS: dict[str, tuple[Callable[..., None], list[Any]]] = {
    "Erfc": (lambda graph, node, name, args: _rewritten(graph, node, "Erf", flip=True), []),
    "Expm1": (lambda graph, node, name, args: _rewritten(graph, node, "Exp", flip=False), []),
}


def _nodes(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _is_known(node: Any) -> bool:
    import onnx

    return node.domain in DOMAINS and onnx.defs.has(node.op_type, "ai.onnx.ml" if "ml" in node.domain else "")


def layer(name: str) -> str:
    """Path of the layer that a node's name tells: without wrappers, the model's own name and the operator's."""
    parts = [part for part in name.split("/") if part != "StatefulPartitionedCall" and part != "PartitionedCall"]
    return ".".join(parts[1:-1])
