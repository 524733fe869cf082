"""The decision rule behind OpenVINO IR. Runs in a process of its own."""

from __future__ import annotations

from typing import Any

from ...core.errors import Unsupported
from .rule import COST, DECISION, TINY


def append(
    model: str, out: str, scores: str, costs: list[list[float]], temperature: float, kind: str
) -> dict[str, Any]:
    """Write the model with two more outputs; see `onnx_file.append`.

    Raises:
        Unsupported: the output is not (n, classes) of floats.
    """
    import numpy as np
    import openvino as ov
    from openvino import opset13 as ops

    graph = ov.Core().read_model(model)
    port = next(o for o in graph.outputs if scores in o.get_names() or o.get_node().get_friendly_name() == scores)
    if not port.get_element_type().is_real() or port.get_partial_shape().rank.get_length() != 2:
        found = f"its output {scores!r} is not (samples, classes) of floats"
        raise Unsupported("the decision rule for openvino", found, "export without --cost")

    def constant(value: Any, dtype: Any = np.float32) -> Any:
        return ops.constant(np.array(value, dtype))

    at = port.get_node().input_value(0)
    if port.get_element_type() != ov.Type.f32:
        at = ops.convert(at, "f32").output(0)
    if kind == "probabilities":
        at = ops.log(ops.maximum(at, constant(TINY))).output(0)
    chances = ops.softmax(ops.multiply(at, constant(1 / temperature)), 1)
    cost = ops.matmul(chances, constant(costs), False, False)
    lowest = ops.topk(cost, constant(1, np.int64), 1, "min", "value", "i64", stable=True)
    decision = ops.squeeze(lowest.output(1), constant([1], np.int64))
    for name, node in ((COST, cost), (DECISION, decision)):
        node.set_friendly_name(name)
        node.output(0).get_tensor().set_names({name})
        graph.add_results([ops.result(node)])
    graph.validate_nodes_and_infer_types()
    ov.save_model(graph, out, compress_to_fp16=False)
    return {}
