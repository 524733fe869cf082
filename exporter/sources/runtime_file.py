"""A ``.tflite`` or an OpenVINO IR as a source: a file that its runtime loads already, used as it is.

Nothing is converted. The reference is the same runtime under its strict settings, so a proof shows that the settings
that ship answer as the plain ones do; see `seatrial.exporter.as_is` for the bars.
"""

from __future__ import annotations

import re
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...core.errors import Unsupported, UsageError
from ...core.ids import content_id, file_sha256
from ...core.samples import Feed
from ...core.specs import TensorSpec
from ...targets import require
from .. import sizes
from ..inspect import ir_file, tflite_file
from ..program import Program
from ..proof import probes
from . import common
from .job import Job

_PATH = re.compile(r"^(/|~|[A-Za-z]:[\\/]|\\\\)")


@dataclass(frozen=True)
class _File:
    """What is known of a file before a runtime opens it.

    Attributes:
        target: the runtime that loads it.
        model: its main file, in the Program's folder.
        reference: where reference outputs come from, in words.
        inputs: names of its inputs.
        sources: the user's files.
        opens_with: sizes that free dimensions have when it is opened, by input.
        quanta: scale and zero point of integer outputs.
        strange: operators that may be unknown to the runtime.
    """

    target: str
    model: str
    reference: str
    inputs: list[str]
    sources: list[Path]
    opens_with: dict[str, list[int]] = field(default_factory=dict)
    quanta: dict[str, list[float]] = field(default_factory=dict)
    strange: list[str] = field(default_factory=list)


def capture(job: dict[str, Any]) -> dict[str, Any]:
    """Make a Program of a runtime's own file; run in a process of its own, because a bad file can crash a runtime.

    Args:
        job: a `Job` as data.

    Raises:
        UsageError: no such file, not a whole one, or inputs that don't fit.
        Unsupported: operators that the runtime lacks, several signatures, sizes that the file fixes.
    """
    asked = Job.from_dict(job)
    _refuse(asked)
    folder = Path(asked.folder)
    file = _tflite(asked, folder) if asked.path.endswith(".tflite") else _ir(asked, folder)
    target = require(file.target)
    session = _open(target, folder / file.model, asked, file)
    _check_names(asked, file, session.inputs)
    _check_sizes(asked, session.inputs)
    specs = common.shaped(common.ranged(session.inputs, asked.ranges, asked.asked), asked)
    example = _example(asked, file, specs)
    common.check_fit(session.run, asked.asked, example)
    answers = common.fill(asked, session.run, specs, example)
    free = {spec.name: spec.shape for spec in session.outputs}
    Program(
        folder=folder,
        name=asked.name,
        kind=target.format,
        model=file.model,
        source_id=content_id([[file_sha256(path) for path in file.sources], asked.sizes]),
        reference=file.reference,
        inputs=specs,
        outputs=[TensorSpec(s.name, s.dtype, free.get(s.name, s.shape)) for s in answers.outputs],
        main=answers.main,
        edges=answers.edges,
        notes=answers.notes,
        data=answers.data,
        sizes=asked.limits,
        detections=dict(asked.detections),
        precision=str(session.placement()["precision"]),
        quanta={spec.name: file.quanta[spec.name] for spec in session.outputs if spec.name in file.quanta},
        tools={target.name: target.version()},
    ).save()
    return {"steps": []}


def _refuse(asked: Job) -> None:
    if asked.layout or asked.embed:
        option = f"--io-layout {asked.layout}" if asked.layout else "--embed-preprocessing"
        todo = "leave it away, or export the model that it was made of"
        raise Unsupported(option, f"{asked.path} is used as it is", todo)
    if asked.args:
        found = f"{asked.path} has no get_model() to give it to"
        raise UsageError(f"--arg {next(iter(asked.args))}=...", found, "leave it away")


def _tflite(asked: Job, folder: Path) -> _File:
    path = Path(asked.path)
    found = tflite_file.contents(path)
    if len(found.signatures) > 1:
        names = ", ".join(found.signatures)
        todo = "export the source again with the one signature that you deploy"
        raise Unsupported(asked.asked, f"it has {len(found.signatures)} signatures: {names}; one is needed", todo)
    shutil.copyfile(path, folder / "model.tflite")
    return _File(
        target="tflite",
        model="model.tflite",
        reference="the same file in TFLite without delegates",
        inputs=[spec.name for spec in found.graph.inputs],
        sources=[path],
        opens_with=found.opens_with,
        quanta={name: [q.scale, q.zero] for name, q in found.quanta.items()},
        strange=found.custom,
    )


def _ir(asked: Job, folder: Path) -> _File:
    path = Path(asked.path)
    found = ir_file.contents(path)
    weights = path.with_suffix(".bin")
    if found.weights_bytes:
        size = weights.stat().st_size if weights.is_file() else None
        if size is None or size < found.weights_bytes:
            state = "missing" if size is None else f"truncated: {size} of {found.weights_bytes} bytes are there"
            raise UsageError(asked.asked, f"its weights {weights.name} are {state}", "put both files side by side")
        shutil.copyfile(weights, folder / "model.bin")
    _strip(path, found.net, folder / "model.xml")
    return _File(
        target="openvino",
        model="model.xml",
        reference="the same file in OpenVINO in f32, in its accuracy mode",
        inputs=[spec.name for spec in found.graph.inputs],
        sources=[path, weights] if found.weights_bytes else [path],
    )


def _strip(source: Path, net: ET.Element, out: Path) -> None:
    """Copy an IR's XML without the paths of its maker; what the runtime reads from ``rt_info`` stays."""
    changed = False
    for info in net.findall("rt_info"):
        for parent in list(info.iter()):
            for child in list(parent):
                if child.tag == "conversion_parameters" or _PATH.match(child.get("value", "")):
                    parent.remove(child)
                    changed = True
    if changed:
        ET.ElementTree(net).write(out, encoding="utf-8", xml_declaration=True)
    else:
        shutil.copyfile(source, out)


def _open(target: Any, path: Path, asked: Job, file: _File) -> Any:
    try:
        return target.open(path, target.strict("fp32"))
    except Exception as error:
        text = str(error).strip() or type(error).__name__
        named = [name for name in file.strange if name in text]
        if named:
            raise _strange(asked, named[0]) from error
        # OpenVINO gives the reason in its last line, the others in their first.
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        reason = lines[-1] if file.target == "openvino" else lines[0]
        todo = "check it with the tool that wrote it; a newer runtime may know it"
        raise Unsupported(
            asked.asked, f"{file.target} {target.version()} can't load it: {reason[:300]}", todo
        ) from error


def _strange(asked: Job, name: str) -> Unsupported:
    if name.startswith("Flex"):
        found = f"its operator {name} is one of TensorFlow's own (Flex), which this runtime doesn't have"
        return Unsupported(asked.asked, found, "convert the source again without SELECT_TF_OPS, or export the source")
    found = f"its operator {name} is a custom one, which this runtime doesn't have"
    return Unsupported(asked.asked, found, "export the source without it; operators of one's own aren't loaded")


def _check_names(asked: Job, file: _File, inputs: Sequence[TensorSpec]) -> None:
    """Feeds go by name, so names must tell inputs apart."""
    if file.target == "tflite" and {spec.name for spec in inputs} != set(file.inputs):
        found = f"its inputs can't be told apart by name: {', '.join(file.inputs)}"
        raise Unsupported(asked.asked, found, "convert the source again with a signature")


def _check_sizes(asked: Job, inputs: Sequence[TensorSpec]) -> None:
    """The file's own sizes hold: it can neither be freed nor fixed."""
    shapes = {spec.name: spec.shape for spec in inputs}
    for size, free in [*((s, True) for s in asked.free), *((s, False) for s in asked.fixed)]:
        for name, axis in sizes.places(size, inputs):
            have = shapes[name][axis]
            if isinstance(have, str) == free or have == size.low:
                continue
            state = f"the file fixes it to {have}" if free else "the file leaves it free, and is used as it is"
            todo = "convert the source again with that size"
            raise Unsupported(f"the size of {name}.{axis} in {asked.path}", state, todo)


def _example(asked: Job, file: _File, specs: Sequence[TensorSpec]) -> Feed:
    if asked.inputs:
        return common.example_from(Path(asked.inputs), specs)
    shapes: dict[str, Sequence[Any]] = {**_opening(file, specs, asked), **asked.shapes}
    return probes.example_feed(specs, shapes, asked.limits)


def _opening(file: _File, specs: Sequence[TensorSpec], asked: Job) -> dict[str, list[int | str]]:
    """Shapes to try: free dimensions with limits keep their name, others get the size that the file opens with."""
    found: dict[str, list[int | str]] = {}
    for spec in specs:
        opens = file.opens_with.get(spec.name)
        if opens and spec.is_free:
            found[spec.name] = [
                axis if isinstance(axis, int) or axis in asked.limits else opens[i] for i, axis in enumerate(spec.shape)
            ]
    return found
