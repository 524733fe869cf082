"""A declared detector: what it finds is matched by overlap, because the order of detections means nothing.

Where scores tie within rounding, non-maximum suppression inside a graph puts its boxes in another order on another
runtime, and number by number every box would be wrong.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ...core.errors import UsageError

if TYPE_CHECKING:
    from ...core.samples import Feed

BARS = {
    "fp32": {"iou": 0.99, "score": 0.001, "matched": 1.0},
    "fp16": {"iou": 0.95, "score": 0.01, "matched": 0.98},
    "bf16": {"iou": 0.9, "score": 0.05, "matched": 0.95},
    "int8": {"iou": 0.75, "score": 0.15, "matched": 0.8},
}
"""What a pair needs in overlap, how far its scores may be apart, and the share of detections in such pairs."""

FORMATS = ("xyxy", "xywh", "cxcywh")
KEYS = ("boxes", "scores", "classes", "count", "format", "threshold", "limit")


@dataclass(frozen=True)
class Detected:
    """Detections of an artifact beside the reference's.

    Attributes:
        n: detections of the reference.
        matched: share of all detections, of both sides, that stand in a pair within the bar.
        lowest_iou: of the pairs; None without any.
        score_difference: the largest of the pairs.
        worst: the sample with the most that have no such pair.
        problem: why it fails, in words; empty where it holds.
    """

    n: int
    matched: float
    lowest_iou: float | None
    score_difference: float
    worst: str
    problem: str = ""

    @property
    def note(self) -> str:
        """One sentence for reports."""
        overlap = "" if self.lowest_iou is None else f", lowest IoU {self.lowest_iou:.4f}"
        return f"{self.matched:.1%} of {self.n} detections matched{overlap}, scores within {self.score_difference:.2g}"

    def to_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return asdict(self)


def read(given: str | Mapping[str, Any], asked: str) -> dict[str, Any]:
    """Check what declares a detector.

    Args:
        given: ``boxes=NAME,scores=NAME,classes=NAME,format=xyxy``, or the same as a dict. A name may end in
            ``:COLUMN`` where one output holds several in its last axis. ``classes``, ``count``, ``format`` (xyxy),
            ``threshold`` (the score below which the graph drops detections) and ``limit`` (the most that it gives)
            may be left away.
        asked: opens error messages.

    Raises:
        UsageError: an unknown key, a missing one, a value of another kind.
    """
    if isinstance(given, str):
        given = dict(part.partition("=")[::2] for part in given.split(",") if part)
    found = {str(key): value for key, value in given.items() if value is not None}
    unknown = [key for key in found if key not in KEYS]
    if unknown:
        raise UsageError(asked, f"there is no {unknown[0]!r}", f"known: {', '.join(KEYS)}")
    lacking = [key for key in ("boxes", "scores") if not found.get(key)]
    if lacking:
        raise UsageError(asked, f"it doesn't name the output of the {lacking[0]}", "write boxes=NAME,scores=NAME")
    found.setdefault("format", FORMATS[0])
    if found["format"] not in FORMATS:
        raise UsageError(asked, f"no such format: {found['format']}", f"known: {', '.join(FORMATS)}")
    for key, kind in (("threshold", float), ("limit", int)):
        try:
            found[key] = kind(found.get(key, 0))
        except (TypeError, ValueError):
            raise UsageError(asked, f"{key}={found[key]} is no number", "write threshold=0.25,limit=300") from None
    return found


def outputs(declared: Any) -> set[str]:
    """Names of the outputs that a declaration speaks of."""
    roles = ("boxes", "scores", "classes", "count")
    return {_split(str(declared[role]))[0] for role in roles if declared and role in declared}


def check(declared: Mapping[str, Any], answer: Feed, asked: str) -> None:
    """Hold a declaration against the model's own outputs.

    Raises:
        UsageError: no such output, or shapes that don't go together.
    """
    known = ", ".join(f"{name}{list(a.shape)}" for name, a in answer.items())
    for name in sorted(outputs(declared) - set(answer)):
        raise UsageError(asked, f"there is no output {name!r}", f"it has: {known}")
    try:
        detected(answer, declared)
    except (ValueError, IndexError) as error:
        todo = f"boxes are (.., N, 4), scores and classes (.., N); it has: {known}"
        raise UsageError(asked, f"its outputs don't go together: {error}", todo) from error


def count(answer: Feed, declared: Mapping[str, Any]) -> int:
    """How many detections an answer holds."""
    return sum(len(image["scores"]) for image in detected(answer, declared))


def compare(
    declared: Mapping[str, Any], precision: str, names: Sequence[str], reference: Sequence[Feed], found: Sequence[Feed]
) -> Detected:
    """Hold detections against the reference's, over all samples together."""
    bar = BARS[precision]
    total = good = n = 0
    worst, most = names[0] if names else "", 0
    ious: list[float] = []
    differences = [0.0]
    for name, want, have in zip(names, reference, found, strict=True):
        try:
            one = match(want, have, declared, bar)
        except (KeyError, ValueError, IndexError) as error:
            return Detected(0, 0.0, None, 0.0, name, f"detections can't be compared ({name}): {error}")
        n, total, good = n + one["n"], total + one["total"], good + one["good"]
        ious, differences = ious + one["ious"], differences + one["differences"]
        if one["total"] - one["good"] > most:
            worst, most = name, one["total"] - one["good"]
    share = good / total if total else 1.0
    result = Detected(n, share, min(ious, default=None), max(differences), worst)
    if share >= bar["matched"]:
        return result
    needed = f"needed {bar['matched']:.0%} at an IoU of {bar['iou']:g} and scores within {bar['score']:g}"
    return Detected(**{**asdict(result), "problem": f"{result.note} ({worst}), {needed}"})


def script() -> str:
    """The source of what matches detections, for a bundle's own script: the standard library and numpy are enough."""
    parts = (outputs, _split, _column, _corners, detected, _ious, match)
    return "\n\n".join(inspect.getsource(function) for function in parts)


def _split(name: str) -> tuple[str, int | None]:
    output, _, column = name.rpartition(":")
    return (output, int(column)) if output and column.isdigit() else (name, None)


def _column(answer: Any, name: str, width: int = 1) -> Any:
    """The part of an output that a name means, ``OUTPUT`` or ``OUTPUT:COLUMN``; `width` columns of boxes."""
    output, column = _split(name)
    array = answer[output].astype("float64")
    if width == 1:
        return array if column is None else array[..., column]
    return array[..., (column or 0) : (column or 0) + width]


def _corners(boxes: Any, form: str) -> tuple[Any, Any]:
    """The lowest and the highest corner of boxes."""
    first, second = boxes[..., :2], boxes[..., 2:]
    if form == "cxcywh":
        return first - second / 2, first + second / 2
    return first, second if form == "xyxy" else first + second


def detected(answer: Any, declared: Any) -> list[Any]:
    """The detections of each picture in an answer: ``low``, ``high``, ``scores`` and ``classes``.

    Rows whose score isn't positive, or which ``count`` leaves out, are padding.
    """
    scores = _column(answer, declared["scores"])
    *batch, rows = scores.shape
    pictures = math.prod(batch)
    boxes = _column(answer, declared["boxes"], 4).reshape(pictures, rows, 4)
    scores = scores.reshape(pictures, rows)
    classes = _column(answer, declared["classes"]).reshape(pictures, rows) if "classes" in declared else 0 * scores
    counts = _column(answer, declared["count"]).reshape(pictures) if "count" in declared else [rows] * pictures
    found = []
    for i in range(pictures):
        kept = [j for j in range(rows) if j < counts[i] and scores[i, j] > 0]
        low, high = _corners(boxes[i, kept], declared["format"])
        found.append({"low": low, "high": high, "scores": scores[i, kept], "classes": classes[i, kept]})
    return found


def _ious(a: Any, b: Any) -> Any:
    """Overlap over union of each box of one side with each of the other; 1 for equal boxes, whatever their area."""
    import numpy as np

    low, high = np.maximum(a["low"][:, None], b["low"]), np.minimum(a["high"][:, None], b["high"])
    shared = np.maximum(high - low, 0).prod(-1)
    first, second = (np.maximum(box["high"] - box["low"], 0).prod(-1) for box in (a, b))
    union = first[:, None] + second - shared
    equal = (a["low"][:, None] == b["low"]).all(-1) & (a["high"][:, None] == b["high"]).all(-1)
    return np.where(union > 0, shared / np.where(union > 0, union, 1), equal)


def match(want: Any, have: Any, declared: Any, bar: Any) -> dict[str, Any]:
    """Pair the detections of one sample, those that overlap most first, within a class.

    One without a pair isn't counted where rounding decides whether it is there: its score lies within the tolerance of
    the threshold, or of the last one of as many as the graph gives at most.

    Returns:
        ``n`` of the reference, ``total`` and ``good`` of both sides, each pair's IoU and how far its scores differ.
    """
    found: dict[str, Any] = {"n": 0, "total": 0, "good": 0, "ious": [], "differences": []}
    sides = detected(want, declared), detected(have, declared)
    if len(sides[0]) != len(sides[1]):
        raise ValueError(f"{len(sides[1])} pictures instead of {len(sides[0])}")
    for a, b in zip(*sides, strict=True):
        ious = _ious(a, b) * (a["classes"][:, None] == b["classes"][None])
        left = {"a": set(range(len(a["scores"]))), "b": set(range(len(b["scores"])))}
        found["n"] += len(a["scores"])
        order = sorted((-ious[i, j], abs(a["scores"][i] - b["scores"][j]), i, j) for i in left["a"] for j in left["b"])
        for iou, difference, i, j in order:
            if -iou >= 0.5 and i in left["a"] and j in left["b"]:
                left["a"].remove(i)
                left["b"].remove(j)
                found["good"] += 2 * bool(-iou >= bar["iou"] and difference <= bar["score"])
                found["total"] += 2
                found["ious"].append(float(-iou))
                found["differences"].append(float(difference))
        last = declared["threshold"]
        if len(a["scores"]) == len(b["scores"]) == declared["limit"]:
            last = max(last, min(a["scores"].min(), b["scores"].min()))
        for side, rest in ((a, left["a"]), (b, left["b"])):
            found["total"] += sum(bool(side["scores"][i] > last + bar["score"]) for i in rest)
    return found
