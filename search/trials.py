"""What is known of each candidate, in tables of the facts store; written as it comes, never twice."""

from __future__ import annotations

import json
import statistics
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from ..devices.launches import ArmRun, Launch
from ..devices.stats import block_stat
from ..devices.store import Store, batches, in_session, measurements, metadata
from .candidate import LOCAL, Candidate

trials = sa.Table(
    "trials",
    metadata,
    sa.Column("study", sa.String(64), primary_key=True),
    sa.Column("candidate", sa.String(64), primary_key=True),
    sa.Column("data", sa.Text, nullable=False),  # JSON of a Trial
)
medians = sa.Table(
    "medians",
    metadata,
    sa.Column("measurement", sa.Integer, primary_key=True),  # its id
    sa.Column("session", sa.String(64), nullable=False, index=True),
    sa.Column("launch", sa.Integer, nullable=False),
    sa.Column("arm", sa.String(128), nullable=False),
    sa.Column("status", sa.String(32), nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("created", sa.Float, nullable=False),
    sa.Column("data", sa.Text, nullable=False),  # JSON: ns of each block; derived, so that many launches are read fast
)
AGAIN = ("timeout", "oom", "signal", "missing")
"""Kinds of failures that another run may not have."""


@dataclass(frozen=True)
class Trial:
    """One candidate, made and proven, or why not. Latency is a view over the store's measurements.

    Attributes:
        candidate: what was tried.
        status: ``ok``, ``infeasible`` (it runs, and a check said no) or ``failed``.
        reason: why it isn't ok.
        kind: of a failure: ``error``, ``timeout``, ``oom``, ``signal``, or ``missing``: a part that isn't installed.
        artifact: path of the model's main file within the study's folder.
        artifact_id: content id of its files.
        route: the converters that made it.
        lost: routes that were tried before, each with its reason.
        recipe: how it was made, as data: resolved for the machine of the search.
        outputs: path of its outputs over all samples within the study's folder.
        size_bytes: of all its files.
        proof: the proof's data.
        load_ms: time to open it, once.
    """

    candidate: Candidate
    status: str
    reason: str | None = None
    artifact: str | None = None
    artifact_id: str | None = None
    route: list[str] | None = None
    lost: list[str] | None = None
    recipe: dict[str, Any] | None = None
    outputs: str | None = None
    size_bytes: int | None = None
    proof: dict[str, Any] | None = None
    load_ms: float | None = None
    kind: str | None = None

    @property
    def id(self) -> str:
        """The candidate's."""
        return self.candidate.id

    @property
    def work(self) -> str:
        """Where the files of its model lie within the study's folder."""
        return work_of(self.candidate.model)

    @property
    def agreement(self) -> float | None:
        """Share of equal top-1 classes on real samples."""
        return self.proof["parity"]["agreement"] if self.proof and self.proof["parity"] else None

    @property
    def sqnr_db(self) -> float | None:
        """Lowest SQNR over the main samples."""
        return self.proof["parity"]["sqnr_db"] if self.proof and self.proof["parity"] else None

    @property
    def accuracy(self) -> float | None:
        """Top-1 accuracy on the labelled data."""
        return self.proof["accuracy"]["found"] if self.proof and self.proof["accuracy"] else None


class Trials:
    """The trials and launches of one study in a store.

    Args:
        store: the facts store.
        study: id of the search.
        host: name of this machine, where several may work at the study: each numbers launches of its own.
    """

    def __init__(self, store: Store, study: str, host: str = "") -> None:
        self.store, self.study, self.host = store, study, host
        store.create([trials, medians])

    def add(self, trial: Trial) -> None:
        """Keep a trial; one that is there already stays."""
        data = json.dumps(asdict(trial))
        self.store.put(trials, [{"study": self.study, "candidate": trial.id, "data": data}])

    def forget_failed(self, models: Collection[str] | None = None) -> None:
        """Drop the trials that failed, so that they are tried again; what is infeasible stays.

        Args:
            models: only those of these models.
        """
        if models is not None and not models:
            return
        able = [t for t in self.all().values() if models is None or t.candidate.model in models]
        self.forget([t.id for t in able if t.status == "failed"])

    def failed_again(self) -> dict[str, list[Trial]]:
        """By model the trials with a failure that another run may not have."""
        query = sa.select(trials.c.data).where(trials.c.study == self.study)
        like = sa.or_(*(trials.c.data.contains(json.dumps({"kind": kind})[1:-1]) for kind in AGAIN))
        found: dict[str, list[Trial]] = {}
        for trial in [_trial(json.loads(data)) for (data,) in self.store.ask(query.where(like))]:
            if trial.status == "failed" and trial.kind in AGAIN:
                found.setdefault(trial.candidate.model, []).append(trial)
        return found

    def forget(self, ids: Sequence[str]) -> None:
        """Drop trials, so that they are tried again."""
        for some in batches(ids):
            self.store.write(sa.delete(trials).where(trials.c.study == self.study, trials.c.candidate.in_(some)))

    def all(self, ids: Sequence[str] | None = None) -> dict[str, Trial]:
        """All trials by candidate id, or those of these ids."""
        query = sa.select(trials.c.data).where(trials.c.study == self.study)
        queries = [query] if ids is None else [query.where(trials.c.candidate.in_(some)) for some in batches(ids)]
        found = [_trial(json.loads(data)) for each in queries for (data,) in self.store.ask(each)]
        return {trial.id: trial for trial in found}

    def launches(self, stage: str) -> list[Launch]:
        """The stored launches of a stage, oldest first."""
        return self._launches(self.store.sessions(self._stage(stage)))

    @staticmethod
    def _launches(rows: Sequence[dict[str, Any]]) -> list[Launch]:
        launches: dict[tuple[str, int], Launch] = {}
        for row in rows:
            samples = row["samples"]
            blank = Launch(row["launch"], samples["seed"], samples["order"], {}, row["created"])
            launch = launches.setdefault((row["session"], row["launch"]), blank)
            launch.arms[row["arm"]] = ArmRun(**samples["run"])
        return [launches[key] for key in sorted(launches)]

    def runs(self, stage: str, arms: Sequence[str]) -> list[ArmRun]:
        """The stored runs of some arms in a stage, oldest first."""
        query = sa.select(measurements.c.id).where(in_session(self._stage(stage)))
        ids = [id for some in batches(arms) for (id,) in self.store.ask(query.where(measurements.c.arm.in_(some)))]
        rows = [row for some in batches(sorted(ids)) for row in self.store.find(id=list(some))]
        return [ArmRun(**row["samples"]["run"]) for row in rows]

    def together(self, stage: str, arms: Collection[str]) -> Launch | None:
        """A stored launch in which all of these arms produced."""
        query = sa.select(measurements.c.session, measurements.c.launch).where(in_session(self._stage(stage)))
        query = query.where(measurements.c.arm.in_(arms), measurements.c.status == "ok")
        query = query.group_by(measurements.c.session, measurements.c.launch)
        found = self.store.ask(query.having(sa.func.count() == len(arms)).limit(1))
        return self._launches(self.store.find(session=found[0][0], launch=found[0][1]))[0] if found else None

    def outlines(self, stage: str) -> list[Launch]:
        """As `launches`, where each block has its median for its only sample: what orders thousands of candidates."""
        self.outline(stage)
        query = sa.select(medians).where(in_session(self._stage(stage), medians))
        launches: dict[tuple[str, int], Launch] = {}
        for row in self.store.ask(query.order_by(medians.c.session, medians.c.launch)):
            launch = launches.get((row.session, row.launch))
            if launch is None:
                launch = launches[row.session, row.launch] = Launch(row.launch, "", [], {}, row.created)
            blocks = [[ns] for ns in json.loads(row.data)]
            launch.arms[row.arm] = ArmRun(row.arm, "", row.status, row.reason, blocks=blocks)
        return list(launches.values())

    def outline(self, stage: str) -> None:
        """Write the medians of the launches that have none yet; cheap after each launch, dear after thousands."""
        known = sa.select(medians.c.measurement)
        query = sa.select(measurements.c.id).where(in_session(self._stage(stage)), measurements.c.id.not_in(known))
        for ids in batches([id for (id,) in self.store.ask(query)]):
            self.store.put(medians, [_outline(row) for row in self.store.find(id=list(ids))])

    def first_ms(self, stage: str, arm: str) -> float | None:
        """Median time of one inference in the first launch of a stage in which an arm produced."""
        query = sa.select(measurements.c.id).where(in_session(self._stage(stage)))
        query = query.where(measurements.c.arm == arm, measurements.c.status == "ok").order_by(measurements.c.id)
        for (id,) in self.store.ask(query.limit(1)):
            (row,) = self.store.find(id=[id])
            return block_stat([ns for block in row["samples"]["run"]["blocks"] for ns in block]) / 1e6
        return None

    def _stage(self, stage: str) -> str:
        return self.session(stage).partition("@")[0]

    def session(self, stage: str) -> str:
        """The session that a stage's launches are stored under."""
        return f"{self.study}-{stage}@{self.host}" if self.host else f"{self.study}-{stage}"


def _trial(row: dict[str, Any]) -> Trial:
    candidate = row["candidate"]
    settings = dict(candidate["settings"])
    made = Candidate.of(candidate["target"], candidate["precision"], settings, candidate.get("model", ""))
    restricts = tuple((name, value) for name, value in candidate.get("restricts", ()))
    made = replace(made, device=candidate.get("device", LOCAL), restricts=restricts)
    return Trial(**{**row, "candidate": made})


def _outline(row: dict[str, Any]) -> dict[str, Any]:
    """A row of `medians` for a measurement."""
    same = ("session", "launch", "arm", "status", "reason", "created")
    data = [statistics.median(block) for block in row["samples"]["run"]["blocks"]]
    return {"measurement": row["id"], **{name: row[name] for name in same}, "data": json.dumps(data)}


def work_of(model: str) -> str:
    """Where a model's files lie within a study's folder."""
    return f"work/models/{model}" if model else "work"


def relative(path: Path, folder: Path) -> str:
    """A path within a study's folder, so that the folder may be moved."""
    return str(path.resolve().relative_to(folder.resolve()))


def feasible(found: Sequence[Trial]) -> list[Trial]:
    """Those that may be chosen."""
    return [trial for trial in found if trial.status == "ok"]
