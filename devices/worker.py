"""The resident child of a measurement or a proof: opens one artifact, then answers requests.

`python -P -m seatrial.devices.worker READ WRITE`: requests and answers are JSON lines on two descriptors of
their own, because runtimes print to stdout. Asleep in `read()` it costs nothing while another worker is
timed. Standard library, numpy, psutil and the one runtime only: this runs on boards.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core import samples
from ..core.child import die_with_parent, log_trace
from ..core.errors import ChildFailed, NotWritten, SeatrialError
from ..core.paths import MAKE_ROOM, NO_ROOM
from ..targets.profile import without_times
from . import gpu, streams

if TYPE_CHECKING:
    from numpy import ndarray

NO_MEMORY = ("bad_alloc", "bad allocation", "out of memory", "failed to allocate", "cannot allocate memory")


class Worker:
    """One artifact in one runtime; every public method is an operation that the parent may ask for."""

    def __init__(self) -> None:
        self.session: Any = None
        self.feed: dict[str, ndarray] = {}
        self.streams_open: list[Any] = []
        self.gpus = gpu.Meter()

    def restrict(self, cores: Sequence[int] = (), memory_bytes: int | None = None) -> dict[str, Any]:
        """Keep this process to some cores, and to so much data; asked before anything is opened."""
        import resource

        if cores and hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, cores)
        if memory_bytes:
            # Not the address space: runtimes reserve far more of that than they use.
            resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
        return {}

    def open(self, target: str, artifact: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Load the artifact; `load_ms` is without the import of the runtime, which `import_ms` tells."""
        from .. import targets

        runtime = targets.require(target)
        start = time.perf_counter_ns()
        # Every runtime is imported by `open`; without a file that is all that happens.
        with suppress(Exception):
            runtime.open(Path(artifact + ".absent"), settings)
        imported = time.perf_counter_ns()
        self.session = runtime.open(Path(artifact), settings)
        loaded = time.perf_counter_ns()
        return {
            "import_ms": (imported - start) / 1e6,
            "load_ms": (loaded - imported) / 1e6,
            "version": runtime.version(),
            "inputs": [spec.to_dict() for spec in self.session.inputs],
            "outputs": [spec.to_dict() for spec in self.session.outputs],
        }

    def first(self, inputs: str, reference: str | None, bar_db: float) -> dict[str, Any]:
        """The first inference, timed, and its outputs against the reference; `mismatch` is what is wrong."""
        self.feed = samples.load(inputs)[0]
        start = time.perf_counter_ns()
        outputs = self.session.run(self.feed)
        first_ms = (time.perf_counter_ns() - start) / 1e6
        shapes = {name: [str(array.dtype), list(array.shape)] for name, array in sorted(self.feed.items())}
        sqnr: dict[str, float] = {}
        mismatch = None
        if reference is not None:
            sqnr, mismatch = agreement(outputs, samples.load(reference), bar_db)
        return {"first_ms": first_ms, "shapes": shapes, "sqnr_db": sqnr, "mismatch": mismatch}

    def warm(self, iterations: int, seconds: float) -> dict[str, Any]:
        """Bind the first feed and step at least so often and so long; no garbage is collected afterwards."""
        self.session.bind(self.feed)
        samples_ns: list[int] = []
        clock, step = time.perf_counter_ns, self.session.step
        end = clock() + int(seconds * 1e9)
        while len(samples_ns) < iterations or clock() < end:
            start = clock()
            step()
            samples_ns.append(clock() - start)
        gc.collect()
        gc.freeze()
        gc.disable()
        self.gpus.read()  # now, while no other arm is opened
        return {"samples_ns": samples_ns[-4096:], "iterations": len(samples_ns)}

    def block(self, k: int, cold: int = 0) -> dict[str, Any]:
        """Time `k` iterations, each by itself, after `cold` that aren't counted."""
        samples_ns = [0] * k
        clock, step = time.perf_counter_ns, self.session.step
        for _ in range(cold):
            step()
        before, cpu = _switches(), time.process_time_ns()
        for i in range(k):
            start = clock()
            step()
            samples_ns[i] = clock() - start
        cpu, after = time.process_time_ns() - cpu, _switches()
        return {
            "samples_ns": samples_ns,
            "cpu_ns": cpu,
            "switches": after[0] - before[0],
            "preempted": after[1] - before[1],
        }

    def streams(self, count: int, seconds: float) -> dict[str, Any]:
        """Open so many streams of the artifact, bind the first feed to each, and warm them up together."""
        gc.unfreeze()
        gc.enable()
        self.streams_open = streams.opened(self.session, count)
        for session in self.streams_open:
            session.bind(self.feed)
        samples_ns, rate = streams.loaded(self.streams_open, seconds)
        gc.collect()
        gc.freeze()
        gc.disable()
        self.gpus.read()
        return {"samples_ns": samples_ns[-4096:], "rate_per_s": rate}

    def load(self, seconds: float) -> dict[str, Any]:
        """All streams at once for this time; each inference timed, and how many were done in a second."""
        before, cpu = _switches(), time.process_time_ns()
        samples_ns, rate = streams.loaded(self.streams_open, seconds)
        cpu, after = time.process_time_ns() - cpu, _switches()
        return {
            "samples_ns": samples_ns,
            "rate_per_s": rate,
            "cpu_ns": cpu,
            "switches": after[0] - before[0],
            "preempted": after[1] - before[1],
        }

    def run(self, inputs: str, out: str) -> dict[str, Any]:
        """All feeds of a Samples file, outputs into another: a proof."""
        feeds = samples.load(inputs)
        outputs = [self.session.run(feed) for feed in feeds]
        samples.save(out, outputs)
        self.session.bind(feeds[0])
        return {"outputs": out, "n": len(outputs)}

    def placement(self) -> dict[str, Any]:
        """What really ran. To be asked last: some runtimes profile a second session to know it."""
        return dict(self.session.placement())

    def profile(self, runs: int) -> dict[str, Any]:
        """What each operator took, as `targets.profile.Profile`. For a process that isn't timed."""
        ask = getattr(self.session, "profile", None)
        return dict(ask(runs) if ask else without_times("this target has no profiler"))

    def stats(self) -> dict[str, Any]:
        """What the process used up to now."""
        return {"peak_rss_bytes": _peak_rss_bytes(), "gpu_bytes": self.gpus.held}


def agreement(
    outputs: Mapping[str, ndarray], reference: list[dict[str, ndarray]], bar_db: float
) -> tuple[dict[str, float], str | None]:
    """SQNR (dB) of each float output of the first sample, and why the outputs don't fit, or None.

    The signal is the mean square over all reference samples: one sample may lie at the floor of its range.
    """
    import numpy as np

    found: dict[str, float] = {}
    for name, wanted in reference[0].items():
        if name not in outputs:
            return found, f"output {name!r} is missing; found {', '.join(sorted(outputs))}"
        got = np.asarray(outputs[name])
        if got.shape != wanted.shape:
            return found, f"output {name!r} has shape {got.shape}, the reference {wanted.shape}"
        if not np.issubdtype(wanted.dtype, np.floating):
            continue  # integer outputs (labels, indices) may flip at a tie: that is for the proof to judge
        signal = np.mean([np.mean(np.square(feed[name], dtype=np.float64)) for feed in reference])
        noise = np.mean(np.square(got.astype(np.float64) - wanted.astype(np.float64)))
        if not np.isfinite(noise):
            return found, f"output {name!r} is not finite"
        found[name] = float(min(200.0, 10 * np.log10(signal / noise))) if noise > 0 and signal > 0 else 200.0
        if noise > 0 and found[name] < bar_db:
            return found, f"output {name!r} is {found[name]:.1f} dB from the reference, needed {bar_db:g}"
    return found, None


def main(read: int, write: int) -> None:
    """Answer requests until the pipe closes; an error is an answer too."""
    die_with_parent()
    worker = Worker()
    with os.fdopen(read, "r") as requests, os.fdopen(write, "w") as answers:
        for line in requests:
            request = json.loads(line)
            operation = getattr(worker, request.pop("op"))
            answers.write(json.dumps(_answer(operation, request)) + "\n")
            answers.flush()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # destructors of some runtimes crash or hang; nothing is left to be written


def _answer(operation: Callable[..., dict[str, Any]], arguments: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return operation(**arguments)
    except SeatrialError as error:
        log_trace()
        return {"error": error.to_dict()}
    except Exception as error:
        log_trace()
        text = f"{type(error).__name__}: {error}".strip()[:2000]
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            return {"error": NotWritten(f"the files of a worker's {operation.__name__}", text, MAKE_ROOM).to_dict()}
        no_memory = isinstance(error, MemoryError) or any(words in text.lower() for words in NO_MEMORY)
        kind = "oom" if no_memory else "error"
        return {"error": ChildFailed(operation.__name__, text, kind=kind).to_dict()}


def _switches() -> tuple[int, int]:
    import resource

    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_nvcsw, usage.ru_nivcsw


def _peak_rss_bytes() -> int:
    # Not ru_maxrss first: on Linux it starts at the parent's size, because the child was forked from it.
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
