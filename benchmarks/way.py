"""The whole way for models that the demo doesn't show: `make bench-way`. About 10 minutes; goes on where it stopped.

A ViT-Tiny with random but non-degenerate weights (no labels: agreement only), and Magika's own ONNX file (bytes in,
file types out, one free dimension) on ONNX Runtime and OpenVINO.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from common import heading

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "build" / "bench-way"
SEATRIAL = str(Path(sys.executable).parent / "seatrial")


def magika() -> Path:
    """The model file inside the installed wheel of magika."""
    import importlib.util

    spec = importlib.util.find_spec("magika")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("magika is not installed: run `make setup`")
    return next(Path(spec.submodule_search_locations[0]).glob("models/standard*/model.onnx"))


def main() -> None:
    begun = time.time()
    print(heading("The whole way: ViT-Tiny and a foreign ONNX model", "make bench-way"))
    data = ROOT / "demo" / "data"
    vit = search("vit_tiny", str(ROOT / "examples/vit_tiny/model.py"), "--calibration", str(data / "calibration"))
    show("ViT-Tiny, random weights, 100 crops of which 20 are held out", vit)
    foreign = [str(magika()), "--shape", "bytes=1,2048", "--range", "bytes=0:256"]
    show("Magika, one free dimension", search("magika", *foreign, "--target", "onnxruntime,openvino"))
    print(f"\n{(time.time() - begun) / 60:.0f} minutes in this run.")


def search(name: str, *arguments: str) -> dict[str, object]:
    done = subprocess.run(
        [SEATRIAL, "search", *arguments, "-o", str(OUT / name), "--json"], stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        sys.exit(done.returncode)
    found: dict[str, object] = json.loads(done.stdout)
    return found


def show(title: str, study: dict[str, object]) -> None:
    print(f"\n### {title}\n\n| candidate | latency ms | agreement | dB | chosen | why not |\n|---|---|---|---|---|---|")
    chosen = study["chosen"]
    names = {entry["id"]: name for name, entry in chosen["per_target"].items()}  # type: ignore[index]
    names[chosen["overall"]] = "best"  # type: ignore[index]
    for c in study["candidates"]:  # type: ignore[attr-defined]
        settings = " ".join(f"{key}={value}" for key, value in sorted(c["settings"].items()))
        latency = "" if c["latency_ms"] is None else f"{c['latency_ms']:.2f}"
        if c["latency_low_ms"] is not None:
            latency += f" [{c['latency_low_ms']:.2f}, {c['latency_high_ms']:.2f}]"
        agreement = "" if c["agreement"] is None else f"{c['agreement']:.1%}"
        sqnr = "" if c["sqnr_db"] is None else f"{c['sqnr_db']:.1f}"
        print(
            f"| {c['target']} {c['precision']} {settings} | {latency} | {agreement} | {sqnr} | "
            f"{names.get(c['id'], '')} | {c['reason'] or ''} |"
        )
    print()
    for each in study["comparisons"]:  # type: ignore[attr-defined]
        print(f"- {each['text']}")
    for note in study["notes"]:  # type: ignore[attr-defined]
        print(f"- note: {note}")


if __name__ == "__main__":
    main()
