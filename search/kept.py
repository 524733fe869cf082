"""Objectives that were added to a study, and each candidate's score, in tables of the facts store."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from ..core.errors import UsageError
from ..devices.store import Store, metadata
from .objectives import Objective

objectives = sa.Table(
    "objectives",
    metadata,
    sa.Column("study", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("data", sa.Text, nullable=False),  # JSON of an Objective
)
scores = sa.Table(
    "scores",
    metadata,
    sa.Column("study", sa.String(64), primary_key=True),
    sa.Column("objective", sa.String(64), primary_key=True),
    sa.Column("candidate", sa.String(64), primary_key=True),
    sa.Column("data", sa.Text, nullable=False),  # JSON
)


class Kept:
    """The added objectives of one study in a store."""

    def __init__(self, store: Store, study: str) -> None:
        self.store, self.study = store, study
        store.create([objectives, scores])

    def add(self, objective: Objective) -> None:
        """Keep an objective; the same one again stays.

        Raises:
            UsageError: another one has that name.
        """
        row = {"study": self.study, "name": objective.name, "data": json.dumps(asdict(objective))}
        self.store.put(objectives, [row])
        held = self.all()[objective.name]
        if (held.id, held.direction, held.targets) != (objective.id, objective.direction, objective.targets):
            found = f"the study has one of that name: {held.text}"
            raise UsageError(f"the objective {objective.name!r}", found, "choose another name")

    def all(self) -> dict[str, Objective]:
        """By name, in the order of their names."""
        query = sa.select(objectives.c.data).where(objectives.c.study == self.study).order_by(objectives.c.name)
        rows = [json.loads(data) for (data,) in self.store.ask(query)]
        return {row["name"]: Objective.from_dict(row) for row in rows}

    def score(self, objective: str, found: dict[str, dict[str, Any]]) -> None:
        """Keep what was found of candidates under an objective's id; what is there stays."""
        rows = [
            {"study": self.study, "objective": objective, "candidate": candidate, "data": json.dumps(data)}
            for candidate, data in found.items()
        ]
        self.store.put(scores, rows)

    def scores(self, objective: str) -> dict[str, dict[str, Any]]:
        """What is known under an objective's id, by candidate."""
        query = sa.select(scores.c.candidate, scores.c.data)
        query = query.where(scores.c.study == self.study, scores.c.objective == objective)
        return {candidate: json.loads(data) for candidate, data in self.store.ask(query)}
