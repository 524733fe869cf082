"""A study on disk: read again, chosen from again, packed again; nothing is measured here."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..core.bundle import Bundle
from ..core.errors import CheckFailed, UsageError
from ..core.ids import files_id
from ..core.paths import check_free, whole_file
from ..devices.facts import host_facts
from ..devices.store import Store
from ..exporter.api import host_identity
from ..exporter.artifact import Artifact, model_files
from ..exporter.build import Builder
from ..exporter.decision import Costs, decide, read_costs
from ..exporter.make import names_file
from ..exporter.pack import pack
from ..exporter.program import Program
from ..exporter.proof.prove import Prover
from ..exporter.quantize import Recipe
from ..targets import get
from . import on_device
from .again import Added, add, before_and_after, check_name
from .candidate import LOCAL, names_of, place_of
from .choose import Bound, Demand, best
from .findings import Findings
from .making import INPUTS
from .objectives import Estimate, Objective
from .report_added import page_of
from .trials import Trial, Trials, work_of
from .views import Views

SCHEMA = "seatrial.study/1"
FILE = "study.json"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Study:
    """A finished search in its folder; `document` is what ``study.json`` holds."""

    folder: Path
    document: dict[str, Any]

    @classmethod
    def read(cls, folder: Path | str) -> Study:
        """Read a study's folder.

        Raises:
            UsageError: there is no finished study.
        """
        folder = Path(folder)
        try:
            document = json.loads((folder / FILE).read_text())
        except FileNotFoundError:
            begun = (folder / "work" / "key").exists()
            found = "the search there has not ended" if begun else f"there is no {FILE}"
            todo = "run the same `seatrial search` again: it goes on" if begun else "give the -o of a `seatrial search`"
            raise UsageError(f"the study {folder}", found, todo) from None
        except (OSError, ValueError) as error:
            raise UsageError(f"the study {folder}", f"{FILE} can't be read: {error}") from error
        if not isinstance(document, dict) or document.get("schema") != SCHEMA:
            raise UsageError(f"the study {folder}", "another schema", f"this version reads {SCHEMA}")
        return cls(folder, document)

    @classmethod
    def write(cls, folder: Path, found: Findings, program: Program, facts: dict[str, Any]) -> Study:
        """Write ``study.json`` and ``report.html`` from what was found."""
        study = cls(folder, _document(found, program, facts))
        with whole_file(folder / FILE) as part:
            part.write_text(json.dumps(study.document, indent=1))
        page = page_of(study)
        with whole_file(folder / "report.html") as part:
            part.write_text(page, encoding="utf-8")
        return study

    @property
    def candidates(self) -> list[dict[str, Any]]:
        """Facts of every candidate, the fastest first."""
        found: list[dict[str, Any]] = self.document["candidates"]
        return found

    @property
    def winners(self) -> dict[str, str]:
        """``best`` and each target, or ``TARGET@DEVICE`` → id of the chosen candidate."""
        chosen = self.document["chosen"]
        found = {name: entry["id"] for name, entry in chosen["per_target"].items()}
        return {"best": chosen["overall"], **found} if chosen["overall"] else found

    def candidate(self, id: str) -> dict[str, Any]:
        """Facts of one candidate."""
        return next(c for c in self.candidates if c["id"] == id)

    def select(
        self,
        subject_to: Sequence[str] = (),
        maximize: str | None = None,
        minimize: str | None = None,
        targets: Sequence[str] = (),
        confidence: float | None = None,
    ) -> dict[str, Any]:
        """The feasible candidate that is best by one objective under bounds, from stored facts alone.

        Args:
            subject_to: bounds such as ``latency_ms <= 5``.
            maximize: an objective; or
            minimize: an objective; ``latency_ms`` where neither is given. Ties go to the faster one.
            targets: only these runtimes; of a study with devices also ``tflite@one-core``, or ``@one-core``.
            confidence: probability with which each bound must be met; by default the point estimates count.

        Raises:
            UsageError: a bound that can't be read, or an unknown objective.
            CheckFailed: nobody meets the bounds; the nearest is named.
        """
        if maximize and minimize:
            raise UsageError("--maximize with --minimize", "one objective decides", "bound the other by --subject-to")
        if confidence is not None and not 0 < confidence < 1:
            raise UsageError(f"--confidence {confidence:g}", "no probability", "give one between 0 and 1, such as 0.95")
        bounds = [Bound.read(text) for text in subject_to]
        name = maximize or minimize or "latency_ms"
        demand = Demand(name, "max" if maximize else "min", bounds, confidence)
        with closing(Views(self.folder, self.document)) as views:
            for each in (name, *(bound.name for bound in bounds)):
                views.direction(each)
            self._check_targets(targets)
            able = [c for c in self.candidates if c["status"] == "ok" and c["latency_ms"] is not None]
            able = [c for c in able if not targets or names_of(c) & {*targets}]
            if not able:
                found = f"no candidate{' for ' + ', '.join(targets) if targets else ''} was proven and timed"
                raise CheckFailed(demand.text, found, f"`seatrial study show {self.folder}` says why of each")
            return best(able, views, demand)

    @property
    def objectives(self) -> dict[str, Objective]:
        """The objectives that were added, by name."""
        with closing(Views(self.folder, self.document)) as views:
            return views.added

    def costs_of(self, names: Sequence[str], target: str) -> Costs | None:
        """The cost matrix by which a candidate on a target was chosen: of the first of these objectives with one."""
        known = self.objectives
        own = [known[name] for name in names if name in known and target in (known[name].targets or [target])]
        return next((objective.matrix for objective in own if objective.matrix), None)

    def standings(self) -> list[tuple[Objective, dict[str, Any] | None, Estimate | None]]:
        """Each added objective with the facts of the candidate that is best by it, and its value."""
        with closing(Views(self.folder, self.document)) as views:
            return views.standings()

    def estimates(self, name: str) -> dict[str, Estimate]:
        """An objective's value with its interval, by candidate id.

        Raises:
            UsageError: no such objective.
        """
        with closing(Views(self.folder, self.document)) as views:
            views.direction(name)
            return views.estimates(name)

    def add_objective(
        self,
        name: str,
        *,
        measure: str | None = None,
        cost: Path | str | None = None,
        data: Path | str | None = None,
        slice: str | None = None,
        function: str | None = None,
        direction: str | None = None,
        targets: Sequence[str] = (),
        device: str | None = None,
        say: Say = lambda text: None,
    ) -> Added:
        """Score every candidate by another objective and keep it; nothing is trained, converted or timed.

        But for a `device`, on which stored artifacts are timed; and for a runtime among `targets` that the study did
        not try: on that, the finalists' models, precisions and threads are converted, proven and timed, and the study's
        own bundles are packed again.

        Args:
            name: to select by: ``study.select(minimize=name)``.
            measure: ``accuracy`` (the default), ``macro_f1``, ``worst_recall`` or ``calibration_error``; on a device
                ``latency_ms`` (the default), ``latency_p95_ms`` or ``peak_memory_bytes``.
            cost: a cost matrix (CSV, see `exporter.decision.read_costs`): the mean cost under its decision rule.
            data: labelled examples to judge by instead of the study's own: stored artifacts are run on them once.
            slice: ``class=NAME``, or ``NAME=FILE`` with an index or a file's name on each line.
            function: ``FILE.py:NAME`` of outputs (n, classes) and labels (n,); it runs in a process of its own.
            direction: of the function: ``max`` (the default) or ``min``.
            targets: only candidates on these runtimes count; by itself, their latency.
            device: a profile that restricts this machine: its name, or a TOML file; see `device_profile`.
            say: takes one line about each step.

        Raises:
            UsageError: bad arguments or data, the study has another objective of that name, or it was made on another
                machine than is to time for it.
            CannotDo: the device has more cores than there are here.
        """
        from .widen import check_host, widen  # which makes a study

        check_name(name)
        if device:
            check_host(self)
        cost, data = (Path(path) if path else None for path in (cost, data))
        work = widen(self, targets, say)
        with closing(Views(self.folder, self.document)) as views:
            found = add(views, name, measure, cost, data, slice, function, direction, targets, device, say)
        if work is None:
            return found
        launches, seconds = found.launches + work.launches, found.seconds + work.seconds
        return replace(found, conversions=work.conversions, launches=launches, seconds=seconds)

    def difference(self, name: str, a: str, b: str) -> Estimate | None:
        """How much more of an added objective `a` has than `b`, over the same examples.

        None where it is no mean over examples.
        """
        with closing(Views(self.folder, self.document)) as views:
            return views.paired(views.added[name], a, b)

    def ratio(self, name: str, a: str, b: str) -> Estimate | None:
        """Time of `a` over time of `b` on the device of an added objective, with its 99 % interval.

        None where one of them was not timed there.
        """
        with closing(Views(self.folder, self.document)) as views:
            return on_device.ratio(views.launches_on(views.added[name]), a, b)

    def cost_of(self, name: str, id: str) -> dict[str, dict[str, Estimate]]:
        """Of an added cost matrix, what a candidate costs without and with the rule; see `again.before_and_after`."""
        with closing(Views(self.folder, self.document)) as views:
            return before_and_after(views, views.added[name], id)

    def _check_targets(self, targets: Sequence[str]) -> None:
        tried = list(dict.fromkeys(place_of(c) for c in self.candidates))
        known = {name for c in self.candidates for name in names_of(c)}
        for name in targets:
            if name not in known:
                raise UsageError(f"target {name!r}", "this study did not try it", f"it tried: {', '.join(tried)}")

    def pack(self, id: str, out: Path, overwrite: bool = False, cost: Path | str | Costs | None = None) -> Bundle:
        """Pack a candidate of this study; its file, proof and measurements are as the search left them.

        With a cost matrix the decision rule is put behind the file, which is then proven anew, here.

        Raises:
            UsageError: the output exists, or holds the study; or the study's work folder is gone or has changed.
            CheckFailed: with the rule the artifact fails its proof.
        """
        check_free(out, overwrite)
        if self.folder.resolve().is_relative_to(out.resolve()):
            raise UsageError(f"the output {out}", "it holds the study itself", "choose another -o")
        work = self.folder / work_of(self.candidate(id).get("model", ""))
        for path in (work / "program", self.folder / "facts.sqlite"):
            if not path.exists():
                found = f"its {path.relative_to(self.folder)} is gone"
                raise UsageError(f"the study {self.folder}", found, "run the search again")
        trial = self._trial(id)
        program = Program.load(work / "program")
        artifact = self._artifact(trial)
        with Builder(work) as builder:
            vectors = (work / INPUTS, self.folder / str(trial.outputs))
            assert trial.proof
            proof, host, facts = trial.proof, self._proven_on(), None
            runtime = self.document["host"]["runtimes"][trial.candidate.target]
            if cost:
                matrix = cost if isinstance(cost, Costs) else read_costs(Path(cost), program.labels)
                prover = Prover(program, work / "proof", self.document["max_drop"])
                made = decide(prover, builder.folder, artifact, (trial.proof["settings"], vectors[1]), matrix)
                artifact, proof, facts = made.artifact, made.proof.to_dict(), made.facts
                vectors = (vectors[0], made.proof.outputs or vectors[1])
                host, runtime = host_identity(), None
            return pack(
                out,
                program,
                artifact,
                proof,
                vectors,
                host,
                measurements=self._measurements(id),
                names=names_file(builder, artifact),
                runtime=runtime,
                decision=facts,
            )

    def _proven_on(self) -> dict[str, Any]:
        """The machine of the search, which need not be this one."""
        host = self.document["host"]
        system, _, machine = host["os"].rpartition(" ")
        return {"cpu": host["cpu"], "flags": host["flags"], "os": system, "machine": machine}

    def _artifact(self, trial: Trial) -> Artifact:
        """The very files that were proven, with the recipe that the search wrote down."""
        path = self.folder / str(trial.artifact)
        if not trial.recipe or files_id(model_files(path)) != trial.artifact_id:
            found = (
                f"{trial.artifact} is gone, or not what was proven there: made again by other tools or on another CPU"
            )
            raise UsageError(f"the study {self.folder}", found, "run the search again with --overwrite")
        return Artifact(
            trial.candidate.target,
            path,
            Recipe(**trial.recipe),
            trial.route or [],
            trial.lost or [],
            str(trial.artifact_id),
        )

    def _trial(self, id: str) -> Trial:
        store = Store(self.folder / "facts.sqlite")
        try:
            return Trials(store, self.document["key"]).all()[id]
        finally:
            store.close()

    def _measurements(self, id: str) -> dict[str, Any]:
        facts = self.candidate(id)
        device = facts.get("device", LOCAL)
        keys = ("latency_ms", "latency_low_ms", "latency_high_ms", "launches", "load_ms")
        return {
            "schema": "seatrial.measurements/1",
            "created": self.document["created"],
            "host": self.document["host"],
            "device": {"name": device, **self.document.get("devices", {}).get(device, {})},
            **{key: facts[key] for key in keys},
            "comparisons": [c for c in self.document["comparisons"] if id in (c["a"], c["b"])],
        }


def _document(found: Findings, program: Program, facts: dict[str, Any]) -> dict[str, Any]:
    identity = host_facts()["identity"]
    targets = list(dict.fromkeys(t.candidate.target for t in found.trials.values()))
    rows = sorted(
        (found.facts(t) for t in found.trials.values()),
        key=lambda c: (c["latency_ms"] is None, c["status"] != "ok", c["latency_ms"] or 0.0),
    )
    data = {use: {k: v[k] for k in ("name", "id", "n")} for use, v in program.data.items()}
    references = [t.proof["accuracy"]["reference"] for t in found.trials.values() if t.proof and t.proof["accuracy"]]
    winners, places = found.winners, dict.fromkeys(t.candidate.place for t in found.trials.values())
    return {
        "schema": SCHEMA,
        "key": facts["key"],
        "title": facts["title"],
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": facts["command"],
        "host": {
            "cpu": identity["cpu"],
            "cores": identity["cores"],
            "flags": identity["flags"],
            "os": f"{identity['os']} {identity['machine']}",
            "runtimes": {name: get(name).version() for name in targets},
        },
        "source": {"name": program.name, "id": program.source_id},
        "data": {use: data.get(use) for use in ("calibration", "held_out", "evaluate", "confirm")},
        "max_drop": facts["max_drop"],
        "reference_accuracy": references[0] if references else None,
        "candidates": [{**row, "confirmed_accuracy": facts["confirmed"].get(row["id"])} for row in rows],
        "chosen": {
            "overall": winners.get("best"),
            "per_target": {place: {"id": winners[place], "bundle": place} for place in places if place in winners},
        },
        "comparisons": [_comparison(found, each) for each in found.comparisons()],
        "notes": _notes(found, program, facts["max_drop"]),
        "cost": {"seconds": facts["seconds"]},
        **facts.get("more", {}),
    }


def _comparison(found: Findings, each: Any) -> dict[str, Any]:
    """Time of the best (a) over time of a default (b)."""
    a, b = (found.trials[x].candidate.label for x in (each.b, each.a))
    span = f"{each.ratio:.3f} [{each.low:.3f}, {each.high:.3f}]"
    word = "faster" if each.high < 1 else ("slower" if each.low > 1 else "not decided")
    text = f"{a} takes {span} × the time of {b}: {word}"
    return {"a": each.b, "b": each.a, "ratio": each.ratio, "low": each.low, "high": each.high, "text": text}


def _notes(found: Findings, program: Program, max_drop: float) -> list[str]:
    notes = []
    evaluated = program.data.get("evaluate", {})
    if not evaluated.get("labels"):
        notes.append("accuracy not verified: no labelled data given")
    elif not program.classes:
        notes.append("accuracy not verified: the model declares no classes (get_labels)")
    elif evaluated["n"] * max_drop < 1:
        notes.append(f"n = {evaluated['n']} can't resolve a drop of {max_drop:g}: SQNR and agreement decide")
    if "confirm" not in program.data:
        notes.append("accuracy was not confirmed on other data: no --confirm given")
    notes.append("latencies are valid for this machine and session; run `seatrial bench` on the device that counts")
    best = found.winners.get("best")
    others = found.comparisons()
    if best and others:
        nearest = max(others, key=lambda each: each.ratio)
        label = found.trials[nearest.a].candidate.label
        if best in found.defaults:
            notes.append("no gain over the defaults: the fastest candidate is itself a default")
        elif nearest.high >= 1:
            notes.append(f"no proven gain over the best default ({label})")
    return notes
