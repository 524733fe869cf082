"""What the timed block costs beside a bare loop in the same runtime, on models of about 1 ms: `make bench-overhead`.

In one process, blocks of both in random order, over the same session; the bar is 1 %. About 4 minutes.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import heading
from seatrial import targets
from seatrial.devices.noise import ROWS, WIDTH, write_chain
from seatrial.devices.stats import hodges_lehmann, t_interval
from seatrial.devices.worker import Worker

BLOCKS, ROUNDS, BLOCK_S, BAR = 60, 1500, 0.02, 0.01
PACKAGES = ("onnxruntime", "openvino", "ai-edge-litert", "numpy")

TO_TFLITE = """
import sys
import litert_torch, torch
class Chain(torch.nn.Module):
    def __init__(self, width):
        super().__init__()
        torch.manual_seed(0)
        self.w = torch.nn.Parameter(torch.randn(width, width) / width**0.5)
    def forward(self, x):
        for _ in range(int(sys.argv[2])):
            x = torch.tanh(x @ self.w)
        return x
rows, width = int(sys.argv[3]), int(sys.argv[4])
litert_torch.convert(Chain(width).eval(), (torch.randn(rows, width),)).export(sys.argv[1])
"""


def to_tflite(path: Path, blocks: int) -> Path:
    """The same chain of equal blocks for TFLite."""
    sizes = [str(size) for size in (blocks, ROWS, WIDTH)]
    subprocess.run([sys.executable, "-P", "-c", TO_TFLITE, path, *sizes], check=True, capture_output=True)
    return path


def models(folder: Path) -> dict[str, Path]:
    """The chain for each runtime."""
    import openvino

    onnx = write_chain(folder / "chain.onnx", BLOCKS)
    ir = folder / "chain.xml"
    openvino.save_model(openvino.convert_model(onnx), ir, compress_to_fp16=False)
    return {"onnxruntime": onnx, "openvino": ir, "tflite": to_tflite(folder / "chain.tflite", BLOCKS)}


def bare(session: Any, target: str) -> Callable[[int], None]:
    """The loop that one would write by hand."""
    if target == "onnxruntime":
        run, binding = session._session.run_with_iobinding, session._binding

        def loop(k: int) -> None:
            for _ in range(k):
                run(binding)
    elif target == "openvino":
        infer = session._request.infer

        def loop(k: int) -> None:
            for _ in range(k):
                infer(share_outputs=True)
    else:
        invoke = session._interpreter.invoke

        def loop(k: int) -> None:
            for _ in range(k):
                invoke()

    return loop


def main() -> int:
    print(heading("The timed block beside a bare loop", "make bench-overhead", PACKAGES))
    print("| runtime | one inference, ms | block over bare loop, 95 % | |\n|---|---|---|---|")
    bad = 0
    with tempfile.TemporaryDirectory() as folder:
        for target, path in models(Path(folder)).items():
            worker = Worker()
            worker.open(target, str(path), targets.get(target).settings("fp32"))
            name = worker.session.inputs[0].name
            worker.feed = {name: np.random.default_rng(0).standard_normal((ROWS, WIDTH)).astype(np.float32)}
            worker.warm(10, 0.5)
            ms, ratios = compared(worker, bare(worker.session, target))
            # Groups of rounds, so that the interval doesn't trust neighbours to be independent.
            found = t_interval([hodges_lehmann(ratios[i::6]) for i in range(6)])
            bad += found.low > BAR
            span = f"{found.centre:+.2%} [{found.low:+.2%}, {found.high:+.2%}]"
            verdict = "ok" if found.high <= BAR else "OVER" if found.low > BAR else "not decided"
            print(f"| {target} | {ms:.2f} | {span} | {verdict} |", flush=True)
    return 1 if bad else 0


def compared(worker: Worker, loop: Callable[[int], None]) -> tuple[float, list[float]]:
    """Milliseconds of one inference, and log ratios of our block's time over the bare loop's."""
    clock, rng = time.perf_counter, random.Random(0)
    start = clock()
    loop(20)
    k = max(1, round(BLOCK_S * 20 / (clock() - start)))
    ways: list[Callable[[int], Any]] = [loop, worker.block]
    ratios, all_ms = [], []
    for _ in range(ROUNDS):
        took = {}
        for way in rng.sample(ways, 2):
            start = clock()
            way(k)
            took[way] = clock() - start
        ratios.append(float(np.log(took[worker.block] / took[loop])))
        all_ms.append(1e3 * took[loop] / k)
    return float(np.median(all_ms)), ratios


if __name__ == "__main__":
    sys.exit(main())
