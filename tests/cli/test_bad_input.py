"""Bad input as a user meets it: one clear error, its exit code, and nothing left behind."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnxruntime")


@pytest.fixture
def here(tmp_path: Path, tiny_onnx: Callable[..., Path]) -> Path:
    """A working folder with a good model."""
    tiny_onnx(tmp_path / "good.onnx")
    return tmp_path


@pytest.fixture
def export(main, here: Path, monkeypatch: pytest.MonkeyPatch):
    """`export("good.onnx", ...)` there, and a look that a failure left no output and no half-written one."""

    monkeypatch.chdir(here)

    def run(*args: object):
        before = set(here.rglob("*"))
        done = main("export", *args, "-o", "out")
        if done.code:
            assert set(here.rglob("*")) == before
        return done

    return run


# The model's file


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none.onnx", None, ["none.onnx", "no such file"]),
        ("none.py", None, ["none.py", "no such file"]),
        ("model.txt", b"x", ["a file .txt", ".py, .pt2, .onnx"]),
        ("model", b"x", ["a file without a suffix", ".py, .pt2, .onnx"]),
        ("empty.onnx", b"", ["the file is empty"]),
        ("empty.py", b"", ["the file is empty"]),
        ("text.onnx", b"not a model\n" * 9, ["not a whole ONNX file"]),
        ("zeros.onnx", bytes(100), ["ONNX"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_missing_or_foreign_file_is_named(export, here: Path, name: str, content: bytes | None, words: list[str]):
    if content is not None:
        (here / name).write_bytes(content)
    export(name).fails(2, f"the model {name}", *words)


def test_a_folder_is_no_model(export, here: Path):
    (here / "folder.onnx").mkdir()
    export("folder.onnx").fails(2, "a folder")


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors", ".ckpt"])
@pytest.mark.parametrize("there", [True, False])
def test_a_bare_checkpoint_is_explained_and_init_suggested(export, here: Path, suffix: str, there: bool):
    name = f"weights{suffix}"
    if there:
        (here / name).write_bytes(b"PK")
    export(name).fails(2, "weights without the code", f"seatrial init --checkpoint {name}")


def test_a_truncated_model_is_named_wherever_it_was_cut(export, here: Path):
    whole = (here / "good.onnx").read_bytes()
    (here / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    export("cut.onnx").fails(2, "the model cut.onnx", "not a whole ONNX file", "download or export it again")


def test_every_cut_is_a_usage_error_or_named_as_unsupported(here: Path):
    from seatrial.core.errors import Unsupported, UsageError
    from seatrial.exporter.sources import onnx_file
    from seatrial.exporter.sources.job import Job

    whole = (here / "good.onnx").read_bytes()
    for end in range(1, len(whole)):
        (here / "cut.onnx").write_bytes(whole[:end])
        (here / "program").mkdir(exist_ok=True)
        with pytest.raises((UsageError, Unsupported), match=r"cut\.onnx"):
            onnx_file.capture(Job(str(here / "cut.onnx"), "cut", str(here / "program")).to_dict())


# External data


def external(path: Path, location: str, *, where: str = "initializer") -> Path:
    """A model whose weights lie at `location`: as an initializer, in a constant, or inside a branch."""
    from onnx import TensorProto, helper

    weights = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[8, 8])
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value=location)
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 8]) for n in ("x", "y")]
    product = helper.make_node("MatMul", ["x", "w"], ["y"])
    if where == "initializer":
        graph = helper.make_graph([product], "g", ends[:1], ends[1:], [weights])
    elif where == "constant":
        constant = helper.make_node("Constant", [], ["w"], value=weights)
        graph = helper.make_graph([constant, product], "g", ends[:1], ends[1:])
    else:
        inner = helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 8])
        matmul = helper.make_node("MatMul", ["x", "w"], ["z"])
        same = helper.make_node("Identity", ["x"], ["z"])
        then = helper.make_graph([matmul], "then", [], [inner], [weights])
        other = helper.make_graph([same], "else", [], [inner])
        yes = helper.make_tensor("yes", TensorProto.BOOL, [], [True])
        choice = helper.make_node("If", ["yes"], ["y"], then_branch=then, else_branch=other)
        graph = helper.make_graph([choice], "g", ends[:1], ends[1:], [yes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def weights_file(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32).tobytes())
    return path


def test_external_data_beside_the_model_are_read(export, here: Path):
    weights_file(here / "sub/w.bin")
    external(here / "model.onnx", "sub/w.bin")
    done = export("model.onnx")
    assert done.code == 0, done.err


@pytest.mark.parametrize("where", ["initializer", "constant", "branch"])
@pytest.mark.parametrize("kind", ["absolute", "dots", "link", "folder link", "missing"])
def test_external_data_outside_the_models_folder_are_refused(here: Path, kind: str, where: str):
    from seatrial.core.errors import UsageError
    from seatrial.exporter.sources import onnx_file

    model, word = place_external(here, kind, where)
    with pytest.raises(UsageError) as caught:
        onnx_file.load(model)
    assert word in caught.value.found


@pytest.mark.parametrize("kind", ["absolute", "dots", "link"])
def test_the_command_refuses_external_data_outside_the_models_folder(export, here: Path, kind: str):
    model, word = place_external(here, kind, "branch")
    export(model.relative_to(here)).fails(2, "external data", word, "the model's own folder")


def place_external(here: Path, kind: str, where: str) -> tuple[Path, str]:
    secret = weights_file(here / "elsewhere/w.bin")
    folder = here / "model"
    folder.mkdir()
    location = {"absolute": str(secret), "dots": "sub/../../elsewhere/w.bin", "folder link": "sub/w.bin"}.get(kind, "w")
    if kind == "dots":
        (folder / "sub").mkdir()
    if kind == "link":
        (folder / "w").symlink_to(secret)
    if kind == "folder link":
        (folder / "sub").symlink_to(secret.parent)
    word = {"absolute": "outside", "dots": "outside", "missing": "are missing"}.get(kind, "are a link")
    return external(folder / "model.onnx", location, where=where), word


# A user's .py

HEAD = """
import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(8, 4)

    def forward(self, x):
        return self.fc(x)


def get_args():
    return (torch.ones(1, 8),)

"""
GOOD = HEAD + "\ndef get_model():\n    return Net().eval()\n"

BAD_MODELS = {
    "get_model missing": (HEAD, 2, ["get_model() of", "there is none: it defines get_args", "seatrial init"]),
    "get_args missing": ("def get_model(): ...\n", 2, ["get_model() of", "returns", "torch.nn.Module"]),
    "get_model raising": (
        HEAD + "\ndef get_model():\n    return Net().load_weights('best.pt')  # mine\n",
        5,
        ["get_model() raises an error: AttributeError", "load_weights('best.pt')  # mine", "model.py:19 in get_model"],
    ),
    "get_args raising": (
        GOOD + "\ndef get_args():\n    return 1 / 0\n",
        5,
        ["get_args() raises an error: ZeroDivisionError", "return 1 / 0"],
    ),
    "loading raises": (HEAD + "import not_there_at_all\n", 5, ["not_there_at_all", "model.py:17"]),
    "syntax": (HEAD + "def get_model(:\n", 5, ["SyntaxError", "model.py:17: def get_model(:"]),
    "null bytes": ("\0\0\0", 5, ["raises an error when it is loaded"]),
    "leaves": (HEAD + "raise SystemExit('no GPU')\n", 5, ["SystemExit: no GPU", "model.py:17"]),
    "get_model returns no module": (HEAD + "def get_model():\n    return {}\n", 2, ["returns builtins.dict"]),
    "needs an argument": (
        HEAD + "def get_model(weights):\n    return Net().eval()\n",
        2,
        ["get_model() needs weights", "--arg weights="],
    ),
    "args of another shape": (
        GOOD.replace("torch.ones(1, 8)", "torch.ones(1, 9)"),
        5,
        ["can't take what get_args() gives (float32[1, 9])", "return self.fc(x)", "in forward"],
    ),
    "args too many": (GOOD.replace("(1, 8),)", "(1, 8), torch.ones(1))"), 5, ["can't take what get_args() gives"]),
    "args no tensor": (GOOD.replace("torch.ones(1, 8)", "3"), 2, ["x is int, not a tensor"]),
    "args no sequence": (GOOD.replace("(torch.ones(1, 8),)", "None"), 2, ["get_args() of", "returns NoneType"]),
    "branch on data": (
        GOOD.replace("return self.fc(x)", "if x.sum() > 0:  # mine\n            x = -x\n        return self.fc(x)"),
        5,
        ["depends on the data", "if x.sum() > 0:  # mine", "model.py:11", "torch.where"],
    ),
    "train mode": (GOOD.replace(".eval()", ""), 2, ["train mode", "model.eval()"]),
    "a part in train mode": (GOOD.replace("Net().eval()", "train_a_part(Net().eval())") + (
        "\ndef train_a_part(model):\n    model.fc.train()\n    return model\n"), 2, ["fc is in train mode"]),
    "random outputs": (
        GOOD.replace("self.fc(x)", "self.fc(x) + torch.rand(1)"),
        2,
        ["two runs over the same input", "different 'output'", "remove the randomness"],
    ),
    "state between runs": (
        GOOD.replace("return self.fc(x)", "self.n = getattr(self, 'n', 0) + 1\n        return self.fc(x) * self.n"),
        2,
        ["two runs over the same input"],
    ),
    "not a tensor out": (GOOD.replace("self.fc(x)", "self.fc(x), 'text'"), 2, ["output_1 is not a tensor"]),
    "get_model leaves": (HEAD + "def get_model():\n    exit(3)\n", 5, ["get_model() raises an error: SystemExit: 3"]),
    "unknown preprocess key": (
        GOOD + "\ndef get_preprocess():\n    return {'size': 8, 'menas': [0, 0, 0]}\n",
        2,
        ["get_preprocess() of", "unknown key 'menas'", "did you mean 'mean'", "interpolation, layout"],
    ),
    "wrong preprocess value": (
        GOOD + "\ndef get_preprocess():\n    return {'size': 8, 'layout': 'CHW'}\n",
        2,
        ["layout='CHW'", "NCHW, NHWC"],
    ),
    "preprocess without size": (GOOD + "\ndef get_preprocess():\n    return {'crop': 'none'}\n", 2, ["missing key"]),
    "preprocess of a wrong type": (
        GOOD + "\ndef get_preprocess():\n    return {'size': 'large', 'mean': 0.5}\n",
        2,
        ["get_preprocess() of", "size='large'"],
    ),
    "labels as text": (GOOD + "\ndef get_labels():\n    return 'cat,dog'\n", 2, ["get_labels() of", "returns str"]),
}  # fmt: skip

DRIVER = """
from pathlib import Path

from seatrial.core.errors import SeatrialError
from seatrial.exporter.sources.job import Job
from seatrial.exporter.sources.python_file import capture


def all_of(folder):
    found = {}
    for model in sorted(Path(folder).glob("*/model.py")):
        (model.parent / "program").mkdir()
        try:
            capture(Job(str(model), "model", str(model.parent / "program")).to_dict())
            found[model.parent.name] = None
        except SeatrialError as error:
            found[model.parent.name] = {"text": str(error), "code": error.exit_code}
        except BaseException as error:
            found[model.parent.name] = {"text": f"not an error of ours: {error!r}", "code": -1}
    return found
"""


@pytest.fixture(scope="module")
def captured(tmp_path_factory: pytest.TempPathFactory, needs) -> dict[str, dict[str, object] | None]:
    """What the capture says of each bad model: all in one process, because torch takes seconds to load."""
    needs("torch")
    from seatrial.core import process

    folder = tmp_path_factory.mktemp("models")
    for name, (text, _, _) in BAD_MODELS.items():
        (folder / name).mkdir()
        (folder / name / "model.py").write_text(text)
    (folder / "driver.py").write_text(DRIVER)
    env = {"PYTHONPATH": str(folder)}
    limits = process.Limits(120)
    return process.call(
        "driver:all_of", {"folder": str(folder)}, workdir=folder / "w", limits=limits, label="all", env=env
    )


@pytest.mark.parametrize("name", BAD_MODELS)
def test_a_bad_model_is_one_clear_error_with_the_users_own_line(captured, name: str):
    _, code, words = BAD_MODELS[name]
    found = captured[name]
    assert found is not None, "it was taken"
    for word in words:
        assert word in found["text"], found["text"]
    assert found["code"] == code
    assert "\n  to do: " in found["text"]


@pytest.mark.parametrize(
    ("change", "value", "word"),
    [
        ("size", [8], "size=(8,)"),
        ("size", 0, "size=0"),
        ("size", 2.5, "size=2.5"),
        ("resize", -1, "resize=-1"),
        ("mean", [1, 2], "mean=(1, 2)"),
        ("mean", 0.5, "mean=0.5"),
        ("std", [1, 0, 1], "no channel's may be 0"),
        ("std", ["a", "b", "c"], "std=('a', 'b', 'c')"),
        ("range", [0, float("nan")], "range=(0, nan)"),
        ("crop", "left", "center, none"),
        ("interpolation", None, "bicubic, bilinear"),
    ],
)
def test_preprocessing_of_a_wrong_type_is_named(change: str, value: object, word: str):
    from seatrial.core.errors import UsageError
    from seatrial.exporter.images import Preprocess

    with pytest.raises(UsageError) as caught:
        Preprocess.from_dict({"size": [8, 8], change: value})
    assert word in caught.value.found


def test_the_command_shows_the_line_that_cannot_be_captured(export, here: Path, needs):
    needs("torch")
    (here / "branch.py").write_text(BAD_MODELS["branch on data"][0])
    export("branch.py").fails(5, "the model branch.py", "branch.py:11: if x.sum() > 0:  # mine", "torch.where")


# Options


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--target", "onxruntime"], ["target 'onxruntime'", "did you mean onnxruntime?", "known: onnxruntime, open"]),
        (["--target", "onnxruntime,tfltie"], ["target 'tfltie'", "did you mean tflite?"]),
        (["--target", "zzz"], ["no such target", "known: onnxruntime, openvino, tflite"]),
        (["--precision", "int4"], ["precision 'int4'", "known: fp32, fp16, bf16, int8"]),
        (["--precision", "int8"], ["no calibration data given", "--calibration DIR"]),
        (["--shape", "x=-1,8"], ["--shape x=-1,8", "below 1"]),
        (["--shape", "x=1,2,3"], ["refuses the example inputs", "--inputs"]),
        (["--shape", "z=1,8"], ["--shape z=", "no such input", "x: float32[1, 8]"]),
        (["--shape", "x"], ["NAME=VALUE"]),
        (["--shape", "x=a,b"], ["whole numbers"]),
        (["--range", "x=5:1"], ["LOW < HIGH"]),
        (["--arg", "weights=a.pt"], ["--arg weights", "good.onnx has no get_model()"]),
        (["--inputs", "none.npz"], ["--inputs none.npz", "no such file"]),
        (["--calibration", "none"], ["calibration data none", "no such file"]),
        (["--evaluate", "none"], ["evaluate data none", "no such file"]),
        (["--timeout", "0"], ["--timeout"]),
        (["--memory", "-1"], ["--memory"]),
        (["--colour"], ["No such option", "--colour"]),
    ],
)
def test_a_wrong_option_is_named(export, options: list[str], words: list[str]):
    export("good.onnx", *options).fails(2, *words)


def test_a_wrong_command_is_answered_with_the_nearest(main):
    main("exprot", "x").fails(2, "No such command 'exprot'", "Did you mean 'export'")


def test_a_free_dimension_without_a_size_is_asked_for(export, here: Path, tiny_onnx):
    tiny_onnx(here / "free.onnx", free=True)
    export("free.onnx").fails(2, "input x: float32[batch, 8]", "free dimension batch", "--shape x=1,1")


def test_inputs_that_do_not_fit_are_named(export, here: Path):
    np.savez(here / "other.npz", z=np.ones((1, 8), np.float32))
    np.savez(here / "wide.npz", x=np.ones((1, 9), np.float32))
    (here / "empty.npz").write_bytes(b"")
    export("good.onnx", "--inputs", "other.npz").fails(2, "it has no x: float32[1, 8]")
    export("good.onnx", "--inputs", "wide.npz").fails(2, "refuses the example inputs")
    np.savez(here / "text.npz", x=np.array([["a"] * 8]))
    export("good.onnx", "--inputs", "text.npz").fails(2, "x holds <U1", "x: float32[1, 8]")
    export("good.onnx", "--inputs", "empty.npz").fails(2, "--inputs empty.npz", "can't be read")


def test_a_target_that_is_not_installed_says_what_to_type(cli, here: Path, tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("hide")
    (folder / "sitecustomize.py").write_text("import sys\nsys.modules['openvino'] = None\n")
    done = cli("export", "good.onnx", "--target", "openvino", cwd=here, env={"PYTHONPATH": str(folder)})
    done.fails(5, "target 'openvino'", "openvino is not installed", 'pip install "seatrial[openvino]"')
    assert [p.name for p in here.iterdir()] == ["good.onnx"]


# Calibration


@pytest.fixture
def photos(tmp_path: Path) -> Callable[..., Path]:
    """`photos(folder, n)` writes pictures that a model of (1, 3, 8, 8) can take."""
    from PIL import Image

    def write(name: str, n: int = 3, kind: str = "png") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        rng = np.random.default_rng(0)
        for i in range(n):
            Image.fromarray(rng.integers(0, 255, (12, 10, 3), np.uint8)).save(folder / f"{i}.{kind}")
        return folder

    return write


def load(
    path: Path, shape: tuple[int, ...] = (1, 3, 8, 8), size: int = 8, known: bool = True, classes=None, what="evaluate"
):
    from seatrial.core.specs import TensorSpec
    from seatrial.exporter import data
    from seatrial.exporter.images import Preprocess

    inputs = [TensorSpec("x", "float32", shape)]
    return data.load(path, inputs, Preprocess(size) if known else None, what, classes)


def refused(path: Path, *words: str, **options) -> None:
    from seatrial.core.errors import UsageError

    with pytest.raises(UsageError) as caught:
        load(path, **options)
    assert caught.value.todo
    for word in words:
        assert word in str(caught.value)


def test_good_pictures_are_taken(photos):
    assert len(load(photos("good"))) == 3


def test_calibration_of_a_wrong_kind_is_named(photos, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").touch()
    (tmp_path / "list.csv").touch()
    good = photos("good")
    refused(tmp_path / "none", "evaluate data", "no such file or folder")
    refused(tmp_path / "empty", "no pictures in it", ".jpg")
    refused(tmp_path / "texts", "no pictures in it")
    refused(tmp_path / "list.csv", "neither a folder nor an .npz")
    refused(good, "get_preprocess()", known=False)
    refused(good, "one input of four axes", shape=(1, 8))
    refused(good, "[1, 3, 8, 8]", "the model wants x: float32[1, 3, 9, 9]", shape=(1, 3, 9, 9))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["png", "jpg", "gif", "bmp", "webp", "tif", "ppm"])
def test_unreadable_pictures_are_named_however_they_are_broken(photos, kind: str):
    """Whatever Pillow raises over broken bytes is one clear error that names the picture, or it is whole enough."""
    from seatrial.core.errors import UsageError

    folder = photos("bad", 2, kind)
    path = folder / f"1.{kind}"
    good = path.read_bytes()
    path.write_bytes(b"")
    refused(folder, f"1.{kind}", "can't be read")
    path.write_bytes(good[: len(good) // 3])
    refused(folder, f"1.{kind}", "can't be read")
    rng = np.random.default_rng(0)
    for _ in range(60):
        bad = bytearray(good)
        for at in rng.integers(0, min(len(good), 200), 3):
            bad[at] = rng.integers(256)
        path.write_bytes(bad)
        try:
            load(folder)
        except UsageError as error:
            assert f"1.{kind}" in str(error)


def test_labels_that_do_not_fit_are_named(photos):
    folder = photos("labelled")
    for text, word in (
        ("file,label\n0.png,1\n", "1.png"),
        ("a,b\n1,2\n", "file"),
        ("file,label\n0.png\n1.png,1\n2.png,1\n", "0.png has no label"),
        ("file,label\n0.png,cat\n1.png,0\n2.png,-1\n", "-1, cat"),
    ):
        (folder / "labels.csv").write_text(text)
        refused(folder, "labels.csv", word)


def test_labels_are_numbers_or_names_of_classes(photos):
    folder, classes = photos("named"), ["cow", "ant", "bee"]
    for i, name in enumerate(("bee", "ant", "0")):
        (folder / name).mkdir()
        (folder / f"{i}.png").rename(folder / name / f"{i}.png")
    found = load(folder, classes=classes)
    assert dict(zip(found.names, found.labels, strict=True)) == {"bee/0.png": 2, "ant/1.png": 1, "0/2.png": 0}
    assert load(folder).labels is None, "not all of them are numbers"
    (folder / "bee").rename(folder / "wasp")
    refused(folder, "wasp", "cow, ant, bee", classes=classes)
    assert load(folder, classes=classes, what="calibration").labels is None, "it needs none"
    for encoding in ("utf-8", "utf-8-sig"):  # as Excel writes it
        (folder / "labels.csv").write_text("file,label\nwasp/0.png,bee\nant/1.png,1\n0/2.png,cow\n", encoding=encoding)
        assert sorted(load(folder, classes=classes).labels) == [0, 1, 2]


def test_calibration_arrays_that_do_not_fit_are_named(tmp_path: Path):
    path = tmp_path / "c.npz"
    for arrays, word in (
        ({"y": np.ones((2, 3, 8, 8))}, "it holds y"),
        ({"x": np.ones((2, 3, 9, 8))}, "shape [1, 3, 9, 8]"),
        ({"x": np.ones((0, 3, 8, 8))}, "samples"),
        ({"x": np.float32(1)}, "()"),
        ({"x": np.ones((2, 3, 8, 8)), "labels": np.array([1])}, "labels"),
        ({"x": np.ones((2, 3, 8, 8)), "labels": np.array(["cat", "dog"])}, "labels"),
        ({"x": np.array([["text"]])}, "x holds <U4"),
    ):
        np.savez(path, **arrays)
        refused(path, word)
    path.write_bytes(b"")
    refused(path, "can't be read")


def test_the_command_names_bad_calibration(export, here: Path):
    (here / "empty").mkdir()
    export("good.onnx", "--precision", "int8", "--calibration", "empty").fails(2, "calibration data", "no pictures")


# Bundles


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "bundle"))


def selftest(bundle: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-P", str(bundle / "selftest.py")]
    return subprocess.run(argv, capture_output=True, text=True, cwd=bundle.parent)


def test_a_whole_bundle_verifies(cli, bundle: Path):
    assert cli("verify", bundle).code == 0
    assert selftest(bundle).returncode == 0


@pytest.mark.parametrize("name", ["model.onnx", "golden/outputs.npz", "manifest.json", "selftest.py", "report.md"])
def test_one_flipped_byte_fails_verify_and_selftest(main, bundle: Path, name: str):
    whole = (bundle / name).read_bytes()
    at = len(whole) // 2
    (bundle / name).write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    main("verify", bundle).fails(1, "the bundle", name, "has changed")
    done = selftest(bundle)
    assert done.returncode == 1
    if name != "selftest.py":  # which may not even start
        assert f"MISMATCH: {name} has changed" in done.stdout
        assert not done.stderr


def test_a_bundle_with_a_changed_byte_is_not_run(main, bundle: Path, tmp_path: Path):
    with (bundle / "model.onnx").open("ab") as file:
        file.write(b"\0")
    np.savez(tmp_path / "x.npz", x=np.ones((1, 8), np.float32))
    main("run", bundle, tmp_path / "x.npz").fails(1, "model.onnx has changed")


def test_a_missing_file_fails_verify_and_selftest(main, bundle: Path):
    (bundle / "model.onnx").unlink()
    main("verify", bundle).fails(1, "model.onnx is missing")
    assert selftest(bundle).returncode == 1


def test_what_is_no_bundle_is_a_usage_error(main, tmp_path: Path):
    main("verify", tmp_path / "none").fails(2, "no such folder")
    main("verify", tmp_path).fails(2, "no manifest.json in it")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"y": np.ones((1, 8), np.float32)}, ["given: y", "needed: x: float32[1, 8]"]),
        ({"x": np.ones((1, 9), np.float32)}, ["x is float32[1, 9]", "needed: x: float32[1, 8]"]),
        ({"x": np.ones((1, 8))}, ["x is float64[1, 8]"]),
    ],
)
def test_an_input_that_does_not_fit_is_named(exported: Path, tmp_path: Path, arrays, words: list[str]):
    from seatrial.core.errors import UsageError
    from seatrial.exporter.run import load

    with pytest.raises(UsageError) as caught:
        load(exported).run(arrays)
    for word in words:
        assert word in str(caught.value)


def test_run_names_a_file_that_it_cannot_read(main, exported: Path, tmp_path: Path):
    (tmp_path / "a.jpg").touch()
    (tmp_path / "a.npz").touch()
    main("run", exported, tmp_path / "a.jpg").fails(2, "no preprocessing")
    main("run", exported, tmp_path / "a.npz").fails(2, "a.npz", "can't be read")
    main("run", exported, tmp_path / "a.txt").fails(2, "a picture or an .npz")


def test_init_keeps_what_is_there_and_names_a_missing_checkpoint(cli, tmp_path: Path):
    (tmp_path / "model.py").write_text("mine")
    cli("init", cwd=tmp_path).fails(2, "model.py", "--overwrite")
    cli("init", "--checkpoint", "none.pt", "-o", "b.py", cwd=tmp_path).fails(2, "none.pt", "no such file")
    cli("init", "-o", "no/where/b.py", cwd=tmp_path).fails(5, "no/where/b.py")
    assert [p.name for p in tmp_path.iterdir()] == ["model.py"]
    assert (tmp_path / "model.py").read_text() == "mine"
