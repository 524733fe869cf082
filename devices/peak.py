"""The multiply-adds that this CPU does in a second, measured: what a model's own rate is held against."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core import process
from ..core.errors import SeatrialError
from .facts import cores_given

if TYPE_CHECKING:
    from .arms import Arm
    from .results import ArmSummary
    from .sitting import Sitting

SIZE = 768
SECONDS = 0.3
_LIBRARIES = ("OPENBLAS", "MKL", "OMP", "BLIS", "VECLIB")


def peak_macs_per_s(threads: int) -> float:
    """Multiply-adds per second of numpy's float32 matrix product on so many threads, the best of 0.3 s.

    No clock and no instruction set is assumed. What is measured is what a good library reaches here and now.

    Raises:
        ChildFailed: numpy can't multiply here.
    """
    # A BLAS library reads these once, when it is loaded: so a process for each number of threads.
    env = {f"{name}_NUM_THREADS": str(threads) for name in _LIBRARIES} | {"VECLIB_MAXIMUM_THREADS": str(threads)}
    with tempfile.TemporaryDirectory(prefix="seatrial-") as folder:
        found = process.call(
            "seatrial.devices.peak:measure",
            {"size": SIZE, "seconds": SECONDS},
            workdir=Path(folder),
            limits=process.Limits(timeout_s=120.0),
            label="measure the peak rate of this CPU",
            env=env,
        )
    return float(found["macs_per_s"])


def with_limits(
    found: Sequence[ArmSummary], macs: Callable[[Arm], float | None], sitting: Sitting
) -> tuple[list[ArmSummary], dict[int, float]]:
    """The summaries with `ArmSummary.limit` where it can be told, and the peak rates by threads.

    Only fp32: the peak of other types is another one.
    """
    peaks: dict[int, float] = {}
    summaries = []
    for each in found:
        count = macs(each.arm) if each.ok and each.latency and each.ran_precision == "fp32" else None
        if count and each.latency:
            threads = min(each.arm.settings.get("threads", 1) * (each.arm.streams or 1), len(cores_given()))
            per_s = each.throughput.centre if each.throughput else 1e3 / each.latency.centre
            try:
                if threads not in peaks:
                    sitting.say(f"measuring what this CPU can do on {threads} of its cores")
                    peaks[threads] = peak_macs_per_s(threads)
            except SeatrialError as error:  # the latencies stay
                sitting.say(f"the limit of this CPU is unknown: {error.found}")
                return list(found), {}
            each = replace(each, limit=count * per_s / peaks[threads])
        summaries.append(each)
    return summaries, peaks


def measure(size: int, seconds: float) -> dict[str, Any]:
    """In the child: the fastest of as many products as fit into the time, at least three."""
    import numpy as np

    one, other = (np.random.default_rng(i).standard_normal((size, size), dtype=np.float32) for i in range(2))
    out = np.empty_like(one)
    np.matmul(one, other, out=out)
    took: list[int] = []
    end = time.perf_counter() + seconds
    while len(took) < 3 or time.perf_counter() < end:
        start = time.perf_counter_ns()
        np.matmul(one, other, out=out)
        took.append(time.perf_counter_ns() - start)
    return {"macs_per_s": size**3 * 1e9 / min(took)}
