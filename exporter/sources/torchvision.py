"""torchvision beside a torch that its compiled part wasn't built for.

The wheel of a package index is linked to CUDA and lacks its operators beside a CPU build of torch: its import dies on
"operator torchvision::nms does not exist" (pytorch/vision#9077). timm and transformers import it, and need none of
those operators: declaring their names is enough.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

_OPS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "roi_align(Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width, "
    "int sampling_ratio, bool aligned) -> Tensor",
)
_declared: list[Any] = []


def load() -> None:
    """Make ``import torchvision`` work, where it is installed at all."""
    try:
        importlib.import_module("torchvision")
    except ModuleNotFoundError:
        return
    except RuntimeError as error:
        if "torchvision::" not in str(error):
            raise
        import torch

        for loaded in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[loaded]
        library = torch.library.Library("torchvision", "FRAGMENT")
        for op in _OPS:
            library.define(op)
        _declared.append(library)  # its end would take the names away again
        importlib.import_module("torchvision")
