"""ONNX → TFLite by onnx2tf, in that environment's interpreter: numpy, onnx, onnxruntime, onnx2tf and `core` alone.

onnx2tf guesses shapes that it can't infer, and moves axes. So the graph is folded by ONNX Runtime with fixed sizes
first (what computes a shape becomes a constant), inputs are told to keep theirs, and what comes out is held against
the program: each input and output has its name, dtype and shape, or the conversion ends. Values are proven later.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core import samples
from ...core.errors import ConverterFailed, SeatrialError, Unsupported
from ...core.specs import TensorSpec
from ...devices.worker import agreement
from . import onnx_operators
from . import tflite_boundary as boundary

if TYPE_CHECKING:
    from numpy import ndarray

    from ...core.samples import Feed

FLOW = ("If", "Loop", "Scan")
TODO = "choose another --target for this model"
ALIKE_DB = 20.0


def convert(source: str, out: str, program: str) -> dict[str, Any]:
    """Convert an ONNX file whose sizes are fixed.

    Raises:
        Unsupported: a free dimension, an operator that onnx2tf doesn't know, or a result with other inputs or outputs.
        ConverterFailed: onnx2tf failed, or its result doesn't run.
    """
    data = json.loads(Path(program).read_text())
    inputs, outputs = ([TensorSpec.from_dict(spec) for spec in data[side]] for side in ("inputs", "outputs"))
    asked = "the conversion onnx → tflite"
    check_sizes(inputs, asked)
    work = Path(out).parent / "onnx2tf"
    work.mkdir()
    folded = _folded(Path(source), inputs, work)
    try:
        model = boundary.read(_converted(folded, inputs, work, asked))
        _check_operators(model, folded, asked)
        _fit(model, inputs, outputs, _reference(folded, Path(program), asked), asked)
    except SeatrialError as error:
        flow = sorted({node.op_type for node in _graph(folded).node} & set(FLOW))
        if flow:
            error.found += f"; the graph has {', '.join(flow)}, which TFLite's converters do badly"
        raise
    part = work / "model.tflite"
    part.write_bytes(boundary.written(model))
    os.replace(part, out)
    shutil.rmtree(work)
    return {}


def gaps(source: str, program: str) -> list[str]:
    """Operators that onnx2tf's registry lacks, and that neither ONNX Runtime folds nor inlines before it."""
    import onnx
    from onnx2tf.tflite_builder.op_registry import get_supported_onnx_ops

    model = onnx.load(source, load_external_data=False)
    known = {("", name) for name in get_supported_onnx_ops()} | {(f.domain, f.name) for f in model.functions}
    nodes = [node for node in onnx_operators.lasting(model.graph) if not _inlined(node)]
    return onnx_operators.unknown(nodes, known, "onnx2tf")


def _inlined(node: Any) -> bool:
    """Whether ONNX defines it by other operators, which ONNX Runtime may put in its place."""
    import onnx

    domain, kind = onnx_operators.key(node)
    schema = onnx.defs.get_schema(kind, domain=domain) if onnx.defs.has(kind, domain) else None
    return schema is not None and (schema.has_function or schema.has_context_dependent_function)


def check_sizes(inputs: Sequence[TensorSpec], asked: str) -> None:
    """Refuse free dimensions: onnx2tf would set them to 1."""
    for spec in inputs:
        if spec.is_free:
            axis = next(i for i, size in enumerate(spec.shape) if isinstance(size, str))
            todo = f"make one bundle per size: --bucket {spec.name}.{axis}=SIZE,SIZE"
            raise Unsupported(asked, f"it can't keep the free dimension of {spec}", todo)


def _graph(path: Path) -> Any:
    import onnx

    return onnx.load(str(path), load_external_data=False).graph


def _folded(source: Path, inputs: Sequence[TensorSpec], work: Path) -> Path:
    """The graph with the program's sizes in it, and without the nodes that only compute shapes."""
    import onnx
    import onnxruntime as ort

    model = onnx.load(str(source))
    sizes = {spec.name: spec.shape for spec in inputs}
    for value in model.graph.input:
        for axis, size in zip(value.type.tensor_type.shape.dim, sizes.get(value.name, ()), strict=False):
            axis.dim_value = size
    del model.graph.value_info[:]  # shapes that were inferred with free sizes
    for value in model.graph.output:
        value.type.tensor_type.ClearField("shape")
    fixed, folded = work / "fixed.onnx", work / "model.onnx"
    onnx.save(model, str(fixed), save_as_external_data=model.ByteSize() > 1 << 30, location="fixed.data")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folded)
    try:
        ort.InferenceSession(str(fixed), options, providers=["CPUExecutionProvider"])
    except Exception:  # it knows fewer graphs with fixed sizes than with free ones: branches that then don't fit
        return fixed
    foreign = any(node.domain not in ("", "ai.onnx") for node in _graph(folded).node)
    return fixed if foreign else folded


def _converted(model: Path, inputs: Sequence[TensorSpec], work: Path, asked: str) -> Path:
    import onnx2tf

    try:
        onnx2tf.convert(
            input_onnx_file_path=str(model),
            output_folder_path=str(work / "out"),
            output_signaturedefs=True,
            copy_onnx_input_output_names_to_tflite=True,
            keep_shape_absolutely_input_names=[spec.name for spec in inputs],
            not_use_onnxsim=True,  # a command of its own, found by PATH or silently not; the graph is folded already
            verbosity="error",
        )
    except NotImplementedError as error:
        raise Unsupported(asked, f"{_operator(error)}{error}", TODO) from error
    except (Exception, SystemExit) as error:
        raise ConverterFailed(asked, f"{_operator(error)}{type(error).__name__}: {error}"[:600], TODO) from error
    made = work / "out" / f"{model.stem}_float32.tflite"
    if not made.exists():
        raise ConverterFailed(asked, "onnx2tf ended without an error and wrote no .tflite", TODO)
    return made


def _check_operators(model: Any, graph: Path, asked: str) -> None:
    """Refuse what onnx2tf left under a name of its own (``ONNX_UNIQUE``), since no runtime knows it."""
    custom = boundary.custom_operators(model)
    if custom:
        kinds = {f"ONNX_{node.op_type.upper()}": node.op_type for node in _graph(graph).node}
        names = ", ".join(sorted({kinds.get(name, name) for name in custom}))
        raise Unsupported(asked, f"TFLite has no operator for {names}", TODO)


def _operator(error: BaseException) -> str:
    """The node that onnx2tf was at when it failed, from the frames of its traceback."""
    found, trace = "", error.__traceback__
    while trace:
        node: Any = trace.tb_frame.f_locals.get("node")
        if hasattr(node, "op") and hasattr(node, "name"):
            found = f"at the operator {node.op} ({node.name}): "
        trace = trace.tb_next
    return found


def _reference(model: Path, program: Path, asked: str) -> tuple[Feed, Feed]:
    """The program's first sample, and what ONNX Runtime answers to the graph that was converted."""
    import onnxruntime as ort

    feed = samples.load(program.parent / "main_in.npz")[0]
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        return feed, dict(zip(names, session.run(names, feed), strict=True))
    except Exception as error:
        found = f"with its sizes fixed, ONNX Runtime {ort.__version__} can't run it: {error}"
        raise Unsupported(asked, found[:400], TODO) from error


def _fit(
    model: Any, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], reference: tuple[Feed, Feed], asked: str
) -> None:
    """Give the model the program's inputs and outputs, or say what differs."""
    for spec in inputs:
        port = _port(model, "inputs", spec, asked)
        if port.shape != spec.shape:
            if port.elements != math.prod(map(int, spec.shape)):
                raise _differs(asked, spec, port)
            boundary.reshape_input(model, port, [int(size) for size in spec.shape])
    feed, wanted = reference
    found = _run(model, feed, asked)
    for spec in outputs:
        port = _port(model, "outputs", spec, asked)
        # A shape that it says and doesn't keep would mislead whoever reads the file.
        if port.shape != found[spec.name].shape or not fit_output(model, port, found[spec.name], wanted[spec.name]):
            raise _differs(asked, spec, port)


def _port(model: Any, side: str, spec: TensorSpec, asked: str) -> boundary.Port:
    """The port of that name and dtype."""
    ports = boundary.ports(model, side)
    port = next((each for each in ports if each.name == spec.name), None)
    if port is None or port.dtype != spec.dtype:
        raise _differs(asked, spec, port or ", ".join(map(str, ports)))
    return port


def fit_output(model: Any, port: boundary.Port, found: ndarray, wanted: ndarray) -> bool:
    """Whether it answers in the wanted shape, which a last operation may have to see to.

    Several can do so where sizes are equal: the values of one sample decide.
    """
    rank = found.ndim
    order = [0, rank - 1, *range(1, rank - 1)]  # the channels, which it likes to put last, to the front again
    ways: list[tuple[ndarray, Callable[[], None]]] = [(found, lambda: None)]
    if rank > 2:
        ways.append((found.transpose(order), lambda: boundary.transpose_output(model, port, order)))
    if found.size == wanted.size:
        ways.append((found.reshape(wanted.shape), lambda: boundary.reshape_output(model, port, wanted.shape)))
    fitting = [way for way in ways if way[0].shape == wanted.shape]
    alike = [way for way in fitting if _alike(way[0], wanted)]
    for _, act in (alike or fitting)[:1]:  # what is alike in no way is for the proof to judge
        act()
    return bool(fitting)


def _alike(found: ndarray, wanted: ndarray) -> bool:
    return agreement({"y": found}, [{"y": wanted}], ALIKE_DB)[1] is None


def _run(model: Any, feed: Feed, asked: str) -> Feed:
    """Outputs by name, from the plain kernels; also a test of whether it runs at all."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    try:
        interpreter = Interpreter(
            model_content=boundary.written(model), num_threads=1, experimental_op_resolver_type=resolver
        )
        answers: Feed = interpreter.get_signature_runner()(**feed)
    except (RuntimeError, ValueError) as error:
        raise ConverterFailed(asked, f"onnx2tf's result does not run: {error}"[:400], TODO) from error
    return answers


def _differs(asked: str, spec: TensorSpec, found: object) -> Unsupported:
    return Unsupported(asked, f"onnx2tf made of {spec} this: {found}", TODO)
