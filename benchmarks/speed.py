"""Wall time of `seatrial export` beside the bare converter, each in a process of its own: `make bench-speed`.

About 12 minutes.

The bare converter does what its documentation shows: load the model, convert, write the file, exit normally. The bar:
at most 1.25 times the bare converter plus 3 s. Several targets in one call must take less than a call for each.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from common import heading

ROOT = Path(__file__).resolve().parent.parent
RUNS = 3
MODELS = {"EfficientNet-Lite0": "lite0", "ViT-Tiny": "vit_tiny"}

LOAD = """
import sys, time
sys.path.insert(0, sys.argv[1])
import torch
import model as user
net, args = user.get_model(), user.get_args()
"""
ONNX = LOAD + "torch.onnx.export(net, tuple(args), dynamo=True, verbose=False).save(sys.argv[2] + '/m.onnx')\n"
BARE = {
    "onnxruntime": ONNX,
    "openvino": ONNX
    + "import openvino as ov\n"
    + "ov.save_model(ov.convert_model(sys.argv[2] + '/m.onnx'), sys.argv[2] + '/m.xml', compress_to_fp16=False)\n",
    "tflite": LOAD + "import litert_torch\nlitert_torch.convert(net, tuple(args)).export(sys.argv[2] + '/m.tflite')\n",
}
REPORT = "print(time.time(), file=open(sys.argv[2] + '/done', 'w'))\n"


def bare(target: str, model: str) -> tuple[float, float]:
    """Seconds with and without the process's normal exit."""
    with tempfile.TemporaryDirectory() as out:
        start = time.time()
        command = [sys.executable, "-P", "-c", BARE[target] + REPORT, str(ROOT / "examples" / model), out]
        subprocess.run(command, check=True, capture_output=True)
        return time.time() - start, float(Path(out, "done").read_text()) - start


def ours(targets: Iterable[str], model: str) -> float:
    """Seconds of the whole command: conversion, proof and bundles."""
    with tempfile.TemporaryDirectory() as out:
        command = [str(Path(sys.executable).parent / "seatrial"), "export", str(ROOT / "examples" / model / "model.py")]
        for target in targets:
            command += ["--target", target]
        start = time.time()
        subprocess.run([*command, "-o", f"{out}/bundle"], check=True, capture_output=True)
        return time.time() - start


def main() -> int:
    print(heading("Wall time of an export beside the bare converter", "make bench-speed"))
    print("Medians of interleaved runs, in seconds.\n")
    print("| model | target | bare | without its exit | seatrial export | bar | |\n|---|---|---|---|---|---|---|")
    begun, bad, alone = time.time(), 0, dict.fromkeys(MODELS, 0.0)
    for title, model in MODELS.items():
        for target in BARE:
            rows = [(*bare(target, model), ours([target], model)) for _ in range(RUNS)]
            whole, early, own = (statistics.median(column) for column in zip(*rows, strict=True))
            bar = 1.25 * whole + 3
            bad += own > bar
            alone[title] += own
            word = "ok" if own <= bar else "OVER"
            print(f"| {title} | {target} | {whole:.1f} | {early:.1f} | {own:.1f} | {bar:.1f} | {word} |", flush=True)
    print("\nThe three targets in one call share one capture:\n")
    print("| model | three calls, summed | one call |\n|---|---|---|")
    for title, model in MODELS.items():
        together = statistics.median(ours(BARE, model) for _ in range(RUNS))
        bad += together >= alone[title]
        print(f"| {title} | {alone[title]:.1f} | {together:.1f} |", flush=True)
    print(f"\n{(time.time() - begun) / 60:.0f} minutes.")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
