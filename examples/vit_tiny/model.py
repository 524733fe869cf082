"""ViT-Tiny with random weights that behave like trained ones: for speed and agreement, not for accuracy.

Needs `timm`. Nothing is downloaded; the same weights come out on every machine and in every process.
"""

import os
import sys

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when timm is imported: no model hub is needed here

import torch

try:
    import torchvision  # noqa: F401  (timm imports it; only its Python half is needed here)
except RuntimeError as problem:
    # torchvision's wheel brings operators that are linked to CUDA. Beside a CPU build of torch they don't
    # load, and the import dies on "operator torchvision::nms does not exist". A classifier never calls them:
    # declare them and go on.
    if "torchvision::" not in str(problem):
        raise
    _declared = torch.library.Library("torchvision", "FRAGMENT")  # kept alive: the schemas go with it
    for _name in ("nms", "qnms"):
        _declared.define(f"{_name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    for _name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[_name]

import timm


def get_model(seed=0):
    """The model in eval mode, every weight drawn from `seed`."""
    model = timm.create_model("vit_tiny_patch16_224", pretrained=False)
    generator = torch.Generator().manual_seed(int(seed))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.copy_(_draw(name, weight.shape, generator))
    return model.eval()


def _draw(name, shape, generator):
    """One tensor of weights.

    timm's own start is degenerate: weights of 0.02 and zero biases let the residual branches all but vanish,
    so every photo gets nearly the same logits, and comparing those proves nothing. Norms that differ by
    channel, branches of full size, attention that picks and a large head keep the answers apart.
    """
    normal = torch.randn(shape, generator=generator)
    if "norm" in name:
        return 1.0 + 0.2 * normal if name.endswith("weight") else 0.1 * normal
    if name in ("cls_token", "pos_embed"):
        return 0.2 * normal
    if name.endswith("bias"):
        return 0.05 * normal
    inputs = normal[0].numel()  # fan-in of a linear or convolution weight (out, in, ...)
    gain = 2.0 if name == "head.weight" else 1.0
    if "qkv" in name:
        normal[: 2 * inputs] *= 1.5  # queries and keys, the first two thirds of the rows
    return gain * normal / inputs**0.5


def get_args():
    """One example input, shape (N, C, H, W) = (1, 3, 224, 224), values in -1..1 like a photo's."""
    return (torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 2 - 1,)


def get_labels():
    """Names without meaning, for weights without training: they declare a classifier, so that agreement is judged."""
    return [f"class {i}" for i in range(1000)]


def get_preprocess():
    """How a photo becomes an input, as data: it is written into the bundle."""
    return {
        "size": [224, 224],
        "resize": 248,
        "crop": "center",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "range": [0.0, 1.0],
        "layout": "NCHW",
        "interpolation": "bicubic",
    }
