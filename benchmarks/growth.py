"""A study of 5,000 models and 100,000 facts: how long it takes to open, suggest, choose and show. `make bench-growth`.

One model is really trained, converted, proven and timed; the others are its rows with other values, accuracies and
times, written straight into the tables. Each figure is of one process that begins anew; opening and a suggestion are
counted from where its modules are loaded. What a user waits for has a bar.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from common import heading
from seatrial.core.ids import content_id
from seatrial.devices.store import Store, measurements, pack, unpack
from seatrial.search.conclude import fronts, origin, written
from seatrial.search.explore import Exploring, opened
from seatrial.search.roster import Tried, tried
from seatrial.search.space import Space
from seatrial.search.trials import Trial, medians, trials

MODELS, FACTS, TARGETS = 5_000, 100_000, ("onnxruntime", "openvino", "tflite")
BAR_S = 2.0
"""Of opening, of a suggestion and of `study show`, each."""
BLOCKS, SAMPLES = 16, 4
STUDY = f"""
space = {{name: [8, 16, 24, 32, 48, 64] for name in ("first", "second", "third", "fourth", "fifth", "sixth")}}
targets = {list(TARGETS)}
precisions = ["fp32"]
objectives = ["accuracy", "latency_ms"]
budget = {{"epochs": 1}}
search = {{"evaluations": 10_000, "examples": 200}}


def build(candidate):
    import torch

    widths = [16, *candidate.values()]
    layers = [m for a, b in zip(widths, widths[1:]) for m in (torch.nn.Linear(a, b), torch.nn.ReLU())]
    return torch.nn.Sequential(*layers, torch.nn.Linear(widths[-1], 4))


def get_args(candidate):
    import torch

    return (torch.zeros(1, 16),)


def get_labels():
    return ["a", "b", "c", "d"]


def load_data(part):
    import numpy as np

    x = np.random.default_rng(len(part)).standard_normal((400, 16)).astype("float32")
    return x, x[:, :4].argmax(1)
"""


def real(exploring: Exploring) -> Tried:
    """One model, evaluated by the search itself."""
    exploring.begin()
    values = Space.from_dict(exploring.study.space).sample(np.random.default_rng(0))
    found = exploring.evaluator.evaluate(values)
    assert found and found.status == "ok", found
    return found


def fill(exploring: Exploring, base: Tried) -> None:
    """The other rows."""
    rng, store, key = random.Random(0), exploring.store, exploring.key
    known = list(exploring.trials.all([c.id for c in exploring.deployments.of(base.model)]).values())
    rows = store.ask(sa.select(measurements).where(measurements.c.arm.in_(["reference", *(t.id for t in known)])))
    launch = {row.arm: dict(row._mapping) for row in rows}
    models = list(copies(exploring, base, known, rng))
    with store.engine.begin() as connection:
        connection.execute(sa.insert(tried), [row(key, one) for one, _ in models])
        made = [t for _, some in models for t in some]
        connection.execute(sa.insert(trials), [trial_row(key, trial) for trial in made])
    for one, _ in models:
        place = exploring.folder / "work" / "models" / one.model
        place.symlink_to(base.model)
    left = (FACTS - MODELS * (1 + len(known))) // (1 + len(known)) - 1
    for begin in range(0, left, 1000):
        some = [(i, models[i % len(models)]) for i in range(begin, min(begin + 1000, left))]
        with store.engine.begin() as connection:
            connection.execute(sa.insert(measurements), [r for i, m in some for r in launched(launch, i + 1, m, rng)])


def copies(
    exploring: Exploring, base: Tried, known: list[Trial], rng: random.Random
) -> Iterator[tuple[Tried, list[Trial]]]:
    space = Space.from_dict(exploring.study.space)
    source = np.random.default_rng(1)
    seen = {content_id(dict(base.values))}
    while len(seen) < MODELS:
        values = space.sample(source)
        key = content_id(dict(values))
        if key in seen:
            continue
        seen.add(key)
        size = sum(values.values()) / 384
        accuracy = round(0.4 + 0.5 * size**0.5 + rng.gauss(0, 0.02), 3)
        some = [copy(t, key, accuracy) for t in known]
        times = {t.id: (0.2 + size) * rng.gauss(1, 0.01) * (1.3 if i else 1) for i, t in enumerate(some)}
        yield replace(base, model=key, values=dict(values), accuracy=accuracy, times=times), some


def copy(trial: Trial, model: str, accuracy: float) -> Trial:
    """Its files are the original's: the model's folder is a link."""
    proof = {**(trial.proof or {}), "accuracy": {**(trial.proof or {})["accuracy"], "found": accuracy}}
    files = {name: str(getattr(trial, name)).replace(trial.candidate.model, model) for name in ("artifact", "outputs")}
    return replace(trial, candidate=replace(trial.candidate, model=model), proof=proof, **files)  # type: ignore[arg-type]


def row(study: str, one: Tried) -> dict[str, Any]:
    return {"study": study, "model": one.model, "data": json.dumps(asdict(one))}


def trial_row(study: str, trial: Trial) -> dict[str, Any]:
    return {"study": study, "candidate": trial.id, "data": json.dumps(asdict(trial))}


def launched(
    launch: dict[str, dict[str, Any]], index: int, model: tuple[Tried, list[Trial]], rng: random.Random
) -> Iterator[dict[str, Any]]:
    """Rows of one launch of a model: the reference and its deployments."""
    one, some = model
    disturbed = rng.gauss(1, 0.05)
    originals = [arm for arm in launch if arm != "reference"]
    names = {"reference": "reference", **{a: t.id for a, t in zip(originals, some, strict=True)}}
    for arm, name in names.items():
        ns = one.times.get(name, 0.3) * 1e6 * disturbed
        samples = unpack(launch[arm]["samples"])
        blocks = [[int(ns * rng.gauss(1, 0.02)) for _ in range(SAMPLES)] for _ in range(BLOCKS)]
        run = {**samples["run"], "name": name, "blocks": blocks, "notes": samples["run"]["notes"][:BLOCKS]}
        yield {k: v for k, v in launch[arm].items() if k != "id"} | {
            "arm": name, "launch": index, "samples": pack({**samples, "run": run}), "created": time.time()
        }  # fmt: skip


def said(what: str, start: float, bar: bool = False) -> None:
    """Print what something took since `start`, and whether that is below the bar."""
    took = time.monotonic() - start
    verdict = f"  bar {BAR_S:g} s: {'reached' if took < BAR_S else 'NOT reached'}" if bar else ""
    print(f"  {what:<58} {took:6.2f} s{verdict}", flush=True)


def timed(what: str, do: Callable[[], Any], bar: bool = False) -> Any:
    start = time.monotonic()
    found = do()
    said(what, start, bar)
    return found


def looked(file: Path, out: Path) -> None:
    """What a search that goes on does before it measures, and what its end does before it packs."""
    start = time.monotonic()
    with opened(file, output=out, say=lambda text: None) as exploring:
        said("reading the study file, opening the folder", start)
        timed("what is known is read and told to the samplers", lambda: (exploring.begin(), exploring._take_in()))
        said("opening: both together", start, bar=True)
        sampler = exploring.samplers[TARGETS[0]]
        timed("one suggestion, the first: the sampler learns", sampler.ask, bar=True)
        models = {k: one for k, one in exploring.roster.all().items() if not k.endswith("-untrained")}
        with exploring.store.engine.begin() as connection:
            known = connection.execute(sa.select(sa.func.count()).select_from(medians)).scalar_one()
        timed(
            "medians of launches that have none" if not known else "medians are there",
            lambda: exploring.trials.outline("race"),
        )
        found = timed("the fronts of all that is known", lambda: fronts(exploring, models, []))
        facts = {**origin(exploring, models, ""), "confirmed": {}}
        timed("study.json and report.html", lambda: written(exploring, found, facts))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where the study is kept, or was [a temporary folder]")
    parser.add_argument("--look", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.look:
        looked(args.look / "study.py", args.look / "out")
        return
    with tempfile.TemporaryDirectory(prefix="seatrial-") as temporary:
        folder = args.folder or Path(temporary)
        print(heading(f"A study of {MODELS:,} models and {FACTS:,} facts", "make bench-growth"))
        if not (folder / "done").exists():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "study.py").write_text(STUDY)
            with opened(folder / "study.py", output=folder / "out", say=print) as exploring:
                fill(exploring, real(exploring))
            (folder / "done").write_text("")
        with Store(folder / "out" / "facts.sqlite").engine.begin() as connection:
            counts = [
                connection.execute(sa.select(sa.func.count()).select_from(t)).scalar_one()
                for t in (tried, trials, measurements)
            ]
        print(f"{counts[0]:,} models, {counts[1]:,} trials, {counts[2]:,} measurements")
        for _ in range(2):
            subprocess.run([sys.executable, __file__, "--look", str(folder)], check=True)
        show = [sys.executable, "-P", "-m", "seatrial", "study", "show", str(folder / "out")]
        timed("`seatrial study show`", lambda: subprocess.run(show, check=True, stdout=subprocess.DEVNULL), bar=True)
        sizes = {
            name: (folder / "out" / name).stat().st_size / 1e6 for name in ("facts.sqlite", "study.json", "report.html")
        }
        print(", ".join(f"{name} {size:.0f} MB" for name, size in sizes.items()))


if __name__ == "__main__":
    main()
