"""An ``.onnx`` file as a source: checked, cleaned, and answered by ONNX Runtime without optimisations."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ...core.errors import Unsupported, UsageError
from ...core.ids import content_id, file_sha256
from ...core.specs import TensorSpec
from ...targets import require
from .. import sizes
from ..onnx_text import read, store
from ..program import Program
from ..proof import probes
from . import common
from .job import Job


def capture(job: dict[str, Any]) -> dict[str, Any]:
    """Make a Program of an ONNX file; its free dimensions stay free unless a bucket fixes them."""
    asked = Job.from_dict(job)
    if asked.layout or asked.embed:
        todo = "leave it away; only a .py's torch module can be laid out anew"
        raise Unsupported(asked.asked, "an ONNX graph's boundary is left as it is", todo)
    path, folder = Path(asked.path), Path(asked.folder)
    model = load(path)
    store(model, folder / "model.onnx")
    target = require("onnxruntime")
    if asked.fixed:
        session = _open(target, folder / "model.onnx", asked.path)
        _fix(model, session.inputs, sizes.fixed(session.inputs, asked.fixed))
        store(model, folder / "model.onnx")
    session = _open(target, folder / "model.onnx", asked.path)
    specs = common.shaped(common.ranged(session.inputs, asked.ranges, asked.path), asked)
    given = common.example_from(Path(asked.inputs), specs) if asked.inputs else None
    example = given or probes.example_feed(specs, asked.shapes, asked.limits)
    common.check_fit(session.run, asked.asked, example)
    answers = common.fill(asked, session.run, specs, example)
    free = {spec.name: spec.shape for spec in session.outputs}
    Program(
        folder=folder,
        name=asked.name,
        kind="onnx",
        model="model.onnx",
        source_id=content_id([[file_sha256(p) for p in (path, *external_files(path))], asked.sizes]),
        reference="ONNX Runtime with all optimisations off",
        inputs=specs,
        outputs=[TensorSpec(s.name, s.dtype, free.get(s.name, s.shape)) for s in answers.outputs],
        main=answers.main,
        edges=answers.edges,
        notes=answers.notes,
        data=answers.data,
        sizes=asked.limits,
        detections=dict(asked.detections),
        tools={"onnxruntime": target.version()},
    ).save()
    return {"steps": []}


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
