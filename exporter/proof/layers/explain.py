"""Look into an artifact and its source at once: tap both on the same inputs, match, locate."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....core import process, samples
from ....core.errors import Unsupported
from ....core.process import Limits
from ....devices import lease
from ....targets import get
from .. import parity
from .depth import Culprit, Depth, Row
from .locate import Fault, Support, artifact_op, is_product, locate, noisiest
from .match import Matches, match, paired
from .record import Node, Tap

if TYPE_CHECKING:
    from ...artifact import Artifact
    from ...program import Program

SAMPLES = 2
"""Inputs that both sides run on: two that agree by chance are one too many."""

_HERE = "seatrial.exporter.proof.layers"
ARTIFACTS = {name: f"{_HERE}.{name}_graph:tap" for name in ("onnx", "openvino", "tflite")}
"""What looks into a file, by its format."""
SOURCES = {**ARTIFACTS, "torch": f"{_HERE}.torch_graph:tap", "savedmodel": f"{_HERE}.keras_graph:tap"}
"""What looks into a Program, by its kind."""
_KERAS = "model.keras"
_CHANNELS_FIRST = {"torch": True, "onnx": True, "openvino": True, "tflite": False, "savedmodel": False}


def explain(
    program: Program, artifact: Artifact, folder: Path, limits: Limits = Limits(), names: Path | None = None
) -> Depth:
    """The error of an artifact along the depth of its network, on the program's own samples.

    Args:
        program: the source.
        artifact: what was made of it.
        folder: takes the tensors; the source's are made once for several artifacts.
        limits: of each process.
        names: ``names.json`` of the conversion (operation → module path), where it wrote one.

    Raises:
        Unsupported: the source or the artifact is of a kind that nothing here looks into.
        SeatrialError: a run failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    group, feeds = _feeds(program, artifact.precision)
    inputs = folder / f"{group}.npz"
    if not inputs.exists():
        samples.save(inputs, feeds)
    with lease.shared(purpose="looking into layers"):
        reference = _reference(program, folder, inputs, limits)
        found = _artifact(program, artifact, folder, inputs, limits)
    start, end = program.kind, get(artifact.target).format
    as_it_came = not artifact.route
    layouts = _CHANNELS_FIRST[start] != _CHANNELS_FIRST[end]
    matches = paired(reference, found) if as_it_came else match(reference, found, layouts)
    bar = parity.BARS_DB[artifact.precision]
    noisy = artifact.precision == "int8"
    support = Support.of(reference, matches.own(), matches.owner(), -math.inf if noisy else bar, not as_it_came)
    fault = noisiest(support) if noisy else locate(support, reference, found)
    rows, row_of = _rows(reference, support, found, matches, fault.group if fault else ())
    culprit = None
    if fault:
        operation = rows[row_of[fault.group[-1]]].operation
        if not noisy:
            paths: dict[str, str] = json.loads(names.read_text()) if names else {}
            operation = artifact_op(
                support, Support.of(found, matches.reverse, [True] * len(found.nodes), bar), matches, fault, paths
            )
        culprit = _culprit(reference, fault, operation, row_of)
    label = program.main[: len(feeds)] if group == "main" else [f"{group} {i}" for i in range(len(feeds))]
    return Depth(artifact.target, artifact.precision, bar, label, rows, culprit)


def _feeds(program: Program, precision: str) -> tuple[str, list[Any]]:
    """The first samples that the precision is judged on: int8 holds for real ones alone."""
    groups = ("held_out", "evaluate", "main") if precision == "int8" else ("main",)
    return next((group, feeds[:SAMPLES]) for group in groups if (feeds := program.feeds(group)))


def _reference(program: Program, folder: Path, inputs: Path, limits: Limits) -> Tap:
    model = program.folder / (_KERAS if program.kind == "savedmodel" else program.model)
    if program.kind not in SOURCES or not model.exists():
        todo = "the hop is named all the same"
        raise Unsupported(f"layers of {program.name}", f"nothing here looks into a {program.kind} source", todo)
    return _tap(
        SOURCES[program.kind], model, inputs, folder / f"source-{inputs.stem}", limits, program, {"layouts": True}
    )


def _artifact(program: Program, artifact: Artifact, folder: Path, inputs: Path, limits: Limits) -> Tap:
    format = get(artifact.target).format
    if format not in ARTIFACTS:
        todo = "the hop is named all the same"
        raise Unsupported(f"layers for {artifact.target}", f"nothing here looks into a {format} file", todo)
    # Under strict settings a file that is its own source would be held against itself.
    shipped = {"shipped": True} if not artifact.route else {}
    more = {"precision": "bf16"} if artifact.precision == "bf16" else shipped
    out = folder / f"{artifact.target}-{artifact.precision}-{artifact.id[:16]}-{inputs.stem}"
    return _tap(ARTIFACTS[format], artifact.path, inputs, out, limits, program, more)


def _tap(
    function: str, model: Path, inputs: Path, out: Path, limits: Limits, program: Program, more: Mapping[str, Any]
) -> Tap:
    """What a tap recorded; from the files of an earlier one with the same inputs, where they lie there."""
    tensors, graph = out.with_suffix(".npz"), out.with_suffix(".json")
    if not (graph.exists() and tensors.exists()):
        args = {
            "model": str(model),
            "inputs": str(inputs),
            "out": str(tensors),
            "names": [spec.name for spec in program.inputs],
            **more,
        }
        label = f"looking into the layers of {model.name}"
        graph.write_text(json.dumps(process.call(function, args, workdir=out, limits=limits, label=label)))
    return Tap.load(json.loads(graph.read_text()), tensors)


def _rows(
    reference: Tap, support: Support, found: Tap, matches: Matches, shown: Sequence[int]
) -> tuple[list[Row], dict[int, int]]:
    """The table, and each node's row in it.

    Moves change no number, so of them only those that are `shown` have one; what hangs on no input isn't the network's.
    """
    rows: list[Row] = []
    row_of: dict[int, int] = {}
    for i, node in enumerate(reference.nodes):
        hidden = (node.moves and not node.is_output) or (node.part and not support.there(i))
        if node.fixed or node.is_input or (hidden and i not in shown):
            continue
        row_of[i] = len(rows)
        there = support.there(i)
        operation = found.nodes[matches.best[i][0][0]].op if there else ""
        rows.append(Row(node.path, _type(node), support.own[i] if there else None, operation))
    return rows, row_of


def _type(node: Node) -> str:
    return f"{node.type} ({node.owner})" if node.owner and node.owner != node.type else node.type


def _culprit(reference: Tap, fault: Fault, operation: str, row_of: dict[int, int]) -> Culprit:
    """The fault in the user's words: of what the artifact holds in one operation, the product with weights."""
    inside = [i for i in fault.group if not reference.nodes[i].moves] or fault.group
    main = next((i for i in inside if is_product(reference.nodes[i].type)), inside[0])
    path = reference.nodes[main].path
    others = dict.fromkeys(reference.nodes[i].path for i in inside)
    folded = [other for other in others if other != path]
    kind = _type(reference.nodes[main])
    return Culprit(path, kind, row_of[main], folded, operation, fault.before_db, fault.at_db)
