"""The decision rule behind a TFLite graph, by the schema that ai-edge-litert brings. Runs in a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core.errors import MissingPart, Unsupported
from ..convert import tflite_boundary
from .rule import COST, DECISION, TINY

if TYPE_CHECKING:
    from numpy import ndarray

_ASKED = "the decision rule for tflite"
_AT = "seatrial_decision"


def append(
    model: str, out: str, scores: str, costs: list[list[float]], temperature: float, kind: str
) -> dict[str, Any]:
    """Write the model with two more outputs; see `onnx_file.append`.

    Raises:
        Unsupported: the output is not (n, classes) of float32, or the file is one of those beyond 2 GiB.
        MissingPart: ai-edge-litert is not installed.
    """
    import numpy as np

    try:
        from ai_edge_litert import schema_py_generated as schema
    except ImportError as error:
        raise MissingPart(_ASKED, str(error), 'pip install "seatrial[tflite]"') from error
    read = tflite_boundary.read(Path(model))
    if any(buffer.offset > 1 for buffer in read.buffers):
        raise Unsupported(_ASKED, "its weights lie behind the graph (a file beyond 2 GiB)", "export without --cost")
    graph = Graph(schema, read, scores)
    classes, decisions = len(costs), len(costs[0])
    if kind == "probabilities":
        graph.op("MAXIMUM", "above_zero", classes, graph.constant("tiny", np.array(TINY, np.float32)))
        graph.op("LOG", "logits", classes)
    graph.op(
        "MUL",
        "scaled",
        classes,
        graph.constant("t", np.array(1 / temperature, np.float32)),
        options=schema.MulOptionsT(),
    )
    softmax = schema.SoftmaxOptionsT()
    softmax.beta = 1.0
    graph.op("SOFTMAX", "probabilities", classes, options=softmax)
    weights = graph.constant("costs", np.ascontiguousarray(np.array(costs, np.float32).T))
    cost = graph.op("FULLY_CONNECTED", COST, decisions, weights, -1, options=schema.FullyConnectedOptionsT())
    argmin = schema.ArgMinOptionsT()
    argmin.outputType = schema.TensorType.INT64
    axis = graph.constant("axis", np.array([1], np.int32))
    decision = graph.op("ARG_MIN", DECISION, None, axis, options=argmin, type="INT64")
    graph.outputs({COST: cost, DECISION: decision})
    Path(out).write_bytes(tflite_boundary.written(read))
    return {}


class Graph:
    """The first graph of a model, to which operators are added one behind the other.

    Args:
        schema: the generated module.
        model: its ``ModelT``.
        scores: name of the output that they start from.
    """

    def __init__(self, schema: Any, model: Any, scores: str) -> None:
        self.schema, self.model, self.graph = schema, model, model.subgraphs[0]
        self.signatures = [s for s in model.signatureDefs or [] if s.subgraphIndex == 0]
        named = {_text(m.name): m.tensorIndex for s in self.signatures for m in s.outputs}
        named = named or {_text(self.graph.tensors[i].name): i for i in self.graph.outputs}
        self.at = int(named[scores])
        tensor = self.graph.tensors[self.at]
        self.shape = [int(size) for size in tensor.shape]
        signature = tensor.shapeSignature
        self.free = signature is not None and len(signature) > 0 and int(signature[0]) < 0
        if tensor.type != schema.TensorType.FLOAT32 or len(self.shape) != 2:
            found = f"its output {scores!r} is not (samples, classes) of float32"
            raise Unsupported(_ASKED, found, "export without --cost")

    def op(
        self, kind: str, name: str, columns: int | None, *more: int, options: Any = None, type: str = "FLOAT32"
    ) -> int:
        """Add an operator on what came last; it gives (n, columns), or (n,) for None. Answers with its tensor."""
        schema = self.schema
        operator = schema.OperatorT()
        operator.opcodeIndex = self._code(getattr(schema.BuiltinOperator, kind))
        operator.inputs = [self.at, *more]
        shape = [self.shape[0], *([] if columns is None else [columns])]
        at = self._tensor(name, shape, getattr(schema.TensorType, type), 0, free=self.free)
        operator.outputs = [at]
        if options is not None:
            kind = options.__class__.__name__.removesuffix("T")
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, kind)
            operator.builtinOptions = options
        self.graph.operators.append(operator)
        self.at = at
        return at

    def constant(self, name: str, array: ndarray) -> int:
        """Add a tensor that holds an array."""
        import numpy as np

        buffer = self.schema.BufferT()
        buffer.data = np.frombuffer(array.tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        type = {"float32": "FLOAT32", "int32": "INT32"}[str(array.dtype)]
        return self._tensor(name, array.shape, getattr(self.schema.TensorType, type), len(self.model.buffers) - 1)

    def outputs(self, tensors: dict[str, int]) -> None:
        """Let tensors be outputs, under these names in every signature."""
        import numpy as np

        self.graph.outputs = np.array([*self.graph.outputs, *tensors.values()], np.int32)
        for signature in self.signatures:
            for name, index in tensors.items():
                entry = self.schema.TensorMapT()
                entry.name, entry.tensorIndex = name, index
                signature.outputs.append(entry)

    def _tensor(self, name: str, shape: Any, type: int, buffer: int, free: bool = False) -> int:
        tensor = self.schema.TensorT()
        tensor.name = name if name in (COST, DECISION) else f"{_AT}/{name}"
        tensor.shape, tensor.type, tensor.buffer = list(shape), type, buffer
        if free:
            tensor.shapeSignature = [-1, *tensor.shape[1:]]
        self.graph.tensors.append(tensor)
        return len(self.graph.tensors) - 1

    def _code(self, builtin: int) -> int:
        """Its place among the model's operator codes, added where there is none of the first version."""
        codes = self.model.operatorCodes
        for i, code in enumerate(codes):
            if max(code.builtinCode, code.deprecatedBuiltinCode) == builtin and code.version == 1:
                return i
        code = self.schema.OperatorCodeT()
        # Readers older than 2020 know the byte alone.
        code.builtinCode, code.deprecatedBuiltinCode, code.version = builtin, min(builtin, 127), 1
        codes.append(code)
        return len(codes) - 1


def _text(name: Any) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)
