"""A wrong artifact never leaves: the command fails and the report names the hop that broke."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import seatrial
from seatrial.core.errors import CheckFailed
from seatrial.devices.facts import cpu_flags
from seatrial.exporter import convert, quantize
from seatrial.exporter.quantize import onnxruntime
from seatrial.targets.openvino import OpenVino

TWO_HEADS = """
import torch

class TwoHeads(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(2))
        self.one, self.other = torch.nn.Linear(32, 4), torch.nn.Linear(32, 4)

    def forward(self, x):
        features = self.body(x).flatten(1)
        return {"one": self.one(features), "other": self.other(features)}

def get_model():
    torch.manual_seed(0)
    return TwoHeads().eval()

def get_args():
    return (torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)),)
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "two_heads.py"
    path.write_text(TWO_HEADS)
    return path


@pytest.fixture
def break_step(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Replace the converter of one step by one of `broken_converters`."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent / "broken"))

    def replace(label: str, function: str) -> None:
        steps = [
            dataclasses.replace(step, function=f"broken_converters:{function}") if step.label == label else step
            for step in convert.STEPS
        ]
        assert steps != convert.STEPS
        monkeypatch.setattr(convert, "STEPS", steps)

    return replace


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Leave one way to each target: without routes to fall back on, a broken converter is the end."""
    spare = {"torch → openvino", "torch → onnx (older exporter)", "onnx → tflite"}

    def leave(label: str) -> None:
        monkeypatch.setattr(convert, "STEPS", [s for s in convert.STEPS if s.label == label or s.label not in spare])

    return leave


@pytest.mark.parametrize(
    ("label", "function", "target"),
    [
        ("torch → onnx", "swap", "onnxruntime"),
        ("torch → onnx", "swap", "openvino"),
        ("onnx → openvino", "drop_bias", "openvino"),
        ("torch → tflite", "zeros", "tflite"),
    ],
)
def test_a_wrong_conversion_is_blamed_on_its_hop(
    model: Path, break_step: Any, only: Any, tmp_path: Path, label: str, function: str, target: str
) -> None:
    break_step(label, function)
    only(label)
    out = tmp_path / "bundle"
    with pytest.raises(CheckFailed) as caught:
        seatrial.export(model, target, output=out)
    assert f"hop: conversion {label}" in caught.value.found
    assert caught.value.exit_code == 1
    assert not out.exists() and not list(tmp_path.glob(".*part"))
    page = Path(str(caught.value.log)).read_text()
    assert f"conversion {label}" in page and "| one |" in page


def test_another_route_is_taken_where_a_conversion_is_wrong(model: Path, break_step: Any, tmp_path: Path) -> None:
    break_step("onnx → openvino", "drop_bias")
    [made] = seatrial.export(model, "openvino", output=tmp_path / "bundle")
    assert made.artifact.route == ["torch → openvino"]
    [lost] = made.bundle.manifest["lost"]
    assert lost.startswith("torch → onnx, onnx → openvino: hop: conversion onnx → openvino; layer: ")
    assert "drop_bias" not in lost and "onnx → openvino" in (tmp_path / "bundle/report.md").read_text()


def test_allow_mismatch_packs_it_and_says_so(model: Path, break_step: Any, tmp_path: Path) -> None:
    break_step("torch → onnx", "swap")
    made = seatrial.export(model, "onnxruntime", output=tmp_path / "bundle", allow_mismatch=True)[0]
    assert made.bundle.manifest["allow_mismatch"] is True
    assert made.bundle.manifest["proof"]["problems"]
    assert "MISMATCH" in (tmp_path / "bundle/report.md").read_text()


def test_a_converter_that_writes_nothing_is_an_error(model: Path, break_step: Any, tmp_path: Path) -> None:
    break_step("torch → onnx", "nothing")
    with pytest.raises(seatrial.SeatrialError, match=r"wrote no model\.onnx"):
        seatrial.export(model, "onnxruntime", output=tmp_path / "bundle")


def test_a_converter_that_takes_the_capture_with_it_is_tried_again_alone(
    model: Path, break_step: Any, tmp_path: Path
) -> None:
    break_step("torch → onnx", "abort")
    said: list[str] = []
    [made] = seatrial.export(model, "onnxruntime", output=tmp_path / "bundle", say=said.append)
    assert made.artifact.route == ["torch → onnx"] and made.proof.ok
    assert any("killed by SIGABRT" in text and "a process of its own" in text for text in said)
    assert said.index("converting torch → onnx") > 0


def test_a_wrong_quantization_is_blamed_on_the_quantizer(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent / "broken"))
    monkeypatch.setattr(quantize, "function", lambda target: "broken_converters:quantize")
    options = onnxruntime.resolve(cpu_flags())
    monkeypatch.setattr(quantize, "recipe", lambda *a: quantize.Recipe("int8", options, a[2], a[3]))
    np.savez(tmp_path / "calibration.npz", x=np.random.default_rng(0).standard_normal((24, 3, 16, 16), np.float32))
    with pytest.raises(CheckFailed, match="hop: quantization"):
        seatrial.export(
            model, "onnxruntime", precision="int8", output=tmp_path / "b", calibration=tmp_path / "calibration.npz"
        )


HAS_BF16 = pytest.mark.skipif(not {"avx512_bf16", "amx_bf16"} & set(cpu_flags()), reason="this CPU has no bf16")


@HAS_BF16
def test_openvino_in_bf16_is_no_fp32(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO's own default on such a CPU; seatrial pins f32, and here the pin is taken out."""
    monkeypatch.setattr(OpenVino, "settings", lambda *a: {"threads": 1, "inference_precision": "default"})
    with pytest.raises(CheckFailed, match="hop: runtime: openvino"):
        seatrial.export(model, "openvino", output=tmp_path / "bundle")


@HAS_BF16
def test_bf16_passes_and_a_fault_that_its_bar_is_too_low_for_is_found_in_fp32(
    model: Path, break_step: Any, only: Any, tmp_path: Path
) -> None:
    [made] = seatrial.export(model, "openvino", precision="bf16", output=tmp_path / "good")
    assert made.proof.placement["precision"] == "bf16"
    break_step("torch → onnx", "nudge")
    only("torch → onnx")
    with pytest.raises(CheckFailed, match="hop: conversion torch → onnx") as caught:
        seatrial.export(model, "openvino", precision="bf16", output=tmp_path / "bad")
    assert "the same file in fp32: output" in caught.value.found


def test_outputs_that_never_change_prove_nothing(tmp_path: Path) -> None:
    path = tmp_path / "constant.py"
    path.write_text(
        "import torch\n"
        "class Constant(torch.nn.Module):\n"
        "    def forward(self, x):\n"
        "        return x.mean() * 0 + 3\n"
        "def get_model():\n    return Constant().eval()\n"
        "def get_args():\n    return (torch.ones(1, 4),)\n"
    )
    with pytest.raises(CheckFailed, match="the same for all main samples"):
        seatrial.export(path, "onnxruntime", output=tmp_path / "bundle")
