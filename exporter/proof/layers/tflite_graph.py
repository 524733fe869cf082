"""The tensors of a TFLite file, operation by operation, in the interpreter's plain kernels or in XNNPACK."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

from ....core import samples
from .record import Node, Recorder

if TYPE_CHECKING:
    from numpy import ndarray

MOVES = {
    "RESHAPE", "TRANSPOSE", "SQUEEZE", "EXPAND_DIMS", "CAST", "BROADCAST_TO", "SLICE", "STRIDED_SLICE", "SPLIT",
    "SPLIT_V", "CONCATENATION", "PACK", "UNPACK", "TILE", "DEPTH_TO_SPACE", "SPACE_TO_DEPTH", "QUANTIZE", "DEQUANTIZE",
}  # fmt: skip


def tap(
    model: str, inputs: str, out: str, names: list[str], layouts: bool = False, shipped: bool = False
) -> dict[str, Any]:
    """Run a ``.tflite`` on the samples of a file and keep every operation's outputs; `names` are its inputs.

    As it is `shipped`, XNNPACK runs what it can; since all tensors are kept, each operation by itself.
    """
    if importlib.util.find_spec("ai_edge_litert"):
        import ai_edge_litert.interpreter as module
    else:
        import tflite_runtime.interpreter as module

    kernels = module.OpResolverType
    interpreter = module.Interpreter(
        model,
        num_threads=1,
        experimental_op_resolver_type=kernels.AUTO if shipped else kernels.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        experimental_preserve_all_tensors=True,
    )
    ports = _ports(interpreter, names)
    recorder: Recorder | None = None
    for feed in samples.load(inputs):
        for name in names:
            interpreter.resize_tensor_input(ports[name], feed[name].shape)
        interpreter.allocate_tensors()
        # Only now: what allocation adds (a delegate's, a temporary) is known then.
        details = {d["index"]: d for d in interpreter.get_tensor_details()}
        nodes, tensors = _nodes(interpreter, details, ports)
        recorder = recorder or Recorder(nodes, layouts)
        recorder.sample()
        for name in names:
            interpreter.set_tensor(ports[name], feed[name])
        interpreter.invoke()
        for index, tensor in enumerate(tensors):
            recorder.add(index, _numbers(interpreter.get_tensor(tensor), details[tensor]))
    assert recorder
    return recorder.save(out)


def _ports(interpreter: Any, names: list[str]) -> dict[str, int]:
    """Tensor of each input, by the signature's name; by the tensor's own where the file has no signature."""
    signatures = interpreter._get_full_signature_list()
    if signatures:
        ports: dict[str, int] = next(iter(signatures.values()))["inputs"]
        return ports
    return {d["name"]: d["index"] for d in interpreter.get_input_details() if d["name"] in names}


def _nodes(interpreter: Any, details: dict[int, Any], ports: dict[str, int]) -> tuple[list[Node], list[int]]:
    """Inputs and every operation's outputs, and the tensor of each."""
    outputs = {int(d["index"]) for d in interpreter.get_output_details()}
    nodes = [Node(name, "", "input", is_input=True) for name in ports]
    tensors = list(ports.values())
    index = {tensor: i for i, tensor in enumerate(tensors)}
    for op in interpreter._get_ops_details():
        if op["op_name"] == "DELEGATE":  # stands for operations that are listed themselves
            continue
        inputs = [index[int(i)] for i in op["inputs"] if int(i) in index]
        for tensor in map(int, op["outputs"]):
            if tensor not in details:
                continue
            index[tensor] = len(nodes)
            tensors.append(tensor)
            name, kind = details[tensor]["name"], op["op_name"]
            label = f"{kind} {op['index']}"
            nodes.append(Node(name, label, kind, "", inputs, kind in MOVES, is_output=tensor in outputs, op=label))
    return nodes, tensors


def _numbers(array: ndarray, detail: dict[str, Any]) -> ndarray:
    """The real numbers behind quantized ones."""
    import numpy as np

    facts = detail["quantization_parameters"]
    scales, zeros = facts["scales"], facts["zero_points"]
    if not len(scales) or array.dtype.kind not in "iu":
        return array
    shape = [1] * array.ndim
    if len(scales) > 1:
        shape[facts["quantized_dimension"]] = len(scales)
    real = (array.astype(np.float64) - zeros.reshape(shape)) * scales.reshape(shape)
    answer: ndarray = real.astype(np.float32)
    return answer
