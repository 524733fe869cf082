"""Pack a proven artifact: model, golden vectors, scripts that need nothing of ours, and a manifest over all of it."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core import samples
from ..core.bundle import MANIFEST, SCHEMA, SEAL, Bundle, seal
from ..core.ids import file_sha256
from ..core.paths import whole_folder
from ..core.specs import TensorSpec
from ..targets import get
from . import as_is
from .artifact import Artifact
from .decision.rule import COST, DECISION
from .program import Program
from .proof import detections, parity
from .report import report
from .tools import versions

if TYPE_CHECKING:
    from numpy import ndarray

GOLDEN = 3
GOLDEN_DB = {"int8": 20.0}
"""Replayed int8 vectors may round otherwise on another CPU's kernels; other precisions keep their bar."""

TEMPLATES = Path(__file__).parent / "templates"


def pack(
    out: Path,
    program: Program,
    artifact: Artifact,
    proof: dict[str, Any],
    vectors: tuple[Path, Path],
    host: dict[str, Any],
    measurements: dict[str, Any] | None = None,
    names: Path | None = None,
    allow_mismatch: bool = False,
    runtime: str | None = None,
    decision: dict[str, Any] | None = None,
) -> Bundle:
    """Write a bundle to `out`; it appears whole or not at all.

    Args:
        out: the bundle's folder.
        program: the source.
        artifact: what the runtime loads.
        proof: data of its proof in the settings that the bundle ships with.
        vectors: Samples files of the proof's inputs and of the artifact's outputs.
        host: facts of the machine that the proof was made on.
        measurements: what was timed, kept outside the hashes.
        names: ``names.json`` with the module path of each node.
        allow_mismatch: whether a failed proof is packed all the same; the manifest says so.
        runtime: version that the proof was made with; by default the one that is here.
        decision: of an artifact with a decision rule in its graph, what `decision.Decided.facts` says of it.
    """
    with whole_folder(out) as part:
        for file in artifact.files:
            shutil.copyfile(file, part / file.name)
        if names and names.exists():
            shutil.copyfile(names, part / "names.json")
        if program.labels:
            (part / "labels.txt").write_text("\n".join(label.replace("\n", " ") for label in program.labels) + "\n")
        if program.attached:
            (part / "attached").mkdir()
            for name in program.attached:
                shutil.copyfile(program.folder / "attached" / name, part / "attached" / name)
        _golden(part, program, proof["dtypes"], *vectors)
        manifest = _manifest(program, artifact, proof, host, allow_mismatch, runtime)
        if decision:
            manifest["decision"] = decision
            manifest["outputs"] += _outputs(program, decision)
        for name in ("selftest.py", "example.py"):
            (part / name).write_text(_script(name, artifact.target, proof["settings"], bool(program.detections)))
        (part / "report.md").write_text(report(manifest))
        manifest["files"] = {
            str(path.relative_to(part)): {"sha256": file_sha256(path), "size_bytes": path.stat().st_size}
            for path in sorted(part.rglob("*"))
            if path.is_file()
        }
        (part / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True) + "\n")
        (part / SEAL).write_text(seal(part / MANIFEST))
        if measurements:
            (part / "measurements.json").write_text(json.dumps(measurements, indent=1) + "\n")
    return Bundle.read(out)


def _golden(part: Path, program: Program, dtypes: dict[str, str], inputs: Path, answers: Path) -> None:
    """Inputs with the artifact's own answers: real ones first, since nothing shows better that it works."""
    feeds, outputs = samples.load(inputs), samples.load(answers)
    first_data = len(program.main) + len(program.edges)
    order = [*range(first_data, len(feeds)), *range(len(program.main))]
    if COST in outputs[0]:
        order = _clearest({i: outputs[i][COST].ravel() for i in order})
    order = order[:GOLDEN]
    (part / "golden").mkdir()
    chosen = [{name: a.astype(dtypes.get(name, a.dtype), copy=False) for name, a in feeds[i].items()} for i in order]
    samples.save(part / "golden/inputs.npz", chosen)
    samples.save(part / "golden/outputs.npz", [outputs[i] for i in order])


def _clearest(costs: dict[int, ndarray]) -> list[int]:
    """Samples by how clear their decision is, those of different decisions first.

    Another CPU's kernels may turn a decision that is nearly a tie.
    """

    def margin(i: int) -> float:
        """What the second best costs more, as a share of the largest cost."""
        first, second = sorted(costs[i])[:2]
        return float((second - first) / (abs(costs[i]).max() or 1.0))

    ranked = sorted(costs, key=margin, reverse=True)
    each = {int(costs[i].argmin()): i for i in reversed(ranked)}
    return sorted(ranked, key=lambda i: i not in each.values())


def _outputs(program: Program, decision: dict[str, Any]) -> list[dict[str, Any]]:
    rows = next(spec.shape[0] for spec in program.outputs if spec.name == decision["output"])
    cost = TensorSpec(COST, "float32", (rows, len(decision["decisions"])))
    return [cost.to_dict(), TensorSpec(DECISION, "int64", (rows,)).to_dict()]


def _manifest(
    program: Program,
    artifact: Artifact,
    proof: dict[str, Any],
    host: dict[str, Any],
    allow_mismatch: bool,
    runtime: str | None,
) -> dict[str, Any]:
    precision = artifact.precision
    target = get(artifact.target)
    return {
        "schema": SCHEMA,
        "name": program.name,
        "target": artifact.target,
        "format": target.format,
        "precision": precision,
        "model": artifact.path.name,
        "artifact_id": artifact.id,
        "size_bytes": artifact.size_bytes,
        "source": {"kind": program.kind, "id": program.source_id, "reference": program.reference},
        "route": artifact.route,
        "lost": [_without_folders(text) for text in artifact.lost],
        "recipe": artifact.recipe.to_dict(),
        "tools": {
            **program.tools,
            **artifact.tools,
            **versions(["seatrial"]),
            artifact.target: runtime or target.version(),
        },
        "inputs": [
            replace(spec, dtype=proof["dtypes"].get(spec.name, spec.dtype)).to_dict() for spec in program.inputs
        ],
        "outputs": [spec.to_dict() for spec in program.outputs],
        "quanta": program.quanta,
        "sizes": program.sizes,
        "edges": program.edges,
        "notes": program.notes,
        # Whether boxes leave the graph as candidates or as what non-maximum suppression keeps.
        "nms_in_graph": any("nonmaxsuppression" in op.replace("_", "").lower() for op in _ops(proof)),
        "preprocess": program.preprocess.to_dict() if program.preprocess else None,
        "labels": "labels.txt" if program.labels else None,
        "classes": program.classes,
        "detections": program.detections or None,
        "settings": proof["settings"],
        "tolerance": {
            "sqnr_db": as_is.BAR_DB if program.precision != "fp32" else parity.BARS_DB[precision],
            "agreement": parity.AGREEMENT.get(precision, parity.AGREEMENT["int8"]),
            "golden_sqnr_db": GOLDEN_DB.get(precision, parity.BARS_DB.get(precision, as_is.BAR_DB)),
            "detections": detections.BARS.get(precision, detections.BARS["int8"]) if program.detections else None,
        },
        "proof": proof,
        "proven_on": host,
        "data": {
            use: {**{k: facts[k] for k in ("name", "id", "n")}, "labelled": bool(facts.get("labels"))}
            for use, facts in program.data.items()
        },
        "allow_mismatch": allow_mismatch,
        "licence": program.licence,
    }


def _without_folders(text: str) -> str:
    """The first line of a reason, with files by their names alone: a bundle tells nothing of where it was made."""
    return re.sub(r"(?:/[^/\s'\"]+)+/", "", text.partition("\n")[0])


def _ops(proof: dict[str, Any]) -> list[str]:
    return list(proof["placement"].get("ops", {}))


def _script(name: str, target: str, settings: dict[str, Any], detector: bool) -> str:
    text = (TEMPLATES / f"{name}.txt").read_text()
    text = text.replace("# DETECTIONS\n", detections.script() if detector else "")
    return text.replace("# OPEN_MODEL\n", get(target).example(settings).strip() + "\n")
