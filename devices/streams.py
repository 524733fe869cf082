"""Several inferences of one artifact at the same time, each in a thread of its own. Runs in the worker: light."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Any

from ..core.errors import Unsupported


def opened(session: Any, count: int) -> list[Any]:
    """So many sessions of one artifact, sharing what the runtime can share; see `targets.base.Streams`.

    Raises:
        Unsupported: the target doesn't know how.
    """
    fork = getattr(session, "streams", None)
    if fork is None:
        asked = f"{count} streams of {type(session).__name__}"
        raise Unsupported(asked, "its session has no method `streams`", "leave --concurrency away")
    found: list[Any] = fork(count)
    return found


def loaded(sessions: Sequence[Any], seconds: float) -> tuple[list[int], float]:
    """All sessions step for this time: ns of every inference, and how many were done in a second.

    Each stream ends with the inference that it is in, and its rate counts the time that it really took.

    Raises:
        Exception: whatever the first stream that failed raised.
    """
    clock = time.perf_counter_ns
    samples: list[list[int]] = [[] for _ in sessions]
    rates = [0.0] * len(sessions)
    failed: list[BaseException] = []
    together = threading.Barrier(len(sessions))

    def stream(index: int) -> None:
        step, took = sessions[index].step, samples[index]
        together.wait()
        begin = now = clock()
        end = begin + int(seconds * 1e9)
        try:
            while now < end or not took:
                start = clock()
                step()
                now = clock()
                took.append(now - start)
        except BaseException as error:  # a thread's errors are lost otherwise
            failed.append(error)
            return
        rates[index] = len(took) * 1e9 / (now - begin)

    threads = [threading.Thread(target=stream, args=(index,)) for index in range(len(sessions))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return [ns for took in samples for ns in took], sum(rates)
