"""What every source does once its model runs: read the data, ask the probes, keep the reference answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core import samples
from ...core.errors import UsageError
from ...core.samples import Feed
from ...core.specs import TensorSpec
from .. import data
from ..data import Data
from ..images import Preprocess
from ..proof import probes

Run = Callable[[Feed], Feed]

HELD_OUT_EVERY = 5
HELD_OUT_MOST = 40
FEWEST_TO_SPLIT = 10
REAL_PROBES = 4


@dataclass(frozen=True)
class Answers:
    """What `fill` found: specs of the outputs, names of the samples, facts of the data."""

    outputs: list[TensorSpec]
    main: list[str]
    edges: list[str]
    data: dict[str, dict[str, Any]]


def fill(
    folder: Path,
    asked: str,
    run: Run,
    inputs: Sequence[TensorSpec],
    example: Feed,
    preprocess: Preprocess | None,
    paths: Mapping[str, str],
) -> Answers:
    """Write all samples of a Program, with the reference's answers.

    Args:
        folder: the Program's.
        asked: opens error messages.
        run: one inference of the source in fp32.
        inputs: what goes in.
        example: an example of each input.
        preprocess: how pictures become inputs.
        paths: the user's data by use: ``calibration``, ``evaluate``, ``confirm``.

    Raises:
        UsageError: bad data, or two runs over one input that differ.
    """
    groups = {use: data.load(Path(path), inputs, preprocess, use) for use, path in paths.items()}
    if "calibration" in groups:
        groups["calibration"], groups["held_out"] = split(groups["calibration"])
    real = [feed for use in ("held_out", "evaluate") if use in groups for feed in groups[use].feeds][:REAL_PROBES]
    main, edges = probes.build(inputs, example, real)
    answers = [_twice(asked, run, name, feed) for name, feed in main]
    _save(folder, "main", [feed for _, feed in main], answers)
    kept = _edges(folder, run, edges)
    for use, group in groups.items():
        outputs = [run(feed) for feed in group.feeds] if use != "calibration" else None
        _save(folder, use, group.feeds, outputs)
    specs = [TensorSpec(name, str(a.dtype), tuple(a.shape)) for name, a in answers[0].items()]
    facts = {use: {**group.to_dict(), "labels": group.labels} for use, group in groups.items()}
    return Answers(specs, [name for name, _ in main], kept, facts)


def split(given: Data) -> tuple[Data, Data]:
    """Calibration data into what calibrates and what is held out to judge; too few are used for both."""
    n = len(given)
    if n < FEWEST_TO_SPLIT:
        return given, given
    out = set(list(range(HELD_OUT_EVERY - 1, n, HELD_OUT_EVERY))[:HELD_OUT_MOST])
    parts = []
    for keep in ([i for i in range(n) if i not in out], sorted(out)):
        labels = [given.labels[i] for i in keep] if given.labels else None
        parts.append(Data(given.name, given.id, [given.feeds[i] for i in keep], labels))
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


def _edges(folder: Path, run: Run, edges: probes.Named) -> list[str]:
    """Names of the edges that the source answers; one that it refuses asks nothing of the artifact."""
    kept, feeds, outputs = [], [], []
    for name, feed in edges:
        try:
            outputs.append(run(feed))
        except Exception:
            continue
        kept.append(name)
        feeds.append(feed)
    _save(folder, "edges", feeds, outputs)
    return kept
