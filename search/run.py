"""The deployment search: make every file once, prove every setting, race, confirm, pack."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..core.errors import CannotDo, NothingMeasured, NotWritten, SeatrialError, Unsupported, UsageError
from ..core.ids import content_id, file_sha256
from ..core.process import Limits
from ..devices.arms import Arm, Plan
from ..devices.facts import cores_given, cpu_flags, host_facts
from ..devices.launches import Launch
from ..devices.sitting import PROTOCOL, Sitting
from ..devices.store import Store
from ..exporter.api import PRECISIONS, check, check_program, listed, source_of
from ..exporter.artifact import Artifact
from ..exporter.build import Builder
from ..exporter.program import FILE
from ..exporter.proof.prove import DEFAULT_MAX_DROP, Proof, Prover
from ..exporter.sources import Source
from ..targets import require
from . import race
from .candidate import Candidate, candidates
from .findings import Findings
from .folder import how_anew, study_folder
from .study import Study
from .trials import Trial, Trials, feasible, relative

Say = Callable[[str], None]
CONFIRM_LAUNCHES = 6
"""Of the winners and the defaults that they must beat."""

BESIDE = {".py", ".pt", ".pth", ".ckpt", ".bin", ".data", ".safetensors", ".onnx"}


def search(
    model: Path | str,
    target: str | Sequence[str] = ("onnxruntime", "openvino", "tflite"),
    *,
    output: Path | str,
    precision: str | Sequence[str] | None = None,
    threads: Sequence[int] | None = None,
    calibration: Path | str | None = None,
    evaluate: Path | str | None = None,
    confirm: Path | str | None = None,
    max_drop: float = DEFAULT_MAX_DROP,
    seed: int = 0,
    overwrite: bool = False,
    limits: Limits = Limits(),
    command: str = "",
    say: Say | None = None,
    **reading: Any,
) -> Study:
    """Find the fastest proven candidate for each target and over all; pack them into `output`.

    The same call with the same arguments goes on where an earlier one stopped.

    Args:
        model: see `exporter.export`.
        target: names of targets.
        output: the study's folder.
        precision: by default all that this CPU can run; int8 only with `calibration`.
        threads: counts to try; by default 1 and all cores given.
        calibration: a folder of pictures or an ``.npz``.
        evaluate: labelled data that candidates are judged by.
        confirm: labelled data that nothing is chosen by; the winners' accuracy is reported on it.
        max_drop: accuracy that may be lost.
        seed: of the order of measurements.
        overwrite: begin anew, and replace what is there once the new study is whole.
        limits: time and memory of each converter.
        command: the command line, for the report.
        say: takes one line about each step as it starts.
        reading: how to read the model; see `exporter.source_of`.

    Raises:
        NothingMeasured: no candidate could be made, proven and measured.
        UsageError: bad arguments or data.
        CannotDo: a missing part, an unsupported model.
    """
    say = say or (lambda text: None)
    source = source_of(model, **reading)
    given = {"calibration": calibration, "evaluate": evaluate, "confirm": confirm}
    data = {use: Path(path) for use, path in given.items() if path}
    request = check(source, target, (), data)
    wanted = _precisions(precision, "calibration" in data, request.targets)
    counts = tuple(threads or dict.fromkeys((1, len(cores_given()))))
    space = candidates(request.targets, wanted, counts, cpu_flags())
    folder = Path(output)
    key = _key(source, data, space, max_drop, seed)
    with study_folder(folder, key, overwrite) as place, Running(place, key, limits, say) as running:
        running.make(source, request.targets, data, space, max_drop)
        running.race(seed)
        running.confirm(seed)
        study = running.finish(running.program.name, max_drop, command)
    return Study(folder, study.document)


def _precisions(precision: str | Sequence[str] | None, calibrated: bool, targets: Sequence[str]) -> tuple[str, ...]:
    if precision is None:
        # fp16 halves the file, not the time, on a CPU: it is a candidate where it was asked for.
        return tuple(p for p in PRECISIONS if p != "fp16" and (calibrated or p != "int8"))
    able = dict.fromkeys(p for target in targets for p in require(target).precisions(cpu_flags()))
    names = listed(precision)
    for name in names:
        if name not in PRECISIONS:
            raise UsageError(f"precision {name!r}", "no such precision", f"known: {', '.join(PRECISIONS)}")
        if name not in able:
            asked = f"{name} for {', '.join(targets)}"
            raise CannotDo(asked, "no such target can run it on this CPU", f"here they can: {', '.join(able)}")
    if "int8" in names and not calibrated:
        raise UsageError("int8", "no calibration data given", "add --calibration DIR or FILE.npz")
    return names


def _key(source: Source, data: Mapping[str, Path], space: Sequence[Candidate], max_drop: float, seed: int) -> str:
    """The id of a search: what would give other facts gives another id, so another machine or runtime does."""
    files = {use: _data_id(path) for use, path in data.items()}
    ids = [candidate.id for candidate in space]
    where = [host_facts()["identity"], {c.target: require(c.target).version() for c in space}, PROTOCOL]
    return content_id([source.identity(), _beside(source), files, ids, max_drop, seed, where])


def _data_id(path: Path) -> str:
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    # With its folder: a picture's class may be the name of that.
    return content_id([[str(p.relative_to(path.parent)), file_sha256(p)] for p in files])


def _beside(source: Source) -> list[list[Any]]:
    """Code and weights next to the model's file, which it may load without being told: a change starts a new search."""
    if not source.path.is_file():
        return []
    files = sorted(p for p in source.path.resolve().parent.iterdir() if p.suffix in BESIDE and p.is_file())
    return [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in files]


class Running:
    """A search under way; every step looks first at what the store has."""

    def __init__(self, folder: Path, key: str, limits: Limits, say: Say) -> None:
        self.folder, self.key, self.limits, self.say = folder, key, limits, say
        self.work = folder / "work"
        for left in (*folder.glob(".*.part"), *folder.glob(".*.old")):  # a kill while packing
            shutil.rmtree(left, ignore_errors=True)
        self.store = Store(folder / "facts.sqlite")
        self.trials = Trials(self.store, key)
        self.builder = Builder(self.work, limits, say)

    def __enter__(self) -> Running:
        return self

    def __exit__(self, *exc: object) -> None:
        self.builder.close()
        self.store.close()

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.monotonic()
        try:
            yield
        finally:
            costs = self._seconds()
            costs[stage] = costs.get(stage, 0.0) + time.monotonic() - start
            part = self.work / "costs.json.part"
            part.write_text(json.dumps(costs))
            part.replace(self.work / "costs.json")

    def make(
        self,
        source: Source,
        targets: Sequence[str],
        data: Mapping[str, Path],
        space: Sequence[Candidate],
        max_drop: float,
    ) -> None:
        """Capture, convert, quantize and prove: one trial for each candidate."""
        with self._timed("capture"):
            begun = (self.work / "program" / FILE).exists()
            self.program = self.builder.capture(source, targets, data)
            if begun:
                self._check_source(source)
        check_program(self.program)
        if self.program.precision != "fp32":
            found = (
                f"the file is {self.program.precision} and is used as it is: there is nothing to choose a precision of"
            )
            raise Unsupported(
                f"a search over {source.path.name}", found, "search the fp32 source, or export and bench it"
            )
        self.prover = Prover(self.program, self.work / "proof", max_drop, timeout_s=self.limits.timeout_s)
        self.trials.forget_failed()  # it may have lacked time, memory or a part that is there now
        self.prove_all(space)

    def prove_all(self, space: Sequence[Candidate]) -> None:
        """Convert, quantize and prove what isn't known yet: one trial for each candidate."""
        known = self.trials.all()
        for target, precision in dict.fromkeys((c.target, c.precision) for c in space):
            todo = [c for c in space if (c.target, c.precision) == (target, precision) and c.id not in known]
            if not todo:
                continue
            made = self._artifact(target, precision)
            for candidate in todo:
                self.trials.add(self._prove(candidate, made))

    def _check_source(self, source: Source) -> None:
        """Load the model afresh: the search's key doesn't see code and weights that lie elsewhere."""
        self.say(f"loading {source.path.name} to see whether it is the same")
        again = self.work / "again"
        shutil.rmtree(again, ignore_errors=True)  # of a kill
        with Builder(again, self.limits) as builder:
            found = builder.capture(source).source_id
        shutil.rmtree(again)
        if found != self.program.source_id:
            words = f"{source.path.name} loads other code or weights than when this search began"
            todo = f"{how_anew(self.folder)} to begin anew, or choose another -o"
            raise UsageError(f"the output {self.folder}", words, todo)

    def _artifact(self, target: str, precision: str) -> Artifact | SeatrialError:
        try:
            with self._timed("convert"):
                base = self.builder.convert(self.program, target)
            with self._timed("quantize"):
                return self.builder.derive(self.program, base, precision)
        except NotWritten:
            raise  # a full disk says nothing of a candidate
        except SeatrialError as error:
            return error

    def _prove(self, candidate: Candidate, made: Artifact | SeatrialError) -> Trial:
        if isinstance(made, SeatrialError):
            return Trial(candidate, "failed", f"{made.asked}: {made.found}")
        self.say(f"proving {candidate.label}")
        with self._timed("prove"):
            proof = self.prover.prove(made, [dict(candidate.settings)])[0]
        return self._trial(candidate, made, proof)

    def _trial(self, candidate: Candidate, made: Artifact, proof: Proof) -> Trial:
        if proof.error or proof.outputs is None:
            return Trial(candidate, "failed", proof.error.found if proof.error else "it gave no outputs")
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

    def _arm(self, trial: Trial, name: str | None = None) -> Arm:
        return Arm(
            name or trial.id,
            trial.candidate.target,
            str((self.folder / str(trial.artifact)).resolve()),
            str(trial.artifact_id),
            dict(trial.candidate.settings),
            str(self.prover.inputs.resolve()),
            str((self.folder / str(trial.outputs)).resolve()),
            trial.candidate.precision,
        )

    def race(self, seed: int) -> None:
        """Time every feasible candidate, and those near the front until it is decided."""
        known = self.trials.all()
        able = feasible(list(known.values()))
        if not able:
            todo = "`seatrial export` of one of them writes a report of what differs; --max-drop allows more"
            raise _nothing("no candidate is feasible", {t.candidate.label: t.reason for t in known.values()}, todo)
        groups: dict[str, list[str]] = {}
        for trial in able:
            groups.setdefault(trial.candidate.target, []).append(trial.id)
        launches = self.trials.launches("race")
        reference = self._reference(able)
        if not race.plan(launches, groups).ids:
            return
        with self._sitting("race", seed) as sitting:
            sitting.keep(self._arm(reference, race.REFERENCE))
            while (step := race.plan(launches, groups)).ids:
                labels = ", ".join(known[each].candidate.label for each in step.ids)
                self.say(f"timing, launch {len(launches) + 1}: {labels}")
                arms = [self._arm(reference, race.REFERENCE), *(self._arm(known[each]) for each in step.ids)]
                with self._timed("measure"):
                    launches.append(self._launch(sitting, arms, step.rounds, reference))

    def _reference(self, able: Sequence[Trial]) -> Trial:
        """What every launch holds: that of the first one stays, also where candidates came later."""
        stored = self.trials.store.find(session=self.trials.session("race"), launch=0, arm=race.REFERENCE)
        for trial in able if stored else ():
            if (trial.artifact_id, dict(trial.candidate.settings)) == _ran(stored[0]):
                return trial
        return min(able, key=lambda t: (not t.candidate.is_default, t.candidate.precision != "fp32", t.id))

    def _launch(self, sitting: Sitting, arms: list[Arm], rounds: int, reference: Trial) -> Launch:
        launch = sitting.launch(arms, rounds=rounds)
        run = launch.arms[race.REFERENCE]
        if not run.ok:
            found = f"the reference {reference.candidate.label} failed while it was timed: {run.reason}"
            raise NothingMeasured("the search", found, "run the same command again: it goes on")
        return launch

    def confirm(self, seed: int) -> None:
        """Time the winners and all defaults once more: fresh processes, a fresh session, fresh samples."""
        known = self.trials.all()
        chosen = Findings(known, self.trials.launches("race")).finalists
        launches = self.trials.launches("confirm")
        if len(launches) >= CONFIRM_LAUNCHES or not chosen:
            return
        with self._sitting("confirm", seed + 1) as sitting:
            for count in range(len(launches) + 1, CONFIRM_LAUNCHES + 1):
                chosen = [each for each in chosen if each not in race.failures(launches)]
                if not chosen:
                    return
                self.say(f"confirming {len(chosen)} candidates, launch {count} of {CONFIRM_LAUNCHES}")
                with self._timed("confirm"):
                    launches.append(sitting.launch([self._arm(known[each]) for each in chosen]))

    def _sitting(self, stage: str, seed: int) -> Sitting:
        return Sitting(
            Plan(launches=CONFIRM_LAUNCHES),
            seed=seed,
            session=self.trials.session(stage),
            store=self.store,
            progress=self.say,
            purpose="seatrial search",
        )

    def finish(self, title: str, max_drop: float, command: str) -> Study:
        """Choose, pack, write ``study.json`` and ``report.html``."""
        found = Findings(self.trials.all(), self.trials.launches("race"), self.trials.launches("confirm"))
        if not found.winners:
            reasons = {t.candidate.label: found.reason(t) for t in found.trials.values()}
            raise _nothing("no candidate could be timed", reasons, "see whether `seatrial export` and `bench` work")
        facts = {
            "key": self.key,
            "title": title,
            "command": command,
            "max_drop": max_drop,
            "seconds": self._seconds(),
            "confirmed": self._confirmed(found),
        }
        study = Study.write(self.folder, found, self.program, facts)
        for name, each in study.winners.items():
            self.say(f"packing {name}")
            study.pack(each, self.folder / name, overwrite=True)
        return study

    def _confirmed(self, found: Findings) -> dict[str, Any]:
        """Accuracy of the finalists on data that nothing was chosen by."""
        confirmed = {}
        for each in found.finalists:
            accuracy = self.prover.confirm(self.folder / str(found.trials[each].outputs))
            if accuracy:
                confirmed[each] = accuracy.found
        return confirmed

    def _seconds(self) -> dict[str, float]:
        """What each stage took, over all runs of this search; of a killed one, its finished steps."""
        file = self.work / "costs.json"
        found: dict[str, float] = json.loads(file.read_text()) if file.exists() else {}
        return found


def _ran(row: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Artifact and settings of a stored measurement."""
    return row["facts"]["arm"]["artifact_id"], dict(row["facts"]["arm"]["settings"])


def _nothing(found: str, reasons: Mapping[str, str | None], todo: str) -> NothingMeasured:
    lines = [f"{found}:", *(f"{label}: {reason}" for label, reason in sorted(reasons.items()))]
    return NothingMeasured("the search", "\n         ".join(lines), todo)
