"""A study as a CSV file and in an Optuna storage, both read back."""

from __future__ import annotations

import copy
import csv
import json
from pathlib import Path
from typing import Any

import pytest
from seatrial.core.errors import MissingPart, NotWritten, UsageError
from seatrial.search.study import Study
from seatrial.search.to_csv import write_csv
from seatrial.search.to_optuna import write_optuna

Document = dict[str, Any]
HERE = Path(__file__).parent
MANY, ONE = (json.loads((HERE / name).read_text(encoding="utf-8")) for name in ("study_models.json", "study.json"))


def stored(document: Document, folder: Path) -> Study:
    (folder / "study.json").write_text(json.dumps(document))
    return Study.read(folder)


@pytest.fixture
def many(tmp_path: Path) -> Study:
    """Of many models, with a constraint; one model failed before it was deployed, one deployment wasn't timed."""
    document = copy.deepcopy(MANY)
    gone = next(key for key in document["models"] if key.startswith("8ae87d0b"))
    failure = {"status": "failed", "reason": "no, really", "kind": "oom", "accuracy": None}
    document["models"][gone] = document["models"][gone] | failure
    document["candidates"] = [c for c in document["candidates"] if c["model"] != gone]
    document["goals"]["constraints"] = ["size_bytes <= 40000"]
    document["candidates"][-1]["latency_ms"] = document["candidates"][-1]["values"]["latency_ms"] = None
    return stored(document, tmp_path)


def test_the_table_has_every_candidate_with_all_its_values(many: Study, tmp_path: Path) -> None:
    count = write_csv(many, tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == count == len(many.candidates) + 1
    assert len({tuple(row) for row in rows}) == 1, "one header"
    for row, candidate in zip(rows, many.candidates, strict=False):
        assert row["id"] == candidate["id"] and row["settings.threads"] == str(candidate["settings"]["threads"])
        assert float(row["accuracy"]) == candidate["accuracy"]
        values = many.document["models"][candidate["model"]]["values"]
        assert {name: row[f"model.{name}"] for name in values} == {name: str(v) for name, v in values.items()}
    assert rows[-1]["status"] == "failed" and rows[-1]["reason"] == "no, really" and rows[-1]["target"] == ""
    assert rows[-1]["model.kernel1"] == "5"
    best = next(row for row in rows if row["id"] == many.winners["best"])
    assert best["chosen"] == "best tflite"


def test_a_table_of_one_model_has_its_settings(tmp_path: Path) -> None:
    study = stored(ONE | {"key": "k"}, tmp_path)
    assert write_csv(study, tmp_path / "out.csv") == 22
    with (tmp_path / "out.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {row["settings.threads"] for row in rows} == {"1", "2"} and "model.depth" not in rows[0]


def test_optuna_reads_back_what_was_found(many: Study, tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna")
    url = f"sqlite:///{tmp_path / 'study.db'}"
    written = write_optuna(many, url)
    assert list(written) == [f"search_digits-{target}" for target in ("tflite", "onnxruntime", "openvino")]
    study = optuna.load_study(study_name="search_digits-tflite", storage=url)
    assert [way.name for way in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert study.metric_names == ["accuracy", "latency_ms"]
    mine = [c for c in many.candidates if c["target"] == "tflite"]
    by_id = {trial.user_attrs.get("id"): trial for trial in study.trials}
    assert len(study.trials) == written["search_digits-tflite"] == len(mine) + 1
    for c in mine:
        trial = by_id[c["id"]]
        if c["latency_ms"] is None:
            assert trial.state.name == "FAIL"
            continue
        assert trial.values == [c["accuracy"], c["latency_ms"]]
        values = many.document["models"][c["model"]]["values"]
        assert trial.params == {**values, "precision": c["precision"], **c["settings"]}
        assert trial.constraints == {"proven": 0.0, "size_bytes <= 40000": c["size_bytes"] - 40000}
        assert trial.user_attrs["model"] == c["model"]
    failed = by_id[None]
    assert failed.state.name == "FAIL" and failed.user_attrs["reason"] == "no, really"
    assert failed.params["kernel1"] == 5 and "precision" not in failed.params
    allowed = {c["id"] for c in mine if c["size_bytes"] <= 40000}
    assert {trial.user_attrs["id"] for trial in study.best_trials} <= allowed, "who breaks a bound isn't best"


def test_trials_of_one_model_have_settings_and_infeasible_ones_are_not_best(tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna")
    study, url = stored(ONE | {"key": "k"}, tmp_path), f"sqlite:///{tmp_path / 'study.db'}"
    write_optuna(study, url, name="lite")
    found = optuna.load_study(study_name="lite-tflite", storage=url)
    assert found.metric_names == ["latency_ms", "accuracy"]
    wrong = [c["id"] for c in study.candidates if c["target"] == "tflite" and c["status"] == "infeasible"]
    shown = {t.user_attrs["id"]: t for t in found.trials}
    assert wrong and all(shown[id].state.name == "FAIL" or shown[id].constraints == {"proven": 1.0} for id in wrong)
    assert not {t.user_attrs["id"] for t in found.best_trials} & set(wrong)
    assert {t.params["threads"] for t in found.trials} == {1, 2}


def test_a_study_of_that_name_is_replaced_only_when_told(many: Study, tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna")
    url = f"sqlite:///{tmp_path / 'study.db'}"
    first = write_optuna(many, url)
    with pytest.raises(UsageError) as error:
        write_optuna(many, url)
    assert "search_digits-tflite" in error.value.found and "--overwrite" in error.value.todo
    assert write_optuna(many, url, overwrite=True) == first
    assert write_optuna(many, url, name="again").keys() == {f"again-{t}" for t in ("tflite", "onnxruntime", "openvino")}
    assert len(optuna.get_all_study_names(url)) == 6
    assert (
        len(optuna.load_study(study_name="search_digits-tflite", storage=url).trials) == first["search_digits-tflite"]
    )


@pytest.mark.parametrize(
    ("url", "kind", "words"),
    [
        ("nonsense", UsageError, "parse"),
        ("mongo://here/x", UsageError, "mongo"),
        ("sqlite:////nowhere/at/all/study.db", NotWritten, "unable to open"),
        ("oracle+cx_oracle://me:secret@127.0.0.1:1/x", MissingPart, "database's driver"),
    ],
)
def test_a_storage_that_is_none_is_one_clear_error(many: Study, url: str, kind: type[Exception], words: str) -> None:
    pytest.importorskip("optuna")
    with pytest.raises(kind) as error:
        write_optuna(many, url)
    assert words in str(error.value) and "secret" not in str(error.value)
