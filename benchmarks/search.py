"""The search over models against uniform scaling and random search: `make bench-search`. An hour in all; goes on.

Networks for Fashion-MNIST (examples/search_fashion/study.py), each trained by itself, deployed for three runtimes in
fp32 and int8, proven and timed. What a model is was found once and is kept in one folder; each run sees only the models
that it asked for itself, so it is what it would be alone. A second process works ahead at what doesn't depend on what
is found, random search and uniform scaling. `--minutes` ends after the model under way; the same command goes on.

A run's hypervolume is that of (error, log latency) for each target, in a box over all that was evaluated by any run:
error from the best to the 90th percentile, latency from the fastest to the slowest. The mean of the targets counts.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from common import heading
from seatrial.exporter.program import Program
from seatrial.exporter.proof.prove import Prover
from seatrial.search.explore import Exploring, opened
from seatrial.search.fronts import hypervolume
from seatrial.search.models import elastic
from seatrial.search.models.fidelity import fidelity
from seatrial.search.roster import UNTRAINED, Roster, Tried
from seatrial.search.trials import Trial

ROOT = Path(__file__).resolve().parent.parent
STUDY = ROOT / "examples" / "search_fashion" / "study.py"
OURS, RANDOM, UNIFORM = "model", "random", "uniform"
NAMES = {OURS: "seatrial", RANDOM: "random search", UNIFORM: "uniform width"}


class Alone(Roster):
    """A run's view of a roster: only what the run asked for itself comes to it, though others found it before."""

    def __init__(self, of: Exploring) -> None:
        super().__init__(of.store, of.key)
        self.asked: dict[str, dict[str, Any]] = {}
        self.told = 0

    @contextmanager
    def claimed(self, model: str, values: dict[str, Any]) -> Iterator[bool]:
        self.asked.setdefault(model, values)
        while True:  # what the other process is at is waited for: to ask for another one would be another run
            with super().claimed(model, values) as mine:
                if mine:
                    yield True
                    return
            time.sleep(1)

    def get(self, model: str) -> Tried | None:
        found = super().get(model)
        return found and replace(found, values=self.asked.get(model, found.values))

    def fresh(self) -> list[Tried]:
        new = list(self.asked)[self.told :]
        self.told = len(self.asked)
        return [found for model in new if (found := self.get(model))]

    def others(self) -> dict[str, dict[str, Any]]:
        return {model: values for model, values in super().others().items() if model in self.asked}

    @property
    def models(self) -> list[str]:
        """In the order in which they were asked for; without looks at untrained ones."""
        return [model for model in self.asked if not model.endswith(UNTRAINED)]


@dataclass(frozen=True)
class Run:
    """Models in the order in which a method asked for them."""

    method: str
    seed: int
    models: list[str]


@dataclass(frozen=True)
class Point:
    """A deployment: error on "valid" and "test", latency in ms."""

    target: str
    precision: str
    error: float
    tested: float
    ms: float


class OutOfTime(Exception):
    """`--minutes` are over."""


def say(begun: float, ends: float) -> Any:
    def line(text: str) -> None:
        print(f"{time.monotonic() - begun:7.0f} s  {text}", flush=True)
        if text.startswith("model ") and ", for " in text and time.monotonic() > ends:
            raise OutOfTime

    return line


def searched(folder: Path, method: str, seed: int, models: int, line: Any) -> Run:
    """A search by its own code, as if its folder were empty: what is known already costs it nothing but is counted."""
    effort = {"evaluations": models, "sampler": method, "seed": seed}
    with opened(STUDY, output=folder, effort=effort, say=line) as exploring:
        exploring.roster = own = Alone(exploring)
        exploring.run()
        return Run(method, seed, own.models)


def uniform(exploring: Exploring) -> list[dict[str, Any]]:
    """The largest network with one factor for all widths, in each resolution."""
    family = exploring.study.family or {}
    largest, space = elastic.extreme(family, True), elastic.space(family)
    widths = [name for name in space if name.startswith("width")]
    every = itertools.product(space["resolution"], space[widths[0]])
    return [largest | {"resolution": size} | dict.fromkeys(widths, width) for size, width in every]


def scaled(folder: Path, line: Any) -> Run:
    """The uniform ones, evaluated."""
    with opened(STUDY, output=folder, say=line) as exploring:
        exploring.roster = own = Alone(exploring)
        exploring.begin()
        for values in uniform(exploring):
            line(f"model of uniform width, for all: {values}")
            exploring.evaluator.evaluate(values)
        return Run(UNIFORM, 0, own.models)


def points(exploring: Exploring, models: Mapping[str, Tried]) -> dict[str, list[Point]]:
    """Of each model its proven and timed deployments."""
    found: dict[str, list[Point]] = {model: [] for model in models}
    for id, trial in exploring.trials.all().items():
        one = models.get(trial.candidate.model)
        if one and id in one.times and trial.accuracy is not None:
            ends = (trial.candidate.target, trial.candidate.precision)
            tested = 1 - _tested(exploring.folder, trial)
            found[one.model].append(Point(*ends, 1 - trial.accuracy, tested, one.times[id]))
    return found


def _tested(folder: Path, trial: Trial) -> float:
    """Accuracy on "test", by which nobody chose."""
    work = folder / trial.work
    kept = folder / str(trial.outputs)
    note = kept.with_suffix(".tested.json")
    if not note.exists():
        found = Prover(Program.load(work / "program"), work / "proof").confirm(kept)
        note.write_text(json.dumps(found.found if found else None))
    return float(json.loads(note.read_text()))


@dataclass(frozen=True)
class Box:
    """Of one target: the ends of error and of log latency."""

    low: tuple[float, float]
    high: tuple[float, float]

    @classmethod
    def of(cls, every: Sequence[Point], tested: bool) -> Box:
        errors, times = [p.tested if tested else p.error for p in every], [math.log(p.ms) for p in every]
        return cls((min(errors), min(times)), (float(np.quantile(errors, 0.9)), max(times)))

    def share(self, some: Sequence[Point], tested: bool) -> float:
        """Of the box, what a front by the error on "valid" dominates; with `tested` by its errors on "test"."""
        size = [high - low for low, high in zip(self.low, self.high, strict=True)]
        ends = [(p.tested if tested else p.error, math.log(p.ms)) for p in front(some)]
        scaled = [tuple((x - low) / d for x, low, d in zip(end, self.low, size, strict=True)) for end in ends]
        return hypervolume([(x, y) for x, y in scaled], (1.0, 1.0))


def front(some: Sequence[Point]) -> list[Point]:
    """Whom nobody surpasses by error on "valid" and latency, the fastest first."""
    found = [p for p in some if not any(q.error <= p.error and q.ms <= p.ms and q != p for q in some)]
    return sorted(found, key=lambda p: p.ms)


def reached(run: Run, first: int, known: Mapping[str, Sequence[Point]], tested: bool = False) -> float:
    """Hypervolume of a run's first models, the mean over targets."""
    every = [p for some in known.values() for p in some]
    shares = []
    for target in sorted({p.target for p in every}):
        box = Box.of([p for p in every if p.target == target], tested)
        some = [p for model in run.models[:first] for p in known[model] if p.target == target]
        shares.append(box.share(some, tested))
    return statistics.mean(shares)


def work(folder: Path, models: int, seeds: int, methods: Sequence[str], line: Any) -> Iterator[Run]:
    """All runs of these methods, each whole."""
    for seed in range(seeds):
        for method in methods:
            if method == UNIFORM and seed == 0:
                yield scaled(folder, line)
            elif method != UNIFORM:
                line(f"the run of {NAMES[method]}, seed {seed}")
                yield searched(folder, method, seed, models, line)


@contextmanager
def ahead(options: argparse.Namespace) -> Iterator[None]:
    """A second process that evaluates what is the same whatever the first one finds."""
    words = [f"--{name}={getattr(options, name)}" for name in ("minutes", "models", "seeds", "out")]
    log = options.out.parent / "ahead.log"
    with log.open("a") as out:
        child = subprocess.Popen([sys.executable, __file__, "--ahead", *words], stdout=out, stderr=out)
        try:
            yield
        finally:
            child.terminate()
            child.wait()


def ratio(values: Sequence[float]) -> str:
    """Of each seed, then their mean."""
    return " | ".join(f"{x:.3f}" for x in values) + f" | {statistics.mean(values):.3f} |"


def tables(runs: Sequence[Run], known: Mapping[str, Sequence[Point]], models: int) -> Iterator[str]:
    """Markdown."""
    marks = [mark for mark in (4, 8, 12) if mark < models] + [models]
    of = {method: [run for run in runs if run.method == method] for method in (OURS, RANDOM, UNIFORM)}
    yield f"\n### Hypervolume after so many models, mean of {len(of[OURS])} seeds (least to most)\n"
    yield "| | " + " | ".join(f"{mark}" for mark in marks) + f' | {models}, errors on "test" |'
    yield "|---" * (len(marks) + 2) + "|"
    for method, some in of.items():
        cells = [spread([reached(run, mark, known) for run in some if len(run.models) >= mark]) for mark in marks]
        last = spread([reached(run, models, known, tested=True) for run in some])
        yield f"| {NAMES[method]} | " + " | ".join(cells) + f" | {last} |"
    yield from ratios(of, known, models)
    yield from faster(of, known, models)


def spread(found: Sequence[float]) -> str:
    """The mean, and where there are several the ends."""
    ends = f" ({min(found):.3f} to {max(found):.3f})" if len(found) > 1 else ""
    return f"{statistics.mean(found):.3f}{ends}" if found else ""


def ratios(of: Mapping[str, Sequence[Run]], known: Mapping[str, Sequence[Point]], models: int) -> Iterator[str]:
    """Ours against the others, seed by seed."""
    both = list(zip(of[OURS], of[RANDOM], strict=False))
    scaled = of[UNIFORM][0]
    n = len(scaled.models)
    yield (
        "\n### Ratio of hypervolumes\n\n| seatrial against | "
        + " | ".join(f"seed {run.seed}" for run, _ in both)
        + " | mean |"
    )
    yield "|---" * (len(both) + 2) + "|"
    for tested, about in ((False, ""), (True, ', errors on "test"')):
        rivals = [
            (f"random search, {models} models each", [(a, models, b, models) for a, b in both]),
            (f"uniform width, {n} models each", [(a, n, scaled, n) for a, _ in both]),
            (f"uniform width, {models} models against all {n}", [(a, models, scaled, n) for a, _ in both]),
        ]
        for words, pairs in rivals:
            found = [reached(a, i, known, tested) / reached(b, j, known, tested) for a, i, b, j in pairs]
            yield f"| {words}{about} | {ratio(found)}"


def faster(of: Mapping[str, Sequence[Run]], known: Mapping[str, Sequence[Point]], models: int) -> Iterator[str]:
    """For each uniform network on a target's front: the fastest of ours that errs no more on "valid"."""
    yield "\n### The fastest found (seed 0) that errs no more than a uniform network, in fp32 and int8\n"
    yield 'Each: ms, error, error on "test".\n\n| target | uniform | seatrial | times faster |\n|---|---|---|---|'
    ours = [p for model in of[OURS][0].models[:models] for p in known[model]]
    for target in sorted({p.target for p in ours}):
        for theirs in front([p for model in of[UNIFORM][0].models for p in known[model] if p.target == target]):
            able = [p for p in ours if p.target == target and p.error <= theirs.error]
            best = min(able, key=lambda p: p.ms, default=None)
            found = f"{text(best)} | {theirs.ms / best.ms:.2f}" if best else "none | "
            yield f"| {target} | {text(theirs)} | {found} |"


def text(point: Point) -> str:
    return f"{point.ms:.3f}, {point.error:.1%}, {point.tested:.1%} ({point.precision})"


def costs(folder: Path, runs: Sequence[Run], models: Sequence[Tried]) -> Iterator[str]:
    """What it took."""
    seconds = json.loads((folder / "work" / "costs.json").read_text())
    asked = sum(len(run.models) for run in runs)
    yield "\n### Cost\n"
    yield f"- {len(models)} models were evaluated, for {asked} that the runs asked for, by two processes; one's work:"
    yield f"  {', '.join(f'{name} {took / len(models):.1f} s' for name, took in seconds.items())} a model."
    look = sum(took for name, took in seconds.items() if name != "train") / len(models)
    yield f"- So a look at an untrained model would have taken {look:.1f} s: three looks for each training are taken"
    yield "  where they cost less than it."


def stage(exploring: Exploring, runs: Sequence[Run], models: Sequence[Tried]) -> Iterator[str]:
    """What one shared training tells of all these models, and which trainings it had spared."""
    whole = exploring.models.train_shared()
    able = [one for one in models if one.accuracy is not None]
    found = zip(able, exploring.models.inherit([one.values for one in able]), strict=True)
    inherited = {one.model: (one, result.accuracy) for one, result in found if result.accuracy is not None}
    own, shared = zip(*((one.accuracy or 0.0, accuracy) for one, accuracy in inherited.values()), strict=True)
    seconds = statistics.mean(one.seconds for one in able)
    known = points(exploring, {one.model: one for one in able})
    yield "\n### If one shared training had chosen which models to train\n"
    yield f"- The shared training: {whole['seconds']:.0f} s; one of its own: {seconds:.1f} s."
    yield f"- {fidelity(shared, own).text}."
    ends = f"inherited {min(shared):.1%} to {max(shared):.1%}, own {min(own):.1%} to {max(own):.1%}"
    yield f'- Accuracy on "valid": {ends}.\n'
    yield "| run | models | to train, by inherited accuracies | of the hypervolume | as many at random |"
    yield "|---|---|---|---|---|"
    for run in runs:
        some = [model for model in run.models if model in inherited]
        kept = chosen(some, {model: 1 - inherited[model][1] for model in some}, known)
        full, part = volume_of(some, known), volume_of(kept, known)
        rng = np.random.default_rng(0)
        drawn = [volume_of(list(rng.choice(some, len(kept), replace=False)), known) for _ in range(100)]
        cells = f"{len(some)} | {len(kept)} | {part / full:.0%} | {statistics.mean(drawn) / full:.0%}"
        yield f"| {NAMES[run.method]}, seed {run.seed} | {cells} |"


def chosen(some: Sequence[str], errors: Mapping[str, float], known: Mapping[str, Sequence[Point]]) -> list[str]:
    """The models on some target's front by their inherited error and fp32 latency: those whose training is needed."""
    kept = set()
    for target in sorted({p.target for model in some for p in known[model]}):
        ms = {m: p.ms for m in some for p in known[m] if p.target == target and p.precision == "fp32"}
        kept |= {m for m in ms if not any(errors[k] <= errors[m] and ms[k] <= ms[m] and k != m for k in ms)}
    return sorted(kept)


def volume_of(models: Sequence[str], known: Mapping[str, Sequence[Point]]) -> float:
    """Hypervolume of these models."""
    return reached(Run("", 0, list(models)), len(models), known)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--models", type=int, default=14, help="a run's evaluations")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench-search" / "study")
    parser.add_argument("--ahead", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    line = say(begun, begun + 60 * options.minutes)
    try:
        if options.ahead:
            time.sleep(20)  # the first one makes the folder
            list(work(options.out, options.models, options.seeds, (UNIFORM, RANDOM), line))
            return
        with ahead(options):
            runs = list(work(options.out, options.models, options.seeds, (OURS, RANDOM, UNIFORM), line))
    except OutOfTime:
        raise SystemExit(f"{options.minutes:g} minutes are over; the same command goes on") from None
    with opened(STUDY, output=options.out) as exploring:
        asked = {model for run in runs for model in run.models}
        every = {one.model: one for one in exploring.roster.all().values() if one.model in asked}
        known = points(exploring, every)
        print(heading("The search over models", "make bench-search"))
        print("\n".join([*tables(runs, known, options.models), *costs(options.out, runs, list(every.values()))]))
        print("\n".join(stage(exploring, runs, list(every.values()))))


if __name__ == "__main__":
    main()
