"""SavedModel → OpenVINO IR by OpenVINO's own reader. Runs in a process of its own, without TensorFlow."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...core.errors import Unsupported
from ..program import names
from .onnx_openvino import save

LABEL = "the conversion savedmodel → openvino"


def convert(source: str, out: str, program: str) -> dict[str, Any]:
    """Convert a Program's SavedModel into IR in fp32, inputs and outputs in the program's order.

    Raises:
        Unsupported: an operator that OpenVINO doesn't know; it is named.
    """
    import openvino as ov

    try:
        model = ov.convert_model(source)
    except Exception as error:
        unknown = re.search(r"No translator found for (?:operation\(s\)|.*?node)[^:]*:?\s*([\w, ]+)", str(error), re.I)
        if unknown:
            found = f"OpenVINO has no operator {unknown[1].strip()}"
            raise Unsupported(LABEL, found, "replace it in the model, or choose another --target") from error
        raise
    inputs, outputs = names(program)
    parameters = [_port(model.inputs, name).get_node() for name in inputs]
    results = [_port(model.outputs, name).get_node() for name in outputs]
    for parameter, name in zip(parameters, inputs, strict=True):
        parameter.set_friendly_name(name)
    for nodes, wanted in ((parameters, inputs), (results, outputs)):
        for node, name in zip(nodes, wanted, strict=True):
            node.output(0).get_tensor().set_names({name})
    save(ov.Model(results, parameters, model.get_friendly_name()), Path(out))
    return {}


def _port(ports: Sequence[Any], name: str) -> Any:
    return next(port for port in ports if name in port.get_names())
