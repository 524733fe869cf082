"""Which mobile network tells clothes apart best for its time? Fashion-MNIST, 28 × 28 pixels, ten classes.

The data is the Debian package `dataset-fashion-mnist`; README.md says how to have it without being root.
"""

import gzip
import os
from pathlib import Path

TRAIN = 30_000  # of 55,000: few passes over many pictures, for a search within the hour
VALID = 5_000

family = {
    "name": "elastic",
    "channels": 1,
    "classes": 10,
    "size": 28,
    "stem": 16,
    "stem_stride": 2,
    "stages": [
        {"width": 24, "depth": 2, "stride": 1, "expand": 3},
        {"width": 48, "depth": 3, "stride": 2, "expand": 3},
        {"width": 96, "depth": 2, "stride": 2, "expand": 3},
    ],
    "widths": [0.35, 0.5, 0.75, 1.0],
    "kernels": [3, 5],
    "resolutions": [20, 28],
    "head": 128,
}
weights = "own"  # two passes take no longer than deploying a model: they need no shared training in their place
shared = {"epochs": 5, "batch": 128}
budget = {"epochs": 2}
finetune = {"epochs": 1, "lr": 1e-3}
objectives = ["accuracy", "latency_ms"]
targets = ["onnxruntime", "openvino", "tflite"]
precisions = ["fp32", "int8"]


def load_data(part):
    """Pictures (n, 1, 28, 28) from 0 to 1 and the class of each; "valid" is the end of the training files."""
    name = "t10k" if part == "test" else "train"
    pictures, labels = _read(f"{name}-images-idx3-ubyte.gz", 16), _read(f"{name}-labels-idx1-ubyte.gz", 8)
    rows = {"train": slice(TRAIN), "valid": slice(-VALID, None), "test": slice(None)}[part]
    return pictures.reshape(-1, 1, 28, 28)[rows].astype("float32") / 255, labels[rows]


def _read(name, header):
    import numpy as np

    folder = Path(os.environ.get("FASHION_MNIST", "/usr/share/datasets/fashion-mnist"))
    if not (folder / name).is_file():
        todo = "apt-get install dataset-fashion-mnist, or let FASHION_MNIST name the folder of its four .gz files"
        raise FileNotFoundError(f"no {name} in {folder}: {todo}")
    with gzip.open(folder / name) as file:
        return np.frombuffer(file.read(), np.uint8, offset=header)


def get_labels():
    return ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]
