"""Export: convert, quantize, prove, pack. A failed check fails the whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.bundle import Bundle
from ..core.errors import CannotDo, CheckFailed, Unsupported, UsageError
from ..core.paths import check_free, check_readable, writing
from ..core.process import Limits
from ..devices.facts import host_facts
from ..targets import require
from .build import Artifact, Builder
from .convert import STEPS, routes
from .pack import pack
from .program import Program
from .proof import parity
from .proof.prove import DEFAULT_MAX_DROP, Proof, Prover
from .report import failure
from .sources import Source, detect
from .workspace import workspace

PRECISIONS = ("fp32", "bf16", "int8")


@dataclass(frozen=True)
class Exported:
    """One bundle that was made, with its proof."""

    bundle: Bundle
    proof: Proof
    artifact: Artifact


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
    precision: str | Sequence[str] = "fp32",
    output: Path | str | None = None,
    calibration: Path | str | None = None,
    evaluate: Path | str | None = None,
    max_drop: float = DEFAULT_MAX_DROP,
    threads: int = 1,
    args: Mapping[str, str] | None = None,
    inputs: Path | str | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    ranges: Mapping[str, Sequence[int]] | None = None,
    overwrite: bool = False,
    allow_mismatch: bool = False,
    limits: Limits = Limits(),
    say: Callable[[str], None] | None = None,
) -> list[Exported]:
    """Export a model for one or more targets and precisions; one bundle each.

    Args:
        model: a ``.py`` with ``get_model()`` and ``get_args()``, or an ``.onnx``.
        target: names of targets.
        precision: ``fp32``, ``bf16`` or ``int8``.
        output: the bundle's folder; with several bundles, a folder that holds them as ``TARGET-PRECISION``.
        calibration: a folder of pictures or an ``.npz``; int8 needs it.
        evaluate: labelled data, to verify accuracy.
        max_drop: accuracy that int8 may lose.
        threads: threads that the proof runs with and the bundle ships with.
        args: texts for the parameters of ``get_model``.
        inputs: an ``.npz`` with example inputs of an ``.onnx``.
        shapes: shapes to try, by input of an ``.onnx``.
        ranges: low and high (exclusive), by integer input of an ``.onnx``.
        overwrite: replace bundles that exist, once the new ones are whole.
        allow_mismatch: pack in spite of a failed check; the manifest says so.
        limits: time and memory of each converter.
        say: takes one line about each step as it starts.

    Raises:
        CheckFailed: a check said no; nothing was packed.
        UsageError: bad arguments or data.
        CannotDo: a missing part, an unsupported model, a converter that failed.
    """
    source = detect(model, args, Path(inputs) if inputs else None, shapes, ranges)
    data = {"calibration": calibration, "evaluate": evaluate}
    request = check(source, target, precision, {use: Path(path) for use, path in data.items() if path})
    outs = out_folders(request, output, source)
    for out in outs.values():
        check_free(out, overwrite)
    with workspace("export") as folder, Builder(folder, limits, say) as builder:
        program = builder.capture(source, request.targets, request.data)
        check_program(program)
        prover = Prover(program, folder / "proof", max_drop, say, limits.timeout_s)
        made = [
            _one(builder, prover, program, name, kind, threads, allow_mismatch)
            for name in request.targets
            for kind in request.precisions
        ]
        return [_pack(builder, prover, program, a, p, outs[a.target, a.precision], allow_mismatch) for a, p in made]


def _pack(
    builder: Builder,
    prover: Prover,
    program: Program,
    artifact: Artifact,
    proof: Proof,
    out: Path,
    allow_mismatch: bool,
) -> Exported:
    assert proof.outputs
    bundle = pack(
        out,
        program,
        artifact,
        proof.to_dict(),
        (prover.inputs, proof.outputs),
        host_identity(),
        names=names_file(builder, artifact),
        allow_mismatch=allow_mismatch,
    )
    return Exported(bundle, proof, artifact)


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
    if "int8" in precisions and "calibration" not in data:
        todo = "add --calibration DIR (pictures) or FILE.npz; seatrial never calibrates on random data"
        raise UsageError("int8", "no calibration data given", todo)
    for use, path in data.items():
        check_readable(path, f"{use} data {path}")
    return Request(source, targets, precisions, dict(data))


def check_route(source: Source, target: str) -> None:
    """Raise where a target is unknown, not installed, or out of reach for this kind of source."""
    format = require(target).format
    if not routes(source.kind, format):
        found = f"there is no route from {source.kind} to {format} yet"
        raise Unsupported(f"{source.name} for {target}", found, "choose another --target")


def check_program(program: Program) -> None:
    """Hold the capture against the source: what is degenerate or wrong here can't be proven later.

    Raises:
        CheckFailed: the outputs prove nothing, or the captured graph answers otherwise than the source.
    """
    asked = f"the model {program.name}"
    problems = parity.degenerate(program.reference_outputs("main"))
    if problems:
        todo = "give real samples, or weights that answer something"
        raise CheckFailed(asked, "; ".join(problems), todo)
    bar = parity.BARS_DB["fp32"]
    if program.capture_db is not None and program.capture_db < bar:
        found = f"hop: capture; torch.export's graph answers at {program.capture_db:.1f} dB, needed {bar:g}"
        raise CheckFailed(asked, found, "look for state or branches that the capture froze")


def out_folders(request: Request, output: Path | str | None, source: Source) -> dict[tuple[str, str], Path]:
    """The folder of each bundle, by target and precision."""
    pairs = [(t, p) for t in request.targets for p in request.precisions]
    if len(pairs) == 1:
        target, precision = pairs[0]
        return {pairs[0]: Path(output or f"{source.name}-{target}-{precision}")}
    return {(t, p): Path(output or f"{source.name}-bundles") / f"{t}-{p}" for t, p in pairs}


def host_identity() -> dict[str, Any]:
    """What a proof says of the machine that it holds for."""
    identity = host_facts()["identity"]
    return {key: identity[key] for key in ("cpu", "flags", "os", "machine")}


def names_file(builder: Builder, artifact: Artifact) -> Path | None:
    """``names.json`` of the conversion that knows module paths, where the route had one."""
    for step in STEPS:
        if step.label in artifact.route:
            found = builder.product([step]).parent / "names.json"
            if found.exists():
                return found
    return None


def _one(
    builder: Builder,
    prover: Prover,
    program: Program,
    target: str,
    precision: str,
    threads: int,
    allow_mismatch: bool,
) -> tuple[Artifact, Proof]:
    base = builder.convert(program, target)
    artifact = builder.derive(program, base, precision)
    settings = require(target).settings(precision, threads)
    proof = prover.prove(artifact, [settings])[0]
    if proof.error:
        error = proof.error
        error.asked, error.found = (
            f"{program.name} for {target}, {precision}",
            f"hop: runtime ({target}); {error.found}",
        )
        error.todo = error.todo or "nothing was packed; try another --target, or look at how the model was converted"
        raise error
    if not proof.ok and not allow_mismatch:
        raise mismatch(builder, prover, program, artifact, base, proof)
    return artifact, proof


def mismatch(
    builder: Builder, prover: Prover, program: Program, artifact: Artifact, base: Artifact, proof: Proof
) -> CheckFailed:
    """The error for a failed proof: finds the hop that broke and writes a report to read."""
    hop = prover.blame(artifact, base, proof, builder.steps(program, base))
    page = builder.folder / f"{artifact.target}-{artifact.precision}-report.md"
    with writing(f"the report {page}"):
        page.write_text(failure(program.name, artifact.target, artifact.precision, proof.to_dict(), hop))
    asked = f"{program.name} for {artifact.target}, {artifact.precision}"
    found = "; ".join([f"hop: {hop}", *proof.problems])
    return CheckFailed(asked, found, "nothing was packed; --allow-mismatch packs it all the same", str(page))


def listed(value: str | Sequence[str]) -> tuple[str, ...]:
    """``"a,b"`` or ``["a", "b,c"]`` as a tuple without repeats."""
    parts = [value] if isinstance(value, str) else value
    return tuple(dict.fromkeys(name.strip() for part in parts for name in part.split(",") if name.strip()))
