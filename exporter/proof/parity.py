"""How far two sets of outputs are apart, and whether that is near enough for a precision.

SQNR (signal-to-quantization-noise ratio) is taken against the power of the reference output over *all* main samples:
a sample that happens to answer almost nothing would else turn rounding into a failure. Float precisions must hold on
every sample; int8 over all together, because single pictures without content (a clear sky) lie 10 dB and more below.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from . import detections
from .detections import Detected

if TYPE_CHECKING:
    from numpy import ndarray

    from ...core.samples import Feed

    Edges = tuple[Sequence[str], Sequence[Feed], Sequence[Feed]]

BARS_DB = {"fp32": 80.0, "fp16": 45.0, "bf16": 15.0, "int8": 10.0}
"""Lowest SQNR, in dB, that passes. For int8 it catches collapse; labelled data judge accuracy.

bf16: a trained EfficientNet-Lite0 has 19.5 on its worst photo, and in torch's own bf16 no more than 22.9. So low a bar
finds no small fault of a conversion: the file must hold in fp32 too (`Prover.prove`).
"""

CONSTANT = ("zeros", "low", "high")
"""Edge cases whose inputs are one number all over."""

CONSTANT_EDGES_DB = {"fp32": 60.0}
"""The same for inputs that are one number all over, where other than `BARS_DB`.

Rounding doesn't average out over equal numbers: XNNPACK's mean over 222 x 222 equal values is 64.6 dB from torch's, and
over noise 120. What these inputs are to find (padding, clipping, overflow) is tens of decibels below.
"""

AGREEMENT = {"fp32": 1.0, "fp16": 0.95, "bf16": 0.9, "int8": 0.8}
"""Lowest share that passes of equal top-1 classes, for a declared classifier on real samples, and of equal integers."""

CEILING_DB = 300.0
"""Written for outputs that are equal to the bit."""


@dataclass(frozen=True)
class OutputParity:
    """One output over all samples of a group: `sqnr_db` of all together, `worst_db` of the sample named `worst`.

    Both are None for integers. `exact` is the share of equal numbers, `problem` what makes a comparison impossible,
    and then all numbers are None. `mean_db` is what an artifact would have that answers the mean over the main samples:
    a bar below it can't tell the two apart.
    """

    name: str
    sqnr_db: float | None
    worst_db: float | None
    max_abs: float | None
    max_rel: float | None
    cosine: float | None
    exact: float
    worst: str
    problem: str = ""
    mean_db: float | None = None


@dataclass(frozen=True)
class Parity:
    """The verdict on an artifact in one setting; a declared detector's outputs stand in `detections` alone."""

    precision: str
    outputs: list[OutputParity]
    edges: list[OutputParity] = field(default_factory=list)
    skipped_edges: list[str] = field(default_factory=list)
    agreement: float | None = None
    samples: int = 0
    problems: list[str] = field(default_factory=list)
    detections: Detected | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    @property
    def sqnr_db(self) -> float | None:
        """The lowest SQNR over the float outputs, of all main samples together."""
        found = [out.sqnr_db for out in self.outputs if out.sqnr_db is not None]
        return min(found) if found else None

    def to_dict(self) -> dict[str, Any]:
        """As JSON data."""
        return {**asdict(self), "ok": self.ok, "sqnr_db": self.sqnr_db}


def compare(
    precision: str,
    names: Sequence[str],
    reference: Sequence[Feed],
    found: Sequence[Feed],
    edges: Edges = ((), (), ()),
    classes: str | None = None,
    declared: Mapping[str, Any] | None = None,
) -> Parity:
    """Hold `found` against `reference`, sample by sample, output by output.

    Args:
        precision: decides the bar.
        names: of the main samples.
        reference: outputs of the source.
        found: outputs of the artifact.
        edges: names, reference outputs and found outputs of the edge cases.
        classes: the output whose largest entry is the class, for a declared classifier.
        declared: the outputs of a declared detector, see `detections.read`.
    """
    plain = [name for name in reference[0] if name not in detections.outputs(declared)]
    powers = {name: power([sample[name] for sample in reference]) for name in plain}
    main = [
        replace(_output(name, powers[name], names, reference, found), mean_db=mean_db([f[name] for f in reference]))
        for name in plain
    ]
    problems = [p for out in main for p in _problems(out, precision, BARS_DB[precision], "")]
    finite = [i for i, answer in enumerate(edges[1]) if _finite(answer)]
    skipped = [name for i, name in enumerate(edges[0]) if i not in finite]
    asked = _chosen(edges, finite)
    judged, more = _edges(precision, powers, asked)
    detected = None
    if declared:
        detected = detections.compare(declared, precision, names, reference, found)
        at_edges = detections.compare(declared, precision, *asked)
        more += [f"edge case: {at_edges.problem}"] if at_edges.problem else []
        problems += [detected.problem] if detected.problem else []
    # Edge cases of a quantized model leave the calibrated range by design.
    problems += more if precision != "int8" else []
    agreement = _agreement(classes, reference, found) if classes else None
    if agreement is not None and agreement < AGREEMENT[precision]:
        problems.append(f"top-1 agreement {agreement:.1%}, needed {AGREEMENT[precision]:.0%}")
    return Parity(precision, main, judged, skipped, agreement, len(names), problems, detected)


def _finite(answer: Feed) -> bool:
    import numpy as np

    return all(a.dtype.kind != "f" or bool(np.isfinite(a).all()) for a in answer.values())


def _chosen(edges: Edges, which: Sequence[int]) -> Edges:
    names, reference, found = edges
    return [names[i] for i in which], [reference[i] for i in which], [found[i] for i in which]


def _edges(precision: str, powers: Mapping[str, float], edges: Edges) -> tuple[list[OutputParity], list[str]]:
    """Edge cases by output, those whose inputs are one number all over by themselves; and what is wrong."""
    outputs: list[OutputParity] = []
    problems: list[str] = []
    for constant in (True, False):
        chosen = [i for i, name in enumerate(edges[0]) if (name in CONSTANT) == constant]
        if not chosen:
            continue
        bar = CONSTANT_EDGES_DB.get(precision, BARS_DB[precision]) if constant else BARS_DB[precision]
        judged = [_output(name, level, *_chosen(edges, chosen), edge=True) for name, level in powers.items()]
        outputs += judged
        problems += [p for out in judged for p in _problems(out, precision, bar, "edge case ")]
    return outputs, problems


def _problems(out: OutputParity, precision: str, bar: float, prefix: str) -> list[str]:
    where = f"output {out.name!r} ({prefix}{out.worst})"
    if out.problem:
        return [f"{where}: {out.problem}"]
    judged = out.sqnr_db if precision == "int8" else out.worst_db
    if judged is not None and judged < bar:
        shown = f"{judged:.1f}" if round(judged, 1) < bar else f"{judged:.4f}"
        return [f"{where}: {shown} dB, needed {bar:g}; largest difference {out.max_abs:.4g}"]
    if judged is None and out.exact < AGREEMENT[precision]:
        return [f"{where}: {out.exact:.2%} of the integers are equal, needed {AGREEMENT[precision]:.0%}"]
    return []


def _output(
    name: str,
    level: float,
    samples: Sequence[str],
    reference: Sequence[Feed],
    found: Sequence[Feed],
    edge: bool = False,
) -> OutputParity:
    seen = []
    for sample, want, have in zip(samples, reference, found, strict=True):
        a, b = want[name], have.get(name)
        problem = _unfit(a, b)
        if b is None or problem:
            return OutputParity(name, None, None, None, None, None, 0.0, sample, problem)
        seen.append(_one(sample, a, b, max(level, power([a])) if edge else level))
    return _together(name, level, seen)


def _unfit(a: ndarray, b: ndarray | None) -> str:
    """Why two arrays can't be compared number by number; empty where they can."""
    import numpy as np

    if b is None:
        return "it is missing"
    if b.shape != a.shape:
        return f"its shape is {list(b.shape)} instead of {list(a.shape)}"
    return "it is not finite" if a.dtype.kind == "f" and not np.isfinite(b).all() else ""


@dataclass(frozen=True)
class _Sample:
    """One output of one sample: how far it is off; `noise` is its mean square error, None for integers."""

    name: str
    equal: int
    size: int
    noise: float | None = None
    sqnr_db: float = CEILING_DB
    max_abs: float = 0.0
    max_rel: float = 0.0
    cosine: float | None = None


def _one(sample: str, a: ndarray, b: ndarray, level: float) -> _Sample:
    import numpy as np

    equal = int((a == b).sum())
    if a.dtype.kind != "f":
        return _Sample(sample, equal, a.size, sqnr_db=equal / a.size if a.size else CEILING_DB)
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    error = np.abs(x - y)
    noise = float(np.mean(error**2)) if x.size else 0.0
    norm = float(np.linalg.norm(x) * np.linalg.norm(y))
    # Relative to the output's scale where an entry is nearly zero: x/0 says nothing.
    relative = error / np.maximum(np.abs(x), math.sqrt(level) * 1e-3 or 1.0)
    return _Sample(
        sample,
        equal,
        a.size,
        noise,
        decibel(level, noise),
        float(error.max(initial=0)),
        float(relative.max(initial=0)),
        float(x @ y) / norm if norm > 0 else None,
    )


def _together(name: str, level: float, seen: Sequence[_Sample]) -> OutputParity:
    worst = min(seen, key=lambda one: one.sqnr_db)
    size = sum(one.size for one in seen)
    exact = sum(one.equal for one in seen) / size if size else 1.0
    if worst.noise is None:
        return OutputParity(name, None, None, 0.0, 0.0, None, exact, worst.name)
    noise = sum((one.noise or 0.0) * one.size for one in seen) / size if size else 0.0
    return OutputParity(
        name,
        decibel(level, noise),
        worst.sqnr_db,
        max(one.max_abs for one in seen),
        max(one.max_rel for one in seen),
        min((one.cosine for one in seen if one.cosine is not None), default=None),
        exact,
        worst.name,
    )


def decibel(level: float, noise: float) -> float:
    """SQNR, in dB, of a mean square error under a mean square of the reference, within `CEILING_DB`."""
    if noise == 0:
        return CEILING_DB
    return min(10 * math.log10(level / noise), CEILING_DB) if level > 0 else -CEILING_DB


def power(arrays: Sequence[ndarray]) -> float:
    """Mean square of all entries."""
    import numpy as np

    flat = [np.asarray(a, np.float64).ravel() for a in arrays]
    return float(np.mean(np.concatenate(flat) ** 2)) if any(a.size for a in flat) else 0.0


def mean_db(arrays: Sequence[ndarray]) -> float | None:
    """SQNR, in dB, of the mean over the samples as an answer; None of integers, other shapes each, or one sample."""
    import numpy as np

    if len(arrays) < 2 or arrays[0].dtype.kind != "f" or any(a.shape != arrays[0].shape for a in arrays):
        return None
    stacked = np.stack(arrays).astype(np.float64)
    noise = float(np.mean((stacked - stacked.mean(0)) ** 2)) if stacked.size else 0.0
    return decibel(power(arrays), noise)


def _agreement(classes: str, reference: Sequence[Feed], found: Sequence[Feed]) -> float | None:
    import numpy as np

    if any(sample.get(classes) is None or sample[classes].ndim < 2 for sample in (*reference, *found)):
        return None
    a = np.concatenate([sample[classes].argmax(-1).ravel() for sample in reference])
    b = np.concatenate([sample[classes].argmax(-1).ravel() for sample in found])
    return float((a == b).mean()) if a.shape == b.shape else 0.0
