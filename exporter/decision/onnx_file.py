"""The decision rule behind an ONNX graph. Runs in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...core.errors import Unsupported
from ..onnx_text import read
from .rule import COST, DECISION, TINY

_AT = "seatrial_decision"


def append(
    model: str, out: str, scores: str, costs: list[list[float]], temperature: float, kind: str
) -> dict[str, Any]:
    """Write the model with two more outputs; external data stay in the files where they are.

    Args:
        model: the ``.onnx`` to read.
        out: the ``.onnx`` to write.
        scores: name of the output (n, classes) that decides.
        costs: a row for each class, a number for each decision.
        temperature: T.
        kind: ``logits`` or ``probabilities``.

    Raises:
        Unsupported: the output is not (n, classes) of floats.
    """
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper, save

    proto = read(Path(model))
    output = {value.name: value for value in proto.graph.output}[scores]
    tensor = output.type.tensor_type
    if tensor.elem_type not in (TensorProto.FLOAT, TensorProto.FLOAT16) or len(tensor.shape.dim) != 2:
        found = f"its output {scores!r} is not (samples, classes) of floats"
        raise Unsupported("the decision rule for onnxruntime", found, "export without --cost")
    rows = tensor.shape.dim[0].dim_param or tensor.shape.dim[0].dim_value
    constants = {"t": np.float32(1 / temperature), "costs": np.array(costs, np.float32), "tiny": np.float32(TINY)}
    nodes, at = [], scores

    def node(op: str, *more: str, out: str, **attributes: Any) -> None:
        nonlocal at
        name = out if out in (COST, DECISION) else f"{_AT}/{out}"
        inputs = [at, *(f"{_AT}/{each}" for each in more)]
        nodes.append(helper.make_node(op, inputs, [name], f"{_AT}/{out}", **attributes))
        at = name

    if tensor.elem_type == TensorProto.FLOAT16:
        node("Cast", out="float", to=TensorProto.FLOAT)
    if kind == "probabilities":
        node("Max", "tiny", out="above_zero")
        node("Log", out="logits")
    node("Mul", "t", out="scaled")
    node("Softmax", out="probabilities", axis=1)
    node("MatMul", "costs", out=COST)
    node("ArgMin", out=DECISION, axis=1, keepdims=0)
    used = {name for each in nodes for name in each.input}
    proto.graph.node.extend(nodes)
    proto.graph.initializer.extend(
        numpy_helper.from_array(array, f"{_AT}/{name}") for name, array in constants.items() if f"{_AT}/{name}" in used
    )
    proto.graph.output.extend(
        [
            helper.make_tensor_value_info(COST, TensorProto.FLOAT, [rows, len(costs[0])]),
            helper.make_tensor_value_info(DECISION, TensorProto.INT64, [rows]),
        ]
    )
    save(proto, out)
    return {}
