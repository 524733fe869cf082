"""The same source, recipe and tools give the same bytes anywhere, and no byte tells where that was."""

from __future__ import annotations

import getpass
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

MODEL = """
import torch

class SecretlyNamed(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.norm = torch.nn.BatchNorm2d(8)
        self.head = torch.nn.Linear(8, 5)

    def forward(self, image):
        features = torch.relu(self.norm(self.stem(image)))  # a line of the user's own
        return {"classes": self.head(features.mean((2, 3))), "features": features}

def get_model():
    return SecretlyNamed().eval()

def get_args():
    return (torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)),)

def get_labels():
    return ["a", "b", "c", "d", "e"]
"""
PLACES = [
    {"TZ": "UTC", "PYTHONHASHSEED": "1", "LANG": "C"},
    {"TZ": "Asia/Tokyo", "PYTHONHASHSEED": "271828", "LANG": "C.UTF-8"},
]


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory, cli) -> list[Path]:
    """Folders of bundles for all targets, fp32 and int8, exported in two unlike places."""
    made = []
    for i, place in enumerate(PLACES):
        here = tmp_path_factory.mktemp(f"place{i}" * (i + 1))
        (here / "home").mkdir()
        (here / "tmp").mkdir()
        (here / "net.py").write_text(MODEL)
        images = np.random.default_rng(0).standard_normal((12, 3, 16, 16), np.float32)
        np.savez(here / "calibration.npz", image=images)
        words = ["--target", "onnxruntime,openvino,tflite", "--precision", "fp32,int8", "--calibration"]
        folders = {"HOME": str(here / "home"), "TMPDIR": str(here / "tmp"), "XDG_CACHE_HOME": str(here / "cache")}
        done = cli(
            "export", "net.py", *words, "calibration.npz", "-o", "out", cwd=here, env={**place, **folders}, timeout=400
        )
        assert done.code == 0, done.err
        made.append(here / "out")
    return made


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_bundles_from_two_places_have_the_same_bytes(twins: list[Path]) -> None:
    one, other = (files(folder) for folder in twins)
    assert {name.split("/")[0] for name in one} == {
        f"{target}-{precision}" for target in ("onnxruntime", "openvino", "tflite") for precision in ("fp32", "int8")
    }
    assert one.keys() == other.keys()
    assert [name for name in one if one[name] != other[name]] == []


def test_no_shipped_byte_tells_of_the_machine_or_the_users_lines(twins: list[Path]) -> None:
    root = Path(__file__).resolve().parents[2]
    telling = [
        str(twins[0].parent),
        str(root),
        sys.prefix,
        sys.base_prefix,
        str(Path.home()) + "/",
        'File "',
        "line of the",
    ]
    telling += [f"/{getpass.getuser()}/", "site-packages"]
    for name, content in files(twins[0]).items():
        found = [word for word in telling if word.encode() in content]
        assert not found, f"{name} tells {found}"


def test_measurements_lie_outside_the_hashes(twins: list[Path], tmp_path: Path, cli) -> None:
    bundle = shutil.copytree(twins[0] / "onnxruntime-fp32", tmp_path / "bundle")
    (bundle / "measurements.json").write_text("{}")
    assert cli("verify", bundle).code == 0
