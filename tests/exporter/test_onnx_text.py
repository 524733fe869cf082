"""No text of an exporter survives in an ONNX file, wherever it was written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

SECRET = "/home/somebody/secret.py:12"


def test_every_text_and_every_metadata_entry_is_cleared(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper
    from seatrial.exporter.onnx_text import store

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [2]) for name in ("x", "y")]
    constant = numpy_helper.from_array(np.ones(2, np.float32))
    nodes = [
        helper.make_node("Constant", [], ["c"], value=constant),
        helper.make_node("F", ["x", "c"], ["y"], domain="f"),
    ]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("f", 1)]
    inner = helper.make_node("Add", ["a", "b"], ["d"])
    function = helper.make_function("f", "F", ["a", "b"], ["d"], [inner], opsets[:1])
    graph = helper.make_graph(nodes, "graph", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=10)
    attribute = model.graph.node[0].attribute[0]
    for thing in (model, graph, model.graph, model.graph.node[0], model.functions[0], model.functions[0].node[0]):
        thing.doc_string = SECRET
        entry = thing.metadata_props.add()
        entry.key, entry.value = "trace", SECRET
    attribute.doc_string = attribute.t.doc_string = model.graph.input[0].doc_string = SECRET
    assert SECRET.encode() in model.SerializeToString()
    store(model, tmp_path / "model.onnx")
    onnx.checker.check_model(str(tmp_path / "model.onnx"))
    assert SECRET.encode() not in (tmp_path / "model.onnx").read_bytes()
