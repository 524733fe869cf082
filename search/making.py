"""One model of a study in its folder: captured, converted, quantized and proven, each once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from ..core.errors import MissingPart, NotWritten, SeatrialError
from ..core.process import Limits
from ..devices.arms import Arm
from ..exporter.artifact import Artifact
from ..exporter.build import Builder
from ..exporter.program import FILE, Program
from ..exporter.proof.prove import Proof, Prover
from ..exporter.sources import Source
from .candidate import Candidate
from .trials import Trial, relative, work_of

Say = Callable[[str], None]
Timed = Callable[[str], AbstractContextManager[None]]
INPUTS = "proof/inputs.npz"


class Making:
    """Makes a model's artifacts and proves its deployments.

    Args:
        folder: the study's.
        model: key of the model; empty for the only one.
        max_drop: accuracy that may be lost against the model itself.
        limits: of each converter.
        say: takes one line about each step as it starts.
        timed: gives the context in which a stage of this name runs.
    """

    def __init__(
        self,
        folder: Path,
        model: str,
        max_drop: float,
        limits: Limits,
        say: Say,
        timed: Timed = lambda stage: nullcontext(),
    ) -> None:
        self.folder, self.model, self.max_drop, self.limits = folder, model, max_drop, limits
        self.say, self.timed = say, timed
        self.work = folder / work_of(model)
        self.builder = Builder(self.work, limits, say)

    def capture(self, source: Source, targets: Sequence[str], data: Mapping[str, Path]) -> Program:
        """The source as a Program, captured once."""
        with self.timed("capture"):
            self.program = self.builder.capture(source, targets, data)
        return self.program

    @property
    def captured(self) -> bool:
        """Whether an earlier run did."""
        return (self.work / "program" / FILE).exists()

    def load(self) -> None:
        """Take the program that was captured, to prove by."""
        self.program = Program.load(self.work / "program")
        self.ready()

    def ready(self) -> None:
        """Prepare proofs by the program."""
        self.prover = Prover(self.program, self.work / "proof", self.max_drop, timeout_s=self.limits.timeout_s)

    def prove_all(self, space: Sequence[Candidate]) -> Iterator[Trial]:
        """Convert, quantize and prove: one trial for each candidate, as it comes."""
        for target, precision in dict.fromkeys((c.target, c.precision) for c in space):
            made = self._artifact(target, precision)
            proofs: dict[object, Proof] = {}  # what it answers is the same on every device
            for candidate in space:
                if (candidate.target, candidate.precision) == (target, precision):
                    yield self._proven(candidate, made, proofs)

    def _artifact(self, target: str, precision: str) -> Artifact | SeatrialError:
        try:
            with self.timed("convert"):
                base = self.builder.convert(self.program, target)
            with self.timed("quantize"):
                return self.builder.derive(self.program, base, precision)
        except NotWritten:
            raise  # a full disk says nothing of a candidate
        except SeatrialError as error:
            return error

    def _proven(self, candidate: Candidate, made: Artifact | SeatrialError, proofs: dict[object, Proof]) -> Trial:
        if isinstance(made, SeatrialError):
            kind = "missing" if isinstance(made, MissingPart) else getattr(made, "kind", "error")
            return Trial(candidate, "failed", f"{made.asked}: {made.found}", kind=kind)
        if candidate.settings not in proofs:
            self.say(f"proving {candidate.label}")
            with self.timed("prove"):
                proofs[candidate.settings] = self.prover.prove(made, [dict(candidate.settings)])[0]
        return self._trial(candidate, made, proofs[candidate.settings])

    def _trial(self, candidate: Candidate, made: Artifact, proof: Proof) -> Trial:
        if proof.error or proof.outputs is None:
            found = proof.error.found if proof.error else "it gave no outputs"
            return Trial(candidate, "failed", found, kind=getattr(proof.error, "kind", "error"))
        return Trial(
            candidate,
            "ok" if proof.ok else "infeasible",
            "; ".join(proof.problems) or None,
            artifact=relative(made.path, self.folder),
            artifact_id=made.id,
            route=made.route,
            lost=made.lost,
            recipe=made.recipe.to_dict(),
            outputs=relative(proof.outputs, self.folder),
            size_bytes=made.size_bytes,
            proof=proof.to_dict(),
            load_ms=proof.load_ms,
        )


@contextmanager
def making(*args: object, **options: object) -> Iterator[Making]:
    """A `Making` whose converters end with the block."""
    made = Making(*args, **options)  # type: ignore[arg-type]
    try:
        yield made
    finally:
        made.builder.close()


def arm_of(folder: Path, trial: Trial, name: str | None = None) -> Arm:
    """A trial's artifact as an arm of a measurement, which is called after the trial unless it has a `name`."""
    return Arm(
        name or trial.id,
        trial.candidate.target,
        str((folder / str(trial.artifact)).resolve()),
        str(trial.artifact_id),
        dict(trial.candidate.settings),
        str((folder / trial.work / INPUTS).resolve()),
        str((folder / str(trial.outputs)).resolve()),
        trial.candidate.precision,
        limits=trial.candidate.limits,
    )
