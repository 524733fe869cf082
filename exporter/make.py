"""Make and prove the artifacts of one program: the routes in turn, the layer to blame where none holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..core.errors import CannotDo, CheckFailed, Interrupted, SeatrialError
from ..core.paths import writing
from ..targets import require
from .artifact import Artifact
from .build import Builder, route_label
from .convert import STEPS
from .decision import decide, read_costs
from .program import Program
from .proof import layers
from .proof.layers import Depth
from .proof.prove import Proof, Prover
from .report import failure


@dataclass(frozen=True)
class Made:
    """An artifact that passed its proof, or was let through."""

    artifact: Artifact
    proof: Proof
    prover: Prover
    program: Program
    names: Path | None
    depth: Depth | None = None
    decision: dict[str, Any] | None = None


@dataclass(frozen=True)
class Exporter:
    """Makes and proves the artifacts of one program."""

    builder: Builder
    prover: Prover
    program: Program
    threads: int
    allow_mismatch: bool
    provider: str
    require_placement: float
    explain: bool
    costs: Path | None = None

    def make(self, target: str, precision: str) -> Made:
        """The artifact of the first route whose proof holds.

        Raises:
            CheckFailed: no route's holds; the error tells of the first, which is the usual one.
        """
        lost: list[str] = []
        first: CheckFailed | None = None
        while True:
            try:
                base = self.builder.convert(self.program, target, lost)
            except CannotDo:
                if first is None:
                    raise
                raise first from None
            artifact = self.builder.derive(self.program, base, precision)
            proof = self._prove(artifact)
            if proof.ok or (self.allow_mismatch and proof.outputs):
                names = names_file(self.builder, artifact)
                depth = self._explained(artifact, names) if self.explain else None
                return self._decided(Made(artifact, proof, self.prover, self.program, names, depth))
            failed = mismatch(self.builder, self.prover, self.program, artifact, base, proof)
            first = first or failed
            # Only another conversion can mend what a conversion broke.
            if "hop: conversion" not in failed.found or not base.route:
                raise first
            lost = [*base.lost, f"{route_label(base.route)}: {failed.found}"]

    def _explained(self, artifact: Artifact, names: Path | None) -> Depth | None:
        """The error along the depth; that it can't be told is no reason not to pack what was proven."""
        try:
            return look(self.builder, self.program, artifact, names)
        except Interrupted:
            raise
        except SeatrialError as error:
            self.builder.say(f"layers were not looked into: {error.found}")
            return None

    def _decided(self, made: Made) -> Made:
        """With its decision rule in the graph, where there is a cost matrix."""
        if self.costs is None:
            return made
        assert made.proof.outputs
        costs = read_costs(self.costs, self.program.labels)
        self.builder.say(f"putting the decision rule behind {made.artifact.target} {made.artifact.precision}")
        proof = (made.proof.settings, made.proof.outputs)
        found = decide(
            self.prover, self.builder.folder, made.artifact, proof, costs, self.builder.limits, self.allow_mismatch
        )
        return replace(made, artifact=found.artifact, proof=found.proof, decision=found.facts)

    def _prove(self, artifact: Artifact) -> Proof:
        target = require(artifact.target)
        settings = target.settings(artifact.precision, self.threads)
        if self.provider:
            settings |= target.on(self.provider)
        proof = self.prover.prove(artifact, [settings])[0]
        share = _share(proof.placement)
        if share < self.require_placement:
            text = (
                f"{proof.placement['asked']} runs {share:.1%} of the nodes, {self.require_placement:.1%} were asked for"
            )
            proof = replace(proof, problems=[*proof.problems, text])
        if proof.error and proof.outputs is None:
            error = proof.error
            error.asked = f"{self.program.name} for {artifact.target}, {artifact.precision}"
            error.found = f"hop: runtime ({artifact.target}); {error.found}"
            error.todo = error.todo or "nothing was packed; try another --target, or look at how it was converted"
            raise error
        return proof


def _share(placement: Mapping[str, Any]) -> float:
    """Of the nodes, those that the provider which was asked for runs."""
    where = placement.get("where", {})
    return float(where.get(placement.get("asked"), 0)) / (sum(where.values()) or 1)


def mismatch(
    builder: Builder, prover: Prover, program: Program, artifact: Artifact, base: Artifact, proof: Proof
) -> CheckFailed:
    """The error for a failed proof: finds the hop and the layer that broke, and writes a report to read."""
    hop = prover.blame(artifact, base, proof, builder.steps(program, base))
    wrong = artifact if hop == "quantization" else base
    where, depth = "", None
    # A runtime whose optimisations are wrong has nothing wrong in the file to look into.
    if not hop.startswith("runtime") and base.route:
        try:
            depth = look(builder, program, wrong, names_file(builder, wrong))
            where = f"layer: {depth.culprit}" if depth.culprit else "no single layer is wrong on the first samples"
        except SeatrialError as error:
            where = f"layers were not looked into: {error.found}"
    page = builder.folder / f"{artifact.target}-{artifact.precision}-report.md"
    with writing(f"the report {page}"):
        page.write_text(failure(program.name, artifact.target, artifact.precision, proof.to_dict(), hop, where, depth))
    asked = f"{program.name} for {artifact.target}, {artifact.precision}"
    found = "; ".join(filter(None, [f"hop: {hop}", where, *proof.problems]))
    return CheckFailed(asked, found, "nothing was packed; --allow-mismatch packs it all the same", str(page))


def look(builder: Builder, program: Program, artifact: Artifact, names: Path | None) -> Depth:
    """The error of an artifact along the depth of its network."""
    builder.say(f"looking into the layers for {artifact.target}")
    return layers.explain(program, artifact, builder.folder / "layers", builder.limits, names)


def names_file(builder: Builder, artifact: Artifact) -> Path | None:
    """``names.json`` of the conversion that knows module paths, where the route had one."""
    for step in STEPS:
        if step.label in artifact.route:
            found = builder.product([step]).parent / "names.json"
            if found.exists():
                return found
    return None
