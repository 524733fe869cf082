"""Whether the reference's answers to the main samples prove anything.

What an artifact would pass with that was never computed proves nothing. Two such are held against the bar of fp32. One
answers the mean over all samples: it passes where the output hardly differs between them. One answers nothing but the
ends of the output's range: it passes where a softmax, a sigmoid or a clip is saturated, and then no error before it can
be seen. That an output is such by its nature (a mask, a class) can't be told from its numbers, so decisions count as
evidence where there are many of them, or where they were taken on real samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from . import detections
from .parity import BARS_DB, decibel, mean_db, power

if TYPE_CHECKING:
    from numpy import ndarray

    from ...core.samples import Feed

DECISIONS = 100
"""So many entries that go from one end to the other between samples are evidence: some of them lie near the border."""


def judge(
    reference: Sequence[Feed], real: bool = False, declared: Mapping[str, Any] | None = None
) -> tuple[list[str], list[str]]:
    """What is wrong with the reference's answers, and what a reader of the report should know of them.

    An output of whole numbers (a class, a count) may be constant where another one proves something.

    Args:
        reference: outputs of each main sample.
        real: whether real samples are among them.
        declared: the outputs of a declared detector, which are judged together.
    """
    boxes = detections.outputs(declared)
    found = {name: _problem([feed[name] for feed in reference], real) for name in reference[0] if name not in boxes}
    sound = any(not why and reference[0][name].dtype.kind == "f" for name, (why, _) in found.items())
    problems, notes = [], []
    if declared:
        seen = sum(detections.count(feed, declared) for feed in reference)
        sound = sound or seen > 0
        if not seen:
            problems.append("the reference detects nothing in any main sample, which proves nothing")
    for name, (why, note) in found.items():
        if why and sound and all(_whole(feed[name]) for feed in reference):
            notes.append(f"the output {name!r} {why}: nothing is proven of it")
        elif why:
            problems.append(f"the reference output {name!r} {why}, which proves nothing")
        elif note:
            notes.append(f"the output {name!r} {note}")
    return problems, notes


def _problem(arrays: Sequence[ndarray], real: bool) -> tuple[str, str]:
    """Why an output proves nothing, or else what to know of it; empty where there is nothing to say."""
    import numpy as np

    if any(a.dtype.kind == "f" and not np.isfinite(a).all() for a in arrays):
        return "is not finite", ""
    if all(not a.any() for a in arrays):
        return "is all zeros", ""
    if len(arrays) > 1 and all(a.shape == arrays[0].shape and (a == arrays[0]).all() for a in arrays):
        return "is the same for all main samples", ""
    if arrays[0].dtype.kind != "f":
        return "", ""
    mean = mean_db(arrays)
    if mean is not None and mean >= BARS_DB["fp32"]:
        return f"hardly differs between main samples (their mean would pass, at {mean:.0f} dB)", ""
    ends = _ends(arrays)
    if not ends:
        return "", ""
    text = f"takes only the ends of its range ({ends[0]:.3g} and {ends[1]:.3g}) in all main samples"
    return ("", f"{text}: its decisions are proven, not its values") if real else (text, "")


def _ends(arrays: Sequence[ndarray]) -> tuple[float, float] | None:
    """The ends of the range, where an artifact that answers nothing else would pass, and has few decisions to take."""
    import numpy as np

    flat = np.concatenate([a.astype(np.float64).ravel() for a in arrays])
    if flat.size <= 2:
        return None
    low, high = float(flat.min()), float(flat.max())
    upper = [a - low > high - a for a in (array.astype(np.float64) for array in arrays)]
    snapped = np.where(np.concatenate([u.ravel() for u in upper]), high, low)
    noise = float(np.mean((flat - snapped) ** 2))
    if decibel(power(arrays), noise) < BARS_DB["fp32"]:
        return None
    same = all(u.shape == upper[0].shape for u in upper)
    decided = np.ptp(np.stack(upper).astype(int), 0).sum() if same else math.inf
    return (low, high) if decided < DECISIONS else None


def _whole(array: ndarray) -> bool:
    import numpy as np

    return array.dtype.kind != "f" or bool((array == np.round(array)).all())
