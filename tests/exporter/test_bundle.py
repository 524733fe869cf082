"""A bundle on its own: its scripts, its hashes, its golden vectors, and nothing of the machine that made it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import seatrial
from seatrial.core import samples
from seatrial.core.bundle import MANIFEST, SEAL, Bundle, seal
from seatrial.core.errors import CheckFailed, UsageError
from seatrial.core.ids import file_sha256
from seatrial.exporter.report import report
from seatrial.exporter.run import load, verify

ALL = [f"{target}-{precision}" for target in ("onnxruntime", "openvino", "tflite") for precision in ("fp32", "int8")]
LABELS = {"ant", "bee", "cat", "dog", "eel", "fox"}
Bare = Callable[[str], list[str]]


@pytest.fixture(params=ALL)
def bundle(request: pytest.FixtureRequest, bundles: Path) -> Path:
    """Each bundle, not to be changed."""
    return bundles / str(request.param)


@pytest.fixture
def copy(bundles: Path, tmp_path: Path) -> Path:
    """A bundle to be changed, in a folder of another name."""
    return Path(shutil.copytree(bundles / "onnxruntime-fp32", tmp_path / "shipped"))


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def script(name: str, bundle: Path, bare_python: Bare, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a bundle's script with numpy and its runtime alone."""
    argv = [*bare_python(Bundle.read(bundle).target), str(bundle / name)]
    return subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=60, check=False)


def selftest_of_a_changed(bundle: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-B", "selftest.py"]
    return subprocess.run(argv, cwd=bundle, capture_output=True, text=True, timeout=60, check=False)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def vouch(bundle: Path) -> None:
    """Make all hashes right again: somebody repacked a bundle by hand."""
    manifest = json.loads((bundle / MANIFEST).read_text())
    for name, facts in manifest["files"].items():
        facts["sha256"] = file_sha256(bundle / name)
    (bundle / MANIFEST).write_text(json.dumps(manifest))
    (bundle / SEAL).write_text(seal(bundle / MANIFEST))


def test_a_bare_python_can_not_import_us(bare_python: Bare) -> None:
    for target in ("onnxruntime", "openvino", "tflite"):
        for module in ("seatrial", "torch", "onnx", "click"):
            argv = [*bare_python(target), "-c", f"import {module}"]
            assert subprocess.run(argv, capture_output=True, check=False).returncode == 1


def test_the_selftest_needs_numpy_and_the_runtime_only(bundle: Path, bare_python: Bare, tmp_path: Path) -> None:
    done = script("selftest.py", bundle, bare_python, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    files = json.loads((bundle / MANIFEST).read_text())["files"]
    assert done.stdout.startswith(f"ok: {len(files)} files, 3 golden vectors, ")


def test_the_example_names_the_five_best_classes(bundle: Path, bare_python: Bare, tmp_path: Path) -> None:
    done = script("example.py", bundle, bare_python, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    head, *rows = done.stdout.splitlines()
    assert head.startswith("output: float32[1, 6]")
    assert len(rows) == 5
    assert {row.split()[1] for row in rows} <= LABELS
    scores = [float(row.split()[0]) for row in rows]
    assert scores == sorted(scores, reverse=True)


def test_a_bundle_is_verified_where_it_stands(bundle: Path) -> None:
    found = verify(bundle)
    assert found["vectors"] == 3
    assert found["sqnr_db"] >= 120


FILES = ["model.onnx", "golden/inputs.npz", "golden/outputs.npz", "labels.txt", "example.py", "report.md", "names.json"]


@pytest.mark.parametrize("name", ["tflite-fp32", "tflite-int8"])
def test_tensors_of_a_tflite_are_called_after_modules(bundles: Path, name: str) -> None:
    paths = json.loads((bundles / name / "names.json").read_text())
    theirs = json.loads((bundles / "onnxruntime-fp32" / "names.json").read_text())
    assert paths
    assert set(paths.values()) <= set(theirs.values())
    model = (bundles / name / "model.tflite").read_bytes()
    assert all(tensor.encode() in model for tensor in paths)
    assert b"seatrial" not in model
    assert b"<locals>" not in model


@pytest.mark.parametrize("name", [*FILES, MANIFEST, SEAL])
def test_one_flipped_byte_anywhere_is_found(copy: Path, name: str) -> None:
    flip(copy / name)
    done = selftest_of_a_changed(copy)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "MISMATCH" in done.stdout
    for check in (verify, load):
        with pytest.raises(CheckFailed):
            check(copy)


def test_the_command_fails_for_a_flipped_byte(copy: Path, cli: Callable[..., Any]) -> None:
    assert cli("verify", copy).code == 0
    flip(copy / "model.onnx")
    cli("verify", copy).fails(1, "model.onnx has changed")


def test_a_missing_or_a_strange_file_is_found(copy: Path) -> None:
    (copy / "stowaway.txt").write_text("hello")
    with pytest.raises(CheckFailed, match=r"stowaway\.txt is not in the manifest"):
        verify(copy)
    (copy / "stowaway.txt").unlink()
    (copy / "labels.txt").unlink()
    with pytest.raises(CheckFailed, match=r"labels\.txt is missing"):
        verify(copy)
    assert selftest_of_a_changed(copy).returncode == 1


def test_answers_that_differ_fail_even_where_all_hashes_are_right(copy: Path) -> None:
    outputs = samples.load(copy / "golden/outputs.npz")
    outputs[1]["output"] = outputs[1]["output"] * np.float32(1.01)
    samples.save(copy / "golden/outputs.npz", outputs)
    vouch(copy)
    done = selftest_of_a_changed(copy)
    assert done.returncode == 1
    assert re.search(r"MISMATCH: vector 1, output: \d+\.\d dB, needed 80", done.stdout)
    with pytest.raises(CheckFailed, match="dB"):
        verify(copy)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_answer_that_is_not_finite_fails(copy: Path, value: float) -> None:
    """NaN compares as false with everything: it must not slip through a `<`."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(str(copy / "model.onnx"))
    weights = model.graph.initializer[0]
    array = numpy_helper.to_array(weights).copy()
    array[...] = value
    weights.CopyFrom(numpy_helper.from_array(array, weights.name))
    onnx.save(model, str(copy / "model.onnx"))
    vouch(copy)
    assert selftest_of_a_changed(copy).returncode == 1
    with pytest.raises(CheckFailed):
        verify(copy)


def test_measurements_stand_outside_the_hashes(copy: Path) -> None:
    for text in ('{"latency_ms": 1}', '{"latency_ms": 2}'):
        (copy / "measurements.json").write_text(text)
        assert verify(copy)["vectors"] == 3
        assert selftest_of_a_changed(copy).returncode == 0


def test_a_loaded_bundle_runs(bundle: Path) -> None:
    model = load(bundle)
    feed = {"image": np.ones((1, 3, 16, 16), np.float32)}
    outputs = model.run(feed)
    assert set(outputs) == {"output"}
    assert outputs["output"].shape == (1, 6)
    assert seatrial.load(bundle).run(feed)["output"].tobytes() == outputs["output"].tobytes()


@pytest.mark.parametrize(
    ("feed", "word"),
    [
        ({}, "given: nothing"),
        ({"picture": np.ones((1, 3, 16, 16), np.float32)}, "given: picture"),
        ({"image": np.ones((1, 3, 16, 16), np.float32), "more": np.ones(1, np.float32)}, "given: image, more"),
        ({"image": np.ones((1, 3, 16, 17), np.float32)}, "image is float32[1, 3, 16, 17]"),
        ({"image": np.ones((3, 16, 16), np.float32)}, "image is float32[3, 16, 16]"),
        ({"image": np.ones((2, 3, 16, 16), np.float32)}, "image is float32[2, 3, 16, 16]"),
        ({"image": np.ones((1, 3, 16, 16), np.float64)}, "image is float64"),
        ({"image": np.ones((1, 3, 16, 16), np.uint8)}, "image is uint8"),
        ({"image": [[1.0]]}, "image is list"),
    ],
)
def test_an_input_that_does_not_fit_is_refused(bundles: Path, feed: dict[str, Any], word: str) -> None:
    with pytest.raises(UsageError) as error:
        load(bundles / "onnxruntime-fp32").run(feed)
    assert word in error.value.found
    assert error.value.todo.startswith("needed: image")


def test_a_photo_goes_through_to_its_classes(bundle: Path, photo: Path) -> None:
    model = load(bundle)
    feed = model.read(photo)
    assert feed["image"].shape == (1, 3, 16, 16)
    top = model.top(model.run(feed))
    assert len({label for label, _ in top} & LABELS) == 5
    chances = [chance for _, chance in top]
    assert chances == sorted(chances, reverse=True)
    assert 0 < sum(chances) <= 1.0001


def test_all_runtimes_name_the_same_class_for_a_photo(bundles: Path, photo: Path) -> None:
    models = [load(bundles / name) for name in ALL if name.endswith("fp32")]
    assert len({model.top(model.run(model.read(photo)))[0][0] for model in models}) == 1


def test_the_command_runs_a_photo(bundles: Path, photo: Path, cli: Callable[..., Any]) -> None:
    done = cli("run", bundles / "onnxruntime-fp32", photo)
    assert done.code == 0, done.err
    assert len(set(re.findall(r"[a-z]{3}", done.out)) & LABELS) == 5
    assert " ms" in done.out


def test_nothing_of_the_machine_or_the_source_is_shipped(bundle: Path, bundles: Path) -> None:
    """No path, no line of the user's file, in any byte of any file."""
    source = (bundles.parent / "classifier.py").read_text()
    lines = {line.strip() for line in source.splitlines()} - set(LABELS)
    secrets = {line for line in lines if len(line) > 12} | {"hidden_by_nobody", 'File "', "site-packages", "/python3"}
    secrets |= {str(bundles.parent), str(bundles.parent.parent), str(Path(seatrial.__file__).resolve().parent)}
    secrets |= {str(Path.home()) + "/", sys.prefix, "/tmp/", "seatrial_user_model"}
    found = [
        f"{path.relative_to(bundle)} holds {secret!r}"
        for path in sorted(bundle.rglob("*"))
        if path.is_file()
        for secret in sorted(secrets)
        if secret.encode() in path.read_bytes() or secret.encode("utf-16-le") in path.read_bytes()
    ]
    assert not found, "\n".join(found)


def test_nothing_shipped_is_a_pickle(bundle: Path) -> None:
    known = {".py", ".npz", ".txt", ".json", ".sha256", ".md", ".onnx", ".xml", ".bin", ".tflite"}
    assert {path.suffix for path in bundle.rglob("*") if path.is_file()} <= known
    for file in (bundle / "golden").iterdir():
        with np.load(file, allow_pickle=False) as arrays:
            assert all(arrays[name].dtype.kind in "fiu" for name in arrays.files)


def test_the_report_holds_no_times_and_its_tables_are_whole(bundle: Path) -> None:
    text = (bundle / "report.md").read_text()
    assert not re.search(r"\b20\d\d-\d\d|\d\d:\d\d|\bms\b", text)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in rows}) == 1
    assert "Proven: " in text


@pytest.mark.parametrize(("held_out", "said"), [(8, True), (4, False)])
def test_the_report_says_where_nothing_was_held_out(bundles: Path, held_out: int, said: bool) -> None:
    manifest = json.loads((bundles / "tflite-fp32" / MANIFEST).read_text())
    manifest["recipe"] |= {"calibration_id": "0123", "calibration_n": 8}
    manifest["data"] = {"held_out": {"n": held_out}}
    assert ("very samples that calibrated it" in report(manifest)) is said


def test_the_manifest_says_what_was_proven_where(bundle: Path) -> None:
    manifest = json.loads((bundle / MANIFEST).read_text())
    target, precision = bundle.name.split("-")
    assert (manifest["target"], manifest["precision"]) == (target, precision)
    assert manifest["proof"]["placement"]["precision"] == precision
    assert manifest["settings"] == manifest["proof"]["settings"]
    assert manifest["proof"]["parity"]["sqnr_db"] >= manifest["tolerance"]["sqnr_db"]
    assert set(manifest["proven_on"]) == {"cpu", "flags", "os", "machine"}
    assert re.match(r"\d+\.\d+", manifest["tools"][target])
    assert manifest["source"]["reference"].startswith("torch eager")
    assert set(manifest["files"]) == {str(path.relative_to(bundle)) for path in bundle.rglob("*") if path.is_file()} - {
        MANIFEST,
        SEAL,
    }
    if precision == "int8":
        assert manifest["recipe"]["calibration_n"] == manifest["data"]["calibration"]["n"]
