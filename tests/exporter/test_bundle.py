"""A bundle stands by itself: its scripts need numpy and the runtime alone, and it runs what it was made for."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import seatrial
from PIL import Image
from seatrial.core.bundle import SEAL, seal
from seatrial.core.errors import CheckFailed, UsageError
from seatrial.exporter.run import verify

MODEL = """
import torch

class Colour(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.mix = torch.nn.Conv2d(3, 3, 1, bias=False)
        self.mix.weight.data = torch.eye(3).reshape(3, 3, 1, 1) * 4

    def forward(self, image):
        return self.mix(image).mean((2, 3))

def get_model():
    return Colour().eval()

def get_args():
    return (torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)),)

def get_labels():
    return ["red", "green", "blue"]

def get_preprocess():
    return {"size": 8}
"""
BLOCK = (
    "import sys\n"
    "class Block:\n"
    "    def find_spec(self, name, path=None, target=None):\n"
    "        if name.split('.')[0] in ('seatrial', 'torch', 'onnx', 'scipy', 'PIL', 'psutil'):\n"
    "            raise ImportError(name + ' is not on this board')\n"
    "sys.meta_path.insert(0, Block())\n"
)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bundles")
    (folder / "colour.py").write_text(MODEL)
    made = seatrial.export(folder / "colour.py", ["onnxruntime", "openvino", "tflite"], output=folder / "out")
    return {one.bundle.target: one.bundle.path for one in made}


@pytest.mark.parametrize("target", ["onnxruntime", "openvino", "tflite"])
@pytest.mark.parametrize(("script", "said"), [("selftest.py", "ok: "), ("example.py", "output: float32[1, 3]")])
def test_the_scripts_need_numpy_and_the_runtime_alone(
    bundles: dict[str, Path], target: str, script: str, said: str
) -> None:
    code = f"{BLOCK}import runpy\nrunpy.run_path({str(bundles[target] / script)!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert said in done.stdout


@pytest.mark.parametrize("target", ["onnxruntime", "openvino", "tflite"])
def test_selftest_fails_where_the_runtime_answers_otherwise(
    bundles: dict[str, Path], target: str, tmp_path: Path
) -> None:
    """As on a board whose runtime is wrong: the vectors were made by a runtime that answers a tenth more."""
    bundle = shutil.copytree(bundles[target], tmp_path / "bundle")
    answers = bundle / "golden/outputs.npz"
    with np.load(answers) as file:
        arrays = {key: file[key] * np.float32(1.1) for key in file.files}
    np.savez(answers, **arrays)
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"]["golden/outputs.npz"]["sha256"] = hashlib.sha256(answers.read_bytes()).hexdigest()
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    (bundle / SEAL).write_text(seal(bundle / "manifest.json"))
    done = subprocess.run([sys.executable, "-P", str(bundle / "selftest.py")], capture_output=True, text=True)
    assert done.returncode == 1
    assert "needed 80" in done.stdout
    with pytest.raises(CheckFailed, match="needed 80"):
        verify(bundle)


@pytest.mark.parametrize("target", ["onnxruntime", "openvino", "tflite"])
def test_a_photo_gets_its_label(bundles: dict[str, Path], target: str, tmp_path: Path, cli) -> None:
    photo = tmp_path / "leaf.png"
    Image.new("RGB", (40, 24), (10, 240, 30)).save(photo)
    done = cli("run", bundles[target], photo, "--json")
    assert done.code == 0, done.err
    top = json.loads(done.out)["top"]
    assert top[0][0] == "green" and top[0][1] > 0.5
    assert abs(sum(chance for _, chance in top) - 1) < 1e-6


@pytest.mark.parametrize(
    ("feed", "word"),
    [
        ({}, "given: nothing"),
        ({"picture": np.zeros((1, 3, 8, 8), np.float32)}, "given: picture"),
        ({"image": np.zeros((1, 3, 9, 8), np.float32)}, "float32[1, 3, 9, 8]"),
        ({"image": np.zeros((1, 3, 8, 8), np.float64)}, "float64[1, 3, 8, 8]"),
    ],
)
def test_a_feed_that_does_not_fit_is_named(bundles: dict[str, Path], feed: dict[str, np.ndarray], word: str) -> None:
    with pytest.raises(UsageError) as caught:
        seatrial.load(bundles["onnxruntime"]).run(feed)
    assert word in caught.value.found
    assert "image: float32[1, 3, 8, 8]" in caught.value.todo


def test_the_manifest_says_what_a_reader_needs(bundles: dict[str, Path]) -> None:
    for target, path in bundles.items():
        manifest = json.loads((path / "manifest.json").read_text())
        assert manifest["settings"]["threads"] == 1
        assert manifest["proof"]["parity"]["sqnr_db"] >= 80
        assert manifest["proof"]["placement"]["precision"] == "fp32"
        assert manifest["tools"][target] and manifest["proven_on"]["cpu"]
        assert manifest["preprocess"]["size"] == 8 and manifest["labels"] == "labels.txt"
        assert "Proven:" in (path / "report.md").read_text()
