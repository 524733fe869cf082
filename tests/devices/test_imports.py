"""What must run on a small board imports nothing that a board doesn't have."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = "scipy sqlalchemy click rich onnx torch openvino"


@pytest.mark.parametrize(
    ("module", "banned"),
    [
        ("seatrial.devices.worker", f"{HEAVY} onnxruntime ai_edge_litert"),
        ("seatrial.devices.local", f"{HEAVY} onnxruntime"),
        ("seatrial.devices.launches", f"{HEAVY} onnxruntime"),
        ("seatrial.devices.api", f"{HEAVY} onnxruntime numpy"),
        ("seatrial.cli.bench", "scipy sqlalchemy rich numpy"),
        ("seatrial.cli.compare", "scipy sqlalchemy rich numpy"),
    ],
)
def test_it_is_light(module: str, banned: str):
    code = f"import sys, {module}\nprint([m for m in {banned.split()!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
