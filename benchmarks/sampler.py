"""Samplers on NAS-Bench-Graph's tables, where the truth is known: `make bench-sampler`. An hour in all; goes on.

59,040 candidates (a graph's shape and four operations) of 26,206 architectures, each with accuracy, latency and number
of parameters. Cora and photo are for tuning; arxiv and cs are reported, with seeds that nothing was tuned on; in
brackets stands the mean of all four. Each run is a line of `runs.jsonl`, kept with the id of the samplers' code;
`--minutes` ends after the run under way, the same command goes on.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import pickle
import statistics
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from common import heading
from nas_bench_graph import architecture
from seatrial.core.ids import files_id
from seatrial.search import samplers
from seatrial.search.samplers import improve, make
from seatrial.search.space import Space

ROOT = Path(__file__).resolve().parent.parent
OURS = "model"
RIVALS = ("random", "nsga2", "tpe", "tpe-independent")
REPORTED, TUNED = ("arxiv", "cs"), ("cora", "photo")
MARKS = (25, 50, 100, 200)
FIRST_SEED = 1000
LOOK_UPS, NOISE = 10, 0.1
OPS = architecture.gnn_list
SPACE = Space.from_dict(
    {"shape": {"choices": architecture.link_list}, **{f"op{i}": OPS for i in range(1, 5)}},
    [{"if": {f"op{i}": "skip" for i in range(1, 5)}, "reason": "nothing is computed"}],
)
VARIANTS: dict[str, dict[str, Any]] = {
    "coupled": {"marks": MARKS},
    "decoupled": {"marks": MARKS},
    "noise": {"marks": MARKS},
    "three": {"marks": (50, 100)},
    "constrained": {"marks": (50, 100)},
}
BARS = {("coupled", 100): 0.90, ("coupled", 200): 0.95, ("decoupled", 25): 0.78, ("decoupled", 50): 0.86}


class Numbers(pickle.Unpickler):
    """Reads numbers and nothing else: a pickle is code."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("numpy", "dtype"):
            return np.dtype
        if name == "scalar" and module in ("numpy._core.multiarray", "numpy.core.multiarray"):
            return type(np.float64(0)).__reduce__(np.float64(0))[0]
        raise pickle.UnpicklingError(f"{module}.{name}")


@cache
def keys() -> dict[tuple[Any, ...], int]:
    """The architecture of every candidate."""
    found = {}
    for values in SPACE.all():
        shape, *ops = values.values()
        found[(tuple(shape), *ops)] = architecture.Arch(shape[:], ops[:]).valid_hash()
    return found


def key(values: dict[str, Any]) -> str:
    return str(keys()[(tuple(values["shape"]), *(values[f"op{i}"] for i in range(1, 5)))])


class Table:
    """One data set: costs of every architecture, and what of the best is reached."""

    def __init__(self, task: str) -> None:
        with (Path(architecture.__file__).parent / "light" / f"{task}.bench").open("rb") as file:
            rows = Numbers(file).load()
        self.costs = {
            str(id): {
                "error": 1 - float(x["valid_perf"]),
                "latency": float(x["latency"]),
                "parameters": float(x["para"]),
            }
            for id, x in rows.items()
        }
        every = self.points([str(id) for id in keys().values()], 3)  # the box is over all candidates
        self.low = every.min(axis=0)
        self.high = np.array([np.median(every[:, 0]), *np.quantile(every[:, 1:], 0.9, axis=0)])
        self.full = {m: volume(every[:, :m], self.low[:m], self.high[:m]) for m in (2, 3)}
        self.bound = float(np.exp(np.quantile(every[:, 1], 0.3)))
        self.best = min(x["error"] for x in self.costs.values() if x["latency"] <= self.bound)

    def points(self, ids: Sequence[str], m: int) -> np.ndarray:
        rows = [self.costs[id] for id in ids]
        return np.array([[x["error"], math.log(x["latency"]), math.log(x["parameters"])][:m] for x in rows])

    def reached(self, variant: str, ids: Sequence[str]) -> float:
        """Normalised hypervolume; of a constrained run, how much accuracy is missed, in points of a percent."""
        if variant == "constrained":
            errors = [x["error"] for x in (self.costs[id] for id in ids) if x["latency"] <= self.bound]
            return 100 * (min(errors, default=1.0) - self.best)
        m = 3 if variant == "three" else 2
        return volume(self.points(ids, m), self.low[:m], self.high[:m]) / self.full[m]


def volume(points: np.ndarray, low: np.ndarray, high: np.ndarray) -> float:
    """The share of the box that some point dominates."""
    scaled = (points - low) / (high - low)
    scaled = improve.front(scaled[(scaled < 1).all(axis=1)])
    if scaled.shape[1] == 1:
        return float(1 - scaled.min()) if len(scaled) else 0.0
    ends = [*np.unique(scaled[:, -1]), 1.0]
    unit = np.zeros(scaled.shape[1] - 1)
    slabs = [(high - low, scaled[scaled[:, -1] <= low][:, :-1]) for low, high in itertools.pairwise(ends)]
    return sum(height * volume(part, unit, unit + 1) for height, part in slabs)


def sampler(name: str, variant: str, table: Table, seed: int) -> samplers.Sampler:
    options: dict[str, Any] = {"key": key, "seed": seed, "log": ("latency",)}
    if variant == "constrained":
        return make(SPACE, ["error"], name, bounds={"latency": table.bound}, **options)
    if variant == "three":
        return make(SPACE, ["error", "latency", "parameters"], name, **options | {"log": ("latency", "parameters")})
    return make(SPACE, ["error", "latency"], name, **options, cheap=["latency"] if variant == "decoupled" else [])


def run(name: str, variant: str, table: Table, seed: int) -> dict[int, float]:
    """What is reached after so many evaluations."""
    made, rng = sampler(name, variant, table, seed), np.random.default_rng(seed)
    seen: list[str] = []
    marks = VARIANTS[variant]["marks"]
    while len(seen) < marks[-1]:
        for values in made.propose(LOOK_UPS) if variant == "decoupled" else []:
            made.tell(values, {"latency": table.costs[key(values)]["latency"]})
        values = made.ask()
        if values is None:
            break
        seen.append(key(values))
        costs = {k: v for k, v in table.costs[seen[-1]].items() if k in made.names}
        errors = {}
        if variant == "noise":
            costs["latency"] *= math.exp(NOISE * rng.normal())
            errors["latency"] = NOISE * costs["latency"]
        made.tell(values, costs, errors)
    return {mark: round(table.reached(variant, seen[:mark]), 4) for mark in marks}


def milliseconds(name: str, table: Table, told: int) -> float:
    """Median processor time of a suggestion, with the telling, after so many were told at random."""
    made, rng = sampler(name, "coupled", table, 0), np.random.default_rng(0)
    while len(made.known) < told:
        values = SPACE.sample(rng)
        if key(values) not in made.known:
            made.tell(values, {k: v for k, v in table.costs[key(values)].items() if k in made.names})
    times = []
    for _ in range(40 if told < 1000 else 10):
        began = time.process_time()
        values = made.ask()
        made.tell(values, {k: v for k, v in table.costs[key(values)].items() if k in made.names})
        times.append(1000 * (time.process_time() - began))
    return round(statistics.mean(times[1:]), 1)  # a mean: now and then a suggestion learns the weights anew


def jobs(tasks: Sequence[str], seeds: int) -> Iterator[tuple[str, str, str, int]]:
    """Ours and random before the slow ones, what is reported before what was tuned on, few seeds before many.

    Optuna's take whole results only, so looking up first is left to random and to ours.
    """
    for name, told in itertools.product((OURS, *RIVALS), (200, 2000)):
        if name == OURS or told == 200:
            yield "ms", name, tasks[0], told
    reported, tuned = [x for x in tasks if x not in TUNED], [x for x in tasks if x in TUNED]
    quick, slow, few = (OURS, "random"), RIVALS[1:], min(5, seeds)
    for group, names, some in (
        (reported, quick, range(seeds)),
        (reported, slow, range(few)),
        (tuned, quick, range(seeds)),
        (reported, slow, range(few, seeds)),
        (tuned, slow, range(seeds)),
    ):
        for name, variant, seed, task in itertools.product(names, VARIANTS, some, group):
            if variant != "decoupled" or name in quick:
                yield variant, name, task, FIRST_SEED + seed


def work(path: Path, tasks: Sequence[str], seeds: int, minutes: float) -> list[dict[str, Any]]:
    """All runs that are there or can be made in time."""
    code = files_id([*sorted((ROOT / "search" / "samplers").glob("*.py")), Path(__file__)])
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    done = {tuple(x["job"]): x for x in lines if x["code"] == code}
    ends = time.monotonic() + 60 * minutes
    tables: dict[str, Table] = {}
    for job in jobs(tasks, seeds):
        if job in done or time.monotonic() > ends:
            continue
        variant, name, task, seed = job
        if task not in tables:
            tables[task] = Table(task)
        table = tables[task]
        found = milliseconds(name, table, seed) if variant == "ms" else run(name, variant, table, seed)
        done[job] = {"job": job, "code": code, "found": found}
        with path.open("a") as file:
            file.write(json.dumps(done[job]) + "\n")
    return [done[job] for job in jobs(tasks, seeds) if job in done]


def cell(found: Sequence[dict[str, Any]], tasks: Sequence[str], mark: int) -> tuple[float, int] | None:
    """The mean of the tasks' medians, and the fewest seeds among them."""
    values = [[x["found"][str(mark)] for x in found if x["job"][2] == task] for task in tasks]
    return (statistics.mean(statistics.median(v) for v in values), min(map(len, values))) if all(values) else None


Cell = tuple[float, int] | None


def row(name: str, variant: str, cells: Sequence[tuple[Cell, Cell]], beside: str) -> str:
    """One sampler's line: what is reported, its bar, and the mean of all tasks in brackets."""
    texts = []
    for mark, (found, every) in zip(VARIANTS[variant]["marks"], cells, strict=True):
        text = f"{found[0]:.3f}" if found else ""
        bar = BARS.get((variant, mark)) if name == OURS and found else None
        if bar and found:
            text += f", bar {bar:.2f} {'reached' if found[0] >= bar else 'NOT reached'}"
        texts.append(text + (f" ({every[0]:.3f})" if every and beside else ""))
    seeds = [min((c[i][1] for c in cells if c[i]), default=0) for i in (0, 1)]
    return f"| {name} | {' | '.join(texts)} | {seeds[0]}{f' ({seeds[1]})' if beside else ''} |"


def tables(done: Sequence[dict[str, Any]], tasks: Sequence[str]) -> Iterator[str]:
    """Markdown."""
    done = json.loads(json.dumps(done))
    reported = [task for task in tasks if task in REPORTED] or tasks
    for variant, about in VARIANTS.items():
        of = [x for x in done if x["job"][0] == variant]
        names = list(dict.fromkeys(x["job"][1] for x in of))
        beside = f" ({', '.join(tasks)})" if len(tasks) > len(reported) else ""
        head = " | ".join([f"@{mark}" for mark in about["marks"]] + ["seeds"])
        yield f"\n### {variant}: {', '.join(reported)}{beside}\n\n| sampler | {head} |"
        yield "|---" * (len(about["marks"]) + 2) + "|"
        for name in names:
            mine = [x for x in of if x["job"][1] == name]
            yield row(name, variant, [(cell(mine, reported, m), cell(mine, tasks, m)) for m in about["marks"]], beside)
    yield "\n### Processor time of a suggestion\n\n| sampler | told | ms |\n|---|---|---|"
    for x in done:
        if x["job"][0] == "ms":
            yield f"| {x['job'][1]} | {x['job'][3]:,} | {x['found']} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=600)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--tasks", default=",".join(REPORTED + TUNED), help="cora,photo to tune")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench-sampler" / "runs.jsonl")
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    tasks = options.tasks.split(",")
    done = work(options.out, tasks, options.seeds, options.minutes)
    print(heading("Samplers on NAS-Bench-Graph", "make bench-sampler", ("nas-bench-graph", "optuna", "scipy", "numpy")))
    print("\n".join(tables(done, tasks)))


if __name__ == "__main__":
    main()
