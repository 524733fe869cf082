"""Export: convert, quantize, prove, pack. A failed check fails the whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from ..core.bundle import Bundle
from ..core.errors import CannotDo, CheckFailed, Unsupported, UsageError
from ..core.paths import check_free, check_readable, writing
from ..core.process import Limits
from ..devices import environments
from ..devices.facts import host_facts
from ..targets import get, require
from . import as_is, quantize, sizes
from .artifact import Artifact
from .build import Builder, cant_free
from .convert import routes
from .decision import read_costs
from .make import Exporter, Made
from .pack import pack
from .program import Program
from .proof import degenerate, parity
from .proof.detections import read
from .proof.layers import Depth, picture
from .proof.prove import DEFAULT_MAX_DROP, Proof, Prover
from .sizes import Size
from .sources import Source, detect
from .workspace import workspace

PRECISIONS = ("fp32", "fp16", "bf16", "int8")


@dataclass(frozen=True)
class Exported:
    """One bundle that was made, with its proof."""

    bundle: Bundle
    proof: Proof
    artifact: Artifact
    depth: Depth | None = None


@dataclass(frozen=True)
class Request:
    """What to export, checked as far as it can be before work starts."""

    source: Source
    targets: tuple[str, ...]
    precisions: tuple[str, ...]
    data: dict[str, Path]


def export(
    model: Path | str,
    target: str | Sequence[str] = "onnxruntime",
    *,
    precision: str | Sequence[str] = (),
    output: Path | str | None = None,
    calibration: Path | str | None = None,
    evaluate: Path | str | None = None,
    cost: Path | str | None = None,
    max_drop: float = DEFAULT_MAX_DROP,
    threads: int = 1,
    bucket: Sequence[str] = (),
    overwrite: bool = False,
    allow_mismatch: bool = False,
    provider: str = "",
    require_placement: float = 0.0,
    explain: bool = False,
    create_env: bool = False,
    in_process: bool = False,
    limits: Limits = Limits(),
    say: Callable[[str], None] | None = None,
    **reading: Any,
) -> list[Exported]:
    """Export a model for one or more targets and precisions; one bundle each.

    Args:
        model: what `sources.detect` knows: a ``.py``, ``.pt2``, ``.onnx``, Keras file, SavedModel, ``.tflite``, IR,
            ``timm:NAME`` or ``hf:DIR``.
        target: names of targets.
        precision: ``fp32``, ``fp16``, ``bf16`` or ``int8``; by default fp32, or what a ``.tflite`` or IR holds.
        output: the bundle's folder; with several bundles, a folder that holds them as ``TARGET-PRECISION``.
        calibration: a folder of pictures or an ``.npz``; int8 needs it.
        evaluate: labelled data, to verify accuracy.
        cost: a cost matrix (CSV); its decision rule goes into the graph. See `decision.read_costs`.
        max_drop: accuracy that int8 may lose.
        threads: threads that the proof runs with and the bundle ships with.
        bucket: dimensions to fix to several sizes, a bundle for each: ``ids.1=32,128``.
        overwrite: replace bundles that exist, once the new ones are whole.
        allow_mismatch: pack in spite of a failed check; the manifest says so.
        provider: that runs it: ``cuda``, ``tensorrt``, ... for onnxruntime, ``GPU``, ``NPU``, ``AUTO`` for openvino.
        require_placement: share of the nodes that it must run; less fails.
        explain: look into the layers also when all is well; a picture is written beside each bundle.
        create_env: make the environments that a route needs; else a missing one is an error with the command.
        in_process: run the user's code in this process, for a debugger.
        limits: time and memory of each converter.
        say: takes one line about each step as it starts.
        reading: how to read the model; see `source_of`.

    Raises:
        CheckFailed: a check said no; nothing was packed.
        UsageError: bad arguments or data.
        CannotDo: a missing part, an unsupported model, a converter that failed.
    """
    source = source_of(model, **reading)
    data = {"calibration": calibration, "evaluate": evaluate}
    asked = listed(precision)
    for name in listed(target) if create_env else ():
        env = getattr(get(name), "environment", "")
        if env and get(name).probe():
            environments.make(env, say=say)
    if cost:
        check_readable(Path(cost), f"the cost matrix {cost}")
    request = check(source, target, asked or ("fp32",), {use: Path(path) for use, path in data.items() if path})
    buckets = list(product(*(sizes.bucket(text) for text in bucket)))
    outs = _free_folders(request, output, source, buckets, overwrite)
    made: list[tuple[Path, Made]] = []
    with ExitStack() as stack:
        folder = stack.enter_context(workspace("export"))

        def opened(work: Path, fixed: Sequence[Size], targets: Sequence[str]) -> Exporter:
            builder = stack.enter_context(Builder(work, limits, say, in_process, create_env))
            program = builder.capture(replace(source, fixed=tuple(fixed)), targets, request.data)
            check_program(program)
            if cost:
                read_costs(Path(cost), program.labels)  # before minutes of work
            prover = Prover(program, work / "proof", max_drop, say, limits.timeout_s)
            return Exporter(
                builder,
                prover,
                program,
                threads,
                allow_mismatch,
                provider,
                require_placement,
                explain,
                Path(cost) if cost else None,
            )

        for fixed in buckets:
            work = folder / _sizes_name(fixed)
            exporter = opened(work, fixed, request.targets)
            program = exporter.program
            kinds = as_is.precisions(program, asked)
            if kinds != request.precisions:
                request = replace(request, precisions=kinds)
                outs = _free_folders(request, output, source, buckets, overwrite)
            for name in request.targets:
                tried = _to_fix(program, name, source)
                ready = opened(work / name, (*fixed, *tried), (name,)) if tried else exporter
                for kind in request.precisions:
                    made.append((outs[name, kind, _sizes_name(fixed)], ready.make(name, kind)))
        return [_pack(out, one, allow_mismatch) for out, one in made]


def _to_fix(program: Program, target: str, source: Source) -> tuple[Size, ...]:
    """The sizes to fix for a target none of whose routes keeps a free dimension: those that ``--shape`` gives."""
    found = routes(program.kind, get(target).format)
    if found and all(any(step.fixed for step in route) for route in found):
        return sizes.tried(program.inputs, source.shapes)
    return ()


def source_of(
    model: Path | str,
    *,
    args: Mapping[str, str] | None = None,
    inputs: Path | str | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    ranges: Mapping[str, Sequence[int]] | None = None,
    dynamic: Sequence[str] = (),
    layout: str = "",
    embed: bool = False,
    detections: str | Mapping[str, Any] = "",
) -> Source:
    """A user's model with how to read it.

    Args:
        model: see `export`.
        args: texts for the parameters of ``get_model``, or options of the kind.
        inputs: an ``.npz`` with an example of each input, where the source gives none.
        shapes: shapes to try, by input, where the source gives none. A free dimension stays free, but for a target that
            can't keep it: there it is fixed to this size.
        ranges: low and high (exclusive), by integer input.
        dynamic: dimensions that stay free: ``batch=1:64``, ``ids.1=mask.1=8:512``.
        layout: ``nchw`` or ``nhwc`` for pictures; empty for the source's own.
        embed: put preprocessing into the graph, which then takes uint8 pixels (1, H, W, 3).
        detections: the outputs of a detector: ``boxes=NAME,scores=NAME``, see `proof.detections.read`.

    Raises:
        UsageError: it is missing, of a kind that can't be read, or an option doesn't fit.
    """
    free = tuple(sizes.dynamic(text) for text in dynamic)
    if layout not in ("", "nchw", "nhwc"):
        raise UsageError(f"--io-layout {layout}", "no such layout", "known: nchw, nhwc")
    boxes = read(detections, "--detections") if detections else {}
    more = {"free": free, "layout": layout, "embed": embed, "detections": boxes}
    return detect(model, args, Path(inputs) if inputs else None, shapes, ranges, **more)


def _pack(out: Path, made: Made, allow_mismatch: bool) -> Exported:
    assert made.proof.outputs
    bundle = pack(
        out,
        made.program,
        made.artifact,
        made.proof.to_dict(),
        (made.prover.inputs, made.proof.outputs),
        host_identity(),
        names=made.names,
        allow_mismatch=allow_mismatch,
        decision=made.decision,
    )
    if made.depth:
        path = picture_path(out)
        with writing(f"the picture {path}"):
            path.write_text(picture(made.depth))
    return Exported(bundle, made.proof, made.artifact, made.depth)


def picture_path(out: Path) -> Path:
    """Where the error along the depth of a bundle's network is drawn: beside it, outside its hashes."""
    return out.with_name(f"{out.name}-layers.svg")


def check(
    source: Source, target: str | Sequence[str], precision: str | Sequence[str], data: Mapping[str, Path]
) -> Request:
    """Hold a request against what is known here, before minutes are spent."""
    targets = listed(target)
    precisions = listed(precision)
    if not targets:
        raise UsageError("--target", "no target was named", "name one, such as --target onnxruntime")
    for name in targets:
        check_route(source, name)
    for kind in precisions:
        if kind not in PRECISIONS:
            raise UsageError(f"precision {kind!r}", "no such precision", f"known: {', '.join(PRECISIONS)}")
    flags = host_facts()["identity"]["flags"]
    for name in targets:
        able = require(name).precisions(flags)
        for kind in precisions:
            if kind not in able:
                todo = f"it can do here: {', '.join(able)}"
                raise CannotDo(f"{kind} for {name}", "this target can't run it on this CPU", todo)
    if "int8" in precisions and "calibration" not in data and not source.may_calibrate:
        todo = "add --calibration DIR (pictures) or FILE.npz; seatrial never calibrates on random data"
        raise UsageError("int8", "no calibration data given", todo)
    if "int8" in precisions:
        for name in targets:
            quantize.need(name)
    for use, path in data.items():
        check_readable(path, f"{use} data {path}")
    return Request(source, targets, precisions, dict(data))


def check_route(source: Source, target: str) -> None:
    """Raise where a target is unknown, not installed, or out of reach for this kind of source."""
    format = require(target).format
    found = {start: routes(start, format) for start in source.formats}
    if not any(found.values()):
        text = f"there is no route from {source.kind} to {format} yet"
        raise Unsupported(f"{source.name} for {target}", text, "choose another --target")
    likely = found[source.formats[0]]
    if source.free and likely and all(any(step.fixed for step in route) for route in likely):
        raise cant_free(f"{source.name} for {target}", source.free[0].name)


def check_program(program: Program) -> None:
    """Hold the capture against the source: what is degenerate or wrong here can't be proven later.

    Raises:
        UsageError: class names that no output has the width of.
        CheckFailed: the outputs prove nothing, or the captured graph answers otherwise than the source.
    """
    asked = f"the model {program.name}"
    _check_labels(program)
    real = any(name.startswith("real") for name in program.main)
    problems, _ = degenerate.judge(program.reference_outputs("main"), real, program.detections)
    if problems:
        todo = "give real samples (--inputs FILE.npz; several: --evaluate FILE.npz), or weights that answer something"
        raise CheckFailed(asked, "; ".join(problems), todo)
    bar = parity.BARS_DB["fp32"]
    if program.capture_problems:
        text = "" if program.capture_db is None else f" at {program.capture_db:.1f} dB, needed {bar:g}"
        found = f"hop: capture; torch.export's graph answers otherwise{text}: {program.capture_problems[0]}"
        raise CheckFailed(asked, found, "look for state or branches that the capture froze")


def _check_labels(program: Program) -> None:
    if program.labels is None or program.classes:
        return
    widths = ", ".join(f"{spec.name} has {spec.shape[-1] if spec.shape else 1}" for spec in program.outputs)
    found = f"it gives {len(program.labels)} names, and no output has as many classes: {widths}"
    todo = "give one name for each class, in the order of the output, or leave get_labels() away"
    raise UsageError(f"get_labels() of {program.name}", found, todo)


def out_folders(
    request: Request, output: Path | str | None, source: Source, buckets: Sequence[Sequence[Size]] = ((),)
) -> dict[tuple[str, str, str], Path]:
    """The folder of each bundle, by target, precision and sizes."""
    keys = [(t, p, _sizes_name(b)) for b in buckets for t in request.targets for p in request.precisions]
    name = source.folder_name
    if len(keys) == 1 and not keys[0][2]:
        return {keys[0]: Path(output or f"{name}-{keys[0][0]}-{keys[0][1]}")}
    return {key: Path(output or f"{name}-bundles") / "-".join(filter(None, key)) for key in keys}


def _free_folders(
    request: Request, output: Path | str | None, source: Source, buckets: Sequence[Sequence[Size]], overwrite: bool
) -> dict[tuple[str, str, str], Path]:
    outs = out_folders(request, output, source, buckets)
    for out in outs.values():
        check_free(out, overwrite)
    return outs


def _sizes_name(fixed: Sequence[Size]) -> str:
    return "-".join(f"{size.name.replace('/', '_')}={size.low}" for size in fixed)


def host_identity() -> dict[str, Any]:
    """What a proof says of the machine that it holds for."""
    identity = host_facts()["identity"]
    return {key: identity[key] for key in ("cpu", "flags", "os", "machine")}


def listed(value: str | Sequence[str]) -> tuple[str, ...]:
    """``"a,b"`` or ``["a", "b,c"]`` as a tuple without repeats."""
    parts = [value] if isinstance(value, str) else value
    return tuple(dict.fromkeys(name.strip() for part in parts for name in part.split(",") if name.strip()))
