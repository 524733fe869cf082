"""An ``.onnx`` file as a source: checked, cleaned, and answered by ONNX Runtime without optimisations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from ...core import samples
from ...core.errors import MissingPart, Unsupported, UsageError
from ...core.ids import content_id, file_sha256
from ...core.samples import Feed
from ...core.specs import TensorSpec
from ...targets import require
from ..data import cast
from ..program import Program
from ..proof import probes
from .common import fill


def capture(
    path: str,
    name: str,
    folder: str,
    data: Mapping[str, str],
    inputs: str | None,
    shapes: Mapping[str, Sequence[int]],
    ranges: Mapping[str, Sequence[int]],
) -> dict[str, Any]:
    """Make a Program of an ONNX file in `folder`.

    Args:
        path: the user's file.
        name: what people call it.
        folder: where the Program goes.
        data: paths of the user's data, by use.
        inputs: an ``.npz`` with one example of each input, or None.
        shapes: the shape to try, by input.
        ranges: low and high (exclusive), by integer input.
    """
    model = load(Path(path))
    store(model, Path(folder) / "model.onnx")
    target = require("onnxruntime")
    session = _open(target, Path(folder) / "model.onnx", path)
    specs = [_ranged(spec, ranges) for spec in session.inputs]
    for given, option in ((shapes, "--shape"), (ranges, "--range")):
        unknown = set(given) - {spec.name for spec in specs}
        if unknown:
            known = ", ".join(map(str, specs))
            raise UsageError(f"{option} {min(unknown)}=...", f"{path} has no such input", f"it has: {known}")
    example = _example(Path(inputs), specs) if inputs else probes.example_feed(specs, shapes)
    _check_fit(session, path, example)
    answers = fill(Path(folder), f"the model {path}", session.run, specs, example, None, data)
    free = {spec.name: spec.shape for spec in session.outputs}
    Program(
        folder=Path(folder),
        name=name,
        kind="onnx",
        model="model.onnx",
        source_id=content_id([file_sha256(p) for p in (Path(path), *external_files(Path(path)))]),
        reference="ONNX Runtime with all optimisations off",
        inputs=specs,
        outputs=[TensorSpec(s.name, s.dtype, free.get(s.name, s.shape)) for s in answers.outputs],
        main=answers.main,
        edges=answers.edges,
        data=answers.data,
        tools={"onnxruntime": target.version()},
    ).save()
    return {}


def load(path: Path) -> Any:
    """Read and check an ONNX model with its external data.

    Raises:
        UsageError: truncated, not ONNX, or external data that leave the model's folder.
    """
    try:
        import onnx
    except ImportError:
        raise MissingPart(f"the model {path}", "onnx is missing", 'pip install "seatrial[onnxruntime]"') from None
    asked = f"the model {path}"
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:
        found = f"it is not a whole ONNX file: {str(error).splitlines()[0]}"
        raise UsageError(asked, found, "check the file's size, and download or export it again") from error
    if not model.graph.node or not model.graph.output:
        raise UsageError(asked, "it is not an ONNX model, or holds no graph", "check the file; export it again")
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


def store(model: Any, path: Path) -> None:
    """Write a model without anything that tells of its maker's machine: no metadata, no doc strings."""
    import onnx

    strip(model)
    limit = 1_800_000_000  # protobuf ends at 2 GiB
    if model.ByteSize() > limit:
        onnx.save(model, str(path), save_as_external_data=True, location=f"{path.name}.data")
    else:
        onnx.save(model, str(path))


def strip(model: Any) -> None:
    """Clear metadata and doc strings of a model and everything in it."""
    model.doc_string = ""
    del model.metadata_props[:]
    for function in model.functions:
        _strip_nodes(function)
    _strip_graph(model.graph)


def _strip_graph(graph: Any) -> None:
    graph.doc_string = ""
    del graph.metadata_props[:]
    for thing in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        thing.doc_string = ""
        del thing.metadata_props[:]
    _strip_nodes(graph)


def _strip_nodes(owner: Any) -> None:
    owner.doc_string = ""
    for node in owner.node:
        node.doc_string = ""
        del node.metadata_props[:]
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                if graph.node:
                    _strip_graph(graph)


def _open(target: Any, path: Path, source: str) -> Any:
    try:
        return target.open(path, target.strict("fp32"))
    except Exception as error:
        first = str(error).splitlines()[0]
        raise Unsupported(f"the model {source}", f"ONNX Runtime can't load it: {first}") from error


def _ranged(spec: TensorSpec, ranges: Mapping[str, Sequence[int]]) -> TensorSpec:
    if spec.name not in ranges:
        return spec
    low, high = ranges[spec.name]
    return TensorSpec(spec.name, spec.dtype, spec.shape, low, high)


def _example(path: Path, specs: Sequence[TensorSpec]) -> Feed:
    asked = f"--inputs {path}"
    arrays = samples.arrays(path, asked)
    missing = [str(spec) for spec in specs if spec.name not in arrays]
    if missing:
        raise UsageError(asked, f"it has no {missing[0]}", f"it needs: {', '.join(map(str, specs))}")
    return {spec.name: cast(arrays[spec.name], spec, asked) for spec in specs}


def _check_fit(session: Any, path: str, example: Feed) -> None:
    try:
        session.run(example)
    except Exception as error:
        found = f"it refuses the example inputs: {str(error).splitlines()[0]}"
        todo = "give ones that fit: --inputs FILE.npz, or --shape and --range"
        raise UsageError(f"the model {path}", found, todo) from error
