"""A study read again: selecting by bounds and objectives, and folders that hold none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from seatrial.core.errors import CheckFailed, UsageError
from seatrial.search.choose import Bound
from seatrial.search.study import Study


def candidate(name: str, ms: float | None, **facts: Any) -> dict[str, Any]:
    found = {
        "id": name,
        "target": "onnxruntime",
        "precision": "fp32",
        "settings": {"threads": 1},
        "status": "ok",
        "latency_ms": ms,
        "accuracy": None,
        "agreement": 1.0,
        "sqnr_db": 120.0,
        "size_bytes": 1000,
        "load_ms": 5.0,
    }
    return found | facts


CANDIDATES = [
    candidate("small", 2.0, accuracy=0.80, size_bytes=250, precision="int8", sqnr_db=25.0),
    candidate("middle", 4.0, accuracy=0.88, target="openvino"),
    candidate("threads", 3.0, accuracy=0.88, settings={"threads": 2}),
    candidate("best", 9.0, accuracy=0.90),
    candidate("fastest, but wrong", 1.0, accuracy=0.10, status="infeasible"),
    candidate("never timed", None, accuracy=0.99),
]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    document = {"schema": "seatrial.study/1", "candidates": CANDIDATES, "chosen": {"overall": None, "per_target": {}}}
    (tmp_path / "study.json").write_text(json.dumps(document))
    return Study.read(tmp_path)


@pytest.mark.parametrize(
    ("bounds", "options", "wanted"),
    [
        ([], {}, "small"),
        ([], {"maximize": "accuracy"}, "best"),
        (["latency_ms <= 5"], {"maximize": "accuracy"}, "threads"),
        (["latency_ms<=5", "threads == 1"], {"maximize": "accuracy"}, "middle"),
        (["latency_ms <= 3.0"], {"maximize": "accuracy"}, "threads"),
        (["latency_ms < 3.0"], {"maximize": "accuracy"}, "small"),
        (["accuracy >= 0.88"], {}, "threads"),
        (["accuracy > 8.8e-1"], {}, "best"),
        (["sqnr_db >= 80"], {"minimize": "latency_ms"}, "threads"),
        ([], {"minimize": "size_bytes"}, "small"),
        ([], {"targets": ["openvino"]}, "middle"),
        ([], {"maximize": "size_bytes"}, "threads"),
    ],
)
def test_the_best_under_the_bounds_is_selected(
    study: Study, bounds: list[str], options: dict[str, Any], wanted: str
) -> None:
    """Ties go to the faster one; what isn't feasible or was never timed is never selected."""
    assert study.select(bounds, **options)["id"] == wanted


def test_where_nobody_fits_the_nearest_is_named(study: Study) -> None:
    with pytest.raises(CheckFailed) as error:
        study.select(["latency_ms <= 1.5"])
    assert "nobody has latency_ms <= 1.5; the nearest has 2" in error.value.found


def test_bounds_that_exclude_each_other_are_told_apart_from_one_that_is_out_of_reach(study: Study) -> None:
    with pytest.raises(CheckFailed) as error:
        study.select(["latency_ms <= 2.5", "accuracy >= 0.9"])
    assert "each bound is met by somebody, all together by nobody" in error.value.found


def test_the_nearest_has_what_is_asked_for_and_something_binds(study: Study) -> None:
    """One that meets all bounds, but has not the objective that decides, is nearest to nothing."""
    unknown = candidate("unknown", 3.5, size_bytes=200)
    found = Study(study.folder, {**study.document, "candidates": [*CANDIDATES, unknown]})
    with pytest.raises(CheckFailed) as error:
        found.select(["latency_ms >= 3", "size_bytes <= 300"], maximize="accuracy")
    assert error.value.found.endswith("binds") and ":  binds" not in error.value.found
    with pytest.raises(CheckFailed) as error:
        found.select(["latency_ms <= 2.5", "size_bytes <= 220"], maximize="accuracy")
    assert "nobody has size_bytes <= 220; the nearest has 250" in error.value.found
    apart = [candidate("a", 2.0, accuracy=0.9, sqnr_db=None), candidate("b", 3.0)]
    with pytest.raises(CheckFailed) as error:
        Study(study.folder, {**study.document, "candidates": apart}).select(["sqnr_db >= 1"], maximize="accuracy")
    assert "no candidate that has accuracy has sqnr_db" in error.value.found


@pytest.mark.parametrize(
    "text", ["latency_ms <= 2", "size_bytes <= 1234564", "accuracy >= 0.9123456789", "macs < 1e+22", "x > -1.5e-07"]
)
def test_a_bound_is_written_as_it_is_read(text: str) -> None:
    """It is kept as text in study.json, and drawn from that."""
    assert str(Bound.read(text)) == text
    assert Bound.read(str(Bound("x", "<=", 0.1 + 0.2))).limit == 0.1 + 0.2


def test_an_objective_that_nobody_has_is_named(study: Study) -> None:
    bare = Study(study.folder, {**study.document, "candidates": [candidate("a", 2.0)]})
    for arguments in ({"maximize": "accuracy"}, {"subject_to": ["accuracy >= 0.5"]}):
        with pytest.raises(CheckFailed) as error:
            bare.select(**arguments)  # type: ignore[arg-type]
        assert "no candidate has accuracy" in error.value.found


def test_a_target_without_a_feasible_candidate_is_not_a_matter_of_labels(study: Study) -> None:
    wrong = [*CANDIDATES, candidate("broken", None, target="tflite", status="failed")]
    found = Study(study.folder, {**study.document, "candidates": wrong})
    for options in ({}, {"maximize": "accuracy"}, {"subject_to": ["latency_ms <= 5"]}):
        with pytest.raises(CheckFailed) as error:
            found.select(targets=["tflite"], **options)  # type: ignore[arg-type]
        assert error.value.found == "no candidate for tflite was proven and timed"
        assert "study show" in error.value.todo
        assert "label" not in error.value.todo


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"maximize": "beauty"}, "latency_ms"),
        ({"minimize": "beauty"}, "latency_ms"),
        ({"subject_to": ["beauty <= 1"]}, "latency_ms"),
        ({"subject_to": ["latency_ms around 5"]}, "latency_ms <= 5"),
        ({"subject_to": ["latency_ms <= e"]}, "latency_ms <= 5"),
        ({"subject_to": ["latency_ms <= 1-2"]}, "latency_ms <= 5"),
        ({"maximize": "accuracy", "minimize": "latency_ms"}, "--subject-to"),
        ({"targets": ["tflite"]}, "onnxruntime, openvino"),
    ],
)
def test_what_can_not_be_read_is_refused_with_what_is_known(study: Study, arguments: dict[str, Any], word: str) -> None:
    with pytest.raises(UsageError) as error:
        study.select(**arguments)
    assert word in error.value.todo


def test_an_unfinished_search_is_told_apart_from_an_alien_folder(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    (begun / "work").mkdir(parents=True)
    (begun / "work" / "key").write_text("abc")
    with pytest.raises(UsageError) as error:
        Study.read(begun)
    assert "has not ended" in error.value.found
    assert "goes on" in error.value.todo
    for alien in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UsageError) as error:
            Study.read(alien)
        assert error.value.found == "there is no study.json"


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema": "seatrial.study/99"}', "\0\1"])
def test_a_broken_or_foreign_document_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "study.json").write_text(text)
    with pytest.raises(UsageError):
        Study.read(tmp_path)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "study.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError):
        Study.read(tmp_path)


@pytest.mark.parametrize("gone", ["work/program", "facts.sqlite"])
def test_packing_without_the_search_s_own_files_says_what_is_gone(study: Study, tmp_path: Path, gone: str) -> None:
    (tmp_path / "work" / "program").mkdir(parents=True)
    (tmp_path / "facts.sqlite").touch()
    path = tmp_path / gone
    if path.is_dir():
        path.rmdir()
    else:
        path.unlink()
    with pytest.raises(UsageError) as error:
        study.pack("small", tmp_path / "out")
    assert gone in error.value.found
    assert not (tmp_path / "out").exists()
