"""What a search found: views over its trials and launches. Nothing here is stored; everything can be asked again."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ..devices.arms import Arm
from ..devices.launches import Launch
from ..devices.results import Estimate, effects, estimate, summarise
from ..devices.stats import block_stat, t_interval
from ..exporter.proof.parity import BARS_DB
from . import race
from .roster import Tried
from .trials import Trial, feasible


@dataclass(frozen=True)
class Latency:
    """Median time of one inference with its interval, in ms; no interval after a single launch."""

    ms: float
    low_ms: float | None
    high_ms: float | None
    launches: int

    def scaled(self, factor: float) -> Latency:
        """The same, all times multiplied."""
        low, high = (None if x is None else x * factor for x in (self.low_ms, self.high_ms))
        return Latency(self.ms * factor, low, high, self.launches)


@dataclass(frozen=True)
class Findings:
    """Trials by id, the launches of the race, and those of the confirmation (empty before it)."""

    trials: Mapping[str, Trial]
    raced: Sequence[Launch]
    confirmed: Sequence[Launch] = field(default_factory=list)

    @cached_property
    def latency(self) -> dict[str, Latency]:
        """By id; from the confirmation where the candidate took part in it.

        In the race a candidate is timed against the reference of the same launch, so that launches of a busy hour
        and of a quiet one can be held together.
        """
        found = {}
        base = _base(self.raced)
        for each, times in all_effects(self.raced, race.REFERENCE).items():
            if base and each in self.trials:
                found[each] = _scaled(base, times)
        timed = [each for each in by_arm(self.confirmed) if each in self.trials]
        own = {each: x for each in timed if (x := summarise(self.confirmed, _named(each)).latency)}
        # The confirmation may fall into a busier hour: those that were only raced are brought to its scale.
        both = [own[each].centre / found[each].ms for each in own if each in found]
        scale = statistics.median(both) if both else 1.0
        found = {each: latency.scaled(scale) for each, latency in found.items()}
        return found | {each: Latency(x.centre, x.low, x.high, x.n) for each, x in own.items()}

    @cached_property
    def _raced_with(self) -> dict[str, list[Launch]]:
        return by_arm(self.raced)

    def launches_of(self, *ids: str) -> list[Launch]:
        """Those of the confirmation, or before it those of the race that hold one of them: all that they can tell."""
        if self.confirmed:
            return list(self.confirmed)
        return list({id(each): each for name in ids for each in self._raced_with.get(name, ())}.values())

    @cached_property
    def failed(self) -> dict[str, str]:
        """Why, of each candidate that failed while it was timed, if only once."""
        return race.failures([*self.raced, *self.confirmed])

    @cached_property
    def able(self) -> list[Trial]:
        """Feasible trials that were timed and never failed, the fastest first."""
        found = feasible(list(self.trials.values()))
        timed = [t for t in found if t.id in self.latency and t.id not in self.failed]
        return sorted(timed, key=lambda t: self.latency[t.id].ms)

    @cached_property
    def front(self) -> list[str]:
        """Ids that no other beats in latency without losing quality, the fastest first."""
        kept: list[str] = []
        best = -math.inf
        for trial in self.able:
            if quality(trial) > best:
                kept.append(trial.id)
                best = quality(trial)
        return kept

    @cached_property
    def defaults(self) -> list[str]:
        """The default of each target and precision, at its fastest number of threads."""
        found: dict[tuple[str, str], str] = {}
        for trial in self.able:
            if trial.candidate.is_default:
                found.setdefault((trial.candidate.target, trial.candidate.precision), trial.id)
        return list(found.values())

    @cached_property
    def finalists(self) -> list[str]:
        """Who is timed again: the front, each target's fastest, and the defaults that they must beat."""
        return list(dict.fromkeys([*self.front, *self._fastest.values(), *self.defaults]))

    @cached_property
    def winners(self) -> dict[str, str]:
        """``best`` and each target's name → id of the fastest; from the confirmation where it was made."""
        found = dict(self._fastest)
        if found:
            found["best"] = min(found.values(), key=lambda each: self.latency[each].ms)
        return found

    @property
    def _fastest(self) -> dict[str, str]:
        """The fastest of each target; once confirmed, of those that took part, as long as one of them lasted."""
        timed = {name for launch in self.confirmed for name in launch.arms}
        found: dict[str, str] = {}
        for trial in sorted(self.able, key=lambda t: t.id not in timed):
            found.setdefault(trial.candidate.target, trial.id)
        return found

    def comparisons(self) -> list[Estimate]:
        """The best against each default, from the confirmation: time of the best over time of the default."""
        best = self.winners.get("best")
        others = [each for each in self.defaults if each != best]
        if not best or not self.confirmed:
            return []
        return self._over(best, others)

    def _over(self, best: str, others: Sequence[str]) -> list[Estimate]:
        """The best against each that was confirmed beside it more than once: one launch has no interval."""
        able = [each for each in others if len(effects(self.confirmed, each, best, "median")) > 1]
        return [estimate(self.confirmed, each, best, confidence=race.CONFIDENCE) for each in able]

    def reason(self, trial: Trial) -> str | None:
        """Why a candidate was not chosen, in words; None for the chosen."""
        if trial.status != "ok":
            return trial.reason
        if trial.id in self.failed:
            return f"failed while it was timed: {self.failed[trial.id]}"
        if trial.id not in self.latency:
            return "not timed"
        winner = self.winners[trial.candidate.target]
        if trial.id == winner:
            return self._behind_best(trial)
        return self._behind(winner, trial.id)

    def _behind_best(self, trial: Trial) -> str | None:
        best = self.winners["best"]
        return None if trial.id == best else f"{self._behind(best, trial.id)}; the fastest on its own runtime"

    def _behind(self, winner: str, other: str) -> str:
        launches = self.confirmed if effects(self.confirmed, winner, other, "median") else self.raced
        found = race.gap(launches, winner, other)
        label = self.trials[winner].candidate.label
        ratio = math.exp(sum(found) / len(found))
        if len(found) < 2:
            return f"{ratio:.2f} × the time of {label}"
        interval = t_interval(found, race.CONFIDENCE)
        span = f"{ratio:.3f} [{math.exp(interval.low):.3f}, {math.exp(interval.high):.3f}]"
        if interval.low <= 0 <= interval.high:
            return f"a tie with {label}: {span} × its time"
        return f"{span} × the time of {label}"

    def facts(self, trial: Trial) -> dict[str, Any]:
        """Everything that can be selected by, as data."""
        latency = self.latency.get(trial.id)
        return {
            **_columns(trial, latency),
            "status": "failed" if trial.id in self.failed else trial.status,
            "reason": self.reason(trial),
            "ran_precision": trial.proof["placement"].get("precision") if trial.proof else None,
            "front": trial.id in self.front,
            "chosen": trial.id in self.winners.values(),
        }


def row_of(trial: Trial, model: Tried, latency: Latency | None = None) -> dict[str, Any]:
    """What is known of a model's deployment, as `Views` read it: without a `latency`, its time in one launch."""
    ms = model.times.get(trial.id)
    once = None if ms is None else Latency(ms, None, None, 1)
    return {**_columns(trial, latency or once), **about(model)}


def about(model: Tried) -> dict[str, Any]:
    """What is known of a model, whatever it is deployed as."""
    return {"model": model.model, "macs": model.macs, "parameters": model.parameters}


def _columns(trial: Trial, latency: Latency | None) -> dict[str, Any]:
    return {
        "id": trial.id,
        "target": trial.candidate.target,
        "device": trial.candidate.device,
        "precision": trial.candidate.precision,
        "settings": dict(trial.candidate.settings),
        "status": trial.status,
        "latency_ms": latency.ms if latency else None,
        "latency_low_ms": latency.low_ms if latency else None,
        "latency_high_ms": latency.high_ms if latency else None,
        "launches": latency.launches if latency else 0,
        "accuracy": trial.accuracy,
        "agreement": trial.agreement,
        "sqnr_db": trial.sqnr_db,
        "size_bytes": trial.size_bytes,
        "load_ms": trial.load_ms,
    }


def quality(trial: Trial) -> float:
    """What is weighed against speed: accuracy on labelled data, else agreement, else SQNR.

    Above the bar of fp32 more decibels are worth nothing.
    """
    sqnr = None if trial.sqnr_db is None else min(trial.sqnr_db, BARS_DB["fp32"])
    return next((value for value in (trial.accuracy, trial.agreement, sqnr) if value is not None), 0.0)


def by_arm(launches: Sequence[Launch]) -> dict[str, list[Launch]]:
    """The launches that hold each arm."""
    found: dict[str, list[Launch]] = {}
    for launch in launches:
        for name in launch.arms:
            found.setdefault(name, []).append(launch)
    return found


def all_effects(launches: Sequence[Launch], base: str) -> dict[str, list[float]]:
    """As `effects` of every arm over one of them, of thousands at once."""
    import numpy as np

    logs: dict[int, list[tuple[str, list[float], list[float]]]] = {}
    for launch in launches:
        first = launch.arms.get(base)
        if first is None or not first.ok:
            continue
        under = [block_stat(block) for block in first.blocks]
        for name, run in launch.arms.items():
            if run.ok and name != base and len(run.blocks) == len(under):
                logs.setdefault(len(under), []).append((name, under, [block_stat(block) for block in run.blocks]))
    found: dict[str, list[float]] = {}
    for n, rows in logs.items():
        i, j = np.triu_indices(n)
        for begin in range(0, len(rows), 4096):  # so that the pairs of all don't lie in memory at once
            some = rows[begin : begin + 4096]
            ratios = np.log(np.array([above for _, _, above in some]) / np.array([under for _, under, _ in some]))
            centres = np.median((ratios[:, i] + ratios[:, j]) / 2, axis=1)
            for (name, _, _), centre in zip(some, centres.tolist(), strict=True):
                found.setdefault(name, []).append(centre)
    return found


def _base(launches: Sequence[Launch]) -> float | None:
    """Median of the reference's launches, in ms."""
    runs = [launch.arms[race.REFERENCE] for launch in launches if race.REFERENCE in launch.arms]
    medians = [statistics.median(x for block in run.blocks for x in block) / 1e6 for run in runs if run.ok]
    return statistics.median(medians) if medians else None


def _named(name: str) -> Arm:
    return Arm(name, "", "", "", {}, "")


def _scaled(base_ms: float, times: Sequence[float]) -> Latency:
    interval = t_interval(times)
    if len(times) < 2:
        return Latency(base_ms * math.exp(interval.centre), None, None, 1)
    low, centre, high = (base_ms * math.exp(x) for x in (interval.low, interval.centre, interval.high))
    return Latency(centre, low, high, len(times))
