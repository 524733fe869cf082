"""What reports, manifests and dry runs say is what was: accuracy, recipes, tools, lost routes, missing parts."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import seatrial
from seatrial.core.errors import MissingPart, UsageError
from seatrial.core.specs import TensorSpec
from seatrial.exporter.api import check_program
from seatrial.exporter.artifact import Artifact
from seatrial.exporter.build import Builder
from seatrial.exporter.plan import plan
from seatrial.exporter.program import Program
from seatrial.exporter.proof import parity

Main = Callable[..., Any]
X = np.random.default_rng(0).standard_normal((24, 8)).astype(np.float32)


@pytest.fixture
def model(tmp_path: Path, tiny_onnx: Callable[..., Path]) -> Path:
    return tiny_onnx(tmp_path / "tiny.onnx")


def manifest_of(bundle: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((bundle / "manifest.json").read_text())
    return found


def refuse(word: str) -> float:
    raise AssertionError(f"{word} is no JSON")


# Accuracy


def evaluated(main: Main, model: Path, **arrays: Any) -> tuple[str, str]:
    """What the command and the report say of accuracy, after an export with this data to evaluate on."""
    np.savez(model.parent / "evaluate.npz", **arrays)
    done = main("export", model, "--evaluate", model.parent / "evaluate.npz", "-o", model.parent / "bundle")
    assert done.code == 0, done.err
    return done.out, (model.parent / "bundle/report.md").read_text()


def test_labels_that_can_not_be_judged_are_not_said_to_be_missing(main: Main, model: Path) -> None:
    for text in evaluated(main, model, x=X, labels=np.zeros(24, np.int64)):
        assert "no labelled data given" not in text
        assert "24 labelled samples were given, but the model declares no classes" in " ".join(text.split())


def test_data_without_labels_is_named_as_such(main: Main, model: Path) -> None:
    for text in evaluated(main, model, x=X):
        assert "no labelled data given" not in text
        assert "the 24 samples to evaluate on have no labels" in " ".join(text.split())


def test_where_no_data_was_given_the_report_says_so(exported: Path) -> None:
    assert "Accuracy not verified: no labelled data given." in (exported / "report.md").read_text()


@pytest.mark.parametrize("count", [0, 7, 9])
def test_names_that_fit_no_output_are_refused_with_both_numbers(tmp_path: Path, count: int) -> None:
    spec = TensorSpec("y", "float32", (1, 8))
    names = [str(i) for i in range(count)]
    program = Program(tmp_path, "tiny", "torch", "model.pt2", "", "", [spec], [spec], [], [], labels=names)
    with pytest.raises(UsageError, match=f"gives {count} names, and no output has as many classes: y has 8"):
        check_program(program)


# Manifests


def test_a_proof_that_could_not_compare_is_still_json(tmp_path: Path) -> None:
    good = [{"y": np.ones((1, 2), np.float32)}, {"y": np.zeros((1, 2), np.float32)}]
    for bad in ({}, {"y": np.ones((1, 3), np.float32)}, {"y": np.full((1, 2), np.nan, np.float32)}):
        found = parity.compare("fp32", ["a", "b"], good, [bad, bad])
        assert not found.ok
        json.loads(json.dumps(found.to_dict()), parse_constant=refuse)


def test_a_bundle_with_a_mismatch_is_packed_with_a_whole_report(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compare = parity.compare

    def missing(precision: str, names: Any, reference: Any, found: Any, *rest: Any, **more: Any) -> Any:
        return compare(precision, names, reference, [{} for _ in found], *rest, **more)

    monkeypatch.setattr(parity, "compare", missing)
    seatrial.export(model, output=tmp_path / "bundle", allow_mismatch=True)
    text = (tmp_path / "bundle/manifest.json").read_text()
    assert "it is missing" in text
    json.loads(text, parse_constant=refuse)
    rows = [line for line in (tmp_path / "bundle/report.md").read_text().splitlines() if line.startswith("|")]
    assert len({row.count("|") for row in rows}) == 1


def test_a_route_that_lost_stands_in_the_report_and_in_the_json(
    main: Main, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert = Builder.convert

    def second(*args: Any) -> Artifact:
        reason = "onnx → better: OSError: no '/home/me/secret/part.bin'\n  at line 3"
        return dataclasses.replace(convert(*args), lost=[reason])

    monkeypatch.setattr(Builder, "convert", second)
    done = main("export", model, "-o", model.parent / "bundle", "--json")
    assert json.loads(done.out)[0]["lost"] == ["onnx → better: OSError: no 'part.bin'"]
    assert "lost: onnx → better: OSError: no 'part.bin'." in (model.parent / "bundle/report.md").read_text()


TOOLS = {
    "onnxruntime": {"onnx", "onnxscript", "onnxruntime"},
    "openvino": {"onnx", "onnxscript", "openvino", "nncf"},
    "tflite": {"litert-torch", "ai-edge-litert", "ai-edge-quantizer", "tflite"},
}
QUANTIZERS = {"nncf", "ai-edge-quantizer"}


@pytest.mark.parametrize("target", TOOLS)
def test_the_tools_are_those_of_the_route_and_of_no_other(bundles: Path, target: str) -> None:
    int8 = manifest_of(bundles / f"{target}-int8")["tools"]
    fp32 = manifest_of(bundles / f"{target}-fp32")["tools"]
    assert set(int8) == TOOLS[target] | {"torch", "seatrial"}
    assert not QUANTIZERS & set(fp32)
    assert fp32.keys() <= int8.keys() and int8["seatrial"] == seatrial.__version__
    assert all(int8.values())


@pytest.mark.parametrize("target", TOOLS)
def test_the_recipe_tells_what_held(bundles: Path, target: str) -> None:
    recipe = manifest_of(bundles / f"{target}-int8")["recipe"]
    assert recipe["options"]["ops"] == "all", "`fitting` is a wish"
    assert sum(recipe["operations"]["int8"].values()) >= 1
    assert "int8: " in (bundles / f"{target}-int8/report.md").read_text()
    assert manifest_of(bundles / f"{target}-fp32")["recipe"]["operations"] == {}


# Parts that are missing


def without(monkeypatch: pytest.MonkeyPatch, *modules: str) -> None:
    """Let these modules not be installed, for whoever asks before work starts."""

    def find(name: str) -> Any:
        return None if name in modules else find_spec(name)

    monkeypatch.setattr("seatrial.exporter.quantize.find_spec", find)
    monkeypatch.setattr("seatrial.exporter.plan.find_spec", find)


def dry_run(model: Path, target: str, precision: str) -> dict[str, Any]:
    given = {"args": {}, "inputs": None, "shapes": {}, "ranges": {}, "calibration": "samples.npz"}
    row, *_ = plan(model, target, precision, given)
    return row


def test_a_dry_run_names_the_quantizer_that_is_missing(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert dry_run(model, "openvino", "int8")["usable"]
    without(monkeypatch, "nncf")
    row = dry_run(model, "openvino", "int8")
    assert not row["usable"]
    assert row["reason"] == 'the module nncf is not installed: pip install "seatrial[openvino]"'
    assert dry_run(model, "openvino", "fp32")["usable"]


def test_a_dry_run_knows_that_the_reference_needs_onnx_runtime(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "onnxruntime")
    row = dry_run(model, "openvino", "fp32")
    assert row["reason"] == 'the module onnxruntime is not installed: pip install "seatrial[onnxruntime]"'


def test_an_export_to_int8_refuses_before_it_works(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(model.parent / "samples.npz", x=X)
    monkeypatch.setattr(Builder, "capture", lambda *a: pytest.fail("work was started"))
    without(monkeypatch, "nncf")
    with pytest.raises(MissingPart, match=r"seatrial\[openvino\]"):
        seatrial.export(model, "openvino", precision="int8", calibration=model.parent / "samples.npz")
