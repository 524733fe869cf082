"""``timm:NAME``: an architecture of timm, with a checkpoint, with its pretrained weights, or with random ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...core.errors import CannotDo, MissingPart, UsageError
from ...core.ids import file_sha256
from ..images import Preprocess
from . import torch_model, torchvision
from .job import Job


def capture(job: dict[str, Any]) -> dict[str, Any]:
    """Capture a timm model; ``job.args`` are ``weights`` and numbers for ``timm.create_model``."""
    asked = Job.from_dict(job)
    torch_model.prepare()
    timm = load()
    options = dict(asked.args)
    weights = options.pop("weights", "")
    name = asked.path
    if name not in timm.list_models() and name not in timm.list_models(pretrained=True):
        near = timm.list_models(f"*{name.split('.')[0].split('_')[0]}*")[:5]
        todo = f"near it: {', '.join(near)}" if near else "timm.list_models() lists all"
        raise UsageError(f"timm:{name}", f"timm {timm.__version__} has no model of that name", todo)
    model = _made(timm, name, weights, {key: _number(value) for key, value in options.items()})
    config = model.pretrained_cfg
    height, width = config["input_size"][1:]
    preprocess = Preprocess(
        size=(height, width),
        resize=round(min(height, width) / config.get("crop_pct", 1.0)),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config.get("interpolation") if config.get("interpolation") == "bilinear" else "bicubic",
    )
    given = torch_model.Given(
        model,
        {"x": example(model)},
        ["timm", name, timm.__version__, file_sha256(weights) if Path(weights).is_file() else weights],
        _labels(timm, model, weights),
        preprocess,
        licence=None if weights else config.get("license"),
        tools={"timm": timm.__version__},
    )
    return torch_model.capture(asked, given)


def example(model: Any) -> Any:
    """Noise of shape (1, 3, H, W) in the size that the model is made for."""
    import torch

    return torch.randn((1, *model.pretrained_cfg["input_size"]), generator=torch.Generator().manual_seed(0))


def load() -> Any:
    """The module timm, offline."""
    torchvision.load()
    try:
        import timm
    except ModuleNotFoundError as error:
        todo = 'pip install "seatrial[timm]"'
        raise MissingPart("a timm: model", f"the module {error.name} is not installed", todo) from error
    return timm


def _made(timm: Any, name: str, weights: str, options: dict[str, Any]) -> Any:
    asked = f"timm:{name}"
    if weights and weights != "random" and not Path(weights).is_file():
        raise UsageError(f"{asked}?weights={weights}", "no such file", "give a checkpoint's path, or weights=random")
    try:
        model = timm.create_model(name, pretrained=not weights, **options).eval()
    except (TypeError, ValueError, AssertionError) as error:
        raise UsageError(asked, f"timm refuses the options: {error}", "give what timm.create_model takes") from error
    except Exception as error:  # offline, the hub's client has several errors of its own
        if weights:
            raise
        found = f"its pretrained weights are not at hand: {type(error).__name__}"
        raise CannotDo(
            asked, found, f"give them: '{asked}?weights=FILE', or ask for '{asked}?weights=random'"
        ) from error
    if weights == "random":
        randomize(model, example(model))
    elif weights:
        state = _checkpoint(Path(weights))
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            lines = str(error).strip().splitlines()
            found = f"the checkpoint doesn't fit: {' '.join(line.strip() for line in lines[1:3])[:300]}"
            raise UsageError(f"{asked}?weights={weights}", found, "give the checkpoint of this architecture") from error
    return model


def _checkpoint(path: Path) -> Any:
    """A state dict; nothing in it is run."""
    import torch

    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    state = torch.load(path, map_location="cpu", weights_only=True)
    return state.get("state_dict", state) if isinstance(state, dict) else state


def randomize(model: Any, example: Any) -> None:
    """Give a model weights that answer something, the same on every machine.

    timm's own initialisation zeroes last norms, gates and heads; converters then fold whole branches away, and both
    latency and outputs are another network's. So what is constant (norms, biases, layer scales, zeroed heads) is drawn
    anew: scales around 0.3 to 1, the rest small. Batch norms then take the statistics of noise: without, the signal
    dies on its way (a GhostNetV3 answered two inputs equally to 8e-7).

    Args:
        model: in eval mode.
        example: an input of shape (1, C, H, W).
    """
    import torch

    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in sorted(model.state_dict().items()):
            if not tensor.is_floating_point() or not tensor.numel():
                continue
            if tensor.ndim > 1 and not tensor.any():  # a head
                tensor.normal_(0, tensor[0].numel() ** -0.5, generator=draw)
            elif tensor.ndim <= 1 or "gamma" in name or ".scale" in name:
                low, high = (0.3, 1.0) if name.endswith(("weight", "gamma", "scale")) else (-0.1, 0.1)
                if tensor.unique().numel() == 1:
                    tensor.uniform_(low, high, generator=draw)
        norms = [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
        kept = [norm.momentum for norm in norms]
        for norm in norms:
            norm.train()
            norm.momentum = None  # the plain average over all batches
        for _ in range(3 if norms else 0):
            model(torch.randn((4, *example.shape[1:]), generator=draw))
        for norm, momentum in zip(norms, kept, strict=True):
            norm.eval()
            norm.momentum = momentum


def _labels(timm: Any, model: Any, weights: str) -> list[str] | None:
    """ImageNet's class names, where the weights are timm's own and have that head."""
    if weights or model.num_classes != 1000:
        return None
    info = timm.data.ImageNetInfo()
    return [info.index_to_description(i) for i in range(model.num_classes)]


def _number(text: str) -> Any:
    """An option's text as timm wants it: a number, a truth value, or the text itself."""
    import ast

    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
