"""`seatrial study` on a stored search over many models: show, report, export, and what a user may get wrong."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

SAMPLE = Path(__file__).parents[1] / "search" / "study_models.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    shutil.copy(SAMPLE, tmp_path / "out" / "study.json")
    return tmp_path / "out"


def test_show_prints_the_fronts_with_what_the_models_are(main: Any, folder: Path) -> None:
    done = main("study", "show", folder)
    assert done.code == 0 and max(len(line.rstrip()) for line in done.out.splitlines() if "note:" not in line) <= 130
    lines = [line for line in done.out.splitlines() if ("5e037573" in line and "depth" in line) or "best" in line]
    best = next(line for line in done.out.splitlines() if line.startswith("best"))
    assert "5e037573" in best and "91.1%" in best and "[0.00449, 0.00465]" in best and "resolution=6" in best, lines
    assert "tflite, 1 thread" in done.out and "settings" not in done.out, "all have what the target does by itself"
    assert done.out.count("de255148  fp32") == 3, "on each front"


def test_a_front_with_other_settings_has_a_column_for_them(main: Any, folder: Path) -> None:
    study = json.loads((folder / "study.json").read_text())
    other = next(c for c in study["candidates"] if c["target"] == "onnxruntime" and c["settings"]["threads"] == 2)
    study["fronts"]["onnxruntime"].append(other["id"])
    (folder / "study.json").write_text(json.dumps(study))
    out = main("study", "show", folder).out
    assert "onnxruntime  model     precision  settings" in out and "2 threads" in out and "tflite, 1 thread" in out


def test_report_writes_the_page_and_the_plots(main: Any, folder: Path, tmp_path: Path) -> None:
    done = main("study", "report", folder, "--png", tmp_path / "plots")
    assert done.code == 0 and "TFLite int8" in (folder / "report.html").read_text()
    names = {path.name for path in (tmp_path / "plots").iterdir()}
    assert names == {f"{n}.png" for n in ("front-tflite", "front-onnxruntime", "front-openvino", "objectives", "macs")}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in (tmp_path / "plots").iterdir())
    elsewhere = json.loads(main("study", "report", folder, "-o", tmp_path / "page.html", "--json").out)
    assert elsewhere == [str(tmp_path / "page.html")]
    assert (tmp_path / "page.html").read_text() == (folder / "report.html").read_text(), "the same every time"


def test_export_says_what_it_wrote(main: Any, folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    url = f"sqlite:///{tmp_path / 'study.db'}"
    done = main("study", "export", folder, "--csv", tmp_path / "all.csv", "--optuna", url, "--json")
    with (tmp_path / "all.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 33
    assert json.loads(done.out) == {
        "csv": {str(tmp_path / "all.csv"): 33},
        "optuna": {"search_digits-tflite": 11, "search_digits-onnxruntime": 13, "search_digits-openvino": 9},
    }
    main("study", "export", folder, "--optuna", url).fails(2, "it has a study search_digits-tflite", "--overwrite")


@pytest.mark.parametrize("command", ["show", "report", "export"])
def test_a_folder_without_a_study_is_one_clear_error(main: Any, tmp_path: Path, command: str) -> None:
    more = ["--csv", tmp_path / "x.csv"] if command == "export" else []
    main("study", command, tmp_path / "none", *more).fails(2, "there is no study.json", "seatrial search")
    assert not (tmp_path / "x.csv").exists()


def test_an_export_to_nowhere_says_where_it_could_go(main: Any, folder: Path) -> None:
    main("study", "export", folder).fails(2, "nowhere to write", "--csv FILE or --optuna URL")


@pytest.mark.parametrize(
    "options", [("report", "-o"), ("report", "--png"), ("export", "--csv")], ids=lambda options: " ".join(options)
)
def test_a_file_that_cannot_be_written_is_one_clear_error(main: Any, folder: Path, options: tuple[str, str]) -> None:
    command, option = options
    (folder.parent / "file").write_text("in the way")
    main("study", command, folder, option, folder.parent / "file" / "x").fails(5, "file/x", "Not a directory")


def test_a_url_of_no_database_is_one_clear_error(main: Any, folder: Path) -> None:
    pytest.importorskip("optuna")
    main("study", "export", folder, "--optuna", "mongo://x").fails(2, "--optuna mongo://x", "sqlite:///study.db")
