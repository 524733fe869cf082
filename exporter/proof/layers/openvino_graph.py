"""The tensors of an OpenVINO IR, operation by operation. To ask for them all keeps the compiler from fusing most."""

from __future__ import annotations

from typing import Any

from ....core import samples
from .record import Node, Recorder

MOVES = {
    "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Convert", "Broadcast", "Slice", "StridedSlice", "Split",
    "VariadicSplit", "Concat", "Tile", "DepthToSpace", "SpaceToDepth", "Result",
}  # fmt: skip
_SKIPPED = ("Constant", "Result")


def tap(
    model: str,
    inputs: str,
    out: str,
    names: list[str],
    layouts: bool = False,
    precision: str = "f32",
    shipped: bool = False,
) -> dict[str, Any]:
    """Run an IR on the samples of a file and keep the outputs of every operation; `names` are its inputs.

    As it is `shipped`, it runs for speed and not for accuracy.
    """
    import openvino as ov

    core = ov.Core()
    graph = core.read_model(model)
    nodes, index = _nodes(graph)
    own = {
        (result.input_value(0).get_node().get_friendly_name(), result.input_value(0).get_index())
        for result in graph.get_results()
    }
    asked = [key for key, i in index.items() if not nodes[i].is_input]
    graph.add_outputs([key for key in asked if key not in own])
    config = {
        "INFERENCE_PRECISION_HINT": precision,
        "EXECUTION_MODE_HINT": "ACCURACY" if precision == "f32" and not shipped else "PERFORMANCE",
        "INFERENCE_NUM_THREADS": 1,
    }
    compiled = core.compile_model(graph, "CPU", config)
    ports = [_key(result.input_value(0)) for result in graph.get_results()]
    recorder = Recorder(nodes, layouts)
    for feed in samples.load(inputs):
        recorder.sample()
        given = {name: feed[name] for name in names}
        results = compiled(given)
        for parameter in graph.get_parameters():
            name = next(iter(parameter.output(0).get_names() & set(names)), parameter.get_friendly_name())
            recorder.add(index[_key(parameter.output(0))], given[name])
        for port, output in zip(ports, compiled.outputs, strict=True):
            if port in index:
                recorder.add(index[port], results[output])
    return recorder.save(out)


def _key(output: Any) -> tuple[str, int]:
    return output.get_node().get_friendly_name(), output.get_index()


def _nodes(graph: Any) -> tuple[list[Node], dict[tuple[str, int], int]]:
    """Every output of every operation, and its place; constants are left out."""
    nodes: list[Node] = []
    index: dict[tuple[str, int], int] = {}
    for op in graph.get_ordered_ops():
        kind, name = op.get_type_name(), op.get_friendly_name()
        inputs = [index[key] for key in map(_key, op.input_values()) if key in index]
        if kind == "Result":
            for i in inputs:
                nodes[i].is_output = True
        if kind in _SKIPPED:
            continue
        for port in op.outputs():
            index[_key(port)] = len(nodes)
            label = name if port.get_index() == 0 else f"{name}.{port.get_index()}"
            first = kind == "Parameter"
            nodes.append(
                Node(label, name, "input" if first else kind, "", inputs, kind in MOVES, is_input=first, op=name)
            )
    return nodes, index
