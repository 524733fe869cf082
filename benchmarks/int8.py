"""int8 by each runtime's own quantizer, with every option that ours offers: `make bench-int8`.

Calibrated on the demo's 100 crops of 5 photos, scored on 200 crops of the 20 other photos, which nothing was chosen by.
The options of the first row of each runtime are those that an export takes on this CPU. Times are int8's over fp32's,
interleaved in fresh processes by `seatrial bench`; `--no-timing` leaves them away, for a machine that is not idle.
"""

from __future__ import annotations

import argparse
import importlib
import random
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import heading
from seatrial.core import process, samples
from seatrial.core.ids import files_id
from seatrial.devices.arms import Arm
from seatrial.devices.bench import bench
from seatrial.devices.facts import cpu_flags
from seatrial.exporter import quantize
from seatrial.exporter.artifact import Artifact, model_files
from seatrial.exporter.build import Builder
from seatrial.exporter.program import Program
from seatrial.exporter.proof import parity
from seatrial.exporter.proof.prove import Prover
from seatrial.exporter.quantize import Recipe
from seatrial.exporter.sources import detect
from seatrial.targets import get

ROOT = Path(__file__).resolve().parent.parent
OUT, DATA = ROOT / "build" / "bench-int8", ROOT / "demo" / "data"
MODELS = {"EfficientNet-Lite0": "lite0", "ViT-Tiny, random weights": "vit_tiny"}
TARGETS = ("onnxruntime", "openvino", "tflite")
CROPS_PER_PHOTO, SEED = 10, 21
PACKAGES = ("onnxruntime", "openvino", "nncf", "ai-edge-litert", "ai-edge-quantizer", "torch", "numpy")


@dataclass(frozen=True)
class Row:
    """One quantized artifact, or why there is none."""

    name: str
    artifact: Artifact | None = None
    sqnr_db: float | None = None
    agreement: float | None = None
    error: str = ""


def main() -> int:
    parser = argparse.ArgumentParser(description="int8 by each runtime's own quantizer")
    parser.add_argument("--no-timing", action="store_true", help="no latencies: for a machine that is not idle")
    timing = not parser.parse_args().no_timing
    begun, failed = time.time(), 0
    print(heading("int8 by each runtime's own quantizer", "make bench-int8", PACKAGES))
    print("| runtime | model | options | SQNR dB | top-1 agreement | time, int8 : fp32 |\n|---|---|---|---|---|---|")
    shutil.rmtree(OUT, ignore_errors=True)
    score(OUT / "score")
    for title, name in MODELS.items():
        folder = OUT / name
        with Builder(folder) as builder:
            program = builder.capture(
                detect(ROOT / "examples" / name / "model.py"),
                TARGETS,
                {"calibration": DATA / "calibration", "evaluate": OUT / "score"},
            )
            prover = Prover(program, folder / "proof")
            for target in TARGETS:
                base = builder.convert(program, target)
                rows = [quantized(folder, prover, program, base, options) for options in variants(target)]
                times = timed(base, [row for row in rows if row.artifact], prover.inputs) if timing else {}
                failed += sum(bool(row.error) for row in rows)
                for row in rows:
                    print(f"| {target} | {title} | {row.name} | {numbers(row, times)} |", flush=True)
    print(f"\n{(time.time() - begun) / 60:.0f} minutes.")
    return 1 if failed else 0


def score(folder: Path) -> None:
    """Square crops of the photos that the demo evaluates on, half of them mirrored; the same each time."""
    from PIL import Image, ImageOps

    folder.mkdir(parents=True)
    draw = random.Random(SEED)
    for path in sorted((DATA / "evaluate").glob("*.jpg")):
        with Image.open(path) as opened:
            photo = opened.convert("RGB")
        for index in range(CROPS_PER_PHOTO):
            side = draw.randint(min(photo.size) // 2, min(photo.size))
            left, top = draw.randint(0, photo.width - side), draw.randint(0, photo.height - side)
            crop = photo.crop((left, top, left + side, top + side))
            (ImageOps.mirror(crop) if index % 2 else crop).save(folder / f"{path.stem}_{index:02d}.png")


def variants(target: str) -> list[dict[str, str]]:
    """What an export takes on this CPU, then each option changed alone."""
    module = importlib.import_module(quantize.function(target).partition(":")[0])
    usual: dict[str, str] = module.resolve(cpu_flags())
    changed = [{**usual, key: value} for key, allowed in module.OPTIONS.items() for value in allowed]
    return [usual, *(options for options in changed if options != usual)]


def quantized(folder: Path, prover: Prover, program: Program, base: Artifact, options: dict[str, str]) -> Row:
    """Quantize the fp32 artifact with these options, and hold it against the source on the crops that are scored."""
    name = ", ".join(f"{key}={value}" for key, value in options.items())
    out = folder / "int8" / base.target / name.replace(", ", "-") / base.path.name
    out.parent.mkdir(parents=True, exist_ok=True)
    feeds = folder / "calibration.npz"
    samples.save(feeds, [*program.feeds("calibration"), *program.feeds("held_out")])
    args = {"model": str(base.path), "calibration": str(feeds), "out": str(out), "options": options}
    try:
        process.call(quantize.function(base.target), args, workdir=folder / "log" / base.target, label=name)
    except Exception as error:  # one variant that fails is a row of the table
        return Row(name, error=str(error).splitlines()[0])
    artifact = Artifact(base.target, out, Recipe("int8", options), [], [], files_id(model_files(out)))
    (proof,) = prover.prove(artifact, [get(base.target).settings("int8", 1)])
    if proof.outputs is None:
        return Row(name, error=str(proof.error).splitlines()[0])
    want, have = prover.reference["evaluate"], prover.sliced(samples.load(proof.outputs))["evaluate"]
    classes = program.classes or program.outputs[0].name
    found = parity.compare("int8", [str(i) for i in range(len(want))], want, have, classes=classes)
    return Row(name, artifact, found.sqnr_db, found.agreement)


def timed(base: Artifact, rows: list[Row], inputs: Path) -> dict[str, float]:
    """int8's time over fp32's, by the name of a row."""
    arms = [arm("fp32", base, inputs), *(arm(row.name, row.artifact, inputs) for row in rows if row.artifact)]
    found = {each.arm.name: each.latency.centre for each in bench(arms).arms if each.latency}
    return {name: ms / found["fp32"] for name, ms in found.items() if "fp32" in found}


def arm(name: str, artifact: Artifact, inputs: Path) -> Arm:
    settings: dict[str, Any] = get(artifact.target).settings(artifact.precision, 1)
    return Arm(
        name, artifact.target, str(artifact.path), artifact.id, settings, str(inputs), precision=artifact.precision
    )


def numbers(row: Row, times: dict[str, float]) -> str:
    """The last cells of a row."""
    if row.error:
        return f"{row.error} | | "
    sqnr = "-" if row.sqnr_db is None else f"{row.sqnr_db:.1f}"
    agreement = "-" if row.agreement is None else f"{row.agreement:.1%}"
    return f"{sqnr} | {agreement} | {f'{times[row.name]:.2f}' if row.name in times else 'not timed'}"


if __name__ == "__main__":
    sys.exit(main())
