"""The deployment search: make every file once, prove every setting, race, confirm, pack."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core.errors import CannotDo, NothingMeasured, Unsupported, UsageError
from ..core.ids import content_id, file_sha256
from ..core.process import Limits
from ..devices.facts import cores_given, cpu_flags, host_facts
from ..devices.sitting import PROTOCOL
from ..exporter.api import PRECISIONS, check, check_program, listed, source_of
from ..exporter.build import Builder
from ..exporter.proof.prove import DEFAULT_MAX_DROP
from ..exporter.sources import Source
from ..targets import require
from . import race
from .candidate import Candidate, candidates
from .findings import Findings
from .folder import how_anew, study_folder
from .making import Making, arm_of
from .study import Study
from .trials import feasible
from .underway import Underway

Say = Callable[[str], None]

BESIDE = {".py", ".pt", ".pth", ".ckpt", ".bin", ".data", ".safetensors", ".onnx"}
SHOWN = 20
"""Reasons that an error shows."""


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
    with study_folder(folder, key, overwrite) as place, Running(place, key, limits, say, max_drop) as running:
        running.make(source, request.targets, data, space)
        running.race(seed)
        running.confirm(seed)
        study = running.finish(running.making.program.name, max_drop, command)
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


class Running(Underway):
    """The search of one given model."""

    def __init__(self, folder: Path, key: str, limits: Limits, say: Say, max_drop: float) -> None:
        super().__init__(folder, key, limits, say)
        self.making = Making(folder, "", max_drop, limits, say, self.timed)

    def __exit__(self, *exc: object) -> None:
        self.making.builder.close()
        super().__exit__(*exc)

    def make(
        self, source: Source, targets: Sequence[str], data: Mapping[str, Path], space: Sequence[Candidate]
    ) -> None:
        """Capture, convert, quantize and prove: one trial for each candidate."""
        begun = self.making.captured
        program = self.making.capture(source, targets, data)
        if begun:
            with self.timed("capture"):
                self._check_source(source)
        check_program(program)
        if program.precision != "fp32":
            found = f"the file is {program.precision} and is used as it is: there is nothing to choose a precision of"
            raise Unsupported(
                f"a search over {source.path.name}", found, "search the fp32 source, or export and bench it"
            )
        self.making.ready()
        self.trials.forget_failed()  # it may have lacked time, memory or a part that is there now
        self.prove_all(space)

    def prove_all(self, space: Sequence[Candidate]) -> None:
        """Convert, quantize and prove what isn't known yet."""
        known = self.trials.all()
        for trial in self.making.prove_all([c for c in space if c.id not in known]):
            self.trials.add(trial)

    def _check_source(self, source: Source) -> None:
        """Load the model afresh: the search's key doesn't see code and weights that lie elsewhere."""
        self.say(f"loading {source.path.name} to see whether it is the same")
        again = self.work / "again"
        shutil.rmtree(again, ignore_errors=True)  # of a kill
        with Builder(again, self.limits) as builder:
            found = builder.capture(source).source_id
        shutil.rmtree(again)
        if found != self.making.program.source_id:
            words = f"{source.path.name} loads other code or weights than when this search began"
            todo = f"{how_anew(self.folder)} to begin anew, or choose another -o"
            raise UsageError(f"the output {self.folder}", words, todo)

    def race(self, seed: int) -> None:
        """Time every feasible candidate, and those near the front until it is decided."""
        known = self.trials.all()
        able = feasible(list(known.values()))
        if not able:
            todo = "`seatrial export` of one of them writes a report of what differs; --max-drop allows more"
            raise nothing("no candidate is feasible", {t.candidate.label: t.reason for t in known.values()}, todo)
        groups: dict[str, list[str]] = {}
        for trial in able:
            groups.setdefault(trial.candidate.target, []).append(trial.id)
        launches = self.trials.launches("race")
        reference = self.reference(able)
        if not race.plan(launches, groups).ids:
            return
        first = arm_of(self.folder, reference, race.REFERENCE)
        with self.sitting("race", seed) as sitting:
            sitting.keep(first)
            while (step := race.plan(launches, groups)).ids:
                labels = ", ".join(known[each].candidate.label for each in step.ids)
                self.say(f"timing, launch {len(launches) + 1}: {labels}")
                arms = [first, *(arm_of(self.folder, known[each]) for each in step.ids)]
                launches.append(self.launch(sitting, arms, step.rounds, reference))

    def confirm(self, seed: int) -> None:
        """Time the winners and all defaults once more."""
        known = self.trials.all()
        self.time_again(Findings(known, self.trials.launches("race")).finalists, known, seed + 1)

    def finish(self, title: str, max_drop: float, command: str) -> Study:
        """Choose, pack, write ``study.json`` and ``report.html``."""
        found = Findings(self.trials.all(), self.trials.launches("race"), self.trials.launches("confirm"))
        if not found.winners:
            reasons = {t.candidate.label: found.reason(t) for t in found.trials.values()}
            raise nothing("no candidate could be timed", reasons, "see whether `seatrial export` and `bench` work")
        facts = {
            "key": self.key,
            "title": title,
            "command": command,
            "max_drop": max_drop,
            "seconds": self.seconds(),
            "confirmed": self._confirmed(found),
        }
        study = Study.write(self.folder, found, self.making.program, facts)
        for name, each in study.winners.items():
            self.say(f"packing {name}")
            study.pack(each, self.folder / name, overwrite=True)
        return study

    def _confirmed(self, found: Findings) -> dict[str, Any]:
        """Accuracy of the finalists on data that nothing was chosen by."""
        confirmed = {}
        for each in found.finalists:
            accuracy = self.making.prover.confirm(self.folder / str(found.trials[each].outputs))
            if accuracy:
                confirmed[each] = accuracy.found
        return confirmed


def nothing(found: str, reasons: Mapping[str, str | None], todo: str) -> NothingMeasured:
    """The error of a search that ends without a candidate, with the reasons of the first."""
    lines = [f"{label}: {reason}" for label, reason in sorted(reasons.items())]
    more = [f"... and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    lines = [f"{found}:", *lines[:SHOWN], *more]
    return NothingMeasured("the search", "\n         ".join(lines), todo)
