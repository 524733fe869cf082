"""Faults to plant in converted files: one layer's weights or activation made wrong, the file still whole.

`count` tells how many places a fault has in a file, `plant` writes a copy with one fault. Layers are counted in the
order of execution: convolutions and matrix products with weights for the first three kinds, activations for `identity`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

KINDS = ("scaled weight", "dropped bias", "swapped axis", "identity")

Change = Callable[[np.ndarray], np.ndarray]


def count(path: Path, kind: str) -> int:
    """How many layers of a file a fault of this kind can be planted in."""
    return len(_EDITORS[path.suffix](path).places(kind))


def plant(path: Path, out: Path, kind: str, index: int, factor: float = 1.1) -> str:
    """Write a copy of a file with one fault; answers with the name of the operation that was changed.

    Args:
        path: the healthy ``.onnx``, ``.xml`` or ``.tflite``.
        out: the file to write.
        kind: one of `KINDS`.
        index: which of its places.
        factor: for a scaled weight.
    """
    editor = _EDITORS[path.suffix](path)
    place = editor.places(kind)[index]
    if kind == "scaled weight":
        editor.change(place, 1, lambda weight: weight * np.float32(factor))
    elif kind == "dropped bias":
        editor.change(place, 2, np.zeros_like)
    elif kind == "swapped axis":
        editor.change(place, 1, lambda weight: swapped(weight, editor.kernel_axes(place)))
    else:
        editor.bypass(place)
    out.parent.mkdir(parents=True, exist_ok=True)
    editor.save(out)
    return str(editor.name(place))


def swapped(weight: np.ndarray, kernel: tuple[int, int] | None) -> np.ndarray:
    """Height and width of a kernel swapped; of a 1 × 1 kernel or a matrix, its inputs and outputs, the shape kept."""
    if kernel and weight.shape[kernel[0]] == weight.shape[kernel[1]] > 1:
        return np.ascontiguousarray(np.swapaxes(weight, *kernel))
    flat = weight.reshape(weight.shape[0], -1)
    return np.ascontiguousarray(flat.T).reshape(weight.shape)


class _Onnx:
    def __init__(self, path: Path) -> None:
        import onnx

        self.model = onnx.load(str(path))
        self.weights = {w.name: w for w in self.model.graph.initializer}

    def places(self, kind: str) -> list[Any]:
        nodes = self.model.graph.node
        if kind == "identity":
            return [n for n in nodes if n.op_type in ("Clip", "Relu")]
        least = 3 if kind == "dropped bias" else 2
        layers = [n for n in nodes if n.op_type in ("Conv", "Gemm", "MatMul") and n.input[1] in self.weights]
        return [n for n in layers if len(n.input) >= least]

    def change(self, node: Any, position: int, change: Change) -> None:
        import onnx

        old = self.weights[node.input[position]]
        old.CopyFrom(onnx.numpy_helper.from_array(change(onnx.numpy_helper.to_array(old)), old.name))

    def kernel_axes(self, node: Any) -> tuple[int, int] | None:
        return (2, 3) if node.op_type == "Conv" else None

    def bypass(self, node: Any) -> None:
        first = node.input[0]
        del node.input[:], node.attribute[:]
        node.input.append(first)
        node.op_type = "Identity"

    def name(self, node: Any) -> str:
        return str(node.name)

    def save(self, out: Path) -> None:
        import onnx

        onnx.save(self.model, str(out))


class _OpenVino:
    _HEAVY = ("Convolution", "GroupConvolution", "MatMul")

    def __init__(self, path: Path) -> None:
        import openvino as ov

        self.model = ov.Core().read_model(str(path))

    def places(self, kind: str) -> list[Any]:
        ops = self.model.get_ordered_ops()
        if kind == "identity":
            return [op for op in ops if op.get_type_name() in ("Clamp", "Relu")]
        layers = [op for op in ops if op.get_type_name() in self._HEAVY and self._constant(op, 1)]
        return [op for op in layers if self._bias(op)] if kind == "dropped bias" else layers

    @staticmethod
    def _constant(op: Any, position: int) -> bool:
        return bool(op.input_value(position).get_node().get_type_name() == "Constant")

    def _bias(self, op: Any) -> Any:
        """The addition of a constant behind a layer."""
        after = [target.get_node() for target in op.output(0).get_target_inputs()]
        adds = [node for node in after if node.get_type_name() == "Add" and self._constant(node, 1)]
        return adds[0] if adds else None

    def change(self, op: Any, position: int, change: Change) -> None:
        import openvino as ov

        owner, position = (self._bias(op), 1) if position == 2 else (op, position)
        old = owner.input_value(position).get_node()
        new = ov.opset8.constant(np.ascontiguousarray(change(old.data)), dtype=np.float32)
        new.set_friendly_name(old.get_friendly_name())
        owner.input(position).replace_source_output(new.output(0))

    def kernel_axes(self, op: Any) -> tuple[int, int] | None:
        return None if op.get_type_name() == "MatMul" else (-2, -1)

    def bypass(self, op: Any) -> None:
        for target in op.output(0).get_target_inputs():
            target.replace_source_output(op.input_value(0))

    def name(self, op: Any) -> str:
        return str(op.get_friendly_name())

    def save(self, out: Path) -> None:
        import openvino as ov

        ov.save_model(self.model, str(out), compress_to_fp16=False)


class _TfLite:
    def __init__(self, path: Path) -> None:
        from ai_edge_litert import schema_py_generated as schema

        self.schema = schema
        self.model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
        self.graph = self.model.subgraphs[0]
        names = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
        self.codes = [names[max(c.builtinCode, c.deprecatedBuiltinCode)] for c in self.model.operatorCodes]

    def _kind(self, op: Any) -> str:
        return self.codes[op.opcodeIndex]

    def places(self, kind: str) -> list[Any]:
        layers = [
            op for op in self.graph.operators if self._kind(op) in ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
        ]
        if kind == "identity":
            return [op for op in layers if op.builtinOptions.fusedActivationFunction]
        return [op for op in layers if kind != "dropped bias" or (len(op.inputs) > 2 and op.inputs[2] >= 0)]

    def change(self, op: Any, position: int, change: Change) -> None:
        tensor = self.graph.tensors[op.inputs[position]]
        buffer = self.model.buffers[tensor.buffer]
        assert tensor.type == self.schema.TensorType.FLOAT32
        old = np.frombuffer(bytes(buffer.data), np.float32).reshape(tensor.shape)
        buffer.data = np.frombuffer(np.ascontiguousarray(change(old)).tobytes(), np.uint8)

    def kernel_axes(self, op: Any) -> tuple[int, int] | None:
        return None if self._kind(op) == "FULLY_CONNECTED" else (1, 2)

    def bypass(self, op: Any) -> None:
        op.builtinOptions.fusedActivationFunction = self.schema.ActivationFunctionType.NONE

    def name(self, op: Any) -> str:
        return f"{self._kind(op)} {[id(one) for one in self.graph.operators].index(id(op))}"

    def save(self, out: Path) -> None:
        import flatbuffers

        builder = flatbuffers.Builder(1 << 20)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        out.write_bytes(bytes(builder.Output()))


_EDITORS: dict[str, Callable[[Path], Any]] = {".onnx": _Onnx, ".xml": _OpenVino, ".tflite": _TfLite}
