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
import statistics
import time
from collections.abc import Callable, Mapping
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


def watched(marks: Path) -> Callable[[str], None]:
    """Prints progress, and keeps when each model was there."""
    begun = time.monotonic()

    def say(text: str) -> None:
        print(f"{time.monotonic() - begun:6.0f} s  {text}", flush=True)
        if text.startswith("model ") and ", for " not in text:
            with marks.open("a") as file:
                file.write(json.dumps(time.monotonic() - begun) + "\n")

    return say


def searched(name: str, file: Path) -> tuple[Study, list[float]]:
    """A search and the seconds after which each of its models was there, by the run that evaluated them all."""
    folder, marks = OUT / name, OUT / f"{name}.jsonl"
    if not (folder / "study.json").exists():
        marks.unlink(missing_ok=True)
        explore(file, output=folder, effort={"evaluations": MODELS}, say=watched(marks), command="make bench-again")
    return Study.read(folder), [json.loads(line) for line in marks.read_text().splitlines()]


def points(study: Study, most: int | None = None) -> list[Point]:
    """Deployments of the first models of a study that have a cost."""
    models = [key for key in study.document["models"] if not key.endswith("-tuned")][:most]
    costs = study.estimates("missed")
    rows = [c for c in study.candidates if c["model"] in models and c["id"] in costs and c["latency_ms"]]
    return [(c["target"], costs[c["id"]].value, math.log(c["latency_ms"])) for c in rows]


def volume(some: list[Point], box: Mapping[str, tuple[float, float, float, float]]) -> float:
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


def main() -> None:
    """Search, add, search from scratch, compare."""
    costs = matrix(OUT / "costs.csv")
    first, _ = searched("first", DIGITS)
    begun = time.monotonic()
    added = first.add_objective("missed", cost=costs)
    spent = time.monotonic() - begun
    if (OUT / "spent.json").exists():  # a later run finds it there, and takes no time
        spent = json.loads((OUT / "spent.json").read_text())
    (OUT / "spent.json").write_text(json.dumps(spent))
    scratch, marks = searched("scratch", from_scratch(costs))
    everything = points(first) + points(scratch)
    targets = sorted({t for t, _, _ in everything})
    box = {}
    for target in targets:
        x, y = zip(*[(x, y) for t, x, y in everything if t == target], strict=True)
        box[target] = (min(x), max(x), min(y), max(y))
    again, own = volume(points(first), box), held_out(first, targets)
    print(heading("An objective that comes later", "make bench-again"))
    print("| | seconds | models trained for it | models evaluated for it | hypervolume of (cost, log latency) |")
    print("|---|---|---|---|---|")
    print(f"| added to the finished study | {spent:.1f} | {added.retrainings} | 0 | {again:.3f} |")
    for times, words in ((1, "from scratch, the same time"), (10, "from scratch, ten times as long")):
        count = sum(mark <= times * spent for mark in marks)
        value = volume(points(scratch, count), box) if count else 0.0
        print(f"| {words} | {times * spent:.1f} | begun | {count} | {value:.3f} |")
    for count in (1, MODELS // 2, MODELS):
        value = volume(points(scratch, count), box)
        print(f"| from scratch, {count} models | {marks[count - 1]:.0f} | 7 | {count} | {value:.3f} |")
    print("\nMean cost on 449 examples that nothing was chosen by, with the decision rule:\n")
    print("| target | chosen again | from scratch, all models |")
    print("|---|---|---|")
    other = held_out(scratch, targets)
    for target in targets:
        a, b = own[target], other[target]
        print(f"| {target} | {a.value:.3f} [{a.low:.3f}, {a.high:.3f}] | {b.value:.3f} [{b.low:.3f}, {b.high:.3f}] |")


if __name__ == "__main__":
    main()
