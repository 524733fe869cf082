"""An ``.onnx`` file as a source: checked, cleaned, and answered by ONNX Runtime without optimisations."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from ...core import samples
from ...core.errors import Unsupported, UsageError
from ...core.ids import by_content, content_id, file_sha256
from ...core.specs import TensorSpec
from ...targets import require
from .. import sizes
from ..convert import onnx_operators
from ..onnx_text import read, store
from ..program import Program
from ..proof import parity, probes
from . import common, onnx_boundary
from .boundary import Boundary, declared
from .job import Job


def capture(job: dict[str, Any]) -> dict[str, Any]:
    """Make a Program of an ONNX file; its free dimensions stay free unless a bucket fixes them."""
    asked = Job.from_dict(job)
    path, folder = Path(asked.path), Path(asked.folder)
    model = load(path)
    unknown = _unknown(model)
    if unknown:
        todo = "replace it in the model; operators of one's own aren't loaded"
        raise Unsupported(asked.asked, "; ".join(unknown), todo)
    target = require("onnxruntime")
    edge, plain = _boundary(target, model, asked)
    store(model, folder / "model.onnx")
    notes = _sized(target, model, folder / "model.onnx", asked) if asked.fixed else []
    session = _open(target, folder / "model.onnx", asked.path)
    pixels = {spec.name: [0, 256] for spec in session.inputs if edge.embed}
    # What the file has fixed has no name any more.
    left = asked if notes else replace(asked, fixed=[])
    specs = common.shaped(common.ranged(session.inputs, {**pixels, **asked.ranges}, asked.path), left)
    given = common.example_from(Path(asked.inputs), specs) if asked.inputs else None
    example = given or probes.example_feed(specs, asked.shapes, asked.limits)
    run = plain or session.run
    common.check_fit(run, asked.asked, example)
    answers = common.fill(asked, run, specs, example, edge.preprocess)
    check = _check_boundary(asked, session.run, answers.main) if plain else None
    free = {spec.name: spec.shape for spec in session.outputs}
    Program(
        folder=folder,
        name=asked.name,
        kind="onnx",
        model="model.onnx",
        source_id=_source_id(asked),
        reference="ONNX Runtime with all optimisations off",
        inputs=specs,
        outputs=[TensorSpec(s.name, s.dtype, free.get(s.name, s.shape)) for s in answers.outputs],
        main=answers.main,
        edges=answers.edges,
        notes=[*edge.notes, *notes, *answers.notes],
        data=answers.data,
        preprocess=edge.preprocess,
        capture_db=check.sqnr_db if check else None,
        capture_problems=check.problems if check else [],
        sizes=asked.limits,
        detections=dict(asked.detections),
        tools={"onnxruntime": target.version()},
    ).save()
    return {"steps": []}


def _boundary(target: Any, model: Any, asked: Job) -> tuple[Boundary, common.Run | None]:
    """Change the model's boundary where that is asked; with the inference of the file as it came, fed as it takes it.

    That is the reference then, so that what is done here to the graph is proven too.
    """
    preprocess = declared(asked)
    if not (asked.layout or asked.embed):
        return Boundary(preprocess=preprocess), None
    session = _open(target, Path(asked.path), asked.path)
    edge = Boundary.make(asked, preprocess, session.inputs, own="")
    if not edge.changes:
        return edge, None
    onnx_boundary.change(model, edge, session.inputs, session.outputs)
    return edge, edge.around(session.run)


def _source_id(asked: Job) -> str:
    path = Path(asked.path)
    files = [file_sha256(p) for p in (path, *external_files(path))]
    return content_id([files, asked.sizes, asked.layout, asked.embed, by_content(asked.args)])


def _check_boundary(asked: Job, run: common.Run, main: Sequence[str]) -> parity.Parity:
    """The changed graph's answers against those of the file as it came."""
    feeds, reference = (samples.load(Path(asked.folder) / f"main_{side}.npz") for side in ("in", "out"))
    return parity.compare("fp32", main, reference, [run(feed) for feed in feeds], declared=asked.detections)


def gaps(source: str, program: str) -> list[str]:
    """Operators that ONNX Runtime, which gives the reference, doesn't have."""
    return _unknown(read(Path(source)))


def _unknown(model: Any) -> list[str]:
    from onnxruntime.capi.onnxruntime_pybind11_state import get_all_operator_schema

    known = {(schema.domain, schema.name) for schema in get_all_operator_schema()}
    known |= {(function.domain, function.name) for function in model.functions}
    return onnx_operators.unknown(onnx_operators.every(model.graph), known, "ONNX Runtime")


def _sized(target: Any, model: Any, file: Path, asked: Job) -> list[str]:
    """Write the file with its buckets' sizes, where ONNX Runtime still opens it; what a reader should know if not.

    Its optimizer refuses more graphs with fixed sizes than with free ones: branches that are for another size.
    """
    before = deepcopy(model)
    inputs = _open(target, file, asked.path).inputs
    _fix(model, inputs, sizes.fixed(inputs, asked.fixed))
    store(model, file)
    try:
        target.open(file, target.settings("fp32", 1))
    except Exception as error:
        store(before, file)
        return [f"its axes stay free inside the file, since with fixed ones ONNX Runtime refuses it: {error}"[:300]]
    return []


def _fix(model: Any, inputs: Sequence[TensorSpec], wanted: Sequence[TensorSpec]) -> None:
    """Give free dimensions their size, everywhere the graph names them."""
    known = {
        old: new
        for had, have in zip(inputs, wanted, strict=True)
        for old, new in zip(had.shape, have.shape, strict=True)
        if old != new
    }
    shapes = {spec.name: spec.shape for spec in wanted}
    del model.graph.value_info[:]  # inferred for other sizes
    for port in (*model.graph.input, *model.graph.output):
        for i, dim in enumerate(port.type.tensor_type.shape.dim):
            size = shapes[port.name][i] if port.name in shapes else known.get(dim.dim_param)
            if isinstance(size, int):
                dim.dim_value = size


def load(path: Path) -> Any:
    """Read and check an ONNX model with its external data.

    Raises:
        UsageError: truncated, not ONNX, or external data that leave the model's folder.
    """
    asked = f"the model {path}"
    model = read(path)
    import onnx

    for name in _external_names(model):
        check_external(asked, path.parent, name)
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
    except Exception as error:
        raise UsageError(asked, f"its external data can't be read: {error}", "keep the files together") from error
    return model


def external_files(path: Path) -> list[Path]:
    """The files beside an ONNX model that hold its weights."""
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    return sorted({path.parent / name for name in _external_names(model)})


def _external_names(model: Any) -> list[str]:
    tensors = [t for owner in (model.graph, *model.functions) for t in _tensors(owner)]
    return [e.value for t in tensors for e in t.external_data if e.key == "location"]


def _tensors(owner: Any) -> list[Any]:
    """All tensors of a graph or a function, those in its branches and loop bodies too."""
    tensors = list(getattr(owner, "initializer", ()))
    for sparse in getattr(owner, "sparse_initializer", ()):
        tensors += [sparse.values, sparse.indices]
    for attribute in (a for node in owner.node for a in node.attribute):
        tensors += [attribute.t, *attribute.tensors]
        for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
            tensors += [sparse.values, sparse.indices]
        for graph in (attribute.g, *attribute.graphs):
            tensors += _tensors(graph) if graph.node or graph.initializer else []
    return tensors


def check_external(asked: str, folder: Path, name: str) -> None:
    """Refuse external data outside the model's folder: absolute, with ``..``, or reached by a link."""
    todo = "only plain files in the model's own folder are read; move the data there"
    where = PurePosixPath(name)
    if where.is_absolute() or "\\" in name or ".." in where.parts:
        raise UsageError(asked, f"its external data {name!r} lie outside its folder", todo)
    step = folder
    for part in where.parts:
        step = step / part
        if step.is_symlink():
            raise UsageError(asked, f"its external data {name!r} are a link", todo)
    if not step.is_file():
        raise UsageError(asked, f"its external data {name!r} are missing", "put the file beside the model")


def _open(target: Any, path: Path, source: str) -> Any:
    try:
        return target.open(path, target.strict("fp32"))
    except Exception as error:
        first = str(error).splitlines()[0]
        raise Unsupported(f"the model {source}", f"ONNX Runtime can't load it: {first}") from error
