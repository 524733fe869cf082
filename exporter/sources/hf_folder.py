"""``hf:DIR``: a local transformers folder, with its config, weights and tokenizer. Nothing is downloaded."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...core.errors import MissingPart, Unsupported, UsageError
from ...core.ids import file_sha256
from ..images import Preprocess
from . import torch_model, torchvision
from .job import Job

TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "vocab.json", "merges.txt",
    "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "added_tokens.json",
)  # fmt: skip


# Eager attention: the fused one answers a mask of zeros as no converter does.
_LOADING = {"local_files_only": True, "dtype": "float32", "attn_implementation": "eager"}


def capture(job: dict[str, Any]) -> dict[str, Any]:
    """Capture the model of a transformers folder.

    A text model takes ``input_ids`` and ``attention_mask`` of shape (1, length), the length being what its config
    allows; a vision model takes ``pixel_values``. Caches and hidden states are left out of the answers.
    """
    asked = Job.from_dict(job)
    folder = Path(asked.path)
    config = _json(folder / "config.json", asked)
    torch_model.prepare()
    model = _model(asked, folder, config)
    attached = [name for name in TOKENIZER if (folder / name).is_file()]
    (Path(asked.folder) / "attached").mkdir(exist_ok=True)
    for name in attached:
        shutil.copyfile(folder / name, Path(asked.folder) / "attached" / name)
    files = sorted(p for p in folder.iterdir() if p.suffix in (".json", ".safetensors", ".bin") and p.is_file())
    import transformers

    args, ranges = _example(asked, folder, model)
    given = torch_model.Given(
        model,
        args,
        [[p.name, file_sha256(p)] for p in files],
        _labels(config),
        _preprocess(folder, asked) if "pixel_values" in args else None,
        ranges,
        attached=attached,
        licence=_licence(folder),
        tools={"transformers": transformers.__version__},
    )
    return torch_model.capture(asked, given)


def _json(path: Path, job: Job) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        todo = "give a folder that save_pretrained() wrote, with config.json and the weights"
        raise UsageError(f"hf:{job.path}", f"it has no {path.name}", todo) from None
    except ValueError as error:
        raise UsageError(f"hf:{job.path}", f"{path.name} is not JSON: {error}", "download it again") from error
    return found


def _model(job: Job, folder: Path, config: Mapping[str, Any]) -> Any:
    try:
        import transformers
    except ModuleNotFoundError as error:
        todo = 'pip install "seatrial[huggingface]"'
        raise MissingPart(f"hf:{job.path}", f"the module {error.name} is not installed", todo) from error
    torchvision.load()
    asked = f"hf:{job.path}"
    if config.get("auto_map"):
        todo = "write a model.py with get_model(): code inside a checkpoint's folder is not run"
        raise Unsupported(asked, "its model is code of its own (auto_map)", todo)
    names = config.get("architectures") or []
    kind = getattr(transformers, names[0], None) if names else transformers.AutoModel
    if kind is None:
        found = f"transformers {transformers.__version__} has no {names[0]}"
        raise Unsupported(asked, found, "install the version that the checkpoint was made with, or write a model.py")
    try:
        model = kind.from_pretrained(folder, use_safetensors=_safe(folder), **_LOADING)
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise UsageError(asked, f"transformers can't load it: {lines[0]}", "check that the folder is whole") from error
    model.config.use_cache = False
    return model.eval()


def _safe(folder: Path) -> bool:
    """Whether there are safetensors; a ``.bin`` is read with weights_only=True by transformers itself."""
    return any(folder.glob("*.safetensors"))


def _example(job: Job, folder: Path, model: Any) -> tuple[dict[str, Any], dict[str, list[int]]]:
    import torch

    draw = torch.Generator().manual_seed(0)
    config = model.config
    if model.main_input_name == "pixel_values":
        size = config.image_size if isinstance(config.image_size, list | tuple) else [config.image_size] * 2
        return {"pixel_values": torch.randn((1, config.num_channels, *size), generator=draw)}, {}
    if model.main_input_name != "input_ids":
        found = f"its main input is {model.main_input_name}; text (input_ids) and pictures (pixel_values) are known"
        raise Unsupported(f"hf:{job.path}", found, "write a model.py with get_model() and get_args()")
    if getattr(config, "is_encoder_decoder", False):
        todo = "export encoder and decoder by a model.py each"
        raise Unsupported(f"hf:{job.path}", "it is an encoder with a decoder, which run in a loop", todo)
    length = _length(folder, config)
    ids = torch.randint(0, config.vocab_size, (1, length), generator=draw)
    ranges = {"input_ids": [0, int(config.vocab_size)], "attention_mask": [0, 2]}
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}, ranges


def _length(folder: Path, config: Any) -> int:
    """Tokens that the model takes: what sentence-transformers wrote, or all positions that it has."""
    sentence = folder / "sentence_bert_config.json"
    if sentence.is_file():
        return int(json.loads(sentence.read_text())["max_seq_length"])
    positions = int(getattr(config, "max_position_embeddings", 0) or getattr(config, "n_positions", 0) or 128)
    # RoBERTa's positions start behind the padding token's.
    return positions - (config.pad_token_id + 1 if "roberta" in config.model_type else 0)


def _labels(config: Mapping[str, Any]) -> list[str] | None:
    """Class names of a classifier whose config has real ones."""
    names = config.get("id2label") or {}
    heads = config.get("architectures") or [""]
    if not heads[0].endswith(("ForImageClassification", "ForSequenceClassification")):
        return None
    labels = [str(names[str(i)]) for i in range(len(names)) if str(i) in names]
    return labels if len(labels) == len(names) and labels else None


def _licence(folder: Path) -> str | None:
    """What the model card's front matter says."""
    card = folder / "README.md"
    text = card.read_text(errors="replace") if card.is_file() else ""
    front = text.split("---", 2)[1] if text.startswith("---") and text.count("---") > 1 else ""
    found = re.search(r"^license:\s*(\S.*)$", front, re.MULTILINE)
    return found[1].strip() if found else None


def _preprocess(folder: Path, job: Job) -> Preprocess | None:
    """From ``preprocessor_config.json``, where its keys say it all."""
    path = folder / "preprocessor_config.json"
    if not path.is_file():
        return None
    data = _json(path, job)
    size = data.get("crop_size") if data.get("do_center_crop") else data.get("size")
    side = (size.get("height"), size.get("width")) if isinstance(size, dict) else (size, size)
    if not all(isinstance(n, int) for n in side) or not data.get("image_mean"):
        return None
    resize = data["size"].get("shortest_edge") if isinstance(data.get("size"), dict) else None
    return Preprocess(
        size=(int(side[0]), int(side[1])),  # type: ignore[arg-type]
        resize=resize,
        crop="center" if data.get("do_center_crop") else "none",
        mean=tuple(map(float, data["image_mean"])),
        std=tuple(map(float, data["image_std"])),
        interpolation="bicubic" if data.get("resample") == 3 else "bilinear",
    )
