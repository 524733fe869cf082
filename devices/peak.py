"""The multiply-adds that this CPU does in a second, measured: what a model's own rate is held against."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core import process
from ..core.errors import SeatrialError
from .facts import cores_given, cpu_flags
from .streams import loaded

if TYPE_CHECKING:
    from .arms import Arm
    from .results import ArmSummary
    from .sitting import Sitting

SIZE = 256
"""A product of 0.4 ms: one that takes 10 is interrupted each time on a busy machine, and shows half of the peak."""
SECONDS = 0.3
_LIBRARIES = ("OPENBLAS", "MKL", "OMP", "BLIS", "VECLIB")


def peak_macs_per_s(threads: int) -> float:
    """Multiply-adds per second of numpy's float32 matrix product in so many threads at once, within 0.3 s.

    No clock is assumed. Each thread multiplies its own matrices, and its fastest product counts: threads that
    share one product wait for the slowest, which on a busy machine measures the neighbours. With AVX-512 it is tried
    with OpenBLAS's kernels for that too: on a CPU newer than itself OpenBLAS takes those of AVX2, at half of the rate.

    Raises:
        ChildFailed: numpy can't multiply here.
    """
    kernels = [{}, {"OPENBLAS_CORETYPE": "SkylakeX"}] if "avx512vl" in cpu_flags() else [{}]
    return max(_measured(threads, kernel) for kernel in kernels)


def _measured(threads: int, kernel: dict[str, str]) -> float:
    # A BLAS library reads these once, when it is loaded: so a process of its own.
    env = {f"{name}_NUM_THREADS": "1" for name in _LIBRARIES} | {"VECLIB_MAXIMUM_THREADS": "1"} | kernel
    with tempfile.TemporaryDirectory(prefix="seatrial-") as folder:
        found = process.call(
            "seatrial.devices.peak:measure",
            {"threads": threads, "size": SIZE, "seconds": SECONDS},
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

    Only fp32, and only the CPU: the peak of other types and devices is another one.
    """
    peaks: dict[int, float] = {}
    summaries = []
    for each in found:
        fits = each.ok and each.latency and each.ran_precision == "fp32" and _on_cpu(each.arm)
        count = macs(each.arm) if fits else None
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


def _on_cpu(arm: Arm) -> bool:
    """Whether no setting puts it on another device."""
    return {str(arm.settings.get(key, "cpu")).lower() for key in ("provider", "device")} == {"cpu"}


class _Product:
    """A matrix product over and over; its own fastest time."""

    def __init__(self, size: int, seed: int) -> None:
        import numpy as np

        rng = np.random.default_rng(seed)
        self._one, self._other = (rng.standard_normal((size, size), dtype=np.float32) for _ in range(2))
        self._out = np.empty_like(self._one)
        self._multiply = np.matmul
        self.fastest_ns = math.inf
        self.step()

    def step(self) -> None:
        """Once more; what `streams.loaded` repeats."""
        start = time.perf_counter_ns()
        self._multiply(self._one, self._other, out=self._out)
        self.fastest_ns = min(self.fastest_ns, time.perf_counter_ns() - start)


def measure(threads: int, size: int, seconds: float) -> dict[str, Any]:
    """In the child."""
    products = [_Product(size, seed) for seed in range(threads)]
    for product in products:
        product.fastest_ns = math.inf  # what it took alone is no peak of all of them
    loaded(products, seconds)
    return {"macs_per_s": sum(size**3 * 1e9 / product.fastest_ns for product in products)}
