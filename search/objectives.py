"""Objectives: views over what a study stored, each with what chance makes of it. Pure functions; nothing runs here."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from ..core.errors import UsageError
from ..core.ids import content_id
from ..exporter.decision import Costs, Rule

if TYPE_CHECKING:
    from numpy import ndarray

TESTS: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
    "==": operator.eq,
}

CONFIDENCE = 0.95
"""Of every interval."""

SCATTER = 0.012
"""Of the time in one launch, as the standard deviation of its logarithm; see docs/measuring.md."""

TIMED = ("latency_ms", "latency_p95_ms", "peak_memory_bytes")
"""Measures that launches tell, on this machine or on a device profile of it."""

BINS = 15
"""Of equal mass, for the calibration error."""

RESAMPLES = 999
_BCA_MOST = 2000
"""Beyond so many examples the jackknife that corrects a bootstrap's bias takes longer than the correction is worth."""


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval.

    Attributes:
        value: the point estimate.
        low: of the interval; None for what is exact, or was seen once.
        high: of the interval.
        n: examples or launches behind it.
        chance: how it spreads: ``["share", right]``, ``["t", standard error]``, ``["log t", standard error]``,
            ``["log normal", standard deviation]``, ``["bootstrap", quantiles...]``, or empty.
    """

    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None
    chance: tuple[Any, ...] = ()

    def meets(self, sign: str, limit: float) -> bool:
        """Whether the point estimate is on the right side."""
        return TESTS[sign](self.value, limit)

    def probability(self, sign: str, limit: float) -> float:
        """That the true value is on the right side; 0 or 1 where no spread is known."""
        import numpy as np
        from scipy import stats

        kind, *numbers = self.chance or ("",)
        if not kind or sign == "==" or (kind in ("t", "log t") and not numbers[0]):
            return float(self.meets(sign, limit))
        n = self.n or 0
        if kind == "share":  # Jeffreys' posterior
            below = stats.beta.cdf(limit, numbers[0] + 0.5, n - numbers[0] + 0.5)
        elif kind == "bootstrap":
            below = np.interp(limit, numbers, np.linspace(0, 1, len(numbers)), left=0.0, right=1.0)
        elif kind.startswith("log "):
            spread = stats.t(n - 1) if kind == "log t" else stats.norm
            below = spread.cdf(math.log(limit / self.value) / numbers[0]) if limit > 0 else 0.0
        else:
            below = stats.t.cdf((limit - self.value) / numbers[0], n - 1)
        return float(below if sign.startswith("<") else 1 - below)

    def to_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return {**asdict(self), "chance": list(self.chance)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Estimate:
        """The inverse of `to_dict`."""
        return cls(**{**data, "chance": tuple(data["chance"])})


@dataclass(frozen=True)
class Objective:
    """What a user wants of a model's answers, added to a study.

    Attributes:
        name: the user's.
        measure: a name of `MEASURES` or `TIMED`, ``expected_cost``, or ``function``.
        direction: ``max`` or ``min``.
        costs: the cost matrix of ``expected_cost``, see `Costs.to_dict`.
        slice: ``name`` and ``indices`` of the examples that count, and ``of`` how many that were named, where some of
            these were never judged; None for all.
        data: ``name``, ``id`` and ``labels`` of examples that the study did not have; None for its own.
        function: ``path``, ``name`` and ``sha256`` of the user's own.
        targets: only candidates on these runtimes; None for all.
        device: ``name`` of a device profile, and ``profile``: what it restricts; None for the machine as it is.
    """

    name: str
    measure: str
    direction: str
    costs: dict[str, Any] | None = None
    slice: dict[str, Any] | None = None
    data: dict[str, Any] | None = None
    function: dict[str, Any] | None = None
    targets: list[str] | None = None
    device: dict[str, Any] | None = None

    @property
    def id(self) -> str:
        """Of what it measures, whatever its name and whoever it is asked of."""
        function = {k: v for k, v in (self.function or {}).items() if k != "path"}
        indices = self.slice["indices"] if self.slice else None
        data = [self.data["id"], self.data["labels"]] if self.data else None
        device = [self.device["profile"]] if self.device else []
        return content_id([self.measure, self.costs, indices, data, function, *device])

    @property
    def matrix(self) -> Costs | None:
        """The cost matrix."""
        return Costs(**self.costs) if self.costs else None

    @property
    def text(self) -> str:
        """What it is, in words."""
        words = self.measure.replace("_", " ")
        words = f"{self.function['name']}()" if self.function else words
        words += f" on {self.slice['name']}{_left(self.slice)}" if self.slice else ""
        where = (
            f"{self.data['name']} ({len(self.data['labels'])} examples)" if self.data else "the study's labelled data"
        )
        words += f", {where}" if self.measure not in TIMED else ""
        words += f" on the device {self.device['name']}" if self.device else ""
        words += f", on {', '.join(self.targets)} alone" if self.targets else ""
        return f"{words}, {'highest' if self.direction == 'max' else 'lowest'} is best"

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Objective:
        """From JSON data."""
        return cls(**{field.name: data[field.name] for field in fields(cls) if field.name in data})


def _left(slice: dict[str, Any]) -> str:
    """Of a slice, what became of those that were not judged."""
    n = len(slice["indices"])
    return f" ({n} of its {slice['of']} examples are among those that were judged)" if "of" in slice else ""


@dataclass(frozen=True)
class BuiltIn:
    """An objective that every study has: its unit, its better direction, and what a study needs to know it."""

    unit: str
    direction: str
    needs: str = ""


_LABELS = "give a search of a declared classifier labelled data by --evaluate, or "
BUILT_IN = {
    "latency_ms": BuiltIn("ms", "min"),
    "accuracy": BuiltIn("share", "max", _LABELS),
    "agreement": BuiltIn("share", "max", "give a search of a declared classifier real samples, or "),
    "sqnr_db": BuiltIn("dB", "max"),
    "size_bytes": BuiltIn("bytes", "min"),
    "load_ms": BuiltIn("ms", "min"),
    "threads": BuiltIn("", "min"),
    "latency_p95_ms": BuiltIn("ms", "min"),
    "throughput_per_s": BuiltIn("samples/s", "max"),
    "macro_f1": BuiltIn("share", "max", _LABELS),
    "worst_recall": BuiltIn("share", "max", _LABELS),
    "calibration_error": BuiltIn("share", "min", _LABELS),
    "peak_memory_bytes": BuiltIn("bytes", "min"),
    "macs": BuiltIn("", "min"),
    "parameters": BuiltIn("", "min"),
}


def accuracy(scores: ndarray, labels: ndarray) -> float:
    """Share of examples whose largest score (n, classes) is the label's (n,)."""
    return float((scores.argmax(-1) == labels).mean())


def macro_f1(scores: ndarray, labels: ndarray) -> float:
    """Mean over the classes that are true or answered of the harmonic mean of precision and recall."""
    import numpy as np

    right, true, answered = _counts(scores, labels)
    seen = (true + answered) > 0
    return float(np.mean(2 * right[seen] / (true + answered)[seen]))


def worst_recall(scores: ndarray, labels: ndarray) -> float:
    """The lowest share that is found of a class, among those that are true of some example."""
    right, true, _ = _counts(scores, labels)
    return float((right[true > 0] / true[true > 0]).min())


def calibration_error(scores: ndarray, labels: ndarray) -> float:
    """How far confidence is from accuracy, over `BINS` bins of equal mass (Nguyen and O'Connor, 2015).

    `scores` are probabilities (n, classes).
    """
    import numpy as np

    sure = scores.max(-1)
    order = np.argsort(sure, kind="stable")
    off = sure[order] - (scores.argmax(-1) == labels)[order]
    return float(sum(abs(part.sum()) for part in np.array_split(off, BINS)) / len(labels))


def _counts(scores: ndarray, labels: ndarray) -> tuple[ndarray, ndarray, ndarray]:
    """For each class: found, true, answered."""
    import numpy as np

    n, answers = scores.shape[-1], scores.argmax(-1)
    counted = [np.bincount(a, minlength=n) for a in (labels[answers == labels], labels, answers)]
    return counted[0], counted[1], counted[2]


MEASURES: dict[str, tuple[Callable[[ndarray, ndarray], float], str]] = {
    "accuracy": (accuracy, "max"),
    "macro_f1": (macro_f1, "max"),
    "worst_recall": (worst_recall, "max"),
    "calibration_error": (calibration_error, "min"),
}
"""Functions of scores (n, classes) and labels (n,), and their better direction."""


def costs(rule: Rule, scores: ndarray, labels: ndarray, plain: bool = False) -> ndarray:
    """What each example costs (n,): under the rule, or where the largest score decides.

    Raises:
        UsageError: `plain`, and classes are no decisions of the matrix.
    """
    import numpy as np

    decisions = rule.decide(scores)
    if plain:
        places = rule.costs.of_class
        if places is None:
            raise UsageError("the cost of plain classes", "the cost matrix has other decisions", "use the rule")
        decisions = np.array(places)[scores.argmax(-1)]
    found: ndarray = rule.costs.matrix[labels, decisions]
    return found


def measured(measure: str, scores: ndarray, labels: ndarray) -> Estimate:
    """A measure with its interval: exact for accuracy, else by bootstrap over the examples."""
    import numpy as np
    from scipy import stats

    function = MEASURES[measure][0]
    value, n = function(scores, labels), len(labels)
    if measure == "accuracy":
        return share(round(value * n), n)
    if n < 2:
        return Estimate(value, n=n)

    def again(rows: ndarray) -> float:
        return function(scores[rows], labels[rows])

    with np.errstate(all="ignore"):
        found = stats.bootstrap(
            (np.arange(n),),
            again,
            n_resamples=RESAMPLES,
            vectorized=False,
            method="BCa" if n <= _BCA_MOST else "percentile",
            confidence_level=CONFIDENCE,
            rng=np.random.default_rng(0),
        )
    spread = found.bootstrap_distribution
    low, high = found.confidence_interval
    if not math.isfinite(low):  # every resample gave the same
        low, high = spread.min(), spread.max()
    quantiles = np.quantile(spread, np.linspace(0, 1, 101))
    return Estimate(value, float(low), float(high), n, ("bootstrap", *(float(x) for x in quantiles)))


def share(right: int, n: int) -> Estimate:
    """A share of n, with its exact binomial interval."""
    from scipy.special import betaincinv

    if not n:
        return Estimate(math.nan, n=0)
    # Clopper and Pearson's, by quantiles of the beta distribution: scipy's `binomtest` takes a thousand times as long.
    tail = (1 - CONFIDENCE) / 2
    low = float(betaincinv(right, n - right + 1, tail)) if right else 0.0
    high = float(betaincinv(right + 1, n - right, 1 - tail)) if right < n else 1.0
    return Estimate(right / n, low, high, n, ("share", right))


def mean(values: ndarray) -> Estimate:
    """A mean over examples, with Student's interval."""
    from scipy import stats

    n, value = len(values), float(values.mean())
    if n < 2:
        return Estimate(value, n=n)
    error = float(values.std(ddof=1)) / math.sqrt(n)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * error
    return Estimate(value, value - half, value + half, n, ("t", error))


def timed(value: float, low: float | None, high: float | None, launches: int) -> Estimate:
    """A time whose logarithm has Student's interval over launches; of one launch the scatter is known from others."""
    from scipy.special import stdtrit  # `stats.t` takes a hundred times as long

    if launches == 1:
        return Estimate(value, n=1, chance=("log normal", SCATTER))
    if low is None or high is None or low <= 0:
        return Estimate(value, low, high, launches)
    error = math.log(high / low) / 2 / float(stdtrit(launches - 1, (1 + CONFIDENCE) / 2))
    return Estimate(value, low, high, launches, ("log t", error))
