"""A TensorFlow function with named inputs and outputs, frozen into a SavedModel. Runs in a TensorFlow process."""

from __future__ import annotations

import os
import re
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...core import samples
from ...core.errors import SeatrialError, Unsupported, UsageError
from ...core.ids import by_content, content_id
from ...core.samples import Feed
from ...core.specs import TensorSpec
from ..program import Program
from ..proof import parity, probes
from . import common, tf_boundary, then, user
from .boundary import Boundary
from .job import Job

MODEL = "savedmodel"
SIGNATURE = "serving_default"
MOST_BYTES = 1_900_000_000  # protobuf ends at 2 GiB
OF_TRAINING = ("_gradient_op_type", "_XlaMustCompile")
"""Attributes that keep functions from being inlined: Keras compiles grouped convolutions for their gradient."""

Call = Callable[[Mapping[str, Any]], Mapping[str, Any]]


@dataclass
class Given:
    """What a source of the TensorFlow family gives.

    Attributes:
        call: one inference in fp32 over tensors by name; the answers by name, in their order.
        inputs: what it takes; an axis without a size is called ``INPUT.AXIS``.
        reference: where its answers come from, in words.
        id_parts: what the source's id is made of.
        example: inputs of the source's own, where it has any.
        labels: class names, of a declared classifier.
        edge: how the boundary differs from the source's, and how pictures become inputs.
        calibration: feeds of the source's own, for int8.
        variables: the model's weights: part of the id, and of the way to tell that they are too many.
        tools: versions of what took part.
        notes: what a reader of the report should know.
    """

    call: Call
    inputs: list[TensorSpec]
    reference: str
    id_parts: list[Any]
    example: Feed | None = None
    labels: list[str] | None = None
    edge: Boundary = field(default_factory=Boundary)
    calibration: list[Feed] | None = None
    variables: Sequence[Any] = ()
    tools: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def prepare() -> None:
    """What every TensorFlow process does before it imports anything of that family: the CPU, one thread, quiet."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
    os.environ["TF_ENABLE_ONEDNN_OPTS"] = "0"  # plain kernels: the reference shall not depend on the CPU's extensions
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    import tensorflow as tf

    if tf.config.threading.get_intra_op_parallelism_threads() != 1:  # it may be set only before the first operator
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.random.set_seed(0)


def check_args(job: Job, known: Sequence[str]) -> None:
    """Refuse an ``--arg`` that this kind of source doesn't know."""
    for name in job.args:
        if name not in known:
            raise UsageError(f"--arg {name}=...", f"{job.path} takes no such option", f"known: {', '.join(known)}")


def capture(job: Job, given: Given) -> dict[str, Any]:
    """Freeze a function into the Program of `job`, then run the job's converters in this process.

    Reference answers come from the function as it was given, fed as it takes its inputs, whatever its boundary becomes.

    Returns:
        ``{"steps": [...]}``: for each converter None, or its error as data.

    Raises:
        UsageError: inputs that the model can't take, sizes or ranges that are missing.
        Unsupported: TensorFlow can't make a graph of it.
    """
    _check_types(job, given.inputs)
    edge = given.edge
    run = edge.around(_runner(given.call))
    given = _outside(given)
    specs, example = _sized(job, given)
    _check_fit(job, run, example)
    folder = Path(job.folder)
    own = {"calibration": common.own_calibration(given.calibration)} if given.calibration else {}
    answers = common.fill(job, run, specs, example, edge.preprocess, own, given.labels)
    _freeze(job, given, specs, [spec.name for spec in answers.outputs])
    check = _check_frozen(job, answers.main)
    Program(
        folder=folder,
        name=job.name,
        kind="savedmodel",
        model=MODEL,
        source_id=_source_id(given, job),
        reference=given.reference,
        inputs=specs,
        outputs=_free_outputs(folder, specs, answers.outputs),
        main=answers.main,
        edges=answers.edges,
        notes=[*edge.notes, *given.notes, *answers.notes],
        data=answers.data,
        labels=given.labels,
        preprocess=edge.preprocess,
        capture_db=check.sqnr_db,
        capture_problems=check.problems,
        sizes=job.limits,
        detections=dict(job.detections),
        tools={**_tools(), **given.tools},
    ).save()
    return {"steps": then.run(job, "savedmodel")}


def _outside(given: Given) -> Given:
    """What a source gave, as its changed boundary has it."""
    edge = given.edge
    if not edge.changes:
        return given
    return replace(
        given,
        call=tf_boundary.changed(edge, given.call),
        inputs=tf_boundary.specs(edge, given.inputs),
        example=None if given.example is None else edge.outside(given.example),
        calibration=None if given.calibration is None else [edge.outside(feed) for feed in given.calibration],
    )


def axes(name: str, shape: Sequence[int | None]) -> tuple[int | str, ...]:
    """A TensorFlow shape as a spec's: an axis without a size is called ``INPUT.AXIS``."""
    return tuple(f"{name}.{i}" if size is None else int(size) for i, size in enumerate(shape))


def safe(name: str) -> str:
    """The name in letters that every format takes."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "_.") else "_" for c in name)
    return kept if kept[:1].isalpha() else f"t_{kept}"


def _check_types(job: Job, inputs: Sequence[TensorSpec]) -> None:
    for spec in inputs:
        if spec.dtype in ("string", "resource", "variant"):
            todo = "take that part out of the model, and feed what it gives"
            raise Unsupported(job.asked, f"the input {spec.name} is of the type {spec.dtype}", todo)


def _sized(job: Job, given: Given) -> tuple[list[TensorSpec], Feed]:
    """The inputs in the sizes that were asked for, and an example of them.

    Axes without a size take the example's (the first one: 1), unless they were asked to stay free.
    """
    known = common.shaped(common.ranged(given.inputs, job.ranges, job.asked), job)
    example = given.example
    if example is None and job.inputs:
        example = common.example_from(Path(job.inputs), given.inputs)
    if example is None:
        example = probes.example_feed([_batch_of_one(spec, job) for spec in known], job.shapes, job.limits)
    for spec in given.inputs:
        _check_shape(job, spec, example[spec.name].shape)
    example = common.fitted(example, known, job)
    specs = []
    for spec in known:
        sizes = zip(spec.shape, example[spec.name].shape, strict=True)
        specs.append(replace(spec, shape=tuple(a if isinstance(a, int) or a in job.limits else s for a, s in sizes)))
    return specs, example


def _batch_of_one(spec: TensorSpec, job: Job) -> TensorSpec:
    free = spec.shape and isinstance(spec.shape[0], str) and spec.shape[0] not in job.limits
    return replace(spec, shape=(1, *spec.shape[1:])) if free else spec


def _check_shape(job: Job, spec: TensorSpec, shape: Sequence[int]) -> None:
    fits = len(shape) == len(spec.shape) and all(
        isinstance(want, str) or want == have for want, have in zip(spec.shape, shape, strict=True)
    )
    if not fits:
        found = f"the example of {spec.name} has the shape {list(shape)}"
        raise UsageError(job.asked, found, f"the model takes {spec}; give --shape, or --inputs FILE.npz, that fits")


def _runner(call: Call) -> common.Run:
    import tensorflow as tf

    def run(feed: Feed) -> Feed:
        answers = call({name: tf.constant(array) for name, array in feed.items()})
        return {name: tf.convert_to_tensor(tensor).numpy() for name, tensor in answers.items()}

    return run


def _check_fit(job: Job, run: common.Run, example: Feed) -> None:
    try:
        outputs = run(example)
    except SeatrialError:
        raise
    except Exception as error:
        shapes = ", ".join(f"{name}: {a.dtype}{list(a.shape)}" for name, a in example.items())
        found = f"it can't take the example inputs ({shapes}): {first_line(error)}"
        raise UsageError(job.asked, found, "give ones that fit: --inputs FILE.npz, or --shape and --range") from error
    odd = [name for name, array in outputs.items() if array.dtype.kind not in "fiub"]
    if odd:
        raise Unsupported(job.asked, f"the output {odd[0]} is not made of numbers", "take that part out of the model")


def first_line(error: BaseException) -> str:
    """What an error of TensorFlow's says first, without the place in its own code."""
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__


def _freeze(job: Job, given: Given, specs: Sequence[TensorSpec], outputs: Sequence[str]) -> None:
    """Write the SavedModel: one signature with these sizes, weights as constants.

    Variables would reach TFLite as resources that its interpreter can't initialise.
    """
    import tensorflow as tf

    size = sum(v.shape.num_elements() * v.dtype.size for v in map(tf.convert_to_tensor, given.variables))
    if size > MOST_BYTES:
        found = f"its weights take {size / 1e9:.1f} GB; a TensorFlow graph ends at 2 GB"
        raise Unsupported(job.asked, found, "split the model")
    names = [spec.name for spec in specs]
    wanted = [tf.TensorSpec([a if isinstance(a, int) else None for a in s.shape], s.dtype, name=s.name) for s in specs]
    try:
        function = tf.function(lambda *tensors: _flat(given.call(dict(zip(names, tensors, strict=True))), outputs))
        once = _frozen(function.get_concrete_function(*wanted))
    except Exception as error:
        traceback.print_exc()
        failure = user.user_error(job.path, "TensorFlow can't make a graph of it", error)
        raise Unsupported(job.asked, failure.found, "the log has TensorFlow's own words") from error
    # What was compiled on its own could not be inlined the first time.
    twice = _frozen(tf.function(once, input_signature=wanted).get_concrete_function())
    named = tf.function(lambda *tensors: dict(zip(outputs, twice(*tensors), strict=True)), input_signature=wanted)
    signature = named.get_concrete_function()
    options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)  # SiLU's can't be saved, nor is needed
    tf.saved_model.save(tf.Module(), str(Path(job.folder) / MODEL), {SIGNATURE: signature}, options)


def _frozen(function: Any) -> Callable[..., list[Any]]:
    """A function like this one, with its variables as constants and what it calls written out."""
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    frozen = convert_variables_to_constants_v2(function, lower_control_flow=False, aggressive_inlining=True)
    graph = canonical(frozen.graph.as_graph_def())
    starts, ends = ([tensor.name for tensor in side] for side in (frozen.inputs, frozen.outputs))

    def run(*tensors: Any) -> list[Any]:
        found: list[Any] = tf.graph_util.import_graph_def(graph, dict(zip(starts, tensors, strict=True)), ends, name="")
        return found

    return run


def _flat(answers: Mapping[str, Any], names: Sequence[str]) -> list[Any]:
    import tensorflow as tf

    return [tf.convert_to_tensor(answers[name]) for name in names]


def canonical(graph: Any) -> Any:
    """The graph with nodes sorted, and functions renamed, so that nothing tells what the process did before.

    The functions' own names end in counters, which grow in the order in which they were made; even where only names
    differ, the order of sets does. The new names tell the content: a process may not know two functions by one name.
    """
    functions = sorted(graph.library.function, key=lambda f: [int(n) for n in re.findall(r"\d+", f.signature.name)])
    _rename(graph, {f.signature.name: f"function_{i}" for i, f in enumerate(functions)})
    for function in functions:
        _rename_arguments(function)
        function.node_def.sort(key=lambda node: node.name)
    texts = [function.SerializeToString(deterministic=True).hex() for function in functions]
    _rename(graph, {f"function_{i}": f"function_{content_id(texts)}_{i}" for i in range(len(functions))})
    graph.library.function.sort(key=lambda f: int(f.signature.name.rpartition("_")[2]))
    graph.node.sort(key=lambda node: node.name)
    return graph


def _rename(graph: Any, known: Mapping[str, str]) -> None:
    """Rename functions wherever they are named, and take away what is of use in training only."""
    for function in graph.library.function:
        function.signature.name = known[function.signature.name]
        for key in ("_original_func_name", *OF_TRAINING):
            function.attr.pop(key, None)
    for node in (*graph.node, *(n for f in graph.library.function for n in f.node_def)):
        for key in OF_TRAINING:
            node.attr.pop(key, None)
        node.op = known.get(node.op, node.op)
        for value in node.attr.values():
            for link in [value.func] if value.HasField("func") else value.list.func:
                link.name = known.get(link.name, link.name)


def _rename_arguments(function: Any) -> None:
    """A loop's arguments are called after its functions, counters and all."""
    known = {arg.name: f"argument_{i}" for i, arg in enumerate(function.signature.input_arg)}
    for arg in function.signature.input_arg:
        arg.name = known[arg.name]
    for node in function.node_def:
        node.input[:] = [known.get(name, name) for name in node.input]
    for key, value in list(function.ret.items()):
        function.ret[key] = known.get(value, value)


def load(folder: str | Path) -> Any:
    """The signature of a Program's SavedModel: takes tensors by name, and gives a dict of them."""
    import tensorflow as tf

    loaded = tf.saved_model.load(str(folder))
    signature = loaded.signatures[SIGNATURE]
    signature.owner = loaded  # its tables and variables live as long as the function
    return signature


def _check_frozen(job: Job, main: Sequence[str]) -> Any:
    folder = Path(job.folder)
    signature = load(folder / MODEL)
    run = _runner(lambda feed: signature(**feed))
    feeds, reference = (samples.load(folder / f"main_{side}.npz") for side in ("in", "out"))
    return parity.compare("fp32", main, reference, [run(feed) for feed in feeds], declared=job.detections)


def _free_outputs(folder: Path, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> list[TensorSpec]:
    """The output specs with free dimensions named: as the input's whose size they share in every sample."""
    free = {axis: (spec.name, i) for spec in inputs for i, axis in enumerate(spec.shape) if isinstance(axis, str)}
    if not free:
        return list(outputs)
    groups = ("main", "edges")
    feeds = [feed for g in groups for feed in samples.load(folder / f"{g}_in.npz")]
    answers = [feed for g in groups for feed in samples.load(folder / f"{g}_out.npz")]
    named = []
    for spec in outputs:
        shape: list[int | str] = list(spec.shape)
        for i in range(len(shape)):
            seen = [a[spec.name].shape[i] for a in answers]
            same = [axis for axis, (name, at) in free.items() if seen == [f[name].shape[at] for f in feeds]]
            if len(set(seen)) > 1:
                shape[i] = same[0] if same else f"{spec.name}.{i}"
        named.append(replace(spec, shape=tuple(shape)))
    return named


def _tools() -> dict[str, str]:
    import tensorflow as tf

    return {"tensorflow": tf.__version__}


def _source_id(given: Given, job: Job) -> str:
    """From the source's own parts (a file counts by its bytes), what was asked of its inputs, and the weights."""
    import hashlib

    digest = hashlib.sha256()
    for variable in given.variables:
        array = variable.numpy()
        digest.update(f"{array.dtype} {array.shape}".encode())
        digest.update(array.tobytes())
    shapes = [list(spec.shape) for spec in given.inputs]
    asked = [by_content(job.args), job.sizes, job.shapes, shapes, job.layout, job.embed]
    return content_id([given.id_parts, *asked, digest.hexdigest()])
