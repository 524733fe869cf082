"""Torch modules from everywhere: several inputs, free dimensions, buckets, layouts, .pt2, timm:, hf:."""

from __future__ import annotations

import json
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import seatrial


@pytest.fixture(scope="module", autouse=True)
def _installed(needs: Any) -> None:
    needs("torch")


ENCODER = """
import torch

class Encoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.out = torch.nn.Embedding(50, 8), torch.nn.Linear(8, 3)

    def forward(self, ids, side):
        mask, scale = side["mask"], side["scale"][0]
        mean = (self.embed(ids) * mask[..., None]).sum(1) / (mask.sum(1, keepdim=True) + 1)
        return {"logits": self.out(mean), "more": (mean * scale, ids + 1)}

def get_model():
    torch.manual_seed(0)
    return Encoder().eval()

def other(bias="0"):
    model = get_model()
    model.out.bias.data += float(bias)
    return model

def get_args():
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 50, (2, 9), generator=draw)
    return {"ids": ids, "side": {"mask": torch.ones(2, 9), "scale": (torch.tensor([2.0]),)}}
"""

PICTURE = """
import torch

def get_model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, stride=2), torch.nn.ReLU(), torch.nn.Conv2d(4, 5, 3)).eval()

def get_args():
    return (torch.rand(1, 3, 12, 16, generator=torch.Generator().manual_seed(1)),)

def get_preprocess():
    return {"size": [12, 16], "mean": [0.5, 0.4, 0.3], "std": [0.5, 0.6, 0.7]}

def get_calibration():
    draw = torch.Generator().manual_seed(2)
    for _ in range(12):
        yield (torch.rand(1, 3, 12, 16, generator=draw),)
"""


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    path = tmp_path / "encoder.py"
    path.write_text(ENCODER)
    return path


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "picture.py"
    path.write_text(PICTURE)
    return path


def export(model: Path | str, *args: Any, **kwargs: Any) -> list[Any]:
    return seatrial.export(model, *args, **kwargs)


def test_nested_inputs_and_outputs_keep_their_names_and_free_sizes(encoder: Path, tmp_path: Path):
    free = ["batch=1:16", "ids.1=side.mask.1=4:64"]
    with pytest.raises(seatrial.SeatrialError, match="batch="):
        export(encoder, dynamic=["batch=1:16"], output=tmp_path / "a")  # `scale` has one element: it is no batch
    free[0] = "ids.0=side.mask.0=1:16"
    [made, other] = export(encoder, ["onnxruntime", "openvino"], dynamic=free, output=tmp_path / "a")
    names = [spec["name"] for spec in made.bundle.manifest["inputs"]]
    assert names == ["ids", "side.mask", "side.scale.0"]
    shapes = {spec["name"]: spec["shape"] for spec in made.bundle.manifest["outputs"]}
    assert shapes == {"logits": ["ids.0", 3], "more.0": ["ids.0", 8], "more.1": ["ids.0", "ids.1"]}
    assert "ids.1=64" in json.dumps(json.loads((made.bundle.path / "manifest.json").read_text())["edges"])
    for one in (made, other):
        model = seatrial.load(one.bundle.path)
        for batch, length in ((1, 5), (7, 33)):
            ids = np.random.default_rng(0).integers(0, 50, (batch, length))
            feed = {
                "ids": ids,
                "side.mask": np.ones((batch, length), np.float32),
                "side.scale.0": np.ones(1, np.float32),
            }
            assert model.run(feed)["more.1"].tolist() == (ids + 1).tolist()


def test_axes_that_are_equal_must_be_chained(encoder: Path, tmp_path: Path):
    with pytest.raises(seatrial.SeatrialError) as caught:
        export(encoder, dynamic=["ids.1=4:64"], output=tmp_path / "a")
    assert "chain axes" in caught.value.todo
    assert not (tmp_path / "a").exists()


def test_litert_refuses_free_sizes_at_once_and_buckets_are_the_way_out(encoder: Path, tmp_path: Path):
    start = time.monotonic()
    with pytest.raises(seatrial.SeatrialError) as caught:
        export(encoder, "tflite", dynamic=["ids.1=side.mask.1=4:64"])
    assert time.monotonic() - start < 2
    assert "--bucket" in caught.value.todo
    made = export(encoder, bucket=["ids.1=side.mask.1=5,11"], output=tmp_path / "b")
    assert [one.bundle.path.name for one in made] == ["onnxruntime-fp32-ids.1=5", "onnxruntime-fp32-ids.1=11"]
    assert [one.bundle.inputs[0].shape for one in made] == [(2, 5), (2, 11)]


def test_another_function_of_the_file_makes_the_model(encoder: Path, tmp_path: Path):
    [plain] = export(encoder, output=tmp_path / "a")
    [other] = export(f"{encoder}:other", args={"bias": "3"}, output=tmp_path / "b")
    feed = {
        "ids": np.ones((2, 9), np.int64),
        "side.mask": np.ones((2, 9), np.float32),
        "side.scale.0": np.ones(1, np.float32),
    }
    found = [seatrial.load(one.bundle.path).run(feed)["logits"] for one in (plain, other)]
    assert np.allclose(found[1] - found[0], 3, atol=1e-5)
    with pytest.raises(seatrial.SeatrialError, match="none_such"):
        export(f"{encoder}:none_such", output=tmp_path / "c")


def test_channels_last_and_pixels_at_the_boundary(picture: Path, tmp_path: Path):
    [plain] = export(picture, output=tmp_path / "a")
    [last] = export(picture, layout="nhwc", output=tmp_path / "b")
    [pixels] = export(picture, embed=True, output=tmp_path / "c")
    photo = np.random.default_rng(0).integers(0, 256, (1, 12, 16, 3), np.uint8)
    ready = ((photo / 255 - [0.5, 0.4, 0.3]) / [0.5, 0.6, 0.7]).astype(np.float32)
    want = seatrial.load(plain.bundle.path).run({"input": ready.transpose(0, 3, 1, 2).copy()})["output"]
    assert last.bundle.manifest["preprocess"]["layout"] == "NHWC"
    found = seatrial.load(last.bundle.path).run({"input": ready})["output"]
    assert np.allclose(found.transpose(0, 3, 1, 2), want, atol=1e-5)
    assert pixels.bundle.inputs[0].dtype == "uint8"
    assert np.allclose(seatrial.load(pixels.bundle.path).run({"input": photo})["output"], want, atol=1e-5)


def test_the_files_own_calibration_serves_int8(picture: Path, tmp_path: Path):
    [made] = export(picture, precision="int8", output=tmp_path / "a")
    assert made.bundle.manifest["data"]["calibration"]["name"] == "get_calibration()"
    assert made.bundle.manifest["data"]["held_out"]["n"] == 2


def test_what_torch_export_refuses_is_traced_by_the_older_exporter(tmp_path: Path):
    path = tmp_path / "old.py"
    path.write_text(
        "import torch\n\nclass Old(torch.nn.Module):\n    def forward(self, x):\n"
        "        if torch.compiler.is_exporting():\n            raise NotImplementedError('written before that')\n"
        "        return torch.tanh(x) * 2\n\n"
        "def get_model():\n    return Old().eval()\n\ndef get_args():\n    return (torch.randn(2, 3),)\n"
    )
    [made] = export(path, output=tmp_path / "a")
    [note] = made.bundle.manifest["notes"]
    assert "older exporter traced it" in note and "written before that" in note
    assert made.bundle.manifest["source"]["reference"].startswith("torch eager")


def test_a_pt2_keeps_its_free_sizes(tmp_path: Path):
    import torch

    class Sum(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bend = torch.nn.ReLU()

        def forward(self, x: Any, *, y: Any) -> Any:
            return {"sum": self.bend(x @ y.T), "x": x.mean(0)}

    dim = torch.export.Dim("n", min=2, max=32)
    args, kwargs = (torch.randn(4, 6),), {"y": torch.randn(4, 6)}
    program = torch.export.export(Sum().eval(), args, kwargs, dynamic_shapes={"x": {0: dim}, "y": {0: dim}})
    torch.export.save(program, tmp_path / "sum.pt2")
    [made] = export(tmp_path / "sum.pt2", output=tmp_path / "a")
    x, y = (np.random.default_rng(i).standard_normal((17, 6)).astype(np.float32) for i in range(2))
    found = seatrial.load(made.bundle.path).run({"x": x, "y": y})
    assert np.allclose(found["sum"], np.maximum(x @ y.T, 0), atol=1e-4)
    paths = json.loads((made.bundle.path / "names.json").read_text())
    assert paths["node_relu"] == "bend", "a module without weights keeps its path"
    (tmp_path / "cut.pt2").write_bytes((tmp_path / "sum.pt2").read_bytes()[:900])
    with pytest.raises(seatrial.SeatrialError, match="can't load it"):
        export(tmp_path / "cut.pt2", output=tmp_path / "b")


def test_timm_with_random_weights_a_checkpoint_and_none(tmp_path: Path):
    import torch

    if not find_spec("timm"):  # importing it here needs the shim that this is a test of
        pytest.skip("timm is not installed")

    [made] = export("timm:test_resnet?weights=random&num_classes=7", output=tmp_path / "a")
    assert made.bundle.outputs[0].shape == (1, 7)
    assert made.bundle.manifest["preprocess"]["size"] == [160, 160]
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "wrong.pt")
    for name, words in (
        ("timm:test_resnt?weights=random", "no model of that name"),
        ("timm:test_resnet", "weights=FILE"),
        (f"timm:test_resnet?weights={tmp_path / 'none.pt'}", "no such file"),
        (f"timm:test_resnet?weights={tmp_path / 'wrong.pt'}", "doesn't fit"),
    ):
        with pytest.raises(seatrial.SeatrialError) as caught:
            export(name, output=tmp_path / "b")
        assert words in str(caught.value)


def test_a_transformers_folder_brings_its_length_labels_and_tokenizer(tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    folder = tmp_path / "tiny"
    config = transformers.BertConfig(
        vocab_size=90, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=20, id2label={0: "no", 1: "yes"},
    )  # fmt: skip
    from seatrial.exporter.sources import torchvision

    torchvision.load()
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    (folder / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n# Tiny\n")
    (folder / "vocab.txt").write_text("[PAD]\nhello\n")
    [made] = export(f"hf:{folder}", dynamic=["input_ids.1=attention_mask.1=2:20"], output=tmp_path / "a")
    bundle = made.bundle
    assert [str(spec) for spec in bundle.inputs] == [
        "input_ids: int64[1, input_ids.1]",
        "attention_mask: int64[1, input_ids.1]",
    ]
    assert (bundle.inputs[0].low, bundle.inputs[0].high) == (0, 90)
    assert bundle.labels == ["no", "yes"] and bundle.manifest["classes"] == "logits"
    assert bundle.manifest["licence"] == "apache-2.0"
    assert (bundle.path / "attached" / "vocab.txt").read_text() == "[PAD]\nhello\n"
    assert made.proof.ok and "zeros" not in made.proof.parity.skipped_edges
    (folder / "config.json").unlink()
    with pytest.raises(seatrial.SeatrialError, match=r"config\.json"):
        export(f"hf:{folder}", output=tmp_path / "b")
