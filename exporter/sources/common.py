"""What every source does once its model runs: read the data, ask the probes, keep the reference answers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ...core import samples
from ...core.errors import UsageError
from ...core.ids import content_id
from ...core.samples import Feed
from ...core.specs import TensorSpec
from .. import data, sizes
from ..data import Data
from ..images import Preprocess
from ..proof import degenerate, detections, parity, probes
from .job import Job

Run = Callable[[Feed], Feed]

HELD_OUT_EVERY = 5
HELD_OUT_MOST = 40
HELD_OUT_LABELLED = 100
"""At most, where they have labels: a decision rule's temperature is fitted to 50 or more."""
FEWEST_TO_SPLIT = 10
REAL_PROBES = 4


@dataclass(frozen=True)
class Answers:
    """What `fill` found: specs of the outputs, names of the samples, facts of the data, what a reader should know."""

    outputs: list[TensorSpec]
    main: list[str]
    edges: list[str]
    data: dict[str, dict[str, Any]]
    notes: list[str]


def fill(
    job: Job,
    run: Run,
    inputs: Sequence[TensorSpec],
    example: Feed,
    preprocess: Preprocess | None = None,
    own: Mapping[str, Data] = {},
    classes: Sequence[str] | None = None,
) -> Answers:
    """Write all samples of a Program, with the reference's answers.

    Args:
        job: the capture.
        run: one inference of the source in fp32.
        inputs: what goes in.
        example: an example of each input.
        preprocess: how pictures become inputs.
        own: data of the source's own, by use, for what the job's don't name.
        classes: their names, of a declared classifier.

    Raises:
        UsageError: bad data, two runs over one input that differ, or a detector declared by outputs that aren't there.
    """
    folder = Path(job.folder)

    def read(use: str, path: str) -> Data:
        return data.load(Path(path), inputs, preprocess, use, classes)

    groups = {**own, **{use: read(use, path) for use, path in job.data.items()}}
    if "calibration" in groups:
        groups["calibration"], groups["held_out"] = split(groups["calibration"])
    real = [feed for use in ("held_out", "evaluate") if use in groups for feed in groups[use].feeds][:REAL_PROBES]
    main, edges = probes.build(inputs, example, real, job.limits)
    main, answers, heard = _main(job, run, inputs, example, main)
    _save(folder, "main", [feed for _, feed in main], answers)
    kept, notes = _edges(job, run, edges)
    for use, group in groups.items():
        outputs = [run(feed) for feed in group.feeds] if use != "calibration" else None
        _save(folder, use, group.feeds, outputs)
    specs = [TensorSpec(name, str(a.dtype), tuple(a.shape)) for name, a in answers[0].items()]
    facts = {use: group.facts for use, group in groups.items()}
    return Answers(specs, [name for name, _ in main], kept, facts, [*heard, *notes])


def _main(
    job: Job, run: Run, inputs: Sequence[TensorSpec], example: Feed, main: probes.Named
) -> tuple[probes.Named, list[Feed], list[str]]:
    """The main samples with their answers, and what to know of them.

    Where they prove nothing, noise of other scales is tried: pixels of 0.05 instead of 1, or of 100, make some networks
    tell one input from another.
    """
    known: dict[str, Feed] = {}

    def answered(named: probes.Named) -> list[Feed]:
        for name, feed in named:
            if name not in known:
                known[name] = _twice(job.asked, run, name, feed)
        return [known[name] for name, _ in named]

    answers = answered(main)
    if job.detections:
        detections.check(job.detections, answers[0], f"the detections of {job.path}")
    real = any(name.startswith("real") for name, _ in main)
    problems, notes = degenerate.judge(answers, real, job.detections)
    for scale in probes.SCALES if problems else ():
        other = probes.rescaled(inputs, example, main, scale)
        tried = answered(other)
        left, more = degenerate.judge(tried, real, job.detections)
        if not left:
            told = f"the noise has {scale:g} times the example's scale, at which {problems[0]}"
            return other, tried, [told, *more]
    return main, answers, notes


def split(given: Data) -> tuple[Data, Data]:
    """Calibration data into what calibrates and what is held out to judge, evenly; too few are used for both."""
    n = len(given)
    if n < FEWEST_TO_SPLIT:
        return given, given
    every = max(HELD_OUT_EVERY, math.ceil(n / (HELD_OUT_LABELLED if given.labels else HELD_OUT_MOST)))
    out = set(range(every - 1, n, every))
    parts = []
    for keep in ([i for i in range(n) if i not in out], sorted(out)):
        labels = [given.labels[i] for i in keep] if given.labels else None
        names = [given.names[i] for i in keep] if given.names else None
        parts.append(Data(given.name, given.id, [given.feeds[i] for i in keep], labels, names))
    return parts[0], parts[1]


def _save(folder: Path, group: str, feeds: Sequence[Feed], outputs: Sequence[Feed] | None) -> None:
    samples.save(folder / f"{group}_in.npz", feeds)
    if outputs is not None:
        samples.save(folder / f"{group}_out.npz", outputs)


def _twice(asked: str, run: Run, sample: str, feed: Feed) -> Feed:
    import numpy as np

    first, again = run(feed), run(feed)
    for name, a in first.items():
        b = again[name]
        if a.shape != b.shape or not np.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
            todo = "remove the randomness, or the state kept between runs; nothing can be proven against it"
            raise UsageError(asked, f"two runs over the same input ({sample}) give different {name!r}", todo)
    return first


def _edges(job: Job, run: Run, edges: probes.Named) -> tuple[list[str], list[str]]:
    """Names of the edges that are asked of an artifact, and a note on each that isn't.

    One that the source refuses asks nothing. Nor does one at which the source itself is unstable: an OCR detector over
    equal pixels answers at 51 dB when they change by 1e-6, so no two correct runtimes agree there.

    Raises:
        UsageError: it refuses a size that the user declared.
    """
    kept, feeds, outputs, notes = [], [], [], []
    for name, feed in edges:
        try:
            outputs.append(run(feed))
        except Exception as error:
            declared = [size for size in job.limits if f"{size}=" in name]
            if declared:
                first = (str(error).strip().splitlines() or [type(error).__name__])[0]
                found = f"the model itself can't take it: {first}"
                todo = "chain axes that are always equal (A.0=B.0=LOW:HIGH); batch is the first axis of every input"
                raise UsageError(f"the size {name}", found, todo) from error
            continue
        moved = _moved(job, run, feed, outputs[-1]) if name in parity.CONSTANT else ""
        if moved:
            outputs.pop()
            told = f"1e-6 more or less moves the source's own answer {moved}"
            notes.append(f"the edge case {name!r} is not judged: {told}")
            continue
        kept.append(name)
        feeds.append(feed)
    _save(Path(job.folder), "edges", feeds, outputs)
    return kept, notes


def _moved(job: Job, run: Run, feed: Feed, outputs: Feed) -> str:
    """How far the source's answers move when its float inputs change by 1e-6 of themselves, where that is too far."""
    import numpy as np

    rng = np.random.default_rng(0)
    near = {
        name: (a * (1 + 1e-6 * rng.choice((-1.0, 1.0), a.shape))).astype(a.dtype) if a.dtype.kind == "f" else a
        for name, a in feed.items()
    }
    if any(a.dtype.kind == "f" and not np.isfinite(a).all() for a in outputs.values()):
        return ""  # listed by itself
    check = parity.compare("fp32", ["near"], [outputs], [run(near)], declared=job.detections)
    far = check.sqnr_db is not None and check.sqnr_db < parity.CONSTANT_EDGES_DB["fp32"]
    found = check.detections
    if found and found.problem:
        return f"to other detections ({found.note})"
    return f"to {check.sqnr_db:.0f} dB" if far else ""


def ranged(
    specs: Sequence[TensorSpec], ranges: Mapping[str, Sequence[int]], asked: str = "the model"
) -> list[TensorSpec]:
    """The specs with the ranges of their integers.

    Raises:
        UsageError: a range for an input that there isn't.
    """
    _check_known("--range", ranges, specs, asked)
    return [replace(s, low=ranges[s.name][0], high=ranges[s.name][1]) if s.name in ranges else s for s in specs]


def shaped(specs: Sequence[TensorSpec], job: Job) -> list[TensorSpec]:
    """The specs with the sizes that were asked for: free dimensions named, buckets fixed."""
    _check_known("--shape", job.shapes, specs, job.asked)
    return sizes.fixed(sizes.freed(specs, job.free), job.fixed)


def fitted(example: Feed, specs: Sequence[TensorSpec], job: Job) -> Feed:
    """The example in sizes that the specs allow: fixed ones as they are, free ones within their limits."""
    wanted = []
    for spec in specs:
        shape = [
            axis if isinstance(axis, int) else _within(have, job.limits.get(axis))
            for axis, have in zip(spec.shape, example[spec.name].shape, strict=True)
        ]
        wanted.append(replace(spec, shape=tuple(shape)))
    return sizes.resized(example, wanted)


def _within(size: int, limits: Sequence[int] | None) -> int:
    return min(max(size, limits[0]), limits[1]) if limits else size


def own_calibration(feeds: list[Feed]) -> Data:
    """What a source's own ``get_calibration()`` gave, with an id from its content."""
    key = content_id([[name, str(a.dtype), list(a.shape), a.tobytes().hex()] for f in feeds for name, a in f.items()])
    return Data("get_calibration()", key, feeds)


def example_from(path: Path, specs: Sequence[TensorSpec]) -> Feed:
    """The example in the user's ``.npz``.

    Raises:
        UsageError: an input is missing, or doesn't fit.
    """
    asked = f"--inputs {path}"
    arrays = samples.arrays(path, asked)
    missing = [str(spec) for spec in specs if spec.name not in arrays]
    if missing:
        raise UsageError(asked, f"it has no {missing[0]}", f"it needs: {', '.join(map(str, specs))}")
    return {spec.name: data.cast(arrays[spec.name], spec, asked) for spec in specs}


def check_fit(run: Run, asked: str, example: Feed) -> None:
    """Raise a `UsageError` where a model refuses its example."""
    try:
        run(example)
    except Exception as error:
        found = f"it refuses the example inputs: {str(error).splitlines()[0]}"
        todo = "give ones that fit: --inputs FILE.npz, or --shape and --range"
        raise UsageError(asked, found, todo) from error


def _check_known(option: str, given: Mapping[str, object], specs: Sequence[TensorSpec], asked: str) -> None:
    unknown = set(given) - {spec.name for spec in specs}
    if unknown:
        known = ", ".join(map(str, specs))
        raise UsageError(f"{option} {min(unknown)}=...", f"{asked} has no such input", f"it has: {known}")
