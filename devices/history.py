"""Stored figures over time, with the points at which they changed; for reading, never a baseline of a gate.

A series is one model's name, runtime, settings and shapes on one device (fingerprint): figures of two machines, two
runtime versions or two protocols never meet. Change points come from PELT (Killick et al. 2012) by `ruptures`.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ..core.errors import MissingPart, NothingMeasured
from .launches import ArmRun
from .stats import block_stat

if TYPE_CHECKING:
    from .store import Store

FEWEST = 6
"""Sessions of a series before changes are looked for."""
SEGMENT = 3
"""Sessions that a level lasts at least: a single bad hour is none."""
PENALTY = 6.0
"""Times the noise's variance times log n: 1 % of simulated series of 40 sessions without a change showed one."""
SMALLEST = 0.01
_ALPHA = 0.01


@dataclass(frozen=True)
class Point:
    """One session: `ms` is the median of its launch medians, `created` seconds since the epoch."""

    session: str
    created: float
    ms: float
    artifact: str


@dataclass(frozen=True)
class Change:
    """From one session to the next the level changed; `at` is the index of the first session of the new level.

    `same_artifact` says that the files were equal before and after: then it wasn't the model.
    """

    at: int
    before_ms: float
    after_ms: float
    same_artifact: bool

    @property
    def ratio(self) -> float:
        """After over before."""
        return self.after_ms / self.before_ms


@dataclass(frozen=True)
class Series:
    """Sessions of one thing on one device, oldest first."""

    name: str
    runtime: str
    settings: dict[str, Any]
    device: str
    points: list[Point]
    changes: list[Change]

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "changes": [{**asdict(c), "ratio": c.ratio} for c in self.changes]}


def history(store: Store) -> list[Series]:
    """All series of a store with their changes.

    Raises:
        NothingMeasured: the store holds no bench.
        MissingPart: a series is long enough to look for changes, and `ruptures` isn't installed.
    """
    rows = [row for row in store.find(status="ok") if not _is_ours(row["arm"])]
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        key = tuple(row[name] for name in ("arm", "settings", "shapes", "fingerprint", "protocol"))
        found.setdefault((*key, row["facts"]["arm"]["precision"]), []).append(row)
    if not found:
        raise NothingMeasured("a history", f"{store.url} holds no bench", "run `seatrial bench ... --store` into it")
    return [_series(rows) for rows in found.values()]


def _is_ours(arm: str) -> bool:
    """Duplicates and the roles of a comparison or a search are no models of a bench."""
    return arm.endswith(" (duplicate)") or arm in ("base", "base again", "candidate", "reference")


def _series(rows: Sequence[dict[str, Any]]) -> Series:
    sessions: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        sessions.setdefault(row["session"], []).append(row)
    points = sorted((_point(each) for each in sessions.values()), key=lambda point: point.created)
    last = rows[-1]["facts"]
    runtime = f"{last['runtime']['name']} {last['runtime']['version']}"
    settings, device = dict(last["arm"]["settings"]), last["identity"]["cpu"]
    return Series(rows[0]["arm"], runtime, settings, device, points, changes(points))


def _point(rows: Sequence[dict[str, Any]]) -> Point:
    runs = [ArmRun(**row["samples"]["run"]) for row in rows]
    medians = [block_stat([x for block in run.blocks for x in block]) / 1e6 for run in runs]
    return Point(rows[0]["session"], rows[0]["created"], statistics.median(medians), rows[-1]["artifact"])


def changes(points: Sequence[Point]) -> list[Change]:
    """Where the level changed by 1 % or more, and a t-test of the two levels says so at 1 %."""
    if len(points) < FEWEST:
        return []
    try:
        import ruptures
    except ImportError:
        todo = 'pip install "seatrial[history]"'
        raise MissingPart("change points", "the module ruptures is not installed", todo) from None
    import numpy as np

    logs = np.log([point.ms for point in points])
    steps = np.diff(logs)
    noise = 1.4826 * float(np.median(np.abs(steps - np.median(steps)))) / math.sqrt(2)
    search = ruptures.Pelt(model="l2", min_size=SEGMENT, jump=1).fit(logs.reshape(-1, 1))
    # Figures that don't scatter at all would make every rounding a change.
    bounds = [0, *search.predict(pen=PENALTY * max(noise, 1e-4) ** 2 * math.log(len(logs)))]
    found = []
    for low, at, high in zip(bounds, bounds[1:], bounds[2:], strict=False):
        before, after = logs[low:at], logs[at:high]
        if abs(float(after.mean() - before.mean())) >= math.log1p(SMALLEST) and _differ(before, after):
            same = points[at - 1].artifact == points[at].artifact
            found.append(Change(at, math.exp(np.median(before)), math.exp(np.median(after)), same))
    return found


def _differ(before: Any, after: Any) -> bool:
    """Welch's t-test."""
    from scipy.special import stdtr

    parts = [float(x.var(ddof=1)) / len(x) for x in (before, after)]
    error = math.sqrt(sum(parts))
    if error == 0:
        return True
    freedom = sum(parts) ** 2 / sum(p**2 / (len(x) - 1) for p, x in zip(parts, (before, after), strict=True))
    return bool(2 * stdtr(freedom, -abs(float(after.mean() - before.mean())) / error) < _ALPHA)
