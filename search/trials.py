"""What is known of each candidate, in tables of the facts store; written as it comes, never twice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from ..devices.launches import ArmRun, Launch
from ..devices.store import Store, insert_once, metadata
from .candidate import Candidate

trials = sa.Table(
    "trials",
    metadata,
    sa.Column("study", sa.String(64), primary_key=True),
    sa.Column("candidate", sa.String(64), primary_key=True),
    sa.Column("data", sa.Text, nullable=False),  # JSON of a Trial
)


@dataclass(frozen=True)
class Trial:
    """One candidate, made and proven, or why not. Latency is a view over the store's measurements.

    Attributes:
        candidate: what was tried.
        status: ``ok``, ``infeasible`` (it runs, and a check said no) or ``failed``.
        reason: why it isn't ok.
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
        store.create([trials])

    def add(self, trial: Trial) -> None:
        """Keep a trial; one that is there already stays."""
        data = json.dumps(asdict(trial))
        with self.store.begin() as connection:
            row = {"study": self.study, "candidate": trial.id, "data": data}
            connection.execute(insert_once(self.store.engine, trials).values(**row))

    def forget_failed(self) -> None:
        """Drop the trials that failed, so that they are tried again; what is infeasible stays."""
        failed = [id for id, trial in self.all().items() if trial.status == "failed"]
        gone = sa.and_(trials.c.study == self.study, trials.c.candidate.in_(failed))
        with self.store.begin() as connection:
            connection.execute(sa.delete(trials).where(gone))

    def all(self, ids: Sequence[str] | None = None) -> dict[str, Trial]:
        """All trials by candidate id, or those of these ids."""
        query = sa.select(trials.c.data).where(trials.c.study == self.study)
        query = query if ids is None else query.where(trials.c.candidate.in_(ids))
        with self.store.begin() as connection:
            rows = [json.loads(data) for (data,) in connection.execute(query)]
        found = [_trial(row) for row in rows]
        return {trial.id: trial for trial in found}

    def launches(self, stage: str) -> list[Launch]:
        """The stored launches of a stage, oldest first."""
        launches: dict[tuple[str, int], Launch] = {}
        for row in self.store.sessions(self.session(stage).partition("@")[0]):
            samples = row["samples"]
            blank = Launch(row["launch"], samples["seed"], samples["order"], {}, row["created"])
            launch = launches.setdefault((row["session"], row["launch"]), blank)
            launch.arms[row["arm"]] = ArmRun(**samples["run"])
        return [launches[key] for key in sorted(launches)]

    def session(self, stage: str) -> str:
        """The session that a stage's launches are stored under."""
        return f"{self.study}-{stage}@{self.host}" if self.host else f"{self.study}-{stage}"


def _trial(row: dict[str, Any]) -> Trial:
    candidate = row["candidate"]
    settings = dict(candidate["settings"])
    made = Candidate.of(candidate["target"], candidate["precision"], settings, candidate.get("model", ""))
    return Trial(**{**row, "candidate": made})


def work_of(model: str) -> str:
    """Where a model's files lie within a study's folder."""
    return f"work/models/{model}" if model else "work"


def relative(path: Path, folder: Path) -> str:
    """A path within a study's folder, so that the folder may be moved."""
    return str(path.resolve().relative_to(folder.resolve()))


def feasible(found: Sequence[Trial]) -> list[Trial]:
    """Those that may be chosen."""
    return [trial for trial in found if trial.status == "ok"]
