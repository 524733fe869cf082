"""The bundle format: one flipped byte anywhere is seen, and what is no bundle is named as such."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from seatrial.core.bundle import MANIFEST, SCHEMA, SEAL, Bundle, seal
from seatrial.core.errors import CheckFailed, UsageError
from seatrial.core.ids import file_sha256


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    (folder / "golden").mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"model")
    (folder / "golden/inputs.npz").write_bytes(b"inputs")
    (folder / "labels.txt").write_text("cat\ndog\n")
    files = {str(p.relative_to(folder)): {"sha256": file_sha256(p)} for p in folder.rglob("*") if p.is_file()}
    manifest = {
        "schema": SCHEMA,
        "target": "onnxruntime",
        "precision": "fp32",
        "model": "model.onnx",
        "settings": {"threads": 1},
        "labels": "labels.txt",
        "inputs": [{"name": "x", "dtype": "float32", "shape": ["n", 8], "low": None, "high": None}],
        "files": files,
    }
    write(folder, manifest)
    return folder


def write(folder: Path, manifest: object) -> None:
    (folder / MANIFEST).write_text(json.dumps(manifest))
    (folder / SEAL).write_text(seal(folder / MANIFEST))


def test_a_whole_bundle_is_read_and_checked(bundle: Path):
    found = Bundle.read(bundle)
    found.check_files()
    assert (found.target, found.precision, found.settings) == ("onnxruntime", "fp32", {"threads": 1})
    assert found.labels == ["cat", "dog"]
    assert found.inputs[0].shape == ("n", 8)
    assert found.model == bundle / "model.onnx"


def test_every_flipped_byte_is_seen(bundle: Path, tmp_path: Path):
    for file in sorted(p.relative_to(bundle) for p in bundle.rglob("*") if p.is_file()):
        good = (bundle / file).read_bytes()
        for i in range(0, len(good), max(1, len(good) // 40)):
            (bundle / file).write_bytes(good[:i] + bytes([good[i] ^ 1]) + good[i + 1 :])
            with pytest.raises(CheckFailed, match=f"{file.name}.* has changed"):
                Bundle.read(bundle).check_files()
        (bundle / file).write_bytes(good)
    Bundle.read(bundle).check_files()


def test_a_missing_or_foreign_file_is_named(bundle: Path):
    (bundle / "labels.txt").unlink()
    (bundle / "golden/more.npz").touch()
    with pytest.raises(CheckFailed) as caught:
        Bundle.read(bundle).check_files()
    assert "labels.txt is missing" in caught.value.found
    assert "golden/more.npz is not in the manifest" in caught.value.found


def test_a_manifest_without_its_hash_is_not_trusted(bundle: Path):
    (bundle / SEAL).unlink()
    with pytest.raises(CheckFailed, match=f"{SEAL} is missing"):
        Bundle.read(bundle).check_files()


def test_measurements_are_outside_of_the_hashes(bundle: Path):
    (bundle / "measurements.json").write_text("{}")
    Bundle.read(bundle).check_files()


@pytest.mark.parametrize(
    ("manifest", "word"), [({"schema": "seatrial.bundle/9"}, "seatrial.bundle/9"), ({}, "None"), ([], "None")]
)
def test_another_schema_is_named_beside_the_one_that_is_read(bundle: Path, manifest: object, word: str):
    write(bundle, manifest)
    with pytest.raises(UsageError, match=rf"(?s){word}.*{SCHEMA}"):
        Bundle.read(bundle)


def test_what_is_no_bundle_is_named(bundle: Path, tmp_path: Path):
    with pytest.raises(UsageError, match="no such folder"):
        Bundle.read(tmp_path / "nothing")
    with pytest.raises(UsageError, match="a file"):
        Bundle.read(bundle / "model.onnx")
    shutil.rmtree(bundle / "golden")
    (bundle / MANIFEST).unlink()
    with pytest.raises(UsageError, match="no manifest"):
        Bundle.read(bundle)
