"""`seatrial init`: a commented model.py for the user's own checkpoint."""

from __future__ import annotations

import os
from pathlib import Path

import click

_TEMPLATE = '''"""How seatrial loads your model. Fill in the marked lines, then: seatrial export {name}"""

{path}import torch


def get_model(weights={checkpoint}):
    """Your model in eval mode. `seatrial export {name} --arg weights=other.pt` reaches the parameter."""
    model = torch.nn.Sequential(  # <- your architecture: from your_package import YourModel
        torch.nn.Conv2d(3, 8, 3),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 10),
    )
{load}    return model.eval()


def get_args():
    """One example input, as a tuple of tensors (or a dict by parameter name)."""
    return (torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0)),)


# Optional: declares a classifier; `seatrial run` prints these names.
# def get_labels():
#     return ["cat", "dog"]


# Optional: how photos become inputs; needed for --calibration DIR and `seatrial run BUNDLE photo.jpg`.
# def get_preprocess():
#     return {{
#         "size": [224, 224],          # height, width
#         "resize": 256,               # shorter side before the crop
#         "crop": "center",            # or "none": squeeze the whole picture
#         "mean": [0.485, 0.456, 0.406],
#         "std": [0.229, 0.224, 0.225],
#         "range": [0, 1],             # what black and white become, before mean and std
#         "layout": "NCHW",            # or "NHWC"
#         "interpolation": "bicubic",  # or "bilinear"
#     }}
'''

_LOADERS = {
    ".safetensors": ("    from safetensors.torch import load_file\n\n    model.load_state_dict(load_file(weights))\n"),
    "": "    # model.load_state_dict(torch.load(weights, weights_only=True))\n",
}
_TORCH = (
    "    model.load_state_dict(torch.load(weights, weights_only=True))  # weights_only: a checkpoint may hold code\n"
)


@click.command("init")
@click.option("--checkpoint", type=click.Path(path_type=Path), help="Your weights: .pt, .pth or .safetensors.")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("model.py"), show_default=True)
@click.option("--overwrite", is_flag=True, help="Replace the file if it exists.")
def command(checkpoint: Path | None, output: Path, overwrite: bool) -> None:
    """Write a commented model.py that seatrial can export, to fill in for your own model."""
    from ..core.errors import UsageError
    from ..core.paths import whole_file

    if checkpoint and not checkpoint.exists():
        raise UsageError(f"--checkpoint {checkpoint}", "no such file", "check the path")
    if output.exists() and not overwrite:
        raise UsageError(f"the output {output}", "it exists", "add --overwrite, or choose another -o")
    where, path = "None", ""
    if checkpoint:
        # From the file, not from here: an export may be called from another folder.
        beside = os.path.relpath(checkpoint.resolve(), output.resolve().parent)
        where, path = f"Path(__file__).parent / {beside!r}", "from pathlib import Path\n\n"
    load = _LOADERS.get(checkpoint.suffix, _TORCH) if checkpoint else _LOADERS[""]
    text = _TEMPLATE.format(name=output.name, checkpoint=where, path=path, load=load)
    with whole_file(output) as part:
        part.write_text(text)
    click.echo(f"{output} written. Fill in the marked lines, then: seatrial export {output}")
