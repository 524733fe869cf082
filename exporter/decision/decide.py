"""Put the rule behind an artifact and prove that it decides there as numpy does."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core import process, samples
from ...core.errors import CheckFailed, ConverterFailed, Unsupported
from ...core.ids import content_id, files_id
from ...core.process import Limits
from ...targets import get
from .. import tools
from ..artifact import Artifact, model_files
from ..program import Program
from ..proof import parity
from ..proof.prove import Proof, Prover
from .costs import Costs
from .rule import COST, DECISION, Rule, fitted

if TYPE_CHECKING:
    from numpy import ndarray

    from ...core.samples import Feed

LABEL = "decision rule"
"""The last step of a route that has it."""

HELD_OUT = ("held_out", "evaluate")
"""Labelled data to fit a temperature to, the first that is enough; nothing is fitted to what confirms."""

_APPENDERS = {
    "onnx": "seatrial.exporter.decision.onnx_file:append",
    "openvino": "seatrial.exporter.decision.openvino_ir:append",
    "tflite": "seatrial.exporter.decision.tflite_file:append",
}


@dataclass(frozen=True)
class Decided:
    """An artifact with the rule in its graph, its proof, and what the manifest says of the rule."""

    artifact: Artifact
    proof: Proof
    facts: dict[str, Any]


def decide(
    prover: Prover,
    folder: Path,
    artifact: Artifact,
    proof: tuple[dict[str, Any], Path],
    costs: Costs,
    limits: Limits = Limits(),
    allow_mismatch: bool = False,
) -> Decided:
    """An artifact with its rule; nothing is converted or quantized again.

    Args:
        prover: of the artifact's program.
        folder: takes the file; what is there isn't made again.
        artifact: what was proven.
        proof: the settings that it was proven in, and its outputs over `prover.inputs`.
        costs: the cost matrix.
        limits: time and memory.
        allow_mismatch: whether it may fail the proof, as it did before.

    Raises:
        CheckFailed: with the rule it answers otherwise than the source, or decides otherwise than numpy.
        Unsupported: the model is no declared classifier, or its output is not (samples, classes).
    """
    settings, outputs = proof
    rule = rule_of(prover.program, outputs, costs)
    made = _appended(folder, artifact, str(prover.program.classes), rule, limits)
    found = prover.prove(made, [settings])[0]
    asked = f"the decision rule of {prover.program.name} for {artifact.target}, {artifact.precision}"
    if found.outputs is None:
        raise found.error or ConverterFailed(asked, "it gave no outputs", "export without --cost")
    if not found.ok and not allow_mismatch:
        raise CheckFailed(asked, "; ".join(found.problems), "nothing was packed; export without --cost")
    # What quantization leaves in float stays float: only fp16 and bf16 reach into the rule.
    bar = parity.BARS_DB["fp32" if artifact.precision == "int8" else artifact.precision]
    agreement, problems = _agreement(rule, samples.load(found.outputs), str(prover.program.classes), bar)
    if problems:
        raise CheckFailed(asked, "; ".join(problems), "nothing was packed; export without --cost")
    return Decided(made, found, {**rule.to_dict(), "output": prover.program.classes, "agreement": agreement})


def rule_of(program: Program, outputs: Path, costs: Costs) -> Rule:
    """The rule of an artifact from its stored outputs, its temperature fitted to labelled ones.

    Raises:
        Unsupported: the model is no declared classifier.
    """
    import numpy as np

    if not program.classes:
        found = "the model declares no classes (a .py does, by get_labels())"
        raise Unsupported(f"a decision rule for {program.name}", found, "leave --cost away")
    known = {group: scores(program, outputs, group) for group in ("main", *HELD_OUT)}
    groups = {}
    for group in HELD_OUT:
        if labels := program.data.get(group, {}).get("labels"):
            groups[group] = (known[group], labels)
    return fitted(costs, groups, np.concatenate([each for each in known.values() if len(each)]))


def scores(program: Program, outputs: Path, group: str) -> ndarray:
    """What a classifier answered over a group of the proof's samples, as (n, classes)."""
    return rows_of(program, outputs, *program.span(group))


def rows_of(program: Program, outputs: Path, start: int, end: int) -> ndarray:
    """What a classifier answered, as (n, classes), from `start` up to `end` in a Samples file."""
    import numpy as np

    found = samples.column(outputs, str(program.classes), start, end)
    width = len(program.labels or ())
    return np.concatenate([a.reshape(-1, width)[:1] for a in found]) if found else np.zeros((0, width), np.float32)


def _appended(folder: Path, artifact: Artifact, output: str, rule: Rule, limits: Limits) -> Artifact:
    asked = f"the decision rule for {artifact.target}"
    format = get(artifact.target).format
    if format not in _APPENDERS:
        raise Unsupported(asked, "there is none for its file format", f"known: {', '.join(_APPENDERS)}")
    key = content_id([artifact.target, artifact.id, output, rule.to_dict()])
    out = folder / "decided" / key / artifact.path.name
    if not out.exists():
        part = out.parent.with_name(f"{key}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        for file in artifact.files:
            shutil.copyfile(file, part / file.name)
        args = {
            "model": str(artifact.path),
            "out": str(part / out.name),
            "scores": output,
            "costs": rule.costs.values,
            "temperature": rule.temperature,
            "kind": rule.kind,
        }
        process.call(_APPENDERS[format], args, workdir=folder / "log" / f"decided-{key}", limits=limits, label=asked)
        tools.write(part, (), artifact.path)
        part.rename(out.parent)
    return replace(artifact, path=out, route=[*artifact.route, LABEL], id=files_id(model_files(out)))


def _agreement(rule: Rule, outputs: Sequence[Feed], name: str, bar: float) -> tuple[dict[str, Any], list[str]]:
    """The graph's costs and decisions against numpy's over the graph's own scores, and what is wrong."""
    import numpy as np

    wants = [rule.expected(feed[name]) for feed in outputs]
    haves = [np.asarray(feed[COST], np.float64) for feed in outputs]
    want, have = np.concatenate(wants), np.concatenate(haves)
    decisions = np.concatenate([feed[DECISION].ravel() for feed in outputs])
    problems = []
    if want.shape != have.shape or len(decisions) != len(want):
        return {}, [f"it gives costs of {list(have.shape)} and {len(decisions)} decisions for {list(want.shape)}"]
    db = parity.decibel(parity.power([want]), float(np.mean((want - have) ** 2)))
    if not np.isfinite(have).all() or db < bar:
        problems.append(f"its expected costs are {db:.1f} dB from numpy's, needed {bar:g}")
    equal = decisions == want.argmin(-1)
    # Rounding may turn a decision that is as good as a tie; nothing else may.
    lost = want[np.arange(len(want)), np.clip(decisions, 0, want.shape[1] - 1)] - want.min(-1)
    wrong = ~equal & (lost > 2 * np.abs(want - have).max())
    if wrong.any():
        problems.append(f"{wrong.sum()} of {len(want)} decisions are not numpy's")
    return {"samples": len(want), "cost_db": db, "decisions": float(equal.mean())}, problems
