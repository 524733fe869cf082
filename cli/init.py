"""`seatrial init`: a commented model.py for a checkpoint, a timm architecture or a transformers folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

_TEMPLATE = '''"""How seatrial loads your model. {todo}: seatrial export {name}"""

{imports}

def get_model({parameter}):
    """The model in eval mode. `seatrial export {name} --arg weights=other.pt` reaches the parameter."""
{model}    return model.eval()


def get_args():
    """Example inputs, as a tuple of tensors or a dict by parameter name."""
{args}


# Optional: declares a classifier; `seatrial run` prints these names.
# def get_labels():
#     return ["cat", "dog"]


# Optional: real inputs for int8, where no --calibration is given; each as get_args() returns it.
# def get_calibration():
#     yield from ...

{preprocess}'''

_PREPROCESS = """
# Optional: how photos become inputs; needed for --calibration DIR and `seatrial run BUNDLE photo.jpg`.
# def get_preprocess():
#     return {
#         "size": [224, 224],          # height, width
#         "resize": 256,               # shorter side before the crop
#         "crop": "center",            # or "none": squeeze the whole picture
#         "mean": [0.485, 0.456, 0.406],
#         "std": [0.229, 0.224, 0.225],
#         "range": [0, 1],             # what black and white become, before mean and std
#         "layout": "NCHW",            # or "NHWC"
#         "interpolation": "bicubic",  # or "bilinear"
#     }
"""

_OWN = """\
    model = torch.nn.Sequential(  # <- your architecture: from your_package import YourModel
        torch.nn.Conv2d(3, 8, 3),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(8, 10),
    )
"""
_PICTURE = "    return (torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0)),)"
_TIMM = """\
    # Without weights the architecture has timm's random start: fine to try things, useless to compare outputs.
    model = timm.create_model({name!r}, pretrained=False)
    if weights:
{load}"""
_TIMM_ARGS = """\
    size = timm.get_pretrained_cfg({name!r}).input_size
    return (torch.randn(1, *size, generator=torch.Generator().manual_seed(0)),)"""
_FOLDER = """\
    model = transformers.{kind}.from_pretrained(weights, local_files_only=True, attn_implementation="eager")
    model.config.use_cache = False
"""
_FOLDER_ARGS = """\
    # A text model's; `--dynamic input_ids.1=attention_mask.1=8:128` keeps the length free.
    ids = torch.randint(0, {vocabulary}, (1, 128), generator=torch.Generator().manual_seed(0))
    return {{"input_ids": ids, "attention_mask": torch.ones_like(ids)}}"""

_LOADERS = {
    ".safetensors": ("    from safetensors.torch import load_file\n\n    model.load_state_dict(load_file(weights))\n"),
    "": "    # model.load_state_dict(torch.load(weights, weights_only=True))\n",
}
_TORCH = "    model.load_state_dict(torch.load(weights, weights_only=True))  # a checkpoint may hold code\n"


@click.command("init")
@click.option("--checkpoint", type=click.Path(path_type=Path), help="Your weights: .pt, .pth or .safetensors.")
@click.option("--timm", "architecture", metavar="NAME", help="An architecture of timm; with --checkpoint its weights.")
@click.option("--huggingface", type=click.Path(path_type=Path), metavar="DIR", help="A local transformers folder.")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("model.py"), show_default=True)
@click.option("--overwrite", is_flag=True, help="Replace the file if it exists.")
def command(
    checkpoint: Path | None, architecture: str | None, huggingface: Path | None, output: Path, overwrite: bool
) -> None:
    """Write a commented model.py that seatrial can export, to change for your own model."""
    from ..core.errors import UsageError
    from ..core.paths import whole_file

    if huggingface and (checkpoint or architecture):
        raise UsageError("--huggingface", "given with --checkpoint or --timm", "give one: the folder has its weights")
    for option, path in (("--checkpoint", checkpoint), ("--huggingface", huggingface)):
        if path and not path.exists():
            raise UsageError(f"{option} {path}", "no such file or folder", "check the path")
    if output.exists() and not overwrite:
        raise UsageError(f"the output {output}", "it exists", "add --overwrite, or choose another -o")
    parts = _folder(huggingface) if huggingface else _torch(checkpoint, architecture)
    weights = huggingface or checkpoint
    imports, where = list(parts.pop("imports")), "None"
    if weights:
        # From the file, not from here: an export may be called from another folder.
        where = f"Path(__file__).parent / {os.path.relpath(weights.resolve(), output.resolve().parent)!r}"
        imports = ["from pathlib import Path", "", *imports]
    text = _TEMPLATE.format(name=output.name, imports="\n".join(imports) + "\n", parameter=f"weights={where}", **parts)
    with whole_file(output) as part:
        part.write_text(text)
    click.echo(f"{output} written. {parts['todo']}: seatrial export {output}")


def _torch(checkpoint: Path | None, architecture: str | None) -> dict[str, Any]:
    load = _LOADERS.get(checkpoint.suffix, _TORCH) if checkpoint else _LOADERS[""]
    if architecture is None:
        return {
            "imports": ["import torch"],
            "model": _OWN + load,
            "args": _PICTURE,
            "preprocess": _PREPROCESS,
            "todo": "Fill in the marked lines, then",
        }
    indented = "".join(f"    {line}\n" if line else "\n" for line in (load if checkpoint else _TORCH).splitlines())
    return {
        "imports": ["import timm", "import torch"],
        "model": _TIMM.format(name=architecture, load=indented),
        "args": _TIMM_ARGS.format(name=architecture),
        "preprocess": _PREPROCESS,
        "todo": "Try",
    }


def _folder(folder: Path) -> dict[str, Any]:
    import json

    from ..core.errors import UsageError

    try:
        config = json.loads((folder / "config.json").read_text())
    except (OSError, ValueError) as error:
        todo = "give a folder that save_pretrained() wrote"
        raise UsageError(f"--huggingface {folder}", f"its config.json can't be read: {error}", todo) from error
    kind = (config.get("architectures") or ["AutoModel"])[0]
    return {
        "imports": ["import torch", "import transformers"],
        "model": _FOLDER.format(kind=kind),
        "args": _FOLDER_ARGS.format(vocabulary=config.get("vocab_size", 30000)),
        "preprocess": "",
        "todo": "Try",
    }
