"""Keras files and SavedModels: what they become on three targets, and the errors of those that can't be read."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from seatrial import targets
from seatrial.core import process
from seatrial.core.ids import file_sha256
from seatrial.exporter.artifact import Artifact
from seatrial.exporter.build import Builder
from seatrial.exporter.program import Program
from seatrial.exporter.proof import layers
from seatrial.exporter.quantize import Recipe


@pytest.fixture(scope="module", autouse=True)
def _installed(needs: Callable[..., None]) -> None:
    needs("tensorflow")


RUNTIMES = {"tflite": "tflite", "onnx": "onnxruntime", "openvino": "openvino"}
FILES = {"tflite": "model.tflite", "onnx": "model.onnx", "openvino": "model.xml"}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Every case of `keras_cases`, done in one process: TensorFlow takes seconds to import."""
    folder, made = tmp_path_factory.mktemp("cases"), tmp_path_factory.mktemp("made")
    return process.call(
        "keras_cases:run",
        {"folder": str(folder), "model_folder": str(made)},
        workdir=folder / "log",
        label="the cases",
        env={"PYTHONPATH": str(Path(__file__).parent / "tensorflow_child")},
    )


def program(case: dict[str, Any]) -> Program:
    assert "error" not in case, case["error"]
    return Program.load(Path(case["folder"]) / "program")


def prove(case: dict[str, Any], target: str, least_db: float = 100) -> None:
    """The real runtime answers as the reference does, to every sample of the Program."""
    read = program(case)
    assert case["steps"][target] is None, case["steps"][target]
    runtime = targets.get(RUNTIMES[target])
    session = runtime.open(Path(case["folder"]) / target / FILES[target], runtime.settings("fp32"))
    assert {s.name: s.dtype for s in session.inputs} == {s.name: s.dtype for s in read.inputs}
    assert sorted(s.name for s in session.outputs) == sorted(s.name for s in read.outputs)
    if target != "tflite":  # whose signatures are sorted by name
        assert [s.name for s in session.outputs] == [s.name for s in read.outputs]
    pairs = [p for g in ("main", "edges") for p in zip(read.feeds(g), read.reference_outputs(g), strict=True)]
    assert len(pairs) >= 7
    for feed, wanted in pairs:
        answers = session.run(feed)
        for name, want in wanted.items():
            assert answers[name].shape == want.shape
            error = np.linalg.norm(want.astype(float) - answers[name])
            assert error <= 10 ** (-least_db / 20) * np.linalg.norm(want), (name, error)


@pytest.mark.parametrize("target", RUNTIMES)
def test_two_inputs_an_lstm_and_nested_outputs(done: dict[str, Any], target: str) -> None:
    read = program(done["two"])
    assert sorted(map(str, read.inputs)) == ["ids: int32[1, 6]", "x: float32[1, 4]"]
    assert sorted(map(str, read.outputs)) == ["deep.aux: float32[1, 2]", "score: float32[1, 3]"]
    assert read.capture_db is not None and read.capture_db > 100 and not read.capture_problems
    assert {"keras", "tensorflow"} <= set(read.tools)
    assert (read.folder / "model.keras").exists()
    prove(done["two"], target)


def test_the_same_in_another_folder_and_later_in_a_process(done: dict[str, Any]) -> None:
    assert program(done["two"]).source_id == program(done["again"]).source_id
    first, again = (Path(done[name]["folder"]) / "tflite" / "model.tflite" for name in ("two", "again"))
    assert file_sha256(first) == file_sha256(again)


@pytest.mark.parametrize("target", RUNTIMES)
def test_an_h5_file_with_the_keys_of_keras_2(done: dict[str, Any], target: str) -> None:
    assert [str(s) for s in program(done["old"]).outputs] == ["output: float32[1, 2]"]
    prove(done["old"], target, 80)


@pytest.mark.parametrize("target", ["tflite", "onnx"])
def test_a_subclassed_model_with_its_own_example(done: dict[str, Any], target: str) -> None:
    read = program(done["subclass"])
    assert [s.name for s in read.inputs] == ["pair.left", "pair.right", "scale"]
    assert [s.name for s in read.outputs] == ["output_0", "output_1.0"]
    assert read.labels == ["ant", "bee", "cat"] and read.data["calibration"]["n"] == 2
    prove(done["subclass"], target)


@pytest.mark.parametrize("target", RUNTIMES)
def test_free_dimensions(done: dict[str, Any], target: str) -> None:
    read = program(done["free"])
    assert [str(s) for s in read.inputs] == ["picture: float32[batch, picture.1, 8, 3]"]
    assert [str(s) for s in read.outputs] == [
        "mean: float32[batch, 4]",
        "maps: float32[batch, picture.1, 8, 4]",
    ]
    assert "batch=4,picture.1=16" in read.edges
    prove(done["free"], target)


@pytest.fixture(scope="module")
def plain(done: dict[str, Any]) -> Any:
    """`convs.keras` as it is, on ONNX Runtime."""
    runtime = targets.get("onnxruntime")
    return runtime.open(Path(done["free"]["folder"]) / "onnx" / "model.onnx", runtime.settings("fp32")).run


@pytest.mark.parametrize("target", RUNTIMES)
def test_channels_first_at_the_boundary(done: dict[str, Any], plain: Any, target: str) -> None:
    read = program(done["first"])
    assert [str(s) for s in read.inputs] == ["picture: float32[1, 3, picture.2, 8]"]
    assert [str(s) for s in read.outputs] == ["mean: float32[1, 4]", "maps: float32[1, 4, picture.2, 8]"]
    assert read.preprocess and read.preprocess.layout == "NCHW"
    assert "inputs and outputs of four axes are NCHW, the source's own are NHWC" in read.notes
    feed, want = read.feeds("main")[0], read.reference_outputs("main")[0]
    found = plain({"picture": np.ascontiguousarray(feed["picture"].transpose(0, 2, 3, 1))})
    assert np.allclose(want["maps"], found["maps"].transpose(0, 3, 1, 2), atol=1e-5)
    prove(done["first"], target)


@pytest.mark.parametrize(("case", "target"), [*(("pixels", t) for t in RUNTIMES), ("folder of pixels", "tflite")])
def test_pixels_at_the_boundary(done: dict[str, Any], plain: Any, case: str, target: str) -> None:
    read = program(done[case])
    assert [str(s) for s in read.inputs] == ["picture: uint8[1, 8, 8, 3]"]
    assert read.preprocess and (read.preprocess.dtype, read.preprocess.mean) == ("uint8", (0, 0, 0))
    feed, want = read.feeds("main")[0], read.reference_outputs("main")[0]
    ready = (feed["picture"] / 255 - [0.5, 0.4, 0.3]) / [0.5, 0.6, 0.7]
    found = sorted(plain({"picture": ready.astype(np.float32)}).values(), key=np.ndim)
    for ours, theirs in zip(sorted(want.values(), key=np.ndim), found, strict=True):
        assert np.allclose(ours, theirs, atol=1e-5)
    prove(done[case], target)


def test_a_bucket(done: dict[str, Any]) -> None:
    assert [s.shape for s in program(done["bucket"]).inputs] == [(2, 12, 8, 3)]


def test_a_saved_model_with_the_same_signature_twice(done: dict[str, Any]) -> None:
    assert [str(s) for s in program(done["exported"]).inputs] == ["x: float32[1, 4]"]
    prove(done["exported"], "onnx")


def test_a_signature_that_was_chosen(done: dict[str, Any]) -> None:
    assert [str(s) for s in program(done["chosen"]).outputs] == ["twice: float32[1, 4]"]
    prove(done["chosen"], "tflite")


def test_custom_objects(done: dict[str, Any]) -> None:
    assert [str(s) for s in program(done["custom"]).outputs] == ["output: float32[1, 2]"]


def test_a_subclassed_model_of_a_file(done: dict[str, Any]) -> None:
    read = program(done["small"])
    assert [str(s) for s in (*read.inputs, *read.outputs)] == ["x: float32[1, 4]", "y: float32[1, 2]"]
    prove(done["small"], "tflite")


@pytest.fixture
def faults() -> ModuleType:
    """What plants faults in converted files."""
    file = Path(__file__).resolve().parents[2] / "benchmarks" / "faults.py"
    spec = importlib.util.spec_from_file_location("faults", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_fault_behind_a_layer_of_the_users_own_is_named(
    done: dict[str, Any], faults: ModuleType, tmp_path: Path
) -> None:
    """Its class, and a Lambda, are in the user's file alone; the boundary is channels first, the model's own isn't."""
    file = Path(done["gated"]["folder"]) / "tflite" / "model.tflite"
    healthy = Artifact("tflite", file, Recipe("fp32"), ["savedmodel → tflite"], [], "healthy")
    depth = layers.explain(program(done["gated"]), healthy, tmp_path)
    assert depth.culprit is None
    assert [row.path for row in depth.rows][-6:] == ["twice", "block/deep", "block/point", "add", "pool", "out"]
    assert {"gate": "Gate", "twice": "Lambda"}.items() <= {row.path: row.type for row in depth.rows}.items()
    faults.plant(file, tmp_path / "model.tflite", "swapped axis", 1)
    broken = replace(healthy, path=tmp_path / "model.tflite", id="broken")
    culprit = layers.explain(program(done["gated"]), broken, tmp_path).culprit
    assert culprit and (culprit.path, culprit.type) == ("block/deep", "DepthwiseConv2D")


def test_an_operator_that_a_target_lacks_is_named_with_its_place(done: dict[str, Any]) -> None:
    steps = done["erfinv"]["steps"]
    for target in ("tflite", "onnx"):
        assert steps[target]["class"] == "Unsupported"
        assert "Erfinv (" in steps[target]["found"] and "head/erfinv" in steps[target]["found"], steps[target]


def test_the_builder_makes_the_same_bytes_in_processes_of_their_own(done: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "program").symlink_to(program(done["two"]).folder)
    with Builder(tmp_path) as builder:
        for target in ("openvino", "onnx"):  # the first of their kind in the cases' process too
            made = builder.convert(Program.load(tmp_path / "program"), RUNTIMES[target])
            assert made.route == [f"savedmodel → {target}"]
            inside = Path(done["two"]["folder"]) / target
            for file in made.files:
                assert file_sha256(file) == file_sha256(inside / file.name), file.name


@pytest.mark.parametrize(
    ("case", "kind", "words"),
    [
        ("no range", "UsageError", ["ids: int32[1, 6]", "--range ids="]),
        ("no custom", "UsageError", ["the class or function Scaled", "--arg custom=FILE.py"]),
        ("wrong custom", "UsageError", ["the class or function Scaled", "empty.py defines nothing"]),
        ("lambda", "Unsupported", ["Lambda", "model.py"]),
        ("lambda h5", "Unsupported", ["Lambda", "model.py"]),
        ("signatures", "UsageError", ["double: x: float32", "serving_default: x: float32", "--arg signature="]),
        ("no such signature", "UsageError", ["treble", "double, serving_default"]),
        ("no signature", "UsageError", ["no signature"]),
        ("truncated", "UsageError", ["not a whole Keras file"]),
        ("truncated h5", "UsageError", ["not a whole HDF5 file"]),
        ("truncated folder", "UsageError", ["not a whole SavedModel"]),
        ("weights", "UsageError", ["weights alone", "load_weights"]),
        ("keras 2", "Unsupported", ["Keras 2.15.0", ".h5"]),
        ("shape", "UsageError", ["[1, 8, 8, 4]", "picture: float32[picture.0, picture.1, 8, 3]"]),
        ("no shape", "UsageError", ["picture.1", "--shape picture="]),
        ("no such input", "UsageError", ["--shape image", "picture"]),
        ("inputs", "UsageError", ["[1, 8, 8]", "picture: float32"]),
        ("argument", "UsageError", ["--arg size", "custom"]),
        ("no picture", "UsageError", ["--io-layout nchw", "no input of four axes"]),
        ("no preprocessing", "UsageError", ["declares none", "--arg preprocess=FILE.json"]),
        ("wrong preprocessing", "UsageError", ["makes NCHW, the model takes", "8, 3]"]),
        ("strings", "Unsupported", ["the input x is of the type string"]),
    ],
)
def test_what_cannot_be_read_says_why(done: dict[str, Any], case: str, kind: str, words: list[str]) -> None:
    assert "error" in done[case], done[case]
    assert done[case]["class"] == kind, done[case]
    for word in words:
        assert word in done[case]["error"], done[case]["error"]
