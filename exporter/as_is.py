"""A file that is used as it is (a ``.tflite``, an OpenVINO IR): the precision that it brings, and its bar.

The reference of such a file is the file itself under strict settings. For a float file the usual bars hold. For a
quantized one there is no fp32 to hold it against: what can be shown is that the settings which ship answer as the
plain ones do. "Equal" or "equal up to one quantum" would be wrong to ask: each kernel rounds its products to 8 bits in
its own way, a difference of one quantum in an early layer grows on its way to the last, and LiteRT's two own sets of
plain kernels (optimised, reference) differ from each other as much as XNNPACK does from either:

    =============================================  ======================  =====================
    file, four noise inputs                        XNNPACK, optimised      reference, optimised
    =============================================  ======================  =====================
    MLPerf Tiny anomaly detection (10 layers)      46.2 dB, 1 quantum      46.2 dB
    MLPerf Tiny image classification (int8 I/O)    28.7 dB, 12 quanta      45.0 dB
    EfficientNet-Lite0, int8 (50 layers)           29.1 dB, 3 quanta       30.2 dB
    EfficientNet-Lite0, int8 weights alone         29.2 dB                 33.3 dB
    ViT-Tiny, int8 (74 layers)                     25.9 dB, 8 quanta       25.4 dB
    =============================================  ======================  =====================

So the bar is `BAR_DB` = 20 dB over all samples together, the same that golden vectors of int8 bundles are held to on
another machine. A wrong kernel, scale or layout leaves less than 10. Integer outputs that stand for real numbers are
compared as those, about their zero point: -128 for "no" would else count as a large signal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..core.errors import Unsupported
from .proof import parity
from .proof.parity import Parity

if TYPE_CHECKING:
    from ..core.samples import Feed
    from .program import Program

BAR_DB = 20.0
"""Lowest SQNR, in dB, of a quantized file against its own strict run."""


def precisions(program: Program, asked: Sequence[str]) -> tuple[str, ...]:
    """The precisions to make of a program; the file's own where none was asked for.

    An fp32 file can become what the target's quantizer makes of it. What was rounded can't be given back.

    Raises:
        Unsupported: another precision than that of a file that was quantized before.
    """
    own = program.precision
    others = [precision for precision in asked if precision != own]
    if own != "fp32" and others:
        todo = f"leave --precision away, or export the {others[0]} source that it was made of"
        raise Unsupported(f"{others[0]} of {program.name}", f"the file is {own} and is used as it is", todo)
    return tuple(asked) or (own,)


def real(outputs: Sequence[Feed], quanta: Mapping[str, Sequence[float]]) -> list[Feed]:
    """The outputs with integers that stand for real numbers as those: ``(number - zero) * scale``."""
    import numpy as np

    def number(name: str, array: np.ndarray) -> np.ndarray:
        if name not in quanta or array.dtype.kind not in "iu":
            return array
        scale, zero = quanta[name]
        return (array.astype(np.float64) - zero) * scale

    return [{name: number(name, array) for name, array in feed.items()} for feed in outputs]


def compare(program: Program, names: Sequence[str], reference: Sequence[Feed], found: Sequence[Feed]) -> Parity:
    """Hold a quantized file's outputs against those of its strict run; edge cases aren't judged, as for any int8.

    Args:
        program: the file.
        names: of the samples.
        reference: outputs under strict settings.
        found: outputs under the settings to prove.
    """
    want, have = (real(side, program.quanta) for side in (reference, found))
    check = parity.compare("int8", names, want, have, classes=program.classes, declared=program.detections)
    low = [
        f"output {out.name!r}: {out.sqnr_db:.1f} dB against its own strict run, needed {BAR_DB:g}; worst: {out.worst}"
        for out in check.outputs
        if out.sqnr_db is not None and parity.BARS_DB["int8"] <= out.sqnr_db < BAR_DB
    ]
    return replace(check, precision=program.precision, problems=check.problems + low)
