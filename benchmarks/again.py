"""An objective that comes later, chosen by again or searched for from scratch: `make bench-again`. About 20 minutes.

Networks for digits (examples/search_digits/study.py) are searched by accuracy and latency. Then comes a cost matrix: an
8 that is taken for something else costs 20, any other confusion 1. It is added to the finished study, and a search of
its own is run from scratch for it, whose state is looked at after the same time and after ten times as much. What was
searched is kept in build/bench-again, so the same command goes on where it stopped; the times are those of the run that
did the work.
"""

from __future__ import annotations

import json
import math
import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from common import heading
from seatrial.search.explore import explore
from seatrial.search.fronts import hypervolume
from seatrial.search.study import Study

ROOT = Path(__file__).resolve().parent.parent
OUT = Path("build/bench-again")
DIGITS = ROOT / "examples" / "search_digits" / "study.py"
MODELS = 16
EIGHT, ELSE = 20, 1
Point = tuple[str, float, float]
"""Target, mean cost, log of latency."""
Box = tuple[float, float, float, float]
Said = list[tuple[float, str]]
"""Seconds and the line."""
TRAININGS = ("the shared training", "training candidate")
"""How the lines begin that tell of a training as it starts."""


def matrix(path: Path) -> Path:
    """The cost matrix as CSV."""
    rows = ["true," + ",".join("0123456789")]
    for true in range(10):
        rows.append(
            f"{true}," + ",".join("0" if true == said else str(EIGHT if true == 8 else ELSE) for said in range(10))
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n")
    return path


def from_scratch(costs: Path) -> Path:
    """The same study file with the cost as its first objective."""
    file = OUT / "scratch.py"
    own = [{"name": "missed", "cost": str(costs.resolve())}, "latency_ms"]
    file.write_text(f"{DIGITS.read_text()}\n\nobjectives = {own!r}\n")
    return file


def watched(file: Path) -> Callable[[str], None]:
    """Prints progress, and keeps what was said when."""
    begun = time.monotonic()

    def say(text: str) -> None:
        seconds = time.monotonic() - begun
        print(f"{seconds:6.0f} s  {text}", flush=True)
        with file.open("a") as lines:
            lines.write(json.dumps([seconds, text]) + "\n")

    return say


def searched(name: str, file: Path) -> tuple[Study, Said]:
    """A search and what it said, by the run that evaluated all models."""
    folder, kept = OUT / name, OUT / f"{name}-said.jsonl"
    if not (folder / "study.json").exists():
        kept.unlink(missing_ok=True)
        explore(file, output=folder, effort={"evaluations": MODELS}, say=watched(kept), command="make bench-again")
    if not kept.exists():
        raise SystemExit(f"{kept} is not there: remove {OUT} and begin anew")
    lines = map(json.loads, kept.read_text().splitlines())
    return Study.read(folder), [(seconds, text) for seconds, text in lines]


def models_at(said: Said) -> list[float]:
    """The seconds after which each model was there."""
    return [seconds for seconds, text in said if re.match(r"model \d+ of \d+: ", text)]


def trainings_at(said: Said, until: float) -> int:
    """How many trainings had begun by then."""
    return sum(seconds <= until for seconds, text in said if text.startswith(TRAININGS))


def points(study: Study, most: int | None = None) -> list[Point]:
    """Deployments of the first models of a study that have a cost."""
    models = [key for key in study.document["models"] if not key.endswith("-tuned")][:most]
    costs = study.estimates("missed")
    rows = [c for c in study.candidates if c["model"] in models and c["id"] in costs and c["latency_ms"]]
    return [(c["target"], costs[c["id"]].value, math.log(c["latency_ms"])) for c in rows]


def volume(some: list[Point], box: Mapping[str, Box]) -> float:
    """Normalised hypervolume, the mean of the targets."""
    found = []
    for target, (low, high, fast, slow) in box.items():
        scaled = [((x - low) / (high - low), (y - fast) / (slow - fast)) for t, x, y in some if t == target]
        found.append(hypervolume(scaled, (1.0, 1.0)))
    return statistics.mean(found)


def held_out(study: Study, targets: list[str]) -> dict[str, Any]:
    """For each target the best by cost, and its mean cost on "test" with the decision rule."""
    found = {}
    for target in targets:
        chosen = study.select(minimize="missed", targets=[target])
        found[target] = study.cost_of("missed", chosen["id"])["confirm"]["rule"]
    return found


def box_of(points: list[Point]) -> dict[str, Box]:
    """By target lowest and highest cost, lowest and highest log of latency."""
    found = {}
    for target in sorted({t for t, _, _ in points}):
        x, y = zip(*[(x, y) for t, x, y in points if t == target], strict=True)
        found[target] = (min(x), max(x), min(y), max(y))
    return found


def rows_of_scratch(study: Study, said: Said, spent: float, box: Mapping[str, Box]) -> Iterator[str]:
    """The search from scratch after the time that adding took, after ten times as much, and after some models."""
    models = models_at(said)
    times = [(words, n * spent) for n, words in ((1, "the same time"), (10, "ten times as long"))]
    times += [(f"{n} model{'s' * (n != 1)}", models[n - 1]) for n in (1, len(models) // 2, len(models))]
    for words, seconds in times:
        count = sum(mark <= seconds for mark in models)
        value = volume(points(study, count), box) if count else 0.0
        yield f"| from scratch, {words} | {seconds:.1f} | {trainings_at(said, seconds)} | {count} | {value:.3f} |"


def print_costs(again: Study, scratch: Study, targets: list[str]) -> None:
    """What the best by cost of both studies costs on other examples."""
    own, other = held_out(again, targets), held_out(scratch, targets)
    counts = " or ".join(map(str, sorted({e.n for e in (*own.values(), *other.values())})))
    print(f"\nMean cost on {counts} examples that nothing was chosen by, with the decision rule:\n")
    print("| target | chosen again | from scratch, all models |")
    print("|---|---|---|")
    for target in targets:
        a, b = own[target], other[target]
        print(f"| {target} | {a.value:.3f} [{a.low:.3f}, {a.high:.3f}] | {b.value:.3f} [{b.low:.3f}, {b.high:.3f}] |")


def main() -> None:
    """Search, add, search from scratch, compare."""
    costs = matrix(OUT / "costs.csv")
    first, _ = searched("first", DIGITS)
    before = len(first.document["models"])
    begun = time.monotonic()
    added = first.add_objective("missed", cost=costs)
    spent = time.monotonic() - begun
    evaluated = len(Study.read(first.folder).document["models"]) - before
    if (OUT / "spent.json").exists():  # a later run finds it there, and takes no time
        spent = json.loads((OUT / "spent.json").read_text())
    (OUT / "spent.json").write_text(json.dumps(spent))
    scratch, said = searched("scratch", from_scratch(costs))
    box = box_of(points(first) + points(scratch))
    print(heading("An objective that comes later", "make bench-again"))
    print("| | seconds | trainings begun for it | models evaluated for it | hypervolume of (cost, log latency) |")
    print("|---|---|---|---|---|")
    again = volume(points(first), box)
    print(f"| added to the finished study | {spent:.1f} | {added.retrainings} | {evaluated} | {again:.3f} |")
    for row in rows_of_scratch(scratch, said, spent, box):
        print(row)
    print_costs(first, scratch, list(box))


if __name__ == "__main__":
    main()
