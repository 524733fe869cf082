"""The tensors of an ONNX file, node by node, in ONNX Runtime: all optimisations off, or on as they ship."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ....core import samples
from .record import Node, Recorder

MOVES = {
    "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Cast", "Expand", "Slice", "Split", "Concat",
    "Dropout", "Tile", "DepthToSpace", "SpaceToDepth",
}  # fmt: skip
_NO_TENSOR = ("Sequence", "SplitToSequence", "Optional")


def tap(
    model: str, inputs: str, out: str, names: list[str], layouts: bool = False, shipped: bool = False
) -> dict[str, Any]:
    """Run an ``.onnx`` on the samples of a file and keep every node's outputs; `names` are its inputs.

    As it is `shipped`, all optimisations are on; those that would do away with a tensor can't happen.
    """
    import onnx
    import onnxruntime as ort

    # Weights beside the file stay there: the session finds them by their folder.
    proto = onnx.load(model, load_external_data=False)
    nodes, wanted = _nodes(proto.graph)
    have = {value.name for value in proto.graph.output}
    proto.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in wanted if name not in have)
    options = ort.SessionOptions()
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if shipped else levels.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(Path(model).parent))
    session = ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    recorder = Recorder(nodes, layouts)
    asked = [name for name in wanted if name]
    for feed in samples.load(inputs):
        recorder.sample()
        given = {name: feed[name] for name in names}
        values = {**given, **dict(zip(asked, session.run(asked, given), strict=True))}
        for index, node in enumerate(nodes):
            if node.name in values:
                recorder.add(index, values[node.name])
    return recorder.save(out)


def _nodes(graph: Any) -> tuple[list[Node], list[str]]:
    """Inputs and every output of every node as nodes, and the names of those that can be asked for."""
    weights = {w.name for w in graph.initializer}
    outputs = {value.name for value in graph.output}
    nodes = [Node(v.name, "", "input", is_input=True) for v in graph.input if v.name not in weights]
    index = {node.name: i for i, node in enumerate(nodes)}
    wanted = []
    for n in graph.node:
        inputs = [index[name] for name in _consumed(n) if name in index]
        for name in n.output:
            if not name:
                continue
            index[name] = len(nodes)
            nodes.append(
                Node(
                    name,
                    n.name or name,
                    n.op_type,
                    "",
                    inputs,
                    n.op_type in MOVES,
                    is_output=name in outputs,
                    op=n.name or name,
                )
            )
            if not n.op_type.startswith(_NO_TENSOR):
                wanted.append(name)
    return nodes, wanted


def _consumed(n: Any) -> list[str]:
    """What a node reads, also what its inner graphs take from outside."""
    inner = [a.g for a in n.attribute if a.HasField("g")]
    return [*n.input, *(name for graph in inner for node in graph.node for name in _consumed(node))]
