"""Which small network reads 8 × 8 digits best? `seatrial` trains one network for all candidates.

With `--evaluations 4` it took 5 minutes on two busy cores. Needs scikit-learn, whose wheel holds the 1,797 digits:
`make setup` installs it, or `pip install scikit-learn`.
"""

family = {
    "name": "elastic",
    "channels": 1,
    "classes": 10,
    "size": 8,
    "stem": 16,
    "stem_stride": 1,
    "stages": [
        {"width": 16, "depth": 2, "stride": 1, "expand": 3},
        {"width": 32, "depth": 2, "stride": 2, "expand": 3},
    ],
    "widths": [0.5, 0.75, 1.0],
    "kernels": [3, 5],
    "resolutions": [4, 6, 8],
    "head": 64,
}
shared = {"epochs": 20}
budget = {"epochs": 15}
objectives = ["accuracy", "latency_ms"]
targets = ["onnxruntime", "openvino", "tflite"]
precisions = ["fp32", "int8"]


def load_data(part):
    """Pictures (n, 1, 8, 8) from 0 to 1 and the digits that they show."""
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError:
        raise ModuleNotFoundError("the digits are in scikit-learn: pip install scikit-learn") from None
    digits = load_digits()
    pictures = (digits.images / 16).astype("float32")[:, None]
    rows = {"train": slice(0, None, 2), "valid": slice(1, None, 4), "test": slice(3, None, 4)}[part]
    return pictures[rows], digits.target[rows]


def get_labels():
    return list("0123456789")
