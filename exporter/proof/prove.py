"""Prove an artifact in its settings against the source's answers, and name the hop that broke where it fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...core import samples
from ...core.errors import SeatrialError, from_dict
from ...core.ids import content_id
from ...devices.local import LocalDevice
from ...targets import for_file, get
from .. import as_is
from ..artifact import Artifact
from ..program import GROUPS, Program
from ..quantize import Recipe
from . import parity
from .accuracy import Accuracy, score
from .parity import Parity

if TYPE_CHECKING:
    from ...core.samples import Feed

DEFAULT_MAX_DROP = 0.01


@dataclass(frozen=True)
class Proof:
    """What was found of one artifact under one setting.

    Attributes:
        settings: what it ran with.
        parity: its outputs against the source's.
        placement: what really ran.
        load_ms: time to open it.
        outputs: Samples file of its outputs, in the order of `Prover.inputs`.
        dtypes: the element type that the artifact takes, by input; converters narrow int64 to int32.
        accuracy: on labelled data, where given.
        problems: all that is wrong, in words.
        error: why it could not run at all.
    """

    settings: dict[str, Any]
    parity: Parity | None = None
    placement: dict[str, Any] = field(default_factory=dict)
    load_ms: float | None = None
    outputs: Path | None = None
    dtypes: dict[str, str] = field(default_factory=dict)
    accuracy: Accuracy | None = None
    problems: list[str] = field(default_factory=list)
    error: SeatrialError | None = None

    @property
    def ok(self) -> bool:
        """Whether everything was as promised."""
        return not self.problems and self.error is None

    def to_dict(self) -> dict[str, Any]:
        """As JSON data, without what changes from run to run."""
        return {
            "settings": self.settings,
            "dtypes": self.dtypes,
            "parity": self.parity.to_dict() if self.parity else None,
            "placement": {k: v for k, v in self.placement.items() if k != "times"},
            "accuracy": self.accuracy.to_dict() if self.accuracy else None,
            "problems": self.problems,
        }


class Prover:
    """Runs artifacts of one Program on a device.

    Args:
        program: the source's samples and answers.
        folder: takes the outputs.
        max_drop: accuracy that int8 may lose.
        progress: takes one line about each run as it starts.
    """

    def __init__(
        self,
        program: Program,
        folder: Path,
        max_drop: float = DEFAULT_MAX_DROP,
        progress: Callable[[str], None] | None = None,
        timeout_s: float = 1800.0,
    ) -> None:
        self.program, self.folder, self.max_drop, self.progress = program, folder, max_drop, progress
        self.device = LocalDevice(timeout_s)
        self.reference = {group: program.reference_outputs(group) for group in GROUPS}
        folder.mkdir(parents=True, exist_ok=True)
        self.inputs = folder / "inputs.npz"
        if not self.inputs.exists():
            samples.save(self.inputs, [feed for group in GROUPS for feed in program.feeds(group)])

    def prove(self, artifact: Artifact, settings: Sequence[dict[str, Any]]) -> list[Proof]:
        """One proof for each of the settings."""
        proofs = [self._judge(artifact, run) for run in self._run(artifact, settings)]
        wrong = self._wrong_in_fp32(artifact) if artifact.precision == "bf16" else []
        return [replace(proof, problems=[*proof.problems, *wrong]) for proof in proofs]

    def _wrong_in_fp32(self, artifact: Artifact) -> list[str]:
        """bf16 is a precision of the runtime and its bar is low: what the file itself lacks is seen in fp32 alone."""
        file = replace(artifact, recipe=Recipe("fp32"))
        check = self._judge(file, self._run(file, [get(artifact.target).strict("fp32")])[0]).parity
        return [f"the same file in fp32: {problem}" for problem in check.problems] if check else []

    def _run(self, artifact: Artifact, settings: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        job = {
            "kind": "proof",
            "target": artifact.target,
            "artifact": str(artifact.path),
            "runs": [{"settings": dict(s)} for s in settings],
            "inputs": str(self.inputs),
            # Named after what ran: a later proof of other settings must not replace its outputs.
            "out": str(self.folder / content_id([artifact.target, artifact.id, artifact.precision, list(settings)])),
        }
        runs: list[dict[str, Any]] = self.device.run(job, self.progress)["runs"]
        return runs

    def _judge(self, artifact: Artifact, run: dict[str, Any]) -> Proof:
        error = from_dict(run["error"]) if run["error"] else None
        if run["outputs"] is None:
            return Proof(run["settings"], error=error)
        found = self.sliced(samples.load(run["outputs"]))
        placement = run["placement"] or {}
        check = self._parity(artifact, found)
        accuracy = self._accuracy(found, "evaluate")
        # Outputs and an error: it ran, but not where it was asked to.
        problems = check.problems + ([error.found] if error else [])
        if artifact.precision == "int8" and accuracy and accuracy.failed:
            problems.append(f"accuracy dropped by more than {self.max_drop:g}: {accuracy.note}")
        ran = placement.get("precision")
        # A CPU without fp16 arithmetic widens fp16 weights and runs fp32, which loses nothing.
        if ran and ran != artifact.precision and (artifact.precision, ran) != ("fp16", "fp32"):
            problems.append(f"{ran} ran, {artifact.precision} was asked for")
        return Proof(
            settings=run["settings"],
            parity=check,
            placement=placement,
            load_ms=run.get("load_ms"),
            outputs=Path(run["outputs"]),
            dtypes=run["dtypes"],
            accuracy=accuracy,
            problems=problems,
        )

    def sliced(self, outputs: list[Feed]) -> dict[str, list[Feed]]:
        """Outputs over all inputs, by group."""
        found, start = {}, 0
        for group in GROUPS:
            end = start + len(self.reference[group])
            found[group], start = outputs[start:end], end
        return found

    def _parity(self, artifact: Artifact, found: dict[str, list[Feed]]) -> Parity:
        """int8 is judged on real samples alone; other precisions on noise and edge cases too."""
        program, precision = self.program, artifact.precision
        if program.precision != "fp32":
            return self._as_is(found)
        groups = [group for group in ("held_out", "evaluate") if self.reference[group]]
        names = [f"{group} {i}" for group in groups for i in range(len(self.reference[group]))]
        want, have = ([out for group in groups for out in side[group]] for side in (self.reference, found))
        boxes = program.detections
        on_data = (
            parity.compare(precision, names, want, have, classes=program.classes, declared=boxes) if names else None
        )
        if precision == "int8" and on_data:
            return on_data
        edges = (program.edges, self.reference["edges"], found["edges"])
        check = parity.compare(precision, program.main, self.reference["main"], found["main"], edges, declared=boxes)
        if on_data is None:
            return check
        return replace(
            check,
            agreement=on_data.agreement,
            samples=check.samples + on_data.samples,
            problems=check.problems + on_data.problems,
            detections=on_data.detections,
        )

    def _as_is(self, found: dict[str, list[Feed]]) -> Parity:
        """A file that came quantized is held against its own strict run, on all samples."""
        groups = ("main", "held_out", "evaluate")
        names = [f"{group} {i}" for group in groups for i in range(len(self.reference[group]))]
        want, have = ([out for group in groups for out in side[group]] for side in (self.reference, found))
        return as_is.compare(self.program, names, want, have)

    def _accuracy(self, found: dict[str, list[Feed]], group: str) -> Accuracy | None:
        labels = self.program.data.get(group, {}).get("labels")
        if not labels or not self.program.classes:
            return None
        return score(self.program.classes, labels, self.reference[group], found[group], self.max_drop)

    def confirm(self, outputs: Path) -> Accuracy | None:
        """Accuracy on the data kept for confirmation, from stored outputs."""
        return self._accuracy(self.sliced(samples.load(outputs)), "confirm")

    def blame(self, artifact: Artifact, base: Artifact, proof: Proof, steps: Sequence[tuple[str, Path]]) -> str:
        """The hop that broke a failed proof.

        Args:
            artifact: what failed.
            base: the fp32 artifact that it was made from; itself for fp32.
            proof: its failed proof.
            steps: label and product of each converter of the route, in order.
        """
        target = get(artifact.target)
        strict = target.strict("fp32")
        checks = self._run(base, [strict])
        fp32 = self._judge(base, checks[0])
        if fp32.parity and fp32.parity.ok:
            if artifact.precision == "int8":
                return self._blame_int8(artifact, base, proof)
            return f"runtime: {artifact.target} with {_words(proof.settings)}"
        return self._blame_conversion(steps) or "conversion"

    def _blame_int8(self, artifact: Artifact, base: Artifact, proof: Proof) -> str:
        own = get(base.target).settings("fp32")
        if not self.prove(base, [own])[0].ok:
            return f"runtime: {base.target} in fp32 with {_words(own)}"
        strict = self.prove(artifact, [get(artifact.target).strict("int8")])[0]
        if strict.parity and strict.parity.ok and not (strict.accuracy and strict.accuracy.failed):
            return f"runtime: {artifact.target} with {_words(proof.settings)}"
        return "quantization"

    def _blame_conversion(self, steps: Sequence[tuple[str, Path]]) -> str:
        """The first converter of the route whose product is wrong, where something here can run it strictly."""
        for label, product in steps:
            try:
                target = for_file(product.suffix)
            except SeatrialError:
                continue
            if target.probe():
                continue
            step = Artifact(target.name, product, Recipe("fp32"), [], [], "")
            result = self._judge(step, self._run(step, [target.strict("fp32")])[0])
            if result.parity is None or not result.parity.ok:
                return f"conversion {label}"
        return f"conversion {steps[-1][0]}" if steps else ""


def _words(settings: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in settings.items())
