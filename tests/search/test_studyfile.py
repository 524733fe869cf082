"""A study file is read as data, by a child; what is wrong with it is said before anything runs."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from seatrial.cli.search_models import is_study
from seatrial.core.errors import ChildFailed, UsageError
from seatrial.core.specs import TensorSpec
from seatrial.exporter import data as loader
from seatrial.search import studyfile
from seatrial.search.goals import Goals
from seatrial.search.models.api import Models
from seatrial.search.models.code import Code
from seatrial.search.space import Space

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

OWN = """
from helper import WIDTH

space = {"units": [4, 8], "lr": {"low": 0.01, "high": 0.1, "log": True}}
training = ["lr"]
objectives = ["accuracy"]


def build(candidate):
    import torch

    return torch.nn.Sequential(torch.nn.Linear(WIDTH, candidate["units"]), torch.nn.Linear(candidate["units"], 3))


def get_args():
    import torch

    return (torch.zeros(1, WIDTH),)


def load_data(part):
    raise OSError("no disk")
"""


def write(folder: Path, text: str = OWN, helper: str = "WIDTH = 5\n") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "helper.py").write_text(helper)
    (folder / "study.py").write_text(text)
    return folder / "study.py"


@pytest.mark.parametrize("name", ["search_digits", "search_fashion"])
def test_the_examples_are_read_and_their_space_is_one(name: str) -> None:
    study = studyfile.read(EXAMPLES / name / "study.py")
    space = Space.from_dict(study.space, study.forbidden)
    assert space.size and space.size > 100
    assert study.targets == ("onnxruntime", "openvino", "tflite") and study.functions == ("load_data", "get_labels")


def test_a_users_own_study(tmp_path: Path) -> None:
    study = studyfile.read(write(tmp_path))
    assert study.training == ("lr",) and study.objectives == ["accuracy"] and study.family is None
    assert study.functions == ("build", "get_args", "load_data")
    assert study.budget == studyfile.Budget() and study.finetune.epochs == 3


def test_a_space_with_its_type_is_one(tmp_path: Path) -> None:
    assert not is_study(str(write(tmp_path / "none", "space: dict\n")))
    typed = write(tmp_path, OWN.replace("space =", "space: dict[str, object] ="))
    assert is_study(str(typed)), "else the command takes it for a model's file"
    assert studyfile.read(typed).space == studyfile.read(write(tmp_path / "plain")).space


@pytest.mark.parametrize(
    "data", ["(4, 3, 28, 28)), [0, 1, 2, 3]", "(4, 1, 20, 20)), [0, 1, 2, 3]", "(2, 1, 28, 28)), [0, 10]"]
)
def test_data_that_the_family_does_not_take_are_refused(data: str, tmp_path: Path) -> None:
    text = f'import numpy as np\n\nfamily = "elastic"\n\n\ndef load_data(part):\n    return np.zeros({data}\n'
    study = studyfile.read(write(tmp_path, text))
    with pytest.raises(UsageError, match=r"it takes \[n, 1, 28, 28\] and labels from 0 to 9"):
        Code(study.for_child).data("train")


def test_a_toml_says_the_same_as_a_py(tmp_path: Path) -> None:
    py = write(tmp_path)
    (tmp_path / "code.py").write_text("\n".join(x for x in OWN.splitlines() if " = " not in x or x[0] == " "))
    toml = tmp_path / "study.toml"
    toml.write_text(
        'file = "code.py"\ntraining = ["lr"]\nobjectives = ["accuracy"]\n[space]\nunits = [4, 8]\n'
        "lr = {low = 0.01, high = 0.1, log = true}\n[budget]\nepochs = 2\n"
    )
    one, other = studyfile.read(py), studyfile.read(toml)
    assert (one.space, one.training, one.objectives, one.functions) == (
        other.space,
        other.training,
        other.objectives,
        other.functions,
    )
    assert other.budget.epochs == 2


def test_a_file_is_run_by_another_process_only(tmp_path: Path) -> None:
    told = tmp_path / "told.json"
    studyfile.read(write(tmp_path / "study", OWN + f"import os\nopen({str(told)!r}, 'w').write(str(os.getpid()))\n"))
    assert int(told.read_text()) != os.getpid()


def test_the_id_is_of_what_decides_the_models(tmp_path: Path) -> None:
    ids = {
        name: studyfile.read(write(tmp_path / name, text, helper)).id
        for name, (text, helper) in {
            "first": (OWN, "WIDTH = 5\n"),
            "words": (OWN.replace('["accuracy"]', '["latency_ms"]') + "# a remark\n", "WIDTH = 5\n"),
            "types": (
                OWN.replace("objectives =", "objectives: list = ") + "constraints: list[str] = []\n",
                "WIDTH = 5\n",
            ),
            "code": (OWN.replace("1, WIDTH", "2, WIDTH"), "WIDTH = 5\n"),
            "space": (OWN.replace("[4, 8]", "[4, 8, 16]"), "WIDTH = 5\n"),
            "beside": (OWN, "WIDTH = 6\n"),
        }.items()
    }
    assert ids["first"] == ids["words"] == ids["types"]
    assert len(set(ids.values())) == 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[budget]\nepoch = 3", ["budget", "'epoch'", "epochs"]),
        ("[budget]\nepochs = 0", ["budget", "epochs = 0"]),
        ("objective = 1", ["'objective'", "did you mean 'objectives'", "constraints"]),
        ("targets = 'tflite'", ["targets", "write a list"]),
        ("training = ['rate']\nspace = {units = [4, 8]}", ["training", "'rate'", "units"]),
        ("space = {units = [4, 8]}", ["nothing gives a candidate's model", "build(candidate)"]),
        ("family = 'plastic'", ["'plastic'", "elastic"]),
        ("family = {name = 'elastic', kernels = [4]}", ["kernels", "odd"]),
        ("family = {name = 'elastic', with = 1}", ["'with'", "widths"]),
        ("family = 'elastic'\nspace = {kernel1 = [7]}", ["kernel1", "[7]", "[3, 5]"]),
        ("family = 'elastic'", ["no load_data()"]),
        ("space = {source = ['none.onnx']}", ["none.onnx", "no such file"]),
    ],
)
def test_what_is_wrong_is_said(text: str, words: list[str], tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(text)
    refused(tmp_path / "study.toml", words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (OWN + "objective = 1\n", ["'objective'", "did you mean 'objectives'", "constraints"]),
        (OWN + "family = 'elastic'\n", ["family and build() at once"]),
        (OWN + "constraints = [object()]\n", ["constraints", "not JSON serializable"]),
        (OWN.replace("def get_args", "def args"), ["no get_args()"]),
        (OWN.replace("load_data(part", "load_data(part, candidate"), ["load_data(part)", "one set of data for all"]),
    ],
)
def test_so_is_what_is_wrong_in_code(text: str, words: list[str], tmp_path: Path) -> None:
    refused(write(tmp_path, text), words)


def refused(path: Path, words: list[str]) -> None:
    with pytest.raises(UsageError) as error:
        studyfile.read(path)
    for word in words:
        assert word in str(error.value)


def test_data_as_the_exporter_takes_them_know_their_rows(tmp_path: Path) -> None:
    text = OWN.replace(
        'raise OSError("no disk")',
        "import numpy as np\n\n    return np.arange(50, dtype=np.float32).reshape(10, 5), np.arange(10)",
    )
    models = Models(studyfile.read(write(tmp_path, text)), tmp_path / "work")
    found = models.data({}, {"valid": 4, "test": 10, "train": None})
    inputs = [TensorSpec("x", "float32", (1, 5))]
    some, whole = (loader.load(found[part], inputs, None, "evaluation") for part in ("valid", "test"))
    assert some.rows == [0, 3, 6, 9] == some.labels and whole.rows is None
    assert [int(feed["x"][0, 0]) // 5 for feed in some.feeds] == some.rows
    assert some.facts["rows"] == some.rows and "rows" not in whole.facts
    learned = loader.load(found["train"], inputs, None, "calibration")
    assert len(learned) == 10 and learned.labels is None, "no temperature is fitted to what a model was trained on"


def test_an_error_in_the_file_comes_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(ChildFailed, match=r"study.py:2 in <module>: 1 / 0"):
        studyfile.read(write(tmp_path, "\n1 / 0\n"))


def test_a_pool_of_models_needs_no_build(tmp_path: Path) -> None:
    first, second, copy = (tmp_path / name for name in ("a.py", "b.py", "c.py"))
    first.write_text("def get_model(): ...\n")
    second.write_text("def get_model(): pass\n")
    (tmp_path / "else").mkdir()
    copy = tmp_path / "else" / "a.py"
    copy.write_bytes(first.read_bytes())
    pool = ["a.py", "b.py", "else/a.py", "timm:mixer_s32_224?weights=w.safetensors"]
    (tmp_path / "study.toml").write_text(f"[space]\nsource = {json.dumps(pool)}\n")
    models = Models(studyfile.read(tmp_path / "study.toml"), tmp_path / "work")
    candidates: list[dict[str, Any]] = [{"source": text} for text in pool]
    assert models.source(candidates[0]) == str(first)
    assert models.source(candidates[3]) == f"timm:mixer_s32_224?weights={tmp_path / 'w.safetensors'}"
    for text, found in (
        ("timm:a?weights=random&num_classes=4", "timm:a?weights=random&num_classes=4"),
        (
            "timm:a?num_classes=4&weights=w.pt&in_chans=1",
            f"timm:a?num_classes=4&weights={tmp_path / 'w.pt'}&in_chans=1",
        ),
        ("hf:folder", f"hf:{tmp_path / 'folder'}"),
    ):
        assert models.study.pooled_model(text) == found
    one, other, same, _ = models.facts(candidates)
    assert one.key == same.key != other.key
    with pytest.raises(UsageError, match="there already"):
        models.train(candidates[0])
    assert models.study.objectives == ["latency_ms", "size_bytes"], "nothing tells what they are worth"


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"cost": "typo.csv"}, ["the cost matrix", "typo.csv", "no such file"]),
        ({"cost": "dear.csv"}, ["the cost matrix", "the row b holds 'dear'"]),
        ({"cost": "twice.csv"}, ["'a' stands twice"]),
        ({"function": "none.py:margin"}, ["none.py", "no such file"]),
        ({"function": "mine.py:raised"}, ["mine.py:raised", "the file defines margin, other"]),
        ({"function": "broken.py:margin"}, ["broken.py", "can't be read as Python"]),
        ({"slice": "few=none.txt"}, ["slice few", "none.txt", "no such file"]),
        ({"slice": "few=empty.txt"}, ["slice few", "no example"]),
        ({"measure": "f1"}, ["measure f1", "macro_f1"]),
        ({"function": "mine.py:margin", "direction": "up"}, ["direction up", "max or min"]),
        ({"cost": 3}, ["cost", "write text"]),
    ],
)
def test_what_is_wrong_with_an_objective_is_said_before_a_model_is_there(
    table: dict[str, Any], words: list[str], tmp_path: Path
) -> None:
    described_beside(tmp_path)
    with pytest.raises(UsageError) as error:
        Goals.read([{"name": "own", **table}], [], tmp_path, "the study file").check_files("the study file")
    assert str(error.value).startswith("the study file: objectives: own: ")
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    "table",
    [{"cost": "fine.csv", "slice": "class=a"}, {"slice": "few=few.txt"}]
    + [{"function": f"mine.py:{name}"} for name in ("margin", "other", "borrowed", "made")],
)
def test_the_files_of_an_objective_lie_beside_the_study_file_and_are_not_run(
    table: dict[str, Any], tmp_path: Path
) -> None:
    described_beside(tmp_path)
    Goals.read([{"name": "own", **table}], [], tmp_path, "the study file").check_files("the study file")


def described_beside(folder: Path) -> None:
    """Files that an objective may name, good ones and bad ones."""
    for name, text in {
        "fine.csv": "true,a,b\na,0,1\nb,1,0\n",
        "dear.csv": "true,a,b\na,0,1\nb,dear,0\n",
        "twice.csv": "true,a,b\na,0,1\na,1,0\n",
        "few.txt": "1\n\n2\n",
        "empty.txt": "\n",
        "broken.py": "def margin(:\n",
        "mine.py": "from os.path import join as borrowed\n\n\ndef margin(outputs, labels): ...\n\n\n"
        "if True:\n    def other(outputs, labels): ...\n\nmade: object = other\n1 / 0\n",
    }.items():
        (folder / name).write_text(text)
