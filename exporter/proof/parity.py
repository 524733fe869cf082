"""How far two sets of outputs are apart, and whether that is near enough for a precision.

SQNR (signal-to-quantization-noise ratio) is taken against the power of the reference output over *all* main samples:
a sample that happens to answer almost nothing would else turn rounding into a failure. Float precisions must hold on
every sample; int8 over all together, because single pictures without content (a clear sky) lie 10 dB and more below.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy import ndarray

    from ...core.samples import Feed

BARS_DB = {"fp32": 80.0, "fp16": 45.0, "bf16": 30.0, "int8": 10.0}
"""Lowest SQNR, in dB, that passes. For int8 it catches collapse; labelled data judge accuracy."""

CONSTANT = ("zeros", "low", "high")
"""Edge cases whose inputs are one number all over."""

CONSTANT_EDGES_DB = {"fp32": 60.0}
"""The same for inputs that are one number all over, where other than `BARS_DB`.

Rounding doesn't average out over equal numbers: XNNPACK's mean over 222 x 222 equal values is 64.6 dB from torch's, and
over noise 120. What these inputs are to find (padding, clipping, overflow) is tens of decibels below.
"""

AGREEMENT = {"fp32": 1.0, "fp16": 0.95, "bf16": 0.9, "int8": 0.8}
"""Lowest share of equal top-1 classes that passes, for a declared classifier on real samples."""

CEILING_DB = 300.0
"""Written for outputs that are equal to the bit."""


@dataclass(frozen=True)
class OutputParity:
    """One output over all samples of a group: `sqnr_db` of all together, `worst_db` of the sample named `worst`.

    Both are None for integers. `exact` is the share of equal numbers, `problem` what makes a comparison impossible,
    and then all numbers are None.
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


@dataclass(frozen=True)
class Parity:
    """The verdict on an artifact in one setting."""

    precision: str
    outputs: list[OutputParity]
    edges: list[OutputParity] = field(default_factory=list)
    skipped_edges: list[str] = field(default_factory=list)
    agreement: float | None = None
    samples: int = 0
    problems: list[str] = field(default_factory=list)

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


def degenerate(reference: Sequence[Feed]) -> list[str]:
    """Why reference outputs prove nothing: NaN, all zeros, or constant over all main samples."""
    import numpy as np

    problems = []
    for name in reference[0]:
        arrays = [sample[name] for sample in reference]
        if any(a.dtype.kind == "f" and not np.isfinite(a).all() for a in arrays):
            problems.append(f"the reference output {name!r} is not finite")
        elif all(not a.any() for a in arrays):
            problems.append(f"the reference output {name!r} is all zeros, which proves nothing")
        elif len(arrays) > 1 and all(a.shape == arrays[0].shape and (a == arrays[0]).all() for a in arrays):
            problems.append(f"the reference output {name!r} is the same for all main samples, which proves nothing")
    return problems


def compare(
    precision: str,
    names: Sequence[str],
    reference: Sequence[Feed],
    found: Sequence[Feed],
    edges: tuple[Sequence[str], Sequence[Feed], Sequence[Feed]] = ((), (), ()),
    classes: str | None = None,
) -> Parity:
    """Hold `found` against `reference`, sample by sample, output by output.

    Args:
        precision: decides the bar.
        names: of the main samples.
        reference: outputs of the source.
        found: outputs of the artifact.
        edges: names, reference outputs and found outputs of the edge cases.
        classes: the output whose largest entry is the class, for a declared classifier.
    """
    import numpy as np

    powers = {name: _power([sample[name] for sample in reference]) for name in reference[0]}
    main = [_output(name, powers[name], names, reference, found) for name in reference[0]]
    finite = [
        i for i, out in enumerate(edges[1]) if all(a.dtype.kind != "f" or np.isfinite(a).all() for a in out.values())
    ]
    skipped = [name for i, name in enumerate(edges[0]) if i not in finite]
    problems = [p for out in main for p in _problems(out, precision, BARS_DB[precision], "")]
    edge_outputs = []
    for constant in (True, False):
        chosen = [i for i in finite if (edges[0][i] in CONSTANT) == constant]
        if not chosen:
            continue
        asked, (want, have) = [edges[0][i] for i in chosen], ([side[i] for i in chosen] for side in edges[1:])
        outputs = [_output(n, powers[n], asked, want, have, edge=True) for n in reference[0]]
        edge_outputs += outputs
        bar = CONSTANT_EDGES_DB.get(precision, BARS_DB[precision]) if constant else BARS_DB[precision]
        # Edge cases of a quantized model leave the calibrated range by design.
        if precision != "int8":
            problems += [p for out in outputs for p in _problems(out, precision, bar, "edge case ")]
    agreement = _agreement(classes, reference, found) if classes else None
    if agreement is not None and agreement < AGREEMENT[precision]:
        problems.append(f"top-1 agreement {agreement:.1%}, needed {AGREEMENT[precision]:.0%}")
    return Parity(precision, main, edge_outputs, skipped, agreement, len(names), problems)


def _problems(out: OutputParity, precision: str, bar: float, prefix: str) -> list[str]:
    where = f"output {out.name!r} ({prefix}{out.worst})"
    if out.problem:
        return [f"{where}: {out.problem}"]
    judged = out.sqnr_db if precision == "int8" else out.worst_db
    if judged is not None and judged < bar:
        shown = f"{judged:.1f}" if round(judged, 1) < bar else f"{judged:.4f}"
        return [f"{where}: {shown} dB, needed {bar:g}; largest difference {out.max_abs:.4g}"]
    if judged is None and out.exact < 1:
        return [f"{where}: {out.exact:.2%} of the integers are equal"]
    return []


def _output(
    name: str,
    power: float,
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
        scale = max(power, _power([a])) if edge else power
        seen.append(_one(sample, a, b, scale))
    return _together(name, power, seen)


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


def _one(sample: str, a: ndarray, b: ndarray, power: float) -> _Sample:
    import numpy as np

    equal = int((a == b).sum())
    if a.dtype.kind != "f":
        return _Sample(sample, equal, a.size, sqnr_db=equal / a.size if a.size else CEILING_DB)
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    error = np.abs(x - y)
    noise = float(np.mean(error**2)) if x.size else 0.0
    norm = float(np.linalg.norm(x) * np.linalg.norm(y))
    # Relative to the output's scale where an entry is nearly zero: x/0 says nothing.
    relative = error / np.maximum(np.abs(x), math.sqrt(power) * 1e-3 or 1.0)
    return _Sample(
        sample,
        equal,
        a.size,
        noise,
        _decibel(power, noise),
        float(error.max(initial=0)),
        float(relative.max(initial=0)),
        float(x @ y) / norm if norm > 0 else None,
    )


def _together(name: str, power: float, seen: Sequence[_Sample]) -> OutputParity:
    worst = min(seen, key=lambda one: one.sqnr_db)
    size = sum(one.size for one in seen)
    exact = sum(one.equal for one in seen) / size if size else 1.0
    if worst.noise is None:
        return OutputParity(name, None, None, 0.0, 0.0, None, exact, worst.name)
    noise = sum((one.noise or 0.0) * one.size for one in seen) / size if size else 0.0
    return OutputParity(
        name,
        _decibel(power, noise),
        worst.sqnr_db,
        max(one.max_abs for one in seen),
        max(one.max_rel for one in seen),
        min((one.cosine for one in seen if one.cosine is not None), default=None),
        exact,
        worst.name,
    )


def _decibel(power: float, noise: float) -> float:
    if noise == 0:
        return CEILING_DB
    return min(10 * math.log10(power / noise), CEILING_DB) if power > 0 else -CEILING_DB


def _power(arrays: Sequence[ndarray]) -> float:
    import numpy as np

    flat = [np.asarray(a, np.float64).ravel() for a in arrays]
    return float(np.mean(np.concatenate(flat) ** 2)) if any(a.size for a in flat) else 0.0


def _agreement(classes: str, reference: Sequence[Feed], found: Sequence[Feed]) -> float | None:
    import numpy as np

    if any(sample.get(classes) is None or sample[classes].ndim < 2 for sample in (*reference, *found)):
        return None
    a = np.concatenate([sample[classes].argmax(-1).ravel() for sample in reference])
    b = np.concatenate([sample[classes].argmax(-1).ravel() for sample in found])
    return float((a == b).mean()) if a.shape == b.shape else 0.0
