"""A study on disk: read again, chosen from again, packed again; nothing is measured here."""

from __future__ import annotations

import json
import operator
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..core.bundle import Bundle
from ..core.errors import CheckFailed, UsageError
from ..core.ids import files_id
from ..core.paths import check_free, writing
from ..devices.facts import host_facts
from ..devices.store import Store
from ..exporter.artifact import Artifact, model_files
from ..exporter.build import Builder
from ..exporter.make import names_file
from ..exporter.pack import pack
from ..exporter.program import Program
from ..exporter.quantize import Recipe
from ..targets import get
from .findings import Findings
from .report import render
from .trials import Trial, Trials

SCHEMA = "seatrial.study/1"
FILE = "study.json"
OBJECTIVES = ("latency_ms", "accuracy", "agreement", "sqnr_db", "size_bytes", "load_ms", "threads")
_NEEDS = {
    "accuracy": "give a search of a declared classifier labelled data by --evaluate, or ",
    "agreement": "give a search of a declared classifier real samples, or ",
}
_TESTS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
    "==": operator.eq,
}


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
        document = _document(found, program, facts)
        with writing(f"the study {folder}"):
            for name, text in ((FILE, json.dumps(document, indent=1)), ("report.html", render(document))):
                part = folder / f"{name}.part"
                part.write_text(text)
                part.replace(folder / name)
        return cls(folder, document)

    @property
    def candidates(self) -> list[dict[str, Any]]:
        """Facts of every candidate, the fastest first."""
        found: list[dict[str, Any]] = self.document["candidates"]
        return found

    @property
    def winners(self) -> dict[str, str]:
        """``best`` and each target's name → id of the chosen candidate."""
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
    ) -> dict[str, Any]:
        """The feasible candidate that is best by one objective under bounds, from stored facts alone.

        Args:
            subject_to: bounds such as ``latency_ms <= 5``.
            maximize: an objective; or
            minimize: an objective; ``latency_ms`` where neither is given. Ties go to the faster one.
            targets: only these.

        Raises:
            UsageError: a bound that can't be read, or an unknown objective.
            CheckFailed: nobody meets the bounds; the nearest is named.
        """
        if maximize and minimize:
            raise UsageError("--maximize with --minimize", "one objective decides", "bound the other by --subject-to")
        bounds = [_bound(text) for text in subject_to]
        name, sign = (maximize, -1) if maximize else (minimize or "latency_ms", 1)
        _known(name)
        self._check_targets(targets)
        able = [c for c in self.candidates if c["status"] == "ok" and c["latency_ms"] is not None]
        able = [c for c in able if not targets or c["target"] in targets]
        fits = [c for c in able if all(test(_value(c, key), limit) for key, test, limit, _ in bounds)]
        usable = [c for c in fits if _value(c, name) is not None]
        if not usable:
            asked = f"the {'highest' if maximize else 'lowest'} {name}"
            asked += f" where {' and '.join(subject_to)}" if subject_to else ""
            if not able:
                found = f"no candidate{' for ' + ', '.join(targets) if targets else ''} was proven and timed"
                raise CheckFailed(asked, found, f"`seatrial study show {self.folder}` says why of each")
            raise CheckFailed(asked, *_nearest(able, bounds, name))
        return min(usable, key=lambda c: (sign * float(_value(c, name) or 0), c["latency_ms"]))

    def _check_targets(self, targets: Sequence[str]) -> None:
        tried = list(dict.fromkeys(c["target"] for c in self.candidates))
        for name in targets:
            if name not in tried:
                raise UsageError(f"target {name!r}", "this study did not try it", f"it tried: {', '.join(tried)}")

    def pack(self, id: str, out: Path, overwrite: bool = False) -> Bundle:
        """Pack a candidate of this study; its file, proof and measurements are as the search left them.

        Raises:
            UsageError: the output exists, or holds the study; or the study's work folder is gone or has changed.
        """
        check_free(out, overwrite)
        if self.folder.resolve().is_relative_to(out.resolve()):
            raise UsageError(f"the output {out}", "it holds the study itself", "choose another -o")
        for name in ("work/program", "facts.sqlite"):
            if not (self.folder / name).exists():
                raise UsageError(f"the study {self.folder}", f"its {name} is gone", "run the search again")
        trial = self._trial(id)
        program = Program.load(self.folder / "work" / "program")
        artifact = self._artifact(trial)
        with Builder(self.folder / "work") as builder:
            vectors = (self.folder / "work/proof/inputs.npz", self.folder / str(trial.outputs))
            assert trial.proof
            return pack(
                out,
                program,
                artifact,
                trial.proof,
                vectors,
                self._proven_on(),
                measurements=self._measurements(id),
                names=names_file(builder, artifact),
                runtime=self.document["host"]["runtimes"][trial.candidate.target],
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
        keys = ("latency_ms", "latency_low_ms", "latency_high_ms", "launches", "load_ms")
        return {
            "schema": "seatrial.measurements/1",
            "created": self.document["created"],
            "host": self.document["host"],
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
    winners = found.winners
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
            "per_target": {t: {"id": winners[t], "bundle": t} for t in targets if t in winners},
        },
        "comparisons": [_comparison(found, each) for each in found.comparisons()],
        "notes": _notes(found, program, facts["max_drop"]),
        "cost": {"seconds": facts["seconds"]},
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


def _bound(text: str) -> tuple[str, Callable[[Any, float], bool], float, str]:
    match = re.fullmatch(r"\s*(\w+)\s*(<=|>=|==|<|>)\s*([-+.\deE]+)\s*", text)
    if not match:
        raise UsageError(f"--subject-to {text!r}", "it can't be read", 'write "latency_ms <= 5"')
    name, sign, number = match.groups()
    _known(name)
    try:
        limit = float(number)
    except ValueError:
        raise UsageError(f"--subject-to {text!r}", f"{number!r} is no number", 'write "latency_ms <= 5"') from None
    test = _TESTS[sign]
    return name, lambda value, limit: value is not None and test(value, limit), limit, sign


def _known(name: str) -> None:
    if name not in OBJECTIVES:
        raise UsageError(f"objective {name!r}", "no such objective", f"known: {', '.join(OBJECTIVES)}")


def _value(candidate: dict[str, Any], name: str) -> float | None:
    value = candidate["settings"].get("threads") if name == "threads" else candidate[name]
    return None if value is None else float(value)


def _nearest(able: Sequence[dict[str, Any]], bounds: Sequence[Any], name: str) -> tuple[str, str]:
    """What was found, and what to do, where nobody meets the bounds."""
    for key in (*(bound[0] for bound in bounds), name):
        if not any(_value(c, key) is not None for c in able):
            return f"no candidate has {key}", f"{_NEEDS.get(key, '')}choose another objective"
    for key, test, limit, sign in bounds:
        values = [v for c in able if (v := _value(c, key)) is not None]
        if not any(test(v, limit) for v in values):
            near = min(values, key=lambda v: abs(v - limit))
            return f"nobody has {key} {sign} {limit:g}; the nearest has {near:.4g}", "loosen that bound"
    return "each bound is met by somebody, all together by nobody", "loosen one of them"
